//! Budgets: how much an object, or a node, may hold.
//!
//! A budget is checked before something new is made, never while something known changes. So it costs nothing where most work
//! is done. Any thread may take from it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

use tallymesh_schemas::budget::Unit;
use tallymesh_schemas::{Budget as Configured, OverBudget};

/// See [`NodeBudget::entries`].
const TWICE: NonZeroU64 = NonZeroU64::MIN.saturating_add(1);

/// How much of something is in use, and how much may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// How much is in use.
    pub used: u64,
    /// How much may be in use; `None` where there is no bound.
    pub max: Option<u64>,
}

/// An amount in use, and the most of it.
#[derive(Debug)]
pub(crate) struct Budget {
    /// `u64::MAX` where there is no bound.
    max: AtomicU64,
    used: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: Option<NonZeroU64>) -> Self {
        let budget = Self { max: AtomicU64::new(0), used: AtomicU64::new(0), refused: AtomicU64::new(0) };
        budget.set_max(max);
        budget
    }

    /// Changes the most. What is in use stays, also if it is more than fits from now on.
    pub(crate) fn set_max(&self, max: Option<NonZeroU64>) {
        self.max.store(max.map_or(u64::MAX, NonZeroU64::get), Ordering::Relaxed);
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most; `u64::MAX` where there is no bound.
    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// How much more fits.
    pub(crate) fn room(&self) -> u64 {
        self.max().saturating_sub(self.used())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage { used: self.used(), max: Some(self.max()).filter(|max| *max < u64::MAX) }
    }

    /// How often something did not fit.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts that something did not fit.
    pub(crate) fn note_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts that there is more than fits, if that is so.
    pub(crate) fn note_overfull(&self) {
        if self.used() > self.max() {
            self.note_refused();
        }
    }

    /// Takes `n`, if it fits. Returns whether it did.
    pub(crate) fn take(&self, n: u64) -> bool {
        let max = self.max();
        let fits = |used: u64| used.checked_add(n).filter(|used| n == 0 || *used <= max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// Takes `n`, whether or not it fits.
    pub(crate) fn force(&self, n: u64) {
        self.used.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, n: u64) {
        self.used.fetch_sub(n, Ordering::Relaxed);
    }

    /// The error of a change that does not fit.
    pub(crate) fn over(&self, object: Option<&str>, unit: Unit) -> OverBudget {
        OverBudget { object: object.map(str::to_owned), unit, used: self.used(), max: self.max() }
    }
}

/// What all objects of a node hold together, and may hold.
#[derive(Debug)]
pub struct NodeBudget {
    pub(crate) keys: Budget,
    /// Entries of caches with the removals that are not collected yet: at most twice as many as keys. A removal needs no room
    /// among the keys, so that a full node learns what was removed.
    pub(crate) entries: Budget,
    pub(crate) bytes: Budget,
    /// Changes of this node that did not fit.
    changes_refused: AtomicU64,
}

impl NodeBudget {
    pub(crate) fn new(configured: Configured) -> Self {
        let [keys, entries, bytes] = [(); 3].map(|()| Budget::new(None));
        let budget = Self { keys, entries, bytes, changes_refused: AtomicU64::new(0) };
        budget.configure(configured);
        budget
    }

    /// Changes what the objects may hold together. What they hold stays, also if it is more than fits from now on.
    pub fn configure(&self, configured: Configured) {
        self.keys.set_max(configured.keys);
        self.entries.set_max(configured.keys.map(|keys| keys.saturating_mul(TWICE)));
        self.bytes.set_max(configured.bytes);
    }

    /// Keys of all objects, with the live entries of caches.
    pub fn keys(&self) -> Usage {
        self.keys.usage()
    }

    /// Bytes of the keys and values of all caches.
    pub fn bytes(&self) -> Usage {
        self.bytes.usage()
    }

    /// Counts that there is more than fits, if that is so.
    pub(crate) fn note_overfull(&self) {
        self.keys.note_overfull();
        self.entries.note_overfull();
        self.bytes.note_overfull();
    }

    /// How often something did not fit within the total of the node, and the first total that did not suffice.
    pub(crate) fn reached(&self) -> Option<(u64, u64)> {
        let all = [&self.keys, &self.entries, &self.bytes];
        let reached = all.iter().find(|budget| budget.refused() > 0)?;
        Some((all.iter().map(|budget| budget.refused()).sum(), reached.max()))
    }

    /// How many changes of this node did not fit within its budgets.
    pub(crate) fn changes_refused(&self) -> u64 {
        self.changes_refused.load(Ordering::Relaxed)
    }

    pub(crate) fn note_change_refused(&self) {
        self.changes_refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_by_what_is_checked() {
        let budget = Budget::new(NonZeroU64::new(3));
        assert!(budget.take(2) && !budget.take(2) && budget.take(1) && !budget.take(1));
        budget.force(2);
        assert_eq!((budget.used(), budget.room()), (5, 0));
        assert!(budget.take(0), "nothing always fits");
        budget.give_back(3);
        assert!(budget.take(1) && !budget.take(1));
        assert_eq!(budget.usage(), Usage { used: 3, max: Some(3) });
        budget.set_max(NonZeroU64::new(2));
        assert!(!budget.take(1) && budget.take(0) && budget.room() == 0, "what is there stays");
        budget.set_max(None);
        assert!(budget.take(1));
        assert_eq!(budget.usage(), Usage { used: 4, max: None });
    }
}
