//! Log lines for an identity conflict, when another process uses this node's name: one line a minute, with both addresses.

use std::net::SocketAddr;
use std::time::Duration;

use tallymesh_schemas::{Actor, Incarnation, NodeName, Reporter};

/// What is known of another process that uses this node's name.
#[derive(Debug)]
pub(crate) struct NameConflict {
    ours: SocketAddr,
    other: Option<SocketAddr>,
    reporter: Reporter<(), ()>,
}

impl NameConflict {
    /// For a node that advertises the address `ours`.
    pub(crate) fn new(ours: SocketAddr) -> Self {
        Self { ours, other: None, reporter: Reporter::new(1) }
    }

    /// This node met the other process at this address, or other members reported that address.
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

    /// Other nodes still count the other process, and this node continues as a new run after a pause.
    pub(crate) fn waits(&mut self, at: Duration, by: Incarnation, peer: &NodeName, pause: Duration) {
        if self.reporter.occurred(at, &(), &()) {
            let (ours, other) = (self.ours, self.other());
            tracing::error!(
                run = %by, %peer, ?pause, %ours, other,
                "another process uses this node's name, and the cluster counts that one until the pause is over: stop one of the two"
            );
        }
    }

    /// Logs the conflicts counted since the last line.
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
