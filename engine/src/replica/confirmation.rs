//! A confirmation: waits until other nodes hold the changes that this node has made.

use std::time::Duration;

use tallymesh_schemas::{NodeName, Position};

use crate::replica::Replica;
use crate::replica::position::Sent;
use crate::time::{Now, Time};

/// The pause before the peers are asked for the first time. It doubles each time, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(5);

/// The longest pause between two questions. Peers report by themselves once in a digest interval.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Which other nodes hold what this node had changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The changes.
    pub position: Position,
    /// The other nodes that have reported to hold all of them, in order of name.
    pub holders: Vec<NodeName>,
    /// How many were wanted.
    pub wanted: usize,
}

impl Confirmed {
    /// Whether as many other nodes hold the changes as were wanted.
    pub fn is_reached(&self) -> bool {
        self.holders.len() >= self.wanted
    }
}

/// A confirmation in progress. Call [`Confirmation::poll`] after every event, and no later than [`Confirmation::poll_timeout`]
/// says.
///
/// Only peers with a link to this node can confirm. In a cluster of more than 64 nodes, these are the neighbours in the overlay.
#[derive(Debug)]
pub struct Confirmation {
    position: Position,
    sent: Sent,
    wanted: usize,
    deadline: Time,
    pause: Duration,
    /// When the peers are asked next.
    again: Time,
    /// What the peers had reported at the last look.
    seen: Option<u64>,
}

impl Confirmation {
    /// Releases all changes of this node, and waits until `wanted` other nodes hold them, at most for `patience`.
    pub fn new(replica: &mut Replica, now: Now, wanted: usize, patience: Duration) -> Self {
        Self {
            position: replica.position(now),
            sent: Sent::new(),
            wanted,
            deadline: now.mono.after(patience),
            pause: PAUSE,
            again: now.mono.after(PAUSE),
            seen: None,
        }
    }

    /// When to call [`Confirmation::poll`] next, if nothing happens before.
    pub fn poll_timeout(&self) -> Time {
        self.again.min(self.deadline)
    }

    /// The result, once enough nodes hold the changes or the patience is over.
    pub fn poll(&mut self, replica: &mut Replica, now: Now) -> Option<Confirmed> {
        if *replica.actor() != self.position.actor {
            // The node continues as a new run, in whose rows the changes stand again.
            (self.position, self.sent, self.seen) = (replica.position(now), Sent::new(), None);
        }
        let ended = now.mono >= self.deadline;
        let is_due = now.mono >= self.again;
        let seen = replica.reports_of_peers();
        if !ended && !is_due && self.seen == Some(seen) {
            return None;
        }
        self.seen = Some(seen);
        let holders = replica.holders(&self.position, &mut self.sent);
        if ended || holders.len() >= self.wanted {
            return Some(Confirmed { position: self.position.clone(), holders, wanted: self.wanted });
        }
        if is_due {
            replica.ask_for_reports();
            self.again = now.mono.after(self.pause);
            self.pause = PAUSE_MAX.min(self.pause * 2);
        }
        None
    }
}
