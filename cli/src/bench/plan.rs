//! What `tally bench` is asked to measure.

use std::time::Duration;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// How long each thing is measured for.
    pub(super) time: Duration,
    /// Rows that a joiner takes.
    pub(super) rows: usize,
}
