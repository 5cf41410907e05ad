//! Relaying: nodes pass on the rows of actors to peers that have no link to the owner.
//!
//! For each actor whose node is alive and has no link to this node, this node takes the rows from one peer, the actor's
//! **parent** here. The parent forwards rows as it receives them. All parents of an actor form a tree with the owner at the
//! root, so a change takes one message per node. The other peers send only the entries of their digests. This node uses these
//! entries to find another parent: when the link to the parent goes down, or when another peer has more rows for too long. This
//! is Plumtree (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", 2007) with one tree per actor: `Want` grafts,
//! `Prune` prunes, digests are the lazy push. A cursor records what to send to a peer (I7), so no messages are stored.

use tallymesh_schemas::message::{Prune, Want};
use tallymesh_schemas::{Actor, NodeName, bounds};

use crate::canary::{self, Canary};
use crate::counter::sync::Progress;
use crate::replica::Replica;
use crate::replica::peer::link::{Link, PATIENCE, TRIES};
use crate::replica::stream::StreamId;

impl Replica {
    /// Whether this node needs a relay for the rows of a run: its node is alive, and there is no link to it.
    pub(crate) fn needs_parent(&self, actor: &Actor) -> bool {
        self.lives(actor) && !self.links.contains_key(&actor.node)
    }

    /// The peer from which this node takes these rows.
    pub(crate) fn parent(&self, part: &StreamId) -> Option<&NodeName> {
        self.parents.get(part)
    }

