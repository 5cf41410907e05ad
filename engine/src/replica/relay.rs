//! Rows of those to whom there is no link, passed on from node to node.
//!
//! For each actor whose node lives and has no link to us, we take the rows from one peer, the actor's **parent** here, which
//! sends what it gets as it gets it. All parents of an actor together make a tree with its owner at the root, so a change
//! takes one message to each node. The others send nothing of it but the entries of their digests, and by these we find
//! another parent: when the link to this one goes down, or when somebody else has more for too long. This is Plumtree
//! (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", 2007) with a tree for each actor: `Want` grafts, `Prune`
//! prunes, digests are the lazy push. What a peer is owed is a cursor (I7), so there is no message to be kept for it.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

use tallymesh_schemas::message::{Prune, Want};
use tallymesh_schemas::{Actor, NodeName, limits};

use super::Replica;
use super::digest::PATIENCE;
use super::link::{StreamId, TRIES};
use crate::canary::{self, Canary};
use crate::sync::Progress;

impl Replica {
    /// Whether rows of a run have to be passed on to us: its node lives, and we have no link to it.
    pub(super) fn needs_parent(&self, actor: &Actor) -> bool {
        self.lives(actor) && !self.links.contains_key(&actor.node)
    }

    /// Whom we take rows from.
    pub(super) fn parent(&self, part: &StreamId) -> Option<&NodeName> {
        self.parents.get(part)
    }

    /// Takes rows from a peer from now on, and from no other.
    pub(super) fn set_parent(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.pruned.remove(part);
            link.prunes.remove(part);
        }
        let before = self.parents.insert(part.clone(), peer.clone());
        if let Some(before) = before.filter(|before| before != peer) {
            self.prune(&before, part);
        }
    }

    /// Tells a peer to send no more of these rows.
    pub(super) fn prune(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.asked.remove(part);
            link.unwant(part);
            link.pruned.insert(part.clone());
            link.prunes.insert(part.clone());
        }
    }

    /// Tells a peer to send no more of the rows of a run that is over.
    pub(super) fn refuse(&mut self, peer: &NodeName, part: StreamId) {
        if let Some(link) = self.links.get_mut(peer).filter(|link| link.prunes.len() < limits::ACTORS) {
            link.prunes.insert(part);
        }
    }

    /// A peer says that it has some of an actor's rows, and nobody sends them to us: it does from now on.
    pub(super) fn find_parent(&mut self, peer: &NodeName, part: &StreamId, have: &Progress) {
        let free = self.needs_parent(&part.1) && !self.parents.contains_key(part);
        if free && self.links.get(peer).is_some_and(|link| !link.feeds.contains_key(part)) {
            self.graft(peer, part, have);
        }
    }

    /// Asks another than before for what is not here. Also for values of earlier rows that the one before did not have.
    fn graft(&mut self, peer: &NodeName, part: &StreamId, have: &Progress) {
        let lacking = self.structures.get(&part.0).and_then(|held| held.structure.missing_value(&part.1));
        let after = lacking.map_or(have.have, |before| before.max(have.since).min(have.have));
        self.want(peer, part, have.since, after, false);
    }

    /// Rows that came from a peer, which is not linked any more or cannot help, are taken from the one that says to have most.
    /// Not from one that takes them from us.
    fn replace_parent(&mut self, part: &StreamId) {
        if !self.needs_parent(&part.1) || canary::broken(Canary::PrunedForGood) {
            return;
        }
        let said = |link: &super::Link| link.peer_progress.get(part).map(|said| (said.applied, said.since));
        let able = self.links.iter().filter(|(_, link)| !link.feeds.contains_key(part));
        let able = able.filter_map(|(peer, link)| Some((said(link)?, peer)));
        let Some(have) = self.structures.get(&part.0).and_then(|held| held.structure.progress(&part.1)) else { return };
        let best = able.filter(|((theirs, since), _)| *theirs >= have.have && *since <= have.have).max();
        if let Some((_, peer)) = best {
            let peer = peer.clone();
            self.graft(&peer, part, &have);
        }
    }

    /// The link to a peer is down: what came over it comes from others.
    pub(super) fn replace_parents(&mut self, peer: &NodeName) {
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

    /// A link to an owner is up: its rows come from itself.
    pub(super) fn take_from_owner(&mut self, owner: &NodeName) {
        let theirs = self.parents.iter().filter(|((_, actor), _)| actor.node == *owner);
        let theirs: Vec<_> = theirs.map(|(part, parent)| (part.clone(), parent.clone())).collect();
        for (part, parent) in theirs {
            self.parents.remove(&part);
            self.prune(&parent, &part);
        }
    }

    /// A peer takes rows from us that we take from it: of the two that are equally far, the one with the smaller name finds
    /// somebody else.
    pub(super) fn break_cycle(&mut self, peer: &NodeName, want: &Want, have: u64) {
        let part = (want.structure, want.actor.clone());
        let each_other = self.parents.get(&part) == Some(peer);
        if each_other && (want.after < have || (want.after == have && self.actor.node < *peer)) {
            self.parents.remove(&part);
            self.prune(peer, &part);
            self.replace_parent(&part);
        }
    }

    /// Somebody has asked for rows from before where we began, whose owner has no link to him: we ask for all there is in our turn,
    /// whoever is next on the way to the owner.
    pub(super) fn fetch_history(&mut self) {
        for part in std::mem::take(&mut self.wanted_history) {
            let source = if self.needs_parent(&part.1) { self.parent(&part) } else { Some(&part.1.node) };
            let Some(source) = source.filter(|_| self.lives(&part.1)).cloned() else { continue };
            let Some(held) = self.structures.get(&part.0) else { continue };
            held.structure.stage_history(&part.1);
            if let Some((since, after)) = held.structure.progress(&part.1).and_then(|have| have.staging) {
                self.want(&source, &part, since, after, true);
            }
        }
    }

    /// Rows of a cache have come from a peer. What it knows to be outdone it tells without the value; what outdoes it may be lost
    /// with the peer before it comes here. Values that come only now are passed on to whoever had the row without.
    pub(super) fn note_values(&mut self, peer: &NodeName, part: &StreamId) {
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

    /// Somebody has come who may have values that are not here.
    pub(super) fn ask_again_for_values(&mut self) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.structure.is_cache()) {
            self.awaiting_values
                .extend(held.structure.actors_without_values().into_iter().map(|actor| ((*id, actor), 0)));
        }
    }

    /// Asks for values that are not here, though nothing here outdoes their rows, where whoever told them so is gone: the owner, or
    /// whoever is next on the way to it, or one who is linked after the other.
    pub(super) fn ask_for_values(&mut self) {
        let mut asks = Vec::new();
        self.awaiting_values.retain(|part, waited| {
            let Some(held) = self.structures.get(&part.0) else { return false };
            let Some(have) = held.structure.progress(&part.1) else { return false };
            // What comes anew, of a snapshot that others go on with, is looked at when all of it is here.
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

    /// A peer has these rows from somebody else.
    pub(super) fn handle_prune(&mut self, peer: &NodeName, prune: Prune) {
        let part = (prune.structure, prune.actor);
        if part.1 == self.actor {
            return;
        }
        if let Some(link) = self.links.get_mut(peer) {
            link.feeds.remove(&part);
            link.due.remove(&part);
        }
    }

    /// Rows have come of a part: those who take them from us are to get them.
    pub(super) fn forward(&mut self, part: &StreamId) {
        if self.forwarded.contains(part) {
            self.links.values_mut().for_each(|link| link.touch(part));
        }
    }
}
