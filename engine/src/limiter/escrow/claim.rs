//! The data of leases of shares: claims to seats, votes, and what a founder without its share waits for.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::NodeName;

use crate::limiter::board::Stage;
use crate::limiter::fact::Process;
use crate::time::Time;

/// This process's vote for a claim to a seat. It votes for itself when it makes the claim.
#[derive(Clone, Debug)]
pub(super) struct Vote {
    pub(super) to: Process,
    pub(super) claim: u64,
    /// The number of this vote.
    pub(super) id: u64,
    /// The last reading of the claimant's clock that this process has answered.
    pub(super) acked: u64,
    /// When it answered.
    pub(super) at: Time,
}

/// A founder's support for a claim of this process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Support<'a> {
    /// The last reading of this process's clock that it answers.
    pub(super) acked: u64,
    pub(super) process: &'a Process,
    pub(super) vote: u64,
}

/// The supporters of a claim: for each founder, the process and the vote.
pub(super) type Votes = BTreeMap<usize, (Process, u64)>;

/// A claim of this process to a seat.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) id: u64,
    pub(super) stage: Stage,
    /// When it began, or when it was over.
    pub(super) since: Time,
    /// Set once all founders support the claim: the reading of this process's clock that all supporters must receive, and the
    /// supporters with their vote numbers. A supporter that turned away and came back has another number.
    pub(super) confirm: Option<(u64, Votes)>,
    /// Give the claim up as soon as no loan depends on it.
    pub(super) releasing: bool,
}

/// What a founder without its own share waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Begins {
    /// The time until all founders that this node receives news from have run for long enough.
    pub after: Duration,
    /// The founders that this node receives no news from. Each of them must come back or be forgotten.
    pub missing: Vec<NodeName>,
}

/// A period in which this process holds the same claims.
#[derive(Clone, Debug, Default)]
pub(super) struct Epoch {
    pub(super) number: u64,
    pub(super) since: Time,
    pub(super) claims: Vec<(usize, u64)>,
}
