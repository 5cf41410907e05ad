//! A reporter decides which events become log lines: the first event of a kind at once, repeated ones as a count.
//!
//! A source that causes an event many times causes few lines. Each source has a bounded number of kinds, the table has a
//! bounded number of sources, and all lines together have a rate. The reporter reads no clock: its caller passes the time since
//! any fixed moment.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::bounds::{REPORT_BURST, REPORT_EVERY, REPORT_INTERVAL, REPORT_INTERVAL_MAX, REPORT_KINDS, REPORT_SOURCES};

/// Decides which events are reported. `S` is the source of an event, for example a peer. `K` is its kind, for example the error
/// and the structure. Both must be values of a bounded size.
#[derive(Debug, Clone)]
pub struct Reporter<S, K> {
    /// Events of one source and kind that are reported one by one within an interval.
    free: u32,
    entries: BTreeMap<S, BTreeMap<K, Entry>>,
    /// When the reporter must look at each entry again.
    schedule: BTreeSet<(Duration, S, K)>,
    /// Events that found no place in the table.
    beyond: Beyond,
    /// The time at which all lines so far are paid for.
    paid_at: Duration,
}

/// Events of one source and kind.
#[derive(Debug, Clone)]
struct Entry {
    /// Events that are still reported one by one.
    free: u32,
    /// Events since the last report.
    count: u64,
    reported_at: Duration,
    interval: Duration,
    due: Duration,
}

#[derive(Debug, Clone, Default)]
struct Beyond {
    count: u64,
    since: Duration,
    due: Duration,
}

/// Events that were counted since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated<S, K> {
    /// Their source and kind; `None` for the events that found no place in the table.
    pub of: Option<(S, K)>,
    /// The number of events.
    pub times: u64,
    /// The time in which they happened.
    pub within: Duration,
}

impl<S: Ord + Clone, K: Ord + Clone> Reporter<S, K> {
    /// A reporter that reports `free` events of each source and kind one by one, at least 1, and counts the others. An
    /// event that has not happened for a while is reported as a first one again.
    pub fn new(free: u32) -> Self {
        let (entries, schedule) = (BTreeMap::new(), BTreeSet::new());
        Self { free: free.max(1), entries, schedule, beyond: Beyond::default(), paid_at: Duration::ZERO }
    }

    /// Records an event. Returns whether to report it now; otherwise the reporter counts it for [`Reporter::poll`].
    pub fn occurred(&mut self, now: Duration, source: &S, kind: &K) -> bool {
        if let Some(entry) = self.entries.get_mut(source).and_then(|kinds| kinds.get_mut(kind)) {
            if entry.count == 0 && entry.free > 0 && pay(&mut self.paid_at, now) {
                entry.free -= 1;
                return true;
            }
            entry.count = entry.count.saturating_add(1);
            return false;
        }
        let kinds = self.entries.get(source).map(BTreeMap::len);
        if kinds.map_or(self.entries.len() >= REPORT_SOURCES, |kinds| kinds >= REPORT_KINDS) {
            self.beyond.add(now);
            return false;
        }
        let reported = pay(&mut self.paid_at, now);
        let due = if reported { now + REPORT_INTERVAL } else { now };
        let (free, count) = if reported { (self.free - 1, 0) } else { (0, 1) };
        let entry = Entry { free, count, reported_at: now, interval: REPORT_INTERVAL, due };
        self.entries.entry(source.clone()).or_default().insert(kind.clone(), entry);
        self.schedule.insert((due, source.clone(), kind.clone()));
        reported
    }

    /// The next count to report. Call it until it returns `None`, about once a second.
    pub fn poll(&mut self, now: Duration) -> Option<Repeated<S, K>> {
        while let Some((due, ..)) = self.schedule.first()
            && *due <= now
        {
            let (due, source, kind) = self.schedule.pop_first()?;
            let Some(entry) = self.entries.get_mut(&source).and_then(|kinds| kinds.get_mut(&kind)) else { continue };
            if entry.count == 0 {
                self.remove(&source, &kind);
                continue;
            }
            if !pay(&mut self.paid_at, now) {
                self.schedule.insert((due, source, kind));
                return None;
            }
            let (times, within) = (entry.count, now.saturating_sub(entry.reported_at));
            entry.interval = if within.is_zero() { REPORT_INTERVAL } else { entry.longer_interval() };
            (entry.count, entry.free, entry.reported_at, entry.due) = (0, 0, now, now + entry.interval);
            self.schedule.insert((entry.due, source.clone(), kind.clone()));
            return Some(Repeated { of: Some((source, kind)), times, within });
        }
        let waits = self.beyond.count > 0 && self.beyond.due <= now;
        (waits && pay(&mut self.paid_at, now)).then(|| self.beyond.take(now))
    }

    /// When to call [`Reporter::poll`] next; `None` when there was no recent event.
    pub fn due(&self) -> Option<Duration> {
        let entry = self.schedule.first().map(|(due, ..)| *due);
        let beyond = (self.beyond.count > 0).then_some(self.beyond.due);
        let next = entry.into_iter().chain(beyond).min()?;
        // Not before the rate allows a line.
        Some(next.max(self.paid_at.saturating_sub(REPORT_EVERY * (REPORT_BURST - 1))))
    }

