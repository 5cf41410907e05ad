//! Readings of the clocks. The engine has none of its own: whoever drives it hands them in.

use std::time::Duration;

/// A moment on the driver's monotonic clock, in microseconds since a start of its choosing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Later than any moment that comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment and `duration` more.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long ago `earlier` was; zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock: timers and ages.
    pub mono: Time,
    /// The wall clock, milliseconds since 1970: tombstones, and nothing that a merge reads.
    pub unix_ms: u64,
}
