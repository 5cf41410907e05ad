//! What this node does not hold because a bound was reached.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::{NodeName, bounds};

use crate::replica::stream::StreamId;

/// Runs and nodes that other nodes reported and this node does not hold, at most [`bounds::UNHELD`] of each.
#[derive(Debug, Default)]
pub(crate) struct Unheld {
    /// Runs without a place in a structure.
    pub(crate) parts: BTreeSet<StreamId>,
    /// Nodes without a place, each with the node that reported it last.
    pub(crate) nodes: BTreeMap<NodeName, NodeName>,
    /// There are more than these lists hold.
    pub(crate) more: bool,
}

impl Unheld {
    /// Records a run that has no place in a structure.
    pub(crate) fn part(&mut self, part: StreamId) {
        if self.parts.len() < bounds::UNHELD || self.parts.contains(&part) {
            self.parts.insert(part);
        } else {
            self.more = true;
        }
    }

    /// Records a node, reported by `reporter`, that has no place.
    pub(crate) fn node(&mut self, node: &NodeName, reporter: &NodeName) {
        if self.nodes.len() < bounds::UNHELD || self.nodes.contains_key(node) {
            self.nodes.insert(node.clone(), reporter.clone());
        } else {
            self.more = true;
        }
    }

    /// An operator forgets a node: removes the nodes that only it reported. Unlisted ones are added when other nodes report
    /// them again.
    pub(crate) fn forget_reporter(&mut self, node: &NodeName) {
        let before = self.nodes.len();
        self.nodes.retain(|_, reporter| reporter != node);
        self.more &= self.nodes.len() == before;
    }

    /// Removes the streams that are `gone`. Unlisted ones are added when peers report them again.
    pub(crate) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        let before = self.parts.len();
        self.parts.retain(|part| !gone(part));
        self.more &= self.parts.len() == before;
    }
}
