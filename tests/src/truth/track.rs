//! What one run has counted for one key.

use tallymesh_schemas::bounds;

use super::Totals;

/// What one run has counted for one key: the totals after each operation, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Track {
    pub(super) states: Vec<(u64, u64)>,
    /// After how many operations both totals were last equal.
    pub(super) zero: Option<usize>,
}

impl Track {
    pub(super) fn push(&mut self, n: i64) {
        let n = n.clamp(-bounds::STEP, bounds::STEP);
        if n == 0 {
            return;
        }
        let (added, removed) = self.totals();
        let next = if n > 0 { (added + n.unsigned_abs(), removed) } else { (added, removed + n.unsigned_abs()) };
        self.enter(next);
    }

    pub(super) fn enter(&mut self, state: (u64, u64)) {
        self.states.push(state);
        if state.0 == state.1 {
            self.zero = Some(self.states.len());
        }
    }

    /// The current totals.
    pub fn totals(&self) -> (u64, u64) {
        self.states.last().copied().unwrap_or((0, 0))
    }

    /// The current count of the key.
    pub fn value(&self) -> i64 {
        let (added, removed) = self.totals();
        added.wrapping_sub(removed) as i64
    }

    /// After how many operations, at least `from`, a row could have had these totals. A node that has released a key whose
    /// count was zero counts from zero again. `base` is what the run that wrote the row has left behind.
    pub fn position(&self, totals: Totals, base: Totals, from: usize) -> Option<usize> {
        if from == 0 && totals == (0, 0) {
            return Some(0);
        }
        let start = from.saturating_sub(1);
        // The state without such zeros comes before those with zeros, because totals only grow.
        let whole = self.find((base.0.saturating_add(totals.0), base.1.saturating_add(totals.1)));
        if let Some(at) = whole.filter(|at| *at >= start) {
            return Some(at + 1);
        }
        let found = self.states.iter().enumerate().skip(start).find(|(i, (added, removed))| {
            let left = |state: u64, base: u64, total: u64| state.checked_sub(base)?.checked_sub(total);
            let zero = left(*added, base.0, totals.0).filter(|zero| left(*removed, base.1, totals.1) == Some(*zero));
            zero.is_some_and(|zero| zero == 0 || self.was_at((base.0 + zero, base.1 + zero), i + 1))
        });
        found.map(|(i, _)| i + 1)
    }

    /// The position at which the totals were exactly these. They only grow, so their sums are sorted and unique.
    fn find(&self, totals: Totals) -> Option<usize> {
        let sum = |(added, removed): &Totals| u128::from(*added) + u128::from(*removed);
        let at = self.states.binary_search_by_key(&sum(&totals), sum).ok()?;
        (self.states[at] == totals).then_some(at)
    }

    /// Whether the totals were these, after at most `upto` operations.
    fn was_at(&self, totals: Totals, upto: usize) -> bool {
        self.find(totals).is_some_and(|at| at < upto)
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}
