//! Tombstones that come from saved state or have to wait.

use tallymesh_schemas::message::Tombstone;
use tallymesh_schemas::{Incarnation, NodeName};

/// The first run in a tombstone that comes from saved state: it stands for all runs of the node, as 0 does, because no run has
/// the number 1.
pub(crate) const FORGOTTEN_BEFORE: Incarnation = Incarnation(1);

/// The reason why this node drops runs of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DropReason {
    /// A later run supersedes them: this node drops their gauges.
    Superseded,
    /// They are forgotten: this node drops all their rows. Entries of caches stay.
    Forgotten,
}

/// A tombstone as this node received it. If its node has a link to this node, it may have to wait until the node is in its next
/// run or has ended.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) tombstone: Tombstone,
    /// The peer that sent it; this node's own name if it is of this node or of its saved state.
    pub(crate) reporter: NodeName,
}

impl Received {
    /// Whether it voids all runs of its node so far: an operator has forgotten the node.
    pub(crate) fn is_whole(&self) -> bool {
        self.tombstone.from <= FORGOTTEN_BEFORE
    }

    /// Its key among the tombstones.
    pub(crate) fn key(&self) -> (NodeName, Incarnation) {
        (self.tombstone.node.clone(), self.tombstone.from)
    }
}
