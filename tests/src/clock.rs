//! A node's clocks. They are skewed against the simulation's time, and they can jump.

use std::time::Duration;

use tallymesh_engine::{Now, Time};
use tallymesh_schemas::UnixMs;

/// The settings of a node's clocks.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// How much faster than the simulation it runs, in parts per million.
    pub drift_ppm: i64,
    /// The reading of the monotonic clock at the beginning, plus every forward jump since.
    pub offset: Duration,
    /// The reading of the wall clock at the beginning, plus every jump since, in milliseconds since 1970. An earlier time is
    /// read as 0, as on a real node.
    pub wall_ms: i64,
}

/// The start of a simulation's wall clock: 2025-01-01T00:00:00Z.
pub const EPOCH_MS: u64 = 1_735_689_600_000;

impl Default for Clock {
    fn default() -> Self {
        Self { drift_ppm: 0, offset: Duration::ZERO, wall_ms: EPOCH_MS as i64 }
    }
}

impl Clock {
    /// The clocks' readings.
    pub fn read(&self, at: Time) -> Now {
        let drift = i128::from(at.0) * i128::from(self.drift_ppm) / 1_000_000;
        let run = u64::try_from(i128::from(at.0) + drift).unwrap_or(0);
        let unix_ms = u64::try_from(self.wall_ms.saturating_add_unsigned(run / 1000)).unwrap_or(0);
        Now { mono: Time(run).after(self.offset), unix_ms: UnixMs(unix_ms) }
    }

    /// The moment of the simulation, not before `at`, at which the monotonic clock shows `mono` or slightly more.
    pub fn when(&self, at: Time, mono: Time) -> Time {
        let ahead = mono.since(self.read(at).mono).as_micros();
        // Divided by the slowest rate that the clock may have, so that the timer is slightly late and never early forever.
        let slow = (1_000_000 + i128::from(self.drift_ppm)).max(1) as u128;
        at.after(Duration::from_micros(u64::try_from(ahead * 1_000_000 / slow + 1).unwrap_or(u64::MAX / 2)))
    }

    /// Both clocks jump ahead, as after a suspend.
    pub fn jump(&mut self, by: Duration) {
        self.offset += by;
        self.step_wall(by.as_millis() as i64);
    }

    /// The wall clock is set, forwards or backwards; the monotonic clock does not change.
    pub fn step_wall(&mut self, by_ms: i64) {
        self.wall_ms = self.wall_ms.saturating_add(by_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_never_early_and_hardly_late() {
        for drift_ppm in [-200_000, -7, 0, 31, 150_000] {
            let clock = Clock { drift_ppm, offset: Duration::from_secs(5), ..Clock::default() };
            let at = Time(1_000_003);
            let mono = clock.read(at).mono.after(Duration::from_millis(777));
            let late = clock.read(clock.when(at, mono)).mono;
            assert!(late >= mono && late.since(mono) < Duration::from_micros(5), "{drift_ppm}: {late:?} {mono:?}");
        }
    }
}
