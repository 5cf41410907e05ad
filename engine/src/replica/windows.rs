//! The windows of series: which there are, by a clock that never goes back.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::message::Digest;
use tallymesh_schemas::{NodeName, SeriesName, SeriesSpec, StructureId, Window, limits};

use super::{Event, Held, Replica, StructureError};
use crate::canary::{self, Canary};
use crate::series::{Ring, Series};
use crate::structure::{Structure, Wake};
use crate::time::{Now, Time};

/// The node's clock for windows: the wall clock, but that it never goes back. When the wall clock does, this one goes on
/// at half its pace until the wall clock has caught up, so no window comes a second time and none lasts more than twice as
/// long as it should.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WindowClock {
    /// Microseconds since 1970.
    unix_us: u64,
    /// By how much that is ahead of the wall clock.
    ahead_us: u64,
    at: Time,
}

impl WindowClock {
    pub(super) fn advance(&mut self, now: Now) {
        let elapsed = u64::try_from(now.mono.since(self.at).as_micros()).unwrap_or(u64::MAX);
        let slow = self.unix_us.saturating_add(elapsed / 2);
        let wall = now.unix_ms.saturating_mul(1000);
        if canary::broken(Canary::ClockGoesBack) {
            (self.unix_us, self.at) = (wall, now.mono);
        } else if wall >= slow || elapsed >= 2 {
            // Of a step that is too small to halve, nothing is lost: it is part of the next one.
            (self.unix_us, self.at) = (wall.max(slow), self.at.max(now.mono));
            self.ahead_us = self.unix_us - wall;
        }
    }

    pub(super) fn unix_ms(&self) -> u64 {
        self.unix_us / 1000
    }

    /// When it will show `unix_ms` if the wall clock keeps its pace: at half pace until that one has caught up.
    fn when(&self, unix_ms: u64) -> Time {
        let left = unix_ms.saturating_mul(1000).saturating_sub(self.unix_us);
        self.at.after(Duration::from_micros(left.saturating_add(left.min(self.ahead_us))))
    }
}

/// A series with what makes its next window.
pub(super) struct HeldSeries {
    series: Arc<Series>,
    wake: Wake,
}

impl std::fmt::Debug for HeldSeries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.series.fmt(f)
    }
}

impl Replica {
    /// Counts events in windows. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// [`StructureError`] when there is such a series already, or there are too many windows.
    pub fn replicate_series(&mut self, now: Now, spec: SeriesSpec, wake: Wake) -> Result<Arc<Series>, StructureError> {
        self.clock.advance(now);
        if self.series_named(&spec.name, spec.interval).is_some() {
            return Err(StructureError::DuplicateSeries(spec.name, spec.interval));
        }
        let kept: u64 = self.series.iter().map(|held| u64::from(held.series.spec().windows)).sum();
        if kept + u64::from(spec.windows) > limits::WINDOWS as u64 {
            return Err(StructureError::TooManyWindows);
        }
        let current = spec.window_at(self.clock.unix_ms());
        let ring = self.ring(&spec, &wake, current, &[]);
        let series = Arc::new(Series::new(spec, ring));
        self.series.push(HeldSeries { series: Arc::clone(&series), wake });
        Ok(series)
    }

    /// The series in the order in which they were made.
    pub fn series(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.series.iter().map(|held| &held.series)
    }

    /// The series of a name and interval.
    pub fn series_named(&self, name: &SeriesName, interval: u32) -> Option<&Arc<Series>> {
        self.series().find(|series| series.spec().name == *name && series.spec().interval == interval)
    }

    /// The windows around `current`, those that are in `old` taken from there.
    fn ring(&mut self, spec: &SeriesSpec, wake: &Wake, current: Window, old: &[Arc<Structure>]) -> Ring {
        let oldest = current.saturating_sub(u64::from(spec.windows.saturating_sub(1)));
        let windows = (oldest..=current + 1).rev().map(|window| {
            let structure = spec.structure(window);
            let held = old.iter().find(|held| held.spec().name == structure.name);
            held.cloned().unwrap_or_else(|| {
                let made =
                    Arc::new(Structure::new(structure, self.actor.clone(), self.random.next(), Arc::clone(wake)));
                if self.leaving {
                    made.close();
                }
                let held = Held { persists: spec.persist, ..Held::new(Arc::clone(&made), false, spec.replicate) };
                // An id that is taken is one chance in 2^64: the window is then counted, and not shared.
                self.structures.entry(made.id()).or_insert(held);
                made
            })
        });
        Ring { current, windows: windows.collect() }
    }

    /// Makes the windows whose time comes, and drops those that have aged out.
    pub(super) fn turn_windows(&mut self, now: Now) {
        self.clock.advance(now);
        let unix_ms = self.clock.unix_ms();
        let list = std::mem::take(&mut self.series);
        let mut turned = false;
        for HeldSeries { series, wake } in &list {
            let ring = series.ring();
            let current = series.spec().window_at(unix_ms);
            if current == ring.current {
                continue;
            }
            turned = true;
            let next = self.ring(series.spec(), wake, current, &ring.windows);
            for old in ring.windows.iter().filter(|old| !next.windows.iter().any(|kept| Arc::ptr_eq(old, kept))) {
                self.drop_structure(old);
            }
            series.turn(next);
        }
        self.series = list;
        if turned {
            let structures = &self.structures;
            for link in self.links.values_mut() {
                link.forget(|(id, _)| !structures.contains_key(id));
                link.told.retain(|id, _| structures.contains_key(id));
                link.hurry();
            }
            self.parents.retain(|(id, _), _| structures.contains_key(id));
            self.passed_on.retain(|(id, _)| structures.contains_key(id));
            self.wanted_before.retain(|(id, _)| structures.contains_key(id));
            self.hollow.retain(|(id, _), _| structures.contains_key(id));
            self.unheld.forget(|(id, _)| !structures.contains_key(id));
        }
    }

