//! Clock readings. The engine has no clock of its own: its driver passes the time in.

use std::time::Duration;

use tallymesh_schemas::UnixMs;

/// A moment on the driver's monotonic clock, in microseconds since a start that the driver chooses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than any real moment.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `duration` after this one.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Both clocks read at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock: timers and ages.
    pub mono: Time,
    /// The wall clock in milliseconds since 1970, used for tombstones. A merge never reads it.
    pub unix_ms: UnixMs,
}

/// A duration in whole milliseconds, at most `u64::MAX`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
