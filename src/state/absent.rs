//! Stands in for the saved state in a build without the feature `state`. No node saves anything, so these types have no values.

use std::convert::Infallible;
use std::time::Duration;

use tallymesh_engine::{Now, Replica, Time};

use crate::builder::StartError;

/// The state in a node's folder, opened and not restored yet.
pub(crate) struct Earlier(Infallible);

/// Saves the state of one node.
#[derive(Debug)]
pub(crate) struct Saving(Infallible);

/// The result of a save.
#[derive(Debug)]
pub(crate) struct Outcome(Infallible);

impl Earlier {
    pub(crate) async fn restore(self, _replica: Replica, _now: Now) -> Result<(Replica, Saving), StartError> {
        match self.0 {}
    }
}

impl Saving {
    pub(crate) fn due(&self) -> Time {
        match self.0 {}
    }

    pub(crate) fn poll(&mut self, _replica: &mut Replica, _now: Now) {
        match self.0 {}
    }

    pub(crate) async fn done(&mut self) -> Outcome {
        match self.0 {}
    }

    pub(crate) fn handle(&mut self, outcome: Outcome, _replica: &mut Replica, _now: Now) {
        match outcome.0 {}
    }

    pub(crate) async fn finish(self, _replica: &mut Replica, _now: impl Fn() -> Now, _within: Duration) {
        match self.0 {}
    }

    pub(crate) async fn close(self, _within: Duration) {
        match self.0 {}
    }
}
