//! Connections that a listener cannot accept.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use crate::places::Places;

/// Pause after a failed `accept` before the next attempt.
const PAUSE: Duration = Duration::from_millis(100);

/// Time between two log lines about connections that cannot be accepted.
const REMINDER: Duration = Duration::from_secs(60);

/// The failed attempts of a listener to accept.
#[derive(Debug)]
pub(crate) struct Unaccepted {
    /// What the listener serves, for the log.
    listener: &'static str,
    attempts: u64,
    warned_at: Option<Instant>,
}

impl Unaccepted {
    pub(crate) fn new(listener: &'static str) -> Self {
        Self { listener, attempts: 0, warned_at: None }
    }

    /// An attempt has failed. Most likely, no file descriptor is free. Ends a silent connection to free one, and pauses so that
    /// others can close theirs.
    pub(crate) async fn pause(&mut self, error: &io::Error, places: &Places) {
        self.attempts += 1;
        if self.warned_at.is_none_or(|at| at.elapsed() >= REMINDER) {
            self.warned_at = Some(Instant::now());
            let Self { listener, attempts, .. } = self;
            tracing::warn!(%error, attempts, "{listener} connections cannot be accepted, others may have to wait");
        }
        places.end_longest_silent();
        tokio::time::sleep(PAUSE).await;
    }
}
