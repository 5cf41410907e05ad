//! The clocks of the operating system, which the engine does not access itself.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tallymesh_engine::{Now, Time};
use tallymesh_schemas::{Incarnation, UnixMs, bounds};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn time(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.time(), unix_ms: unix_ms() }
    }

    /// Converts an engine time to an instant; `None` when it is too far in the future.
    pub(crate) fn instant(&self, time: Time) -> Option<Instant> {
        self.start.checked_add(std::time::Duration::from_micros(time.0))
    }
}

/// Milliseconds since 1970; 0 when the wall clock is set before that.
pub(crate) fn unix_ms() -> UnixMs {
    since_1970(SystemTime::now())
}

/// The incarnation of a node without saved state, from the wall clock. The lowest numbers are reserved.
pub(crate) fn first_run() -> Incarnation {
    Incarnation(unix_ms().0.clamp(2, bounds::INCARNATION))
}

fn since_1970(at: SystemTime) -> UnixMs {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::ZERO.after(since)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_is_taken_for_1970() {
        let hour = Duration::from_secs(3600);
        assert_eq!(since_1970(UNIX_EPOCH + hour), UnixMs(3_600_000));
        assert_eq!(since_1970(UNIX_EPOCH - hour), UnixMs::ZERO);
    }
}