    /// Takes these rows from this peer from now on, and prunes the previous parent.
    pub(crate) fn set_parent(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.pruned.remove(part);
            link.prunes.remove(part);
        }
        let before = self.parents.insert(part.clone(), peer.clone());
        if let Some(before) = before.filter(|before| before != peer) {
            self.prune(&before, part);
        }
    }

    /// Asks a peer to stop sending these rows.
    pub(crate) fn prune(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.asked.remove(part);
            link.unwant(part);
            link.pruned.insert(part.clone());
            link.prunes.insert(part.clone());
        }
    }

    /// Asks a peer to stop sending rows of a run that is over.
    pub(crate) fn refuse(&mut self, peer: &NodeName, part: StreamId) {
        if let Some(link) = self.links.get_mut(peer).filter(|link| link.prunes.len() < bounds::ACTORS) {
            link.prunes.insert(part);
        }
    }

    /// A peer reports that it has rows of an actor. If this node needs a parent for them and has none, the peer becomes the
    /// parent.
    pub(crate) fn find_parent(&mut self, peer: &NodeName, part: &StreamId, have: &Progress) {
        let free = self.needs_parent(&part.1) && !self.parents.contains_key(part);
        if free && self.links.get(peer).is_some_and(|link| !link.feeds.contains_key(part)) {
            self.graft(peer, part, have);
        }
    }

    /// Asks a new parent for the missing rows, and for values of earlier rows that the previous parent did not have.
    fn graft(&mut self, peer: &NodeName, part: &StreamId, have: &Progress) {
        let lacking = self.structures.get(&part.0).and_then(|held| held.structure.missing_value(&part.1));
        let after = lacking.map_or(have.have, |before| before.max(have.since).min(have.have));
        self.want(peer, part, have.since, after, false);
    }

    /// Replaces a parent that has no link any more or cannot help: the peer that reports the highest version becomes the
    /// parent. A peer that takes these rows from this node cannot be the parent.
    fn replace_parent(&mut self, part: &StreamId) {
        if !self.needs_parent(&part.1) || canary::broken(Canary::PrunedForGood) {
            return;
        }
        let said = |link: &Link| link.peer_progress.get(part).map(|said| (said.applied, said.since));
        let able = self.links.iter().filter(|(_, link)| !link.feeds.contains_key(part));
        let able = able.filter_map(|(peer, link)| Some((said(link)?, peer)));
        let Some(have) = self.structures.get(&part.0).and_then(|held| held.structure.progress(&part.1)) else { return };
        let best = able.filter(|((theirs, since), _)| *theirs >= have.have && *since <= have.have).max();
        if let Some((_, peer)) = best {
            let peer = peer.clone();
            self.graft(&peer, part, &have);
        }
    }

    /// The link to a peer is down: finds other parents for the rows that came over it.
    pub(crate) fn replace_parents(&mut self, peer: &NodeName) {
        let children = self.parents.iter().filter(|(_, parent)| *parent == peer).map(|(part, _)| part.clone());
        let mut parts: Vec<_> = children.collect();
        for part in &parts {
            if !canary::broken(Canary::PrunedForGood) {
                self.parents.remove(part);
            }
        }
        if let Some(node) = self.nodes.get(peer) {
            let owner = Actor::new(peer.clone(), node.incarnation);
            let shared = self.structures.iter().filter(|(_, held)| held.shared);
            parts.extend(shared.map(|(id, _)| (*id, owner.clone())));
        }
        parts.iter().for_each(|part| self.replace_parent(part));
    }

    /// A link to an owner is up: the owner sends its rows itself from now on.
    pub(crate) fn take_from_owner(&mut self, owner: &NodeName) {
        let theirs = self.parents.iter().filter(|((_, actor), _)| actor.node == *owner);
        let theirs: Vec<_> = theirs.map(|(part, parent)| (part.clone(), parent.clone())).collect();
        for (part, parent) in theirs {
            self.parents.remove(&part);
            self.prune(&parent, &part);
        }
    }

    /// Two peers take the same rows from each other. The peer that is further ahead finds another parent. At equal versions,
    /// the peer with the smaller name does.
    pub(crate) fn break_cycle(&mut self, peer: &NodeName, want: &Want, have: u64) {
        let part = (want.structure, want.actor.clone());
        let each_other = self.parents.get(&part) == Some(peer);
        if each_other && (want.after < have || (want.after == have && self.actor.node < *peer)) {
            self.parents.remove(&part);
            self.prune(peer, &part);
            self.replace_parent(&part);
        }
    }

    /// A peer without a link to the owner has asked for rows from before the start of this node's copy. This node in turn asks
    /// the owner, or its parent towards the owner, for the whole history.
    pub(crate) fn fetch_history(&mut self) {
        for part in std::mem::take(&mut self.wanted_history) {
            let source = if self.needs_parent(&part.1) { self.parent(&part) } else { Some(&part.1.node) };
            let Some(source) = source.filter(|_| self.lives(&part.1)).cloned() else { continue };
            let Some(held) = self.structures.get(&part.0) else { continue };
            held.structure.stage_history(&part.1);
            if let Some(staging) = held.structure.progress(&part.1).and_then(|have| have.staging) {
                self.want(&source, &part, staging.since, staging.upto, true);
            }
        }
    }

    /// Cache rows have come from a peer. The peer sends a superseded write without its value, and the write that supersedes it
    /// may be lost with the peer before it arrives here. This node sends values that come late to the peers that got the row
    /// without.
    pub(crate) fn note_values(&mut self, peer: &NodeName, part: &StreamId) {
        let Some(held) = self.structures.get(&part.0).filter(|held| held.structure.is_cache()) else { return };
        let (hollow, filled) = held.structure.take_arrived_values(&part.1);
        if hollow && let Some(link) = self.links.get_mut(peer) {
            link.without_values.insert(part.clone());
        }
        if let Some(before) = filled {
            for feed in self.links.values_mut().filter_map(|link| link.feeds.get_mut(part)) {
                feed.cursor = feed.cursor.min(before).max(feed.since);
            }
        }
    }

    /// A new link is up: its peer may have values that are missing here.
    pub(crate) fn ask_again_for_values(&mut self) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.structure.is_cache()) {
            self.awaiting_values
                .extend(held.structure.actors_without_values().into_iter().map(|actor| ((*id, actor), 0)));
        }
    }

    /// Asks for missing values of rows that no write here supersedes, if the peer that sent the rows without values is gone.
    /// Asks the owner, or the parent, or else one linked peer after another.
    pub(crate) fn ask_for_values(&mut self) {
        let mut asks = Vec::new();
        self.awaiting_values.retain(|part, waited| {
            let Some(held) = self.structures.get(&part.0) else { return false };
            let Some(have) = held.structure.progress(&part.1) else { return false };
            // If the actor has a staging copy, this node checks it when the snapshot is complete.
            let Some(before) = held.structure.missing_value(&part.1) else { return have.staging.is_some() };
            *waited += 1;
            asks.push((part.clone(), have.since, before, *waited));
            *waited < TRIES + PATIENCE
        });
        for (part, since, before, waited) in asks.into_iter().filter(|(.., waited)| *waited >= PATIENCE) {
            let linked = self.links.contains_key(&part.1.node) && self.is_current(&part.1);
            let next = if linked { Some(&part.1.node) } else { self.parent(&part) };
            let next = next.or_else(|| self.links.keys().nth(waited as usize % self.links.len().max(1)));
            if let Some(peer) = next.cloned() {
                self.want(&peer, &part, since, before.max(since), false);
            }
        }
    }

    /// The peer takes these rows from another node.
    pub(crate) fn handle_prune(&mut self, peer: &NodeName, prune: Prune) {
        let part = (prune.structure, prune.actor);
        if part.1 == self.actor {
            return;
        }
        if let Some(link) = self.links.get_mut(peer) {
            link.feeds.remove(&part);
            link.due.remove(&part);
        }
    }

    /// New rows of a stream have come: schedules them for the peers that take them from this node.
    pub(crate) fn forward(&mut self, part: &StreamId) {
        if self.forwarded.contains(part) {
            self.links.values_mut().for_each(|link| link.touch(part));
        }
    }
}
