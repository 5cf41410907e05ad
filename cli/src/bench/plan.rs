//! The plan of `tally bench`.

use std::time::Duration;

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How long each measurement takes.
    pub(super) time: Duration,
    /// Rows that a joining node receives.
    pub(super) rows: usize,
}
