//! The wall clock, which decides whether certificates are valid.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// Reads the wall clock for TLS. A time before 1970 is treated as 1970, when no certificate is valid: the handshake fails with
/// a reason. The implementation of rustls panics in this case.
#[derive(Debug)]
pub(crate) struct WallClock;

impl WallClock {
    pub(crate) fn now() -> UnixTime {
        since_1970(SystemTime::now())
    }
}

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(Self::now())
    }
}

fn since_1970(at: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_before_1970_is_taken_for_1970() {
        let hour = Duration::from_secs(3600);
        assert_eq!(since_1970(UNIX_EPOCH + hour).as_secs(), 3600);
        assert_eq!(since_1970(UNIX_EPOCH - hour).as_secs(), 0);
    }
}
