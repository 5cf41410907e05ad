//! What the log says when another process uses this node's name: one line a minute, with both addresses.

use std::net::SocketAddr;
use std::time::Duration;

use tallymesh_schemas::{Actor, Incarnation, NodeName, Reporter};

/// Another process that uses this node's name, as far as it is known.
#[derive(Debug)]
pub(crate) struct NameConflict {
    ours: SocketAddr,
    other: Option<SocketAddr>,
    reporter: Reporter<(), ()>,
}

impl NameConflict {
    /// Of a node that gives `ours` as its address.
    pub(crate) fn new(ours: SocketAddr) -> Self {
        Self { ours, other: None, reporter: Reporter::new(1) }
    }

    /// The other process was met at this address, or others say that it is there.
    pub(crate) fn met(&mut self, other: SocketAddr) {
        self.other = Some(other);
    }

    /// This node continues as a new run.
    pub(crate) fn changed(&mut self, at: Duration, was: &Actor, now: &Actor, peer: &NodeName) {
        if self.reporter.occurred(at, &(), &()) {
            let (ours, other) = (self.ours, self.other());
            tracing::error!(
                %was, %now, %peer, %ours, other,
                "another process uses this node's name: this node continues as a new run; give each node its own name"
            );
        }
    }

    /// Others still count the other process, and this node continues as a new run after a pause.
    pub(crate) fn waits(&mut self, at: Duration, by: Incarnation, peer: &NodeName, pause: Duration) {
        if self.reporter.occurred(at, &(), &()) {
            let (ours, other) = (self.ours, self.other());
            tracing::error!(
                run = %by, %peer, ?pause, %ours, other,
                "another process uses this node's name, and the cluster counts that one until the pause is over: stop one of the two"
            );
        }
    }

    /// Logs what has been counted.
    pub(crate) fn poll(&mut self, at: Duration) {
        while let Some(repeated) = self.reporter.poll(at) {
            let (ours, other, times, seconds) = (self.ours, self.other(), repeated.times, repeated.within.as_secs());
            tracing::error!(%ours, other, times, seconds, "another process still uses this node's name: stop one of the two");
        }
    }

    fn other(&self) -> String {
        self.other.map_or("unknown".to_owned(), |addr| addr.to_string())
    }
}
