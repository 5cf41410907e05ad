//! The two totals of a count.

use tallymesh_schemas::bounds;

/// The totals of additions and of removals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Totals {
    /// The count: additions minus removals, within [`bounds::COUNT`].
    #[inline(always)]
    pub(crate) fn value(self) -> i64 {
        let by = i64::try_from(self.added.abs_diff(self.removed)).unwrap_or(i64::MAX).min(bounds::COUNT);
        if self.added < self.removed { -by } else { by }
    }

    /// The part of the totals beyond others; zero where they are not beyond.
    pub(crate) fn beyond(self, others: Self) -> Self {
        Self { added: self.added.saturating_sub(others.added), removed: self.removed.saturating_sub(others.removed) }
    }

    /// The greater one of each total.
    pub(crate) fn highest(self, other: Self) -> Self {
        Self { added: self.added.max(other.added), removed: self.removed.max(other.removed) }
    }
}
