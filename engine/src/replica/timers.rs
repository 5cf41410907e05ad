//! The deadlines of a replica.

use std::collections::BTreeMap;

use tallymesh_schemas::NodeName;

use crate::time::Time;

/// What a replica does when a deadline has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Turns the rings of series. A step of the wall clock can bring the next window earlier, so the replica reads the wall
    /// clock at every timeout.
    Window,
    /// Sweeps for idle rows.
    Sweep,
    /// Asks again for what has been missing for too long.
    Chase,
    /// Begins the next digest to a peer.
    Digest(NodeName),
    /// Acts on the claim that waits for the end of the pause.
    Succession,
    /// Hides the rows of a dead node.
    Death,
    /// Walks on with comparisons of caches.
    Caches,
    /// Goes on to expire and to collect entries of caches.
    Collection,
    /// Works on with the upkeep of gauge caches.
    GaugeCaches,
}

/// The deadlines that are set, by timer. It does not hold the deadlines of unsent changes: other threads count, so these follow
/// from the structures.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeMap<Timer, Time>);

impl Timers {
    /// Sets the deadline of a timer and replaces the earlier one.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.0.insert(timer, at);
    }

    /// Makes a timer due at `at` or before.
    pub(crate) fn hurry(&mut self, timer: Timer, at: Time) {
        let set = self.0.entry(timer).or_insert(at);
        *set = at.min(*set);
    }

    pub(crate) fn stop(&mut self, timer: &Timer) {
        self.0.remove(timer);
    }

    pub(crate) fn is_due(&self, timer: &Timer, now: Time) -> bool {
        self.0.get(timer).is_some_and(|at| *at <= now)
    }

    /// The peers whose next digest is due, in order of name.
    pub(crate) fn due_digests(&self, now: Time) -> Vec<NodeName> {
        let due = self.0.iter().filter(|(_, at)| **at <= now);
        due.filter_map(|(timer, _)| if let Timer::Digest(peer) = timer { Some(peer.clone()) } else { None }).collect()
    }

    /// The first deadline; [`Time::NEVER`] if none is set. O(timers).
    pub(crate) fn next(&self) -> Time {
        self.0.values().copied().min().unwrap_or(Time::NEVER)
    }
}
