//! What a cache needs to know of the nodes that write it.

use tallymesh_schemas::{Actor, NodeName};

/// What a node knows of the runs that wrote the entries.
pub(crate) trait Writers {
    /// Whether a node has a link to this one.
    fn is_linked(&self, node: &NodeName) -> bool;
    /// Whether a run is over: its node has begun a later one. A forgotten run may go on writing until its node hears of it.
    fn has_ended(&self, run: &Actor) -> bool;
    /// Whether a run may go on writing.
    fn lives(&self, run: &Actor) -> bool;
}
