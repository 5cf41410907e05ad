//! What the driver measures of its own work, for the metrics, and whether the node has caught up with its peers.

use std::time::Duration;

use tallymesh_engine::replica::{Awaited, Fault, Outcome, Verification};

use crate::metrics::histogram::Histogram;

/// What the driver has measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Work {
    /// Times of its steps.
    pub(crate) steps: Histogram,
    pub(crate) verified: Verified,
    /// Verifications that run.
    pub(crate) verifying: usize,
    /// Events that wait for it.
    pub(crate) events_waiting: usize,
    pub(crate) start: Start,
}

/// How far the start of a node has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Start {
    /// It has had a link, or there is no node to join.
    pub(crate) has_joined: bool,
    /// It has held all that its peers had. Stays, once it is so.
    pub(crate) has_caught_up: bool,
    /// What it waits for.
    pub(crate) awaited: Vec<Awaited>,
}

/// Verifications that have ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verified {
    converged: u64,
    not_converged: u64,
    not_compared: u64,
    lags: u64,
    changes: u64,
    differs: u64,
}

impl Work {
    /// Counts a step.
    pub(crate) fn note_step(&mut self, took: Duration) {
        self.steps.note(took);
    }
}

impl Verified {
    /// Counts a verification that has ended.
    pub(crate) fn note(&mut self, found: &Verification) {
        *self.ended_mut(found.outcome()) += 1;
        for finding in &found.findings {
            *match finding.fault {
                Fault::Lags => &mut self.lags,
                Fault::Changes => &mut self.changes,
                Fault::Differs => &mut self.differs,
            } += 1;
        }
    }

    fn ended_mut(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Converged => &mut self.converged,
            Outcome::NotConverged => &mut self.not_converged,
            Outcome::NotCompared => &mut self.not_compared,
        }
    }

    /// Verifications that have ended in this way.
    pub(crate) fn ended(&self, outcome: Outcome) -> u64 {
        match outcome {
            Outcome::Converged => self.converged,
            Outcome::NotConverged => self.not_converged,
            Outcome::NotCompared => self.not_compared,
        }
    }

    /// Copies with this fault that they have found.
    pub(crate) fn found(&self, fault: Fault) -> u64 {
        match fault {
            Fault::Lags => self.lags,
            Fault::Changes => self.changes,
            Fault::Differs => self.differs,
        }
    }
}
