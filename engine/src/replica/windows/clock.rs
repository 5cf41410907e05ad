//! The clock that a node uses to number the windows of series.

use std::time::Duration;

use tallymesh_schemas::UnixMs;
use tallymesh_schemas::bounds;

use crate::canary::{self, Canary};
use crate::time::{Now, Time};

/// The node's clock for windows: the wall clock, except that it does not follow small steps back.
///
/// When the wall clock goes back by at most [`bounds::MAX_DRIFT`], this clock runs at half speed until the wall clock has
/// caught up. So no window comes a second time, and none lasts more than twice its length. When the wall clock goes back by
/// more, it was wrong before, and this clock follows it at once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WindowClock {
    /// Microseconds since 1970.
    unix_us: u64,
    /// How far that is ahead of the wall clock.
    ahead_us: u64,
    at: Time,
    /// The last reading of the wall clock, in microseconds since 1970, and its time.
    read: Option<(u64, Time)>,
    /// The time of the last reported step.
    reported_at: Option<Time>,
}

/// A step of the wall clock against the elapsed time: the clock was set, or the machine was suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The size of the step.
    pub(crate) by: Duration,
    /// Whether the clock went ahead.
    pub(crate) ahead: bool,
    /// Whether to report it: of a clock that steps to and fro, only the first step in a minute is reported.
    pub(crate) is_told: bool,
}

/// The maximum by which the clock may be ahead of the wall clock.
const MAX_AHEAD_US: u64 = bounds::MAX_DRIFT.as_secs() * 1_000_000;

impl WindowClock {
    /// Reads the wall clock. Returns the step if the wall clock has made a large one since the last reading.
    pub(crate) fn advance(&mut self, now: Now) -> Option<Step> {
        let elapsed = micros(now.mono.since(self.at));
        let slow = self.unix_us.saturating_add(elapsed / 2);
        let wall = now.unix_ms.micros();
        let step = self.step(wall, now.mono);
        if follows_steps_back() || slow.saturating_sub(wall) > MAX_AHEAD_US {
            (self.unix_us, self.at, self.ahead_us) = (wall, self.at.max(now.mono), 0);
        } else if wall >= slow || elapsed >= 2 {
            // An elapsed time too short to halve is not lost: the next reading includes it.
            (self.unix_us, self.at) = (wall.max(slow), self.at.max(now.mono));
            self.ahead_us = self.unix_us - wall;
        }
        step
    }

    /// The difference between the wall clock and its expected value, if it is large.
    fn step(&mut self, wall: u64, at: Time) -> Option<Step> {
        let (was, read) = self.read.replace((wall, at))?;
        let expected = was.saturating_add(micros(at.since(read)));
        let by = Duration::from_micros(wall.abs_diff(expected));
        if by <= bounds::MAX_DRIFT {
            return None;
        }
        let is_told = self.reported_at.is_none_or(|reported_at| at.since(reported_at) > bounds::MAX_DRIFT);
        if is_told {
            self.reported_at = Some(at);
        }
        Some(Step { by, ahead: wall > expected, is_told })
    }

    pub(crate) fn unix_ms(&self) -> UnixMs {
        UnixMs(self.unix_us / 1000)
    }

    /// When this clock will show `unix_ms` if the wall clock keeps its speed: at half speed until the wall clock has caught up.
    pub(crate) fn when(&self, unix_ms: UnixMs) -> Time {
        let left = unix_ms.micros().saturating_sub(self.unix_us);
        self.at.after(Duration::from_micros(left.saturating_add(left.min(self.ahead_us))))
    }
}

