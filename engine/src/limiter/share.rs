//! Shares of a limit, in units.

use crate::time::Time;

/// Units in a whole: millionths.
pub const UNITS: u64 = 1_000_000;

/// What a node may use of one limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Units of the whole limit.
    pub units: u64,
    /// The node may use them until this moment on its own clock, unless it learns a later one in time.
    pub until: Time,
}

/// What a node may use of each limit without demand and without loans: the node's own shares, as long as it holds them. An
/// epoch lasts as long as the node holds the same claims. A limit that rests in an epoch may be used at first use as if it had
/// existed all the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Base {
    /// The number of the epoch; 0 before the node held anything.
    pub epoch: u64,
    /// When it began.
    pub since: Time,
    /// Units of [`UNITS`].
    pub units: u64,
    /// The node may use them until this moment, unless it learns a later one in time.
    pub until: Time,
}
