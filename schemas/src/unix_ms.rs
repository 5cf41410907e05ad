//! Moments on the wall clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on the wall clock, in milliseconds since 1970. On the wire and on disk it is its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The beginning of 1970. Where a moment is optional, it stands for none.
    pub const ZERO: Self = Self(0);

    /// The moment `duration` after this one, in whole milliseconds, at most the last moment.
    #[inline]
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// The moment `duration` before this one, in whole milliseconds, but not before 1970.
    #[inline]
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// The time from `earlier` to this moment; zero when `earlier` is not earlier.
    #[inline]
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time between this moment and another one, whichever is earlier.
    #[inline]
    #[must_use]
    pub const fn distance(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// The moment in microseconds since 1970.
    #[inline]
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0.saturating_mul(1000)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number alone, so that a structure with moments reads as before.
impl fmt::Debug for UnixMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_moves_by_durations_and_stays_in_its_range() {
        let second = Duration::from_secs(1);
        assert_eq!((UnixMs(5).after(second), UnixMs(u64::MAX).after(second)), (UnixMs(1005), UnixMs(u64::MAX)));
        assert_eq!((UnixMs(1005).before(second), UnixMs(5).before(second)), (UnixMs(5), UnixMs::ZERO));
        assert_eq!((UnixMs(1005).since(UnixMs(5)), UnixMs(5).since(UnixMs(1005))), (second, Duration::ZERO));
        assert_eq!((UnixMs(1005).distance(UnixMs(5)), UnixMs(5).distance(UnixMs(1005))), (second, second));
        assert_eq!((UnixMs(5).micros(), UnixMs(u64::MAX).micros()), (5000, u64::MAX));
    }

    #[test]
    fn a_moment_is_written_as_its_number() {
        let bytes = postcard::to_stdvec(&UnixMs(300)).unwrap();
        assert_eq!(bytes, postcard::to_stdvec(&300_u64).unwrap());
        assert_eq!(postcard::from_bytes::<UnixMs>(&bytes), Ok(UnixMs(300)));
        assert_eq!(format!("{0} {0:?}", UnixMs(300)), "300 300");
    }
}
