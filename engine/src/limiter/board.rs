//! A node's knowledge of the other nodes: the latest state of their facts. This module decides nothing. All its data may be
//! outdated; the algorithm only requires that it was true once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Bound, NodeName, Rate, bound, bounds};

use crate::limiter::fact::Process;
use crate::time::Time;

/// The most processes of one node that are known at a time.
const PROCESSES_PER_NODE: usize = 16;

/// The most nodes that are known.
const NODES: usize = tallymesh_schemas::bounds::ACTORS;

/// The stage of a claim to a seat. A claim never returns to an earlier stage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    /// The claim asks for support.
    Asking = 1,
    /// The claim holds the share.
    Holding = 2,
    /// The claim is over, permanently.
    Over = 3,
}

impl Stage {
    pub(crate) fn from(added: u64) -> Option<Self> {
        match added {
            1 => Some(Self::Asking),
            2 => Some(Self::Holding),
            3 => Some(Self::Over),
            _ => None,
        }
    }
}

/// A loan to this process, as its lender states it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Loan {
    /// The total lent.
    pub(crate) lent: u64,
    /// The total that this process has returned. This process's own figure.
    pub(crate) returned: u64,
}

impl Loan {
    pub(crate) fn left(self) -> u64 {
        self.lent.saturating_sub(self.returned)
    }
}

/// The loans of one lender to this process in one loan lease.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lending {
    /// The last reading of this process's clock that the lender has received.
    pub(crate) acked: u64,
    /// The lender wants everything back.
    pub(crate) called: bool,
    pub(crate) loans: BTreeMap<Arc<str>, Loan>,
}

/// What this node knows of one process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Other {
    /// The last reading of its clock.
    pub(crate) heartbeat: u64,
    /// When that reading changed; `None` as long as it was seen only once, which may be long after it was written.
    pub(crate) heard: Option<Time>,
    /// When it was first seen.
    first: Time,
    /// Its latest claim to each seat.
    pub(crate) claims: BTreeMap<usize, (u64, Stage)>,
    /// Its latest support of each claim of this process, by seat and claim: the number of the vote, and the reading of this
    /// process's clock that it answers.
    pub(crate) supports: BTreeMap<(usize, u64), (u64, u64)>,
    /// Its loans to this process, by loan lease.
    pub(crate) lendings: BTreeMap<u64, Lending>,
    /// Its demand by name, with the rate that it states. It has no demand for a name that is missing.
    pub(crate) demand: BTreeMap<Arc<str>, (Option<Rate>, u64)>,
}

/// The most supports and loan leases of one process that are remembered.
pub(crate) const REMEMBERED: usize = 64;

impl Other {
    /// Whether it published a new heartbeat within this time.
    pub(crate) fn is_fresh(&self, now: Time, within: Duration) -> bool {
        self.heard.is_some_and(|at| now.since(at) <= within)
    }

    fn last(&self) -> Time {
        self.heard.unwrap_or(self.first)
    }

    pub(crate) fn support(&mut self, seat: usize, claim: u64, vote: u64, acked: u64) {
        if self.supports.len() >= REMEMBERED && !self.supports.contains_key(&(seat, claim)) {
            self.supports.pop_first();
        }
        let known = self.supports.entry((seat, claim)).or_default();
        *known = (vote, acked).max(*known);
    }

    /// Records its demand. A row with zero units ends only a demand of the same rate, because rows arrive in any order.
    /// Returns whether there was room to record it.
    pub(crate) fn demand(&mut self, name: Arc<str>, rate: Option<Rate>, units: u64) -> bool {
        if units == 0 {
            if self.demand.get(&name).is_some_and(|(known, _)| *known == rate) {
                self.demand.remove(&name);
            }
        } else if self.demand.len() < bounds::SHARED_NAMES || self.demand.contains_key(&name) {
            self.demand.insert(name, (rate, units));
        } else {
            return false;
        }
        true
    }

    /// Its demand for a limit, if it has the same rate: another rate is another limit.
    pub(crate) fn wants(&self, name: &str, rate: Option<Rate>) -> u64 {
        self.demand.get(name).filter(|(theirs, _)| *theirs == rate).map_or(0, |(_, units)| *units)
    }

    /// The rate that it states for a limit.
    pub(crate) fn rate_of(&self, name: &str) -> Option<Rate> {
        self.demand.get(name).and_then(|(rate, _)| *rate)
    }

    pub(crate) fn claim(&mut self, seat: usize, claim: u64, stage: Stage) {
        let known = self.claims.entry(seat).or_insert((claim, stage));
        *known = (claim, stage).max(*known);
    }
}

/// The other processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Board {
    pub(crate) others: BTreeMap<Process, Other>,
    /// Counters of the bounds reached.
    pub(crate) tally: Arc<bound::Tally>,
}

impl Board {
    /// The bounds reached, with their values.
    pub(crate) fn reports(&self) -> Vec<bound::Report> {
        self.tally.reports(|bound| match bound {
            Bound::Seats => PROCESSES_PER_NODE as u64,
            _ => bounds::SHARED_NAMES as u64,
        })
    }

    /// The entry of a process. Creates it if necessary. If a node claims too many processes, the known ones stay until they
    /// have been silent for long.
    pub(crate) fn entry(&mut self, now: Time, process: &Process) -> Option<&mut Other> {
        if !self.others.contains_key(process) {
            if self.others.len() >= NODES * PROCESSES_PER_NODE || self.of(&process.node).count() >= PROCESSES_PER_NODE {
                self.tally.reached(Bound::Seats);
                return None;
            }
            self.others.insert(process.clone(), Other { first: now, ..Other::default() });
        }
        self.others.get_mut(process)
    }

    /// The processes of a node.
    pub(crate) fn of<'a>(&'a self, node: &'a NodeName) -> impl Iterator<Item = (&'a Process, &'a Other)> {
        let first = Process { node: node.clone(), nonce: 0 };
        self.others.range(first..).take_while(move |(process, _)| process.node == *node)
    }

    /// Forgets processes that have been silent for this time, and returns them.
    pub(crate) fn forget(&mut self, now: Time, silent: Duration) -> Vec<(Process, Other)> {
        let gone = |other: &Other| now.since(other.last()) > silent;
        if !self.others.values().any(gone) {
            return Vec::new();
        }
        let (gone, stay) = std::mem::take(&mut self.others).into_iter().partition(|(_, other)| gone(other));
        self.others = stay;
        let gone: BTreeMap<_, _> = gone;
        gone.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_and_names_without_a_place_are_counted() {
        let mut board = Board::default();
        let node = NodeName::new("n2").unwrap();
        let process = |nonce: u64| Process { node: node.clone(), nonce };
        for nonce in 0..PROCESSES_PER_NODE as u64 + 3 {
            board.entry(Time(1), &process(nonce));
        }
        assert_eq!(board.tally.times(Bound::Seats), 3);
        let other = board.entry(Time(1), &process(0)).unwrap();
        let mut noted = (0..bounds::SHARED_NAMES + 1).map(|n| other.demand(n.to_string().into(), None, 1));
        assert_eq!(noted.by_ref().filter(|noted| !noted).count(), 1);
        assert!(other.demand("0".into(), None, 2), "who is known stays");
        let reports = board.reports();
        assert_eq!((reports.len(), reports[0].limit), (1, PROCESSES_PER_NODE as u64));
    }
}
