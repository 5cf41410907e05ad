//! Runs that a replica has ended, while some node may still name them.

use std::collections::BTreeMap;

use tallymesh_schemas::message::CacheEnding;
use tallymesh_schemas::{Incarnation, NodeName};

/// Consecutive runs of a node that have ended.
#[derive(Debug)]
pub(crate) struct Ending {
    from: Incarnation,
    first: Incarnation,
    last: BTreeMap<Incarnation, u64>,
}

impl Ending {
    /// No runs yet: the first one to end is `from`.
    pub(crate) fn new(from: Incarnation) -> Self {
        Self { from, first: from, last: BTreeMap::new() }
    }

    /// Adds the runs before `first`, with the number of the last write of each that has written.
    pub(crate) fn extend(&mut self, first: Incarnation, last: impl Iterator<Item = (Incarnation, u64)>) {
        self.first = first;
        self.last.extend(last);
    }

    /// The first run that has not ended.
    pub(crate) fn first(&self) -> Incarnation {
        self.first
    }

    /// As it is stated to peers.
    pub(crate) fn stated(&self, node: &NodeName) -> CacheEnding {
        CacheEnding {
            node: node.clone(),
            from: self.from,
            first: self.first,
            last: self.last.iter().map(|(run, number)| (*run, *number)).collect(),
        }
    }
}
