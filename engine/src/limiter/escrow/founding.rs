//! The configuration that all nodes with shared limits must agree on, and the times that follow from it.

use std::time::Duration;

use tallymesh_schemas::{NodeName, StructureId, bounds};

/// The configuration that all nodes with shared limits must agree on. Nodes with different ones ignore each other's facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The nodes among which every limit is initially divided, in order of name.
    pub(super) founders: Vec<NodeName>,
    /// How long a founder keeps its share without news from another founder.
    pub(super) reclaim_after: Duration,
    /// Whether founders take over the share of a founder that is gone.
    pub(super) stand_in: bool,
}

/// Why a founding is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// The number of founders is zero or too large.
    #[error("{0} founders: list 1 to {max} nodes that share the limits", max = bounds::FOUNDERS)]
    Count(usize),
    /// The time is out of range.
    #[error("reclaim_after is {0:?}: it is from {min:?} to {max:?}", min = bounds::RECLAIM_AFTER.start(), max = bounds::RECLAIM_AFTER.end())]
    ReclaimAfter(Duration),
}

impl Founding {
    /// A founding by these nodes. The order does not matter, and a repeated name counts once.
    ///
    /// # Errors
    /// [`FoundingError`] when there are no founders or more than [`bounds::FOUNDERS`], or when the time is out of range.
    pub fn new(founders: impl IntoIterator<Item = NodeName>, reclaim_after: Duration) -> Result<Self, FoundingError> {
        let mut founders: Vec<_> = founders.into_iter().collect();
        founders.sort();
        founders.dedup();
        if !(1..=bounds::FOUNDERS).contains(&founders.len()) {
            return Err(FoundingError::Count(founders.len()));
        }
        if !bounds::RECLAIM_AFTER.contains(&reclaim_after) {
            return Err(FoundingError::ReclaimAfter(reclaim_after));
        }
        Ok(Self { founders, reclaim_after, stand_in: true })
    }

    /// The same, but the share of a founder that is gone stays unused until it is back. With three founders or more, no share
    /// is then used twice, even while a partition separates two processes that run the same founder's name.
    #[must_use]
    pub fn without_stand_ins(self) -> Self {
        Self { stand_in: false, ..self }
    }

    /// The founders in order of name.
    pub fn founders(&self) -> &[NodeName] {
        &self.founders
    }

    /// How long a founder keeps its share without news from another founder.
    pub fn reclaim_after(&self) -> Duration {
        self.reclaim_after
    }

    /// Whether founders take over the share of a founder that is gone.
    pub fn stands_in(&self) -> bool {
        self.stand_in
    }

    /// The fingerprint that all facts of nodes with this configuration carry.
    pub fn config_fingerprint(&self) -> u64 {
        let names = self.founders.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        let text = format!("{names} {} {}", self.reclaim_after.as_millis(), self.stand_in);
        StructureId::of(&text).0
    }

    pub(super) fn index(&self, node: &NodeName) -> Option<usize> {
        self.founders.iter().position(|founder| founder == node)
    }
}

/// The times that follow from [`Founding::reclaim_after`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The holder's lease lasts for this time after an answered heartbeat, on the holder's clock.
    pub(super) lease: Duration,
    /// A supporter counts the lease as lost after this time, on its own clock.
    pub(super) lease_over: Duration,
    /// The same for loans.
    pub(super) loan: Duration,
    pub(super) loan_over: Duration,
    /// Time between two heartbeats.
    pub(super) heartbeat: Duration,
    /// The time within which the service closes overdue permits.
    pub(super) closing: Duration,
}

impl Times {
    pub(super) fn of(founding: &Founding) -> Self {
        // The two times stay in the right order as long as no clock runs an eighth faster than another one.
        let over = |time: Duration| time + time / 8 + Duration::from_millis(2);
        let lease = founding.reclaim_after;
        let loan = lease / 3;
        let (heartbeat, closing) = (loan / 4, lease / 24);
        Self { lease, lease_over: over(lease), loan, loan_over: over(loan), heartbeat, closing }
    }
}
