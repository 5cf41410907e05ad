//! Histories of what other nodes have admitted under names that have no throttle on this node. A throttle that is created later
//! then decides as if it had always existed (I11).
//!
//! The limiter does not know the rate of such a name: a program on this node may create the throttle at any moment. So it
//! records times and amounts in a few samples. To join two samples, it moves the earlier one to the time of the
//! later one: a bucket that replays the result is never fuller than one that saw both. The rows may show more than the samples,
//! from before this node listened or because old samples were removed. That surplus counts as admitted at the **recorded_since**, the
//! last moment at which it can have happened. So a missing history is never mistaken for an unused name.
#![allow(clippy::indexing_slicing, reason = "positions are inside the ring")]

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Time;

/// The most samples of one name.
const SAMPLES: usize = 8;

/// The most names with a history. If there are more, the older half is forgotten and the recorded_since rises.
const NAMES: usize = 1 << 20;

/// How long a history stays when no node has a row of its name any more: the owner may have restarted.
const KEPT: Duration = Duration::from_secs(600);

/// The most names that one sweep checks.
const AT_ONCE: usize = 1024;

/// Tokens admitted at a moment.
pub(super) type Sample = (Time, u64);

#[derive(Clone, Debug, Default)]
struct History {
    samples: Vec<Sample>,
}

impl History {
    fn last(&self) -> Time {
        self.samples.last().map_or(Time(0), |(at, _)| *at)
    }

    fn note(&mut self, now: Time, n: u64) {
        if let Some((at, sum)) = self.samples.last_mut()
            && *at >= now
        {
            *sum = sum.saturating_add(n);
            return;
        }
        if self.samples.len() >= SAMPLES {
            self.join();
        }
        self.samples.push((now, n));
    }

    /// Joins the two neighbouring samples with the smallest cost: tokens times the distance that they move in time.
    fn join(&mut self) {
        let cost = |at: &usize| {
            let ((early, n), (late, _)) = (self.samples[*at], self.samples[*at + 1]);
            u128::from(n) * late.since(early).as_micros()
        };
        let Some(at) = (0..self.samples.len().saturating_sub(1)).min_by_key(cost) else { return };
        let (_, early) = self.samples.remove(at);
        let (_, late) = &mut self.samples[at];
        *late = late.saturating_add(early);
    }
}

/// The histories of one structure.
#[derive(Debug)]
pub(super) struct Heard {
    names: BTreeMap<Vec<u8>, History>,
    recorded_since: Time,
    /// Where the next sweep continues.
    swept: Vec<u8>,
}

impl Heard {
    /// Starts recording now. What the rows already show counts as admitted now.
    pub(super) fn new(now: Time) -> Self {
        Self { names: BTreeMap::new(), recorded_since: now, swept: Vec::new() }
    }

    /// Records that others have admitted `n` more under a name.
    pub(super) fn note(&mut self, name: Vec<u8>, now: Time, n: u64) {
        self.names.entry(name).or_default().note(now, n);
        if self.names.len() > NAMES {
            self.make_room();
        }
    }

    /// Handles lost news: others may have admitted more under any name, up to now.
    pub(super) fn lost(&mut self, now: Time) {
        self.names.clear();
        self.recorded_since = self.recorded_since.max(now);
    }

    /// Removes and returns the history of a name, oldest first. `all` is the sum of the others' rows.
    pub(super) fn take(&mut self, name: &[u8], all: i64) -> Past {
        let samples = self.names.remove(name).unwrap_or_default().samples;
        let known = samples.iter().fold(0_u64, |sum, (_, n)| sum.saturating_add(*n));
        let before = u64::try_from(all).unwrap_or(0).saturating_sub(known);
        Past { began: self.recorded_since, before, samples }
    }

    fn make_room(&mut self) {
        let mut ends: Vec<Time> = self.names.values().map(History::last).collect();
        let middle = ends.len() / 2;
        let (_, middle, _) = ends.select_nth_unstable(middle);
        let middle = *middle;
        self.names.retain(|_, history| history.last() > middle);
        self.recorded_since = self.recorded_since.max(middle);
    }

