//! Reachable nodes.

/// Which nodes this node can reach, out of those that it should reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Reach {
    /// Live nodes, including this one.
    pub alive: u32,
    /// Known nodes that have not left and are not forgotten, including this one.
    pub known: u32,
    /// Further names that only another member has reported and that the membership does not see. They may be made up, so none
    /// of them is missing; but such a node may admit.
    pub heard_of: u32,
    /// For hard limits: no founder is missing.
    pub founders: bool,
}

impl Reach {
    /// No node is missing.
    pub const ALONE: Self = Self { alive: 1, known: 1, heard_of: 0, founders: true };

    /// The other nodes that may admit.
    pub(super) fn others(self) -> u32 {
        self.known.saturating_add(self.heard_of).saturating_sub(1)
    }

    /// The part of the nodes that are reachable, in thousandths.
    pub(super) fn part(self) -> u64 {
        u64::from(self.alive.max(1)) * 1000 / u64::from(self.known.max(1))
    }
}
