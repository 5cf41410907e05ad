//! A node of the demonstration.

use tallymesh::{Cidr, Domains, Gate, Node, NodeName};

/// A node with its handles.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) gate: Gate,
    pub(super) inbound: Cidr,
    pub(super) outbound: Domains,
}

impl Member {
    pub(super) fn name(&self) -> &NodeName {
        self.node.name()
    }
}
