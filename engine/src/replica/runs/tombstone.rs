//! Tombstones that come from saved state or have to wait.

use tallymesh_schemas::message::Tombstone;
use tallymesh_schemas::{Incarnation, NodeName};

/// The first run in a tombstone that comes from saved state: it stands for all runs of the node, as 0 does, because no run has
/// the number 1.
pub(crate) const FORGOTTEN_BEFORE: Incarnation = Incarnation(1);

/// A tombstone of a node that has a link to this node. It waits until the node is in its next run or has ended.
#[derive(Debug, Clone)]
pub(crate) struct Contested {
    pub(crate) tombstone: Tombstone,
    pub(crate) teller: NodeName,
    /// This node was away when it received the tombstone.
    pub(crate) away: bool,
}
