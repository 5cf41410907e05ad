//! Reachable nodes.

/// Which nodes this node can reach, out of those that it should reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Reach {
    /// Live nodes, including this one.
    pub alive: u32,
    /// Known nodes that have not left and are not forgotten, including this one.
    pub known: u32,
    /// For hard limits: no founder is missing.
    pub founders: bool,
}

impl Reach {
    /// No node is missing.
    pub const ALONE: Self = Self { alive: 1, known: 1, founders: true };

    /// The part of the nodes that are reachable, in thousandths.
    pub(super) fn part(self) -> u64 {
        u64::from(self.alive.max(1)) * 1000 / u64::from(self.known.max(1))
    }
}
