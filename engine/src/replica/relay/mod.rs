//! Relaying: nodes pass on the rows of actors to peers that have no link to the owner.
//!
//! For each actor whose node is alive and has no link to this node, this node takes the rows from one peer, the actor's
//! **parent** here. The parent forwards rows as it receives them. All parents of an actor form a tree with the owner at the
//! root, so a change takes one message per node. The other peers send only the entries of their digests. This node uses these
//! entries to find another parent: when the link to the parent goes down, or when another peer has more rows for too long. This
//! is Plumtree (Leitão, Pereira and Rodrigues, "Epidemic Broadcast Trees", 2007) with one tree per actor: `Want` grafts,
//! `Prune` prunes, digests are the lazy push. A cursor records what to send to a peer (I7), so no messages are stored.

mod history;
mod route;

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::NodeName;

use crate::canary::{self, Canary};
use crate::replica::stream::StreamId;

/// The rows that come from or go to other nodes than their owner.
#[derive(Debug, Default)]
pub(crate) struct Relay {
    /// The parents: the peers that relay rows whose owner has no link to this node.
    parents: BTreeMap<StreamId, NodeName>,
    /// Rows of other actors that a peer has asked this node for.
    forwarded: BTreeSet<StreamId>,
    /// Rows of other actors, from before the start of this node's copy, that a peer has asked this node for.
    wanted_history: BTreeSet<StreamId>,
}

impl Relay {
    /// The peer from which this node takes these rows.
    pub(crate) fn parent(&self, part: &StreamId) -> Option<&NodeName> {
        self.parents.get(part)
    }

    /// Sets the parent of these rows. Returns another parent that they had before.
    pub(crate) fn set_parent(&mut self, part: &StreamId, peer: &NodeName) -> Option<NodeName> {
        self.parents.insert(part.clone(), peer.clone()).filter(|before| before != peer)
    }

    pub(crate) fn drop_parent(&mut self, part: &StreamId) {
        self.parents.remove(part);
    }

    /// The rows that this node takes from a peer.
    pub(crate) fn taken_from(&self, peer: &NodeName) -> Vec<StreamId> {
        self.parents.iter().filter(|(_, parent)| *parent == peer).map(|(part, _)| part.clone()).collect()
    }

    /// Drops the parents of the rows of a node. Returns them.
    pub(crate) fn drop_parents_of(&mut self, owner: &NodeName) -> Vec<(StreamId, NodeName)> {
        let mut dropped = Vec::new();
        self.parents.retain(|part, parent| {
            let theirs = part.1.node == *owner;
            if theirs {
                dropped.push((part.clone(), parent.clone()));
            }
            !theirs
        });
        dropped
    }

    /// Whether a peer has asked this node for these rows, which are of another actor.
    pub(crate) fn forwards(&self, part: &StreamId) -> bool {
        self.forwarded.contains(part)
    }

    /// A peer has asked for rows of another actor, and this node sends them.
    pub(crate) fn note_forwarded(&mut self, part: StreamId) {
        self.forwarded.insert(part);
    }

    /// A peer has asked for rows of another actor from before the start of this node's copy.
    pub(crate) fn note_wanted_history(&mut self, part: StreamId) {
        self.wanted_history.insert(part);
    }

    /// The history that peers have asked for since the last call.
    pub(crate) fn take_wanted_history(&mut self) -> BTreeSet<StreamId> {
        std::mem::take(&mut self.wanted_history)
    }

    /// Removes all bookkeeping about the streams that are `gone`.
    pub(crate) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        self.parents.retain(|part, _| !gone(part));
        self.forwarded.retain(|part| !gone(part));
        self.wanted_history.retain(|part| !gone(part));
    }

    /// The number of entries about rows that peers have asked this node for.
    pub(crate) fn entries(&self) -> usize {
        self.forwarded.len() + self.wanted_history.len()
    }
}

/// Whether another peer may become the parent of rows that have one.
pub(crate) fn parents_are_replaced() -> bool {
    !canary::broken(Canary::PrunedForGood)
}