/// Whether the clock follows also the small steps back of the wall clock.
fn follows_steps_back() -> bool {
    canary::broken(Canary::ClockGoesBack)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The clock follows small steps of the wall clock at half speed, and never goes back for them. It is never more than a
        /// minute ahead of the wall clock, and never behind it.
        #[test]
        fn the_clock_goes_back_for_large_steps_only(
            steps in prop::collection::vec((0_u64..5_000_000, -30_000_i64..10_000), 1..100),
        ) {
            let mut clock = WindowClock::default();
            let (mut mono, mut wall) = (0, 1_000_000_u64);
            clock.advance(Now { mono: Time(mono), unix_ms: UnixMs(wall) });
            for (elapsed, jump) in steps {
                let was = clock.unix_us;
                mono += elapsed;
                wall = wall.saturating_add(elapsed / 1000).saturating_add_signed(jump);
                clock.advance(Now { mono: Time(mono), unix_ms: UnixMs(wall) });
                prop_assert!(clock.unix_ms() >= UnixMs(wall) && clock.unix_us <= wall * 1000 + MAX_AHEAD_US);
                prop_assert!(clock.unix_us >= was || was > wall * 1000 + MAX_AHEAD_US - elapsed);
                prop_assert!(clock.unix_us == wall * 1000 || clock.unix_us <= was + elapsed / 2 + 1);
            }
        }
    }

    #[test]
    fn a_clock_that_was_far_ahead_is_right_at_once() {
        let mut clock = WindowClock::default();
        let at = |seconds: u64, wall_s: u64| Now { mono: Time(seconds * 1_000_000), unix_ms: UnixMs(wall_s * 1000) };
        assert_eq!(clock.advance(at(1, 10_000)), None);
        let hour = Duration::from_secs(3600);
        assert_eq!(clock.advance(at(2, 13_601)), Some(Step { by: hour, ahead: true, is_told: true }));
        assert_eq!(clock.advance(at(5, 13_604)), None);
        assert_eq!(clock.advance(at(6, 10_005)), Some(Step { by: hour, ahead: false, is_told: false }));
        assert_eq!(clock.unix_ms(), UnixMs(10_005_000));
        // A wall clock before 1970 counts as 1970.
        assert_eq!(clock.advance(at(7, 0)).map(|step| step.ahead), Some(false));
        assert_eq!((clock.unix_ms(), clock.when(UnixMs(5000))), (UnixMs::ZERO, Time(12_000_000)));
    }

    proptest! {
        /// A timer for a moment is after now. The clock shows the moment when the timer is due, and not long before. So a
        /// caller that waits for a window wakes once.
        #[test]
        fn a_timer_is_due_when_the_clock_shows_its_moment(
            steps in prop::collection::vec((0_u64..3_000_000, -5_000_i64..1_000), 1..20),
            last in 0_u64..3,
            ahead in 1_u64..20_000,
        ) {
            let mut clock = WindowClock::default();
            let (mut mono, mut jumps) = (0_u64, 1_000_000_i64);
            let wall = |mono: u64, jumps: i64| Now { mono: Time(mono), unix_ms: UnixMs((mono / 1000).saturating_add_signed(jumps)) };
            for (elapsed, jump) in steps.into_iter().chain([(last, 0)]) {
                mono += elapsed;
                jumps = (jumps + jump).max(0);
                clock.advance(wall(mono, jumps));
            }
            for ahead in [ahead, 1] {
                let (moment, mut before) = (UnixMs(clock.unix_ms().0 + ahead), clock);
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
        clock.advance(Now { mono: Time(0), unix_ms: UnixMs(100_000) });
        // The wall clock goes back by ten seconds. After twenty seconds it has caught up, however often the clock is read.
        for micros in (0..=20_000_000).step_by(997) {
            clock.advance(Now { mono: Time(micros), unix_ms: UnixMs(90_000 + micros / 1000) });
        }
        clock.advance(Now { mono: Time(20_000_000), unix_ms: UnixMs(110_000) });
        assert_eq!(clock.unix_ms(), UnixMs(110_000));
        clock.advance(Now { mono: Time(21_000_000), unix_ms: UnixMs(111_000) });
        assert_eq!(clock.unix_ms(), UnixMs(111_000));
    }
}
