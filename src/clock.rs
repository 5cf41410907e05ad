//! The clocks that the engine does not have.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tallymesh_engine::{Now, Time};

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

    /// The instant of an engine's time; `None` when it is too far off to be one.
    pub(crate) fn instant(&self, time: Time) -> Option<Instant> {
        self.start.checked_add(std::time::Duration::from_micros(time.0))
    }
}

/// Milliseconds since 1970; 0 when the wall clock is set before that.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
