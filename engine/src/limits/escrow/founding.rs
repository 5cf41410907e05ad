//! What all nodes that share limits have to agree on, and the times that follow from it.

use std::time::Duration;

use tallymesh_schemas::{NodeName, StructureId, limits};

/// What all nodes that share limits have to agree on. Nodes whose terms differ do not take each other's facts for theirs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Founding {
    /// The nodes among which every limit is divided at first, in order of name.
    pub(super) founders: Vec<NodeName>,
    /// How long a founder keeps its share without hearing from another one.
    pub(super) reclaim_after: Duration,
    /// Whether founders take up the share of one that is gone.
    pub(super) stand_in: bool,
}

/// Why a founding was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoundingError {
    /// Nobody, or too many.
    #[error("{0} founders: list 1 to {max} nodes that share the limits", max = limits::FOUNDERS)]
    Count(usize),
    /// A time out of range.
    #[error("reclaim_after is {0:?}: it is from {min:?} to {max:?}", min = limits::RECLAIM_AFTER.start(), max = limits::RECLAIM_AFTER.end())]
    ReclaimAfter(Duration),
}

impl Founding {
    /// A founding by these nodes; the order does not matter, and a name that stands twice counts once.
    ///
    /// # Errors
    /// [`FoundingError`] when there are none or more than [`limits::FOUNDERS`], or the time is out of range.
    pub fn new(founders: impl IntoIterator<Item = NodeName>, reclaim_after: Duration) -> Result<Self, FoundingError> {
        let mut founders: Vec<_> = founders.into_iter().collect();
        founders.sort();
        founders.dedup();
        if !(1..=limits::FOUNDERS).contains(&founders.len()) {
            return Err(FoundingError::Count(founders.len()));
        }
        if !limits::RECLAIM_AFTER.contains(&reclaim_after) {
            return Err(FoundingError::ReclaimAfter(reclaim_after));
        }
        Ok(Self { founders, reclaim_after, stand_in: true })
    }

    /// The same, but the share of a founder that is gone stays unused until it is back. Then no share is used twice even
    /// while the name of one of three founders or more is run by two processes that a partition keeps apart.
    #[must_use]
    pub fn without_stand_ins(self) -> Self {
        Self { stand_in: false, ..self }
    }

    /// The founders in order of name.
    pub fn founders(&self) -> &[NodeName] {
        &self.founders
    }

    /// How long a founder keeps its share without hearing from another one.
    pub fn reclaim_after(&self) -> Duration {
        self.reclaim_after
    }

    /// Whether founders take up the share of one that is gone.
    pub fn stands_in(&self) -> bool {
        self.stand_in
    }

    /// The id that all facts of nodes with these terms carry.
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
    /// A tenure lasts so long from a beat that was heard, on the holder's clock.
    pub(super) lease: Duration,
    /// And is taken for lost after so long, on a supporter's.
    pub(super) lease_over: Duration,
    /// The same for loans.
    pub(super) loan: Duration,
    pub(super) loan_over: Duration,
    /// Between two beats.
    pub(super) heartbeat: Duration,
    /// Within that time whoever is asked to closes what is overdue.
    pub(super) closing: Duration,
}

impl Times {
    pub(super) fn of(founding: &Founding) -> Self {
        // A clock may run an eighth faster than another one while the two times mean the same moment.
        let over = |time: Duration| time + time / 8 + Duration::from_millis(2);
        let tenure = founding.reclaim_after;
        let loan = tenure / 3;
        let (beat, closing) = (loan / 4, tenure / 24);
        Self { lease: tenure, lease_over: over(tenure), loan, loan_over: over(loan), heartbeat: beat, closing }
    }
}