    fn remove(&mut self, source: &S, kind: &K) {
        if let Some(kinds) = self.entries.get_mut(source) {
            kinds.remove(kind);
            if kinds.is_empty() {
                self.entries.remove(source);
            }
        }
    }
}

impl Entry {
    fn longer_interval(&self) -> Duration {
        (self.interval * 2).min(REPORT_INTERVAL_MAX)
    }
}

impl Beyond {
    fn add(&mut self, now: Duration) {
        if self.count == 0 {
            self.since = now;
            self.due = self.due.max(now);
        }
        self.count = self.count.saturating_add(1);
    }

    fn take<S, K>(&mut self, now: Duration) -> Repeated<S, K> {
        let (times, within) = (std::mem::take(&mut self.count), now.saturating_sub(self.since));
        self.due = now + REPORT_INTERVAL;
        Repeated { of: None, times, within }
    }
}

/// Pays for a line if the rate allows one now (GCRA).
fn pay(paid_at: &mut Duration, now: Duration) -> bool {
    let next = (*paid_at).max(now) + REPORT_EVERY;
    let affordable = next <= now + REPORT_EVERY * REPORT_BURST;
    if affordable {
        *paid_at = next;
    }
    affordable
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn summaries<S: Ord + Clone, K: Ord + Clone>(reporter: &mut Reporter<S, K>, now: Duration) -> Vec<Repeated<S, K>> {
        std::iter::from_fn(|| reporter.poll(now)).collect()
    }

    #[test]
    fn the_first_event_is_reported_and_the_others_are_counted_once_a_minute() {
        let mut reporter = Reporter::new(1);
        let reported = (0..20_000).filter(|_| reporter.occurred(SECOND, &"n2", &"unasked")).count();
        assert_eq!(reported, 1);
        assert_eq!(summaries(&mut reporter, SECOND * 60), [], "not before a minute has passed");
        assert_eq!(reporter.due(), Some(SECOND * 61));
        let expected = Repeated { of: Some(("n2", "unasked")), times: 19_999, within: SECOND * 60 };
        assert_eq!(summaries(&mut reporter, SECOND * 61), [expected]);
    }

    #[test]
    fn an_event_that_goes_on_is_reported_ever_more_rarely() {
        let mut reporter = Reporter::new(1);
        let mut at = Vec::new();
        for second in 0..4 * 3600 {
            if reporter.occurred(SECOND * second, &1, &1) | (reporter.poll(SECOND * second).is_some()) {
                at.push(second);
            }
        }
        assert_eq!(at, [0, 60, 180, 420, 900, 1860, 3780, 7380, 10_980]);
    }

    #[test]
    fn an_event_after_a_quiet_time_is_a_first_one_again() {
        let mut reporter = Reporter::new(1);
        assert!(reporter.occurred(SECOND, &1, &1));
        assert_eq!(summaries(&mut reporter, SECOND * 61), []);
        assert_eq!(reporter.due(), None, "nothing is kept");
        assert!(reporter.occurred(SECOND * 62, &1, &1));
    }

    #[test]
    fn some_events_may_be_reported_one_by_one() {
        let mut reporter = Reporter::new(3);
        let reported: Vec<_> = (0..5).map(|_| reporter.occurred(SECOND, &1, &1)).collect();
        assert_eq!(reported, [true, true, true, false, false]);
        assert_eq!(summaries(&mut reporter, SECOND * 61)[0].times, 2);
    }

    #[test]
    fn kinds_of_one_source_are_bounded_and_leave_the_other_sources_alone() {
        let mut reporter = Reporter::new(1);
        let reported = (0..10_000).filter(|kind| reporter.occurred(SECOND, &"liar", kind)).count();
        assert_eq!(reported, REPORT_KINDS);
        assert!(reporter.occurred(SECOND, &"honest", &0));
        let beyond = Repeated { of: None, times: 10_000 - REPORT_KINDS as u64, within: SECOND };
        assert_eq!(summaries(&mut reporter, SECOND * 2), [beyond]);
    }

    #[test]
    fn sources_are_bounded() {
        let mut reporter = Reporter::new(1);
        for source in 0..100_000 {
            reporter.occurred(SECOND, &source, &1);
        }
        assert_eq!(reporter.entries.len(), REPORT_SOURCES);
        assert_eq!(reporter.schedule.len(), REPORT_SOURCES);
        assert_eq!(reporter.beyond.count, 100_000 - REPORT_SOURCES as u64);
    }

    #[test]
    fn all_lines_together_have_a_rate_and_every_source_gets_its_line() {
        let mut reporter = Reporter::new(1);
        let burst = (0..1000).filter(|source| reporter.occurred(SECOND, source, &1)).count();
        assert_eq!(burst, REPORT_BURST as usize);
        let mut logged = 0;
        let mut now = SECOND;
        while logged < 1000 - burst {
            let next = reporter.due().unwrap();
            assert!(next > now || logged == 0, "something is due at the announced time");
            now = next;
            logged += summaries(&mut reporter, now).len();
        }
        let rest = u32::try_from(1000 - burst).unwrap();
        assert_eq!(now, SECOND + REPORT_EVERY * rest);
    }
}
