//! The routes of relayed rows: which peer is the parent of a stream here, and which peers take it from this node.

use tallymesh_schemas::message::{Prune, Want};
use tallymesh_schemas::{Actor, NodeName, Version, bounds};

use crate::counter::sync::Progress;
use crate::replica::Replica;
use crate::replica::peer::link::Link;
use crate::replica::peer::request::Request;
use crate::replica::relay::parents_are_replaced;
use crate::replica::stream::StreamId;

impl Replica {
    /// Whether this node needs a relay for the rows of a run: its node is alive, and there is no link to it.
    pub(crate) fn needs_parent(&self, actor: &Actor) -> bool {
        self.runs.lives(actor) && !self.peers.is_linked(&actor.node)
    }

    /// Takes these rows from this peer from now on, and prunes the previous parent.
    pub(crate) fn set_parent(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.peers.links.get_mut(peer) {
            link.pruned.remove(part);
            link.prunes.remove(part);
        }
        if let Some(before) = self.relay.set_parent(part, peer) {
            self.peers.prune(&before, part);
        }
    }

    /// Asks a peer to stop sending rows of a run that is over.
    pub(crate) fn refuse(&mut self, peer: &NodeName, part: StreamId) {
        if let Some(link) = self.peers.links.get_mut(peer).filter(|link| link.prunes.len() < bounds::ACTORS) {
            link.prunes.insert(part);
        }
    }

    /// A peer reports that it has rows of an actor. If this node needs a parent for them and has none, the peer becomes the
    /// parent.
    pub(crate) fn find_parent(&mut self, peer: &NodeName, part: &StreamId, progress: &Progress) {
        let free = self.needs_parent(&part.1) && self.relay.parent(part).is_none();
        if free && self.peers.links.get(peer).is_some_and(|link| !link.feeds.contains_key(part)) {
            self.graft(peer, part, progress);
        }
    }

    /// Asks a new parent for the missing rows.
    fn graft(&mut self, peer: &NodeName, part: &StreamId, progress: &Progress) {
        self.want(peer, part, Request::Rows { since: progress.since, after: progress.applied });
    }

    /// Replaces a parent that has no link any more or cannot help: the peer that reports the highest version becomes the
    /// parent. A peer that takes these rows from this node cannot be the parent.
    fn replace_parent(&mut self, part: &StreamId) {
        if !self.needs_parent(&part.1) || !parents_are_replaced() {
            return;
        }
        let said = |link: &Link| link.peer_progress.get(part).map(|said| (said.applied, said.since));
        let able = self.peers.links.iter().filter(|(_, link)| !link.feeds.contains_key(part));
        let able = able.filter_map(|(peer, link)| Some((said(link)?, peer)));
        let Some(progress) = self.structures.get(&part.0).and_then(|held| held.structure.progress(&part.1)) else {
            return;
        };
        let best = able.filter(|((theirs, since), _)| *theirs >= progress.applied && *since <= progress.applied).max();
        if let Some((_, peer)) = best {
            let peer = peer.clone();
            self.graft(&peer, part, &progress);
        }
    }

    /// The link to a peer is down: finds other parents for the rows that came over it.
    pub(crate) fn replace_parents(&mut self, peer: &NodeName) {
        let mut parts = self.relay.taken_from(peer);
        if parents_are_replaced() {
            parts.iter().for_each(|part| self.relay.drop_parent(part));
        }
        if let Some(node) = self.runs.nodes.get(peer) {
            let owner = Actor::new(peer.clone(), node.incarnation);
            let shared = self.structures.iter().filter(|(_, held)| held.shared);
            parts.extend(shared.map(|(id, _)| (*id, owner.clone())));
        }
        parts.iter().for_each(|part| self.replace_parent(part));
    }

    /// A link to an owner is up: the owner sends its rows itself from now on.
    pub(crate) fn take_from_owner(&mut self, owner: &NodeName) {
        for (part, parent) in self.relay.drop_parents_of(owner) {
            self.peers.prune(&parent, &part);
        }
    }

    /// Two peers take the same rows from each other. The peer that is further ahead finds another parent. At equal versions,
    /// the peer with the smaller name does.
    pub(crate) fn break_cycle(&mut self, peer: &NodeName, want: &Want, applied: Version) {
        let part = (want.structure, want.actor.clone());
        let each_other = self.relay.parent(&part) == Some(peer);
        if each_other && (want.after < applied || (want.after == applied && self.runs.actor.node < *peer)) {
            self.relay.drop_parent(&part);
            self.peers.prune(peer, &part);
            self.replace_parent(&part);
        }
    }

    /// The peer takes these rows from another node.
    pub(crate) fn handle_prune(&mut self, peer: &NodeName, prune: Prune) {
        let part = (prune.structure, prune.actor);
        if part.1 == self.runs.actor {
            return;
        }
        if let Some(link) = self.peers.links.get_mut(peer) {
            link.feeds.remove(&part);
            link.due.remove(&part);
        }
    }

    /// New rows of a stream have come: schedules them for the peers that take them from this node.
    pub(crate) fn forward(&mut self, part: &StreamId) {
        if self.relay.forwards(part) {
            self.peers.touch(part);
        }
    }
}
