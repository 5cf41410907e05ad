//! Readings of the clocks of the peers.

use tallymesh_schemas::{NodeName, UnixMs};

use crate::time::{Now, Time};

/// The last reading of a peer's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) unix_ms: UnixMs,
    pub(crate) at: Time,
    /// How far it was ahead of this node's wall clock.
    pub(crate) ahead_ms: i64,
    /// How many readings in a row exceeded the bound.
    pub(crate) beyond: u32,
}

/// A peer's clock, compared with this node's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PeerClock {
    /// The peer.
    pub peer: NodeName,
    /// Milliseconds by which the peer's clock is ahead of this node's clock; negative if it is behind.
    pub ahead_ms: i64,
    /// Whether the offset exceeds [`Replica::clock_bound`](crate::replica::Replica::clock_bound), and did so more than once.
    pub beyond: bool,
}

/// The last known time of the cluster, and when it was determined.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClusterTime {
    pub(crate) unix_ms: UnixMs,
    pub(crate) at: Time,
}

impl Reading {
    pub(crate) fn now(&self, now: Now) -> UnixMs {
        self.unix_ms.after(now.mono.since(self.at))
    }
}