    fn drop_structure(&mut self, structure: &Arc<Structure>) {
        let id: StructureId = structure.id();
        if self.structures.get(&id).is_some_and(|held| Arc::ptr_eq(&held.structure, structure)) {
            self.structures.remove(&id);
        }
    }

    /// When the next window begins.
    pub(super) fn next_window(&self) -> Time {
        let begins = self.series().map(|series| (series.current() + 1).saturating_mul(series.spec().interval_ms()));
        begins.min().map_or(Time::NEVER, |begins| self.clock.when(begins))
    }

    /// Compares a peer's clock with ours. What lies further apart than the shortest interval is counted in windows that
    /// the others take for other ones, and may be refused.
    pub(super) fn compare_clocks(&mut self, now: Now, peer: &NodeName, digest: &Digest<'_>) {
        self.clock.advance(now);
        let shared = self.series().map(|series| series.spec()).filter(|spec| spec.replicate);
        let Some(interval) = shared.map(SeriesSpec::interval_ms).min() else { return };
        let (theirs, ours) = (digest.clock_ms, self.clock.unix_ms());
        let off = theirs.abs_diff(ours) > interval;
        let Some(link) = self.links.get_mut(peer) else { return };
        link.clock_off = if off { link.clock_off.saturating_add(1) } else { 0 };
        // One digest may have been on its way for long.
        if link.clock_off == 2 {
            let by = Duration::from_millis(theirs.abs_diff(ours));
            self.event(Event::ClockOff { peer: peer.clone(), by, ahead: theirs > ours });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the wall clock does: it never goes back, never falls behind the wall clock, and where it is ahead it
        /// goes on at half the pace of time.
        #[test]
        fn the_clock_never_goes_back(steps in prop::collection::vec((0_u64..5_000_000, -10_000_i64..10_000), 1..100)) {
            let mut clock = WindowClock::default();
            let (mut mono, mut wall) = (0, 1_000_000_u64);
            clock.advance(Now { mono: Time(mono), unix_ms: wall });
            for (elapsed, jump) in steps {
                let was = clock.unix_us;
                mono += elapsed;
                wall = wall.saturating_add(elapsed / 1000).saturating_add_signed(jump);
                clock.advance(Now { mono: Time(mono), unix_ms: wall });
                prop_assert!(clock.unix_us >= was && clock.unix_ms() >= wall);
                prop_assert!(clock.unix_us == wall * 1000 || clock.unix_us <= was + elapsed / 2 + 1);
            }
        }
    }

    proptest! {
        /// A timer for a moment is after now, the clock shows the moment when it is due, and not long before: whoever waits
        /// for a window wakes once.
        #[test]
        fn a_timer_is_due_when_the_clock_shows_its_moment(
            steps in prop::collection::vec((0_u64..3_000_000, -5_000_i64..1_000), 1..20),
            last in 0_u64..3,
            ahead in 1_u64..20_000,
        ) {
            let mut clock = WindowClock::default();
            let (mut mono, mut jumps) = (0_u64, 1_000_000_i64);
            let wall = |mono: u64, jumps: i64| Now { mono: Time(mono), unix_ms: (mono / 1000).saturating_add_signed(jumps) };
            for (elapsed, jump) in steps.into_iter().chain([(last, 0)]) {
                mono += elapsed;
                jumps = (jumps + jump).max(0);
                clock.advance(wall(mono, jumps));
            }
            for ahead in [ahead, 1] {
                let (moment, mut before) = (clock.unix_ms() + ahead, clock);
                let due = clock.when(moment);
                prop_assert!(due > Time(mono), "{due:?} is not after {mono}");
                if due.0 > mono + 1001 {
                    before.advance(wall(due.0 - 1001, jumps));
                    prop_assert!(before.unix_ms() < moment);
                }
                let mut then = clock;
                then.advance(wall(due.0, jumps));
                prop_assert!(then.unix_ms() >= moment, "{} at {due:?}, not {moment}", then.unix_ms());
            }
        }
    }

    #[test]
    fn a_clock_that_is_ahead_meets_the_wall_clock() {
        let mut clock = WindowClock::default();
        clock.advance(Now { mono: Time(0), unix_ms: 100_000 });
        // The wall clock goes back by ten seconds; after twenty it has caught up, however often one looks.
        for micros in (0..=20_000_000).step_by(997) {
            clock.advance(Now { mono: Time(micros), unix_ms: 90_000 + micros / 1000 });
        }
        clock.advance(Now { mono: Time(20_000_000), unix_ms: 110_000 });
        assert_eq!(clock.unix_ms(), 110_000);
        clock.advance(Now { mono: Time(21_000_000), unix_ms: 111_000 });
        assert_eq!(clock.unix_ms(), 111_000);
    }
}