    /// Forgets old histories whose name has no rows any more, some at a time. `others` gives the sum of the others' rows of a
    /// name.
    pub(super) fn sweep(&mut self, now: Time, others: impl Fn(&[u8]) -> i64) {
        let from = std::mem::take(&mut self.swept);
        let looked: Vec<Vec<u8>> = self.names.range(from..).take(AT_ONCE).map(|(name, _)| name.clone()).collect();
        if looked.len() == AT_ONCE {
            self.swept = looked.last().cloned().unwrap_or_default();
        }
        for name in looked {
            let old = self.names.get(&name).is_some_and(|history| now.since(history.last()) > KEPT);
            if old && others(&name) <= 0 {
                self.names.remove(&name);
            }
        }
    }

    /// The number of names with a history.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}

/// What other nodes admitted under a name before its throttle was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    /// The moment at which `before` counts.
    pub(super) began: Time,
    /// Tokens that were admitted at an unknown time. They count at the last moment at which they can have been admitted.
    pub(super) before: u64,
    /// Later admissions, oldest first.
    pub(super) samples: Vec<Sample>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tallymesh_schemas::Rate;

    use super::*;
    use crate::limiter::soft::Soft;

    proptest! {
        /// I11: a bucket made from a history is no fuller than one that received everything when it happened, whatever its rate
        /// is.
        #[test]
        fn a_history_is_never_fuller_than_the_bucket_that_was_there(
            tokens in 1..1000_u64, burst in 1..500_u64, wait in 0..4_000_000_u64,
            steps in prop::collection::vec((0..2_000_000_u64, 1..300_u64), 0..40), lose in prop::option::of(0..40_usize),
        ) {
            let rate = Rate::new(tokens, Duration::from_secs(1), burst).unwrap();
            let (mut heard, mut always) = (Heard::new(Time(7)), Soft::new(rate, 1000, 0, Time(7)));
            let (mut now, mut all) = (Time(7), 0);
            for (turn, (pause, n)) in steps.into_iter().enumerate() {
                now = Time(now.0 + pause);
                all += n as i64;
                always.learn(now, all);
                if lose == Some(turn) {
                    heard.lost(now);
                } else {
                    heard.note(b"t".to_vec(), now, n);
                }
            }
            now = Time(now.0 + wait);
            let past = heard.take(b"t", all);
            let mut late = Soft::since(rate, 1000, all, &past, now);
            prop_assert!(late.tokens(now) <= always.tokens(now));
        }
    }

    #[test]
    fn few_admissions_are_replayed_exactly() {
        let rate = Rate::new(10, Duration::from_secs(1), 10).unwrap();
        let (mut heard, mut always) = (Heard::new(Time(0)), Soft::new(rate, 1000, 0, Time(0)));
        for turn in 1..=SAMPLES as u64 {
            let now = Time(turn * 700_000);
            always.learn(now, turn as i64 * 8);
            heard.note(b"t".to_vec(), now, 8);
        }
        let now = Time(6_000_000);
        let past = heard.take(b"t", SAMPLES as i64 * 8);
        assert_eq!((past.before, past.samples.len()), (0, SAMPLES));
        assert_eq!(Soft::since(rate, 1000, 64, &past, now).tokens(now), always.tokens(now));
    }

    #[test]
    fn histories_go_when_nobody_has_rows_of_them() {
        let mut heard = Heard::new(Time(0));
        for n in 0..3000_u32 {
            heard.note(n.to_be_bytes().to_vec(), Time(1), 1);
        }
        let rows = |name: &[u8]| i64::from(name[3] == 0);
        let later = Time(0).after(KEPT + Duration::from_secs(1));
        (0..3).for_each(|_| heard.sweep(Time(2), rows));
        assert_eq!(heard.len(), 3000, "an owner may have restarted");
        (0..4).for_each(|_| heard.sweep(later, rows));
        assert_eq!(heard.len(), 3000_usize.div_ceil(256));
    }
}
