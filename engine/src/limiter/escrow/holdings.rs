//! What this process holds, has lent and has borrowed, and what it may use of each limit.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Rate};

use crate::difference::Difference;
use crate::limiter::escrow::release::{Release, lender_stops_first};
use crate::limiter::escrow::state::Escrow;
use crate::limiter::share::{Base, Share, UNITS};
use crate::time::Time;

/// Whether a rate admits less than another one: compares the long-term rate first, then the burst.
fn is_smaller(rate: Rate, than: Rate) -> bool {
    let speed = |rate: Rate, other: Rate| u128::from(rate.tokens()) * u128::from(other.period_us());
    (speed(rate, than), rate.burst()) < (speed(than, rate), than.burst())
}

impl Escrow {
    /// The differences between the configurations of other nodes and this node's.
    pub fn differences(&self) -> Vec<Difference> {
        let mut all = self.configurations.differences(&self.agreement);
        for (name, named) in &self.names {
            let Some(ours) = named.rate else { continue };
            let others = self.board.others.iter().filter(|(_, other)| other.is_fresh(self.now, self.times.loan));
            let theirs = others
                .filter_map(|(process, other)| Some((process, other.rate_of(name).filter(|rate| *rate != ours)?)));
            let text = |rate: Rate| format!("{rate},burst={}", rate.burst());
            all.extend(theirs.map(|(process, rate)| Difference {
                node: process.node.clone(),
                what: format!("throttle {name}"),
                here: text(ours),
                there: text(rate),
            }));
        }
        all
    }

    /// Whether another process has a different configuration of all hard limits, or of this one. O(processes).
    pub(in crate::limiter) fn is_in_conflict(&self, name: &str) -> bool {
        let rate = self.names.get(name).and_then(|named| named.rate);
        self.configurations.any_differs(self.fingerprint) || self.gives_way(name, rate)
    }

    /// Whether another node uses a limit of this name with a smaller rate. Then this node does not use its own. O(processes).
    fn gives_way(&self, name: &str, rate: Option<Rate>) -> bool {
        let Some(ours) = rate else { return false };
        let fresh = self.board.others.values().filter(|other| other.is_fresh(self.now, self.times.loan));
        fresh.filter_map(|other| other.rate_of(name)).any(|theirs| is_smaller(theirs, ours))
    }

    /// The founders whose share this node holds, and until when if it receives no further answer.
    pub fn holdings(&self) -> Vec<(&NodeName, Time)> {
        let held = self.held_claims().filter_map(|(seat, until)| Some((self.founding.founders.get(seat)?, until)));
        held.collect()
    }

    /// How much of a limit this node has lent, by borrower.
    pub fn lent(&self, name: &str) -> BTreeMap<NodeName, u64> {
        let mut sums = BTreeMap::new();
        for (process, leases) in &self.lent {
            let lent: u64 = leases.iter().map(|lease| lease.left(name)).sum();
            if lent > 0 {
                *sums.entry(process.node.clone()).or_default() += lent;
            }
        }
        sums
    }

    /// How much of a limit this node has borrowed and may use now, by lender.
    pub fn borrowed(&self, name: &str) -> BTreeMap<NodeName, u64> {
        let mut sums = BTreeMap::new();
        for (process, other) in &self.board.others {
            let usable = self.usable(other, self.now).filter_map(|(_, lending)| lending.loans.get(name));
            let sum: u64 = usable.map(|loan| loan.left()).sum();
            if sum > 0 {
                *sums.entry(process.node.clone()).or_default() += sum;
            }
        }
        sums
    }

    /// What this node may use of a limit.
    pub fn share(&self, name: &str) -> Share {
        self.share_of(name, &self.held_claims().collect::<Vec<_>>())
    }

    /// The same for some limits. O(limits × processes).
    pub(in crate::limiter) fn shares<'a, T>(
        &'a self,
        limits: impl Iterator<Item = (&'a str, T)>,
    ) -> impl Iterator<Item = (T, Share)> {
        let held: Vec<_> = self.held_claims().collect();
        limits.map(move |(name, limit)| (limit, self.share_of(name, &held)))
    }

    fn share_of(&self, name: &str, held: &[(usize, Time)]) -> Share {
        let now = self.now;
        let mut until = Time::NEVER;
        let mut units = 0_u64;
        let Some((quota, rate)) = self.names.get(name).map(|named| (named.quota, named.rate)) else {
            return Share { units, until };
        };
        if self.gives_way(name, rate) {
            return Share { units, until };
        }
        for (seat, end) in held {
            units += self.initial_share(*seat, quota.whole);
            until = until.min(*end);
        }
        let lent = if lender_stops_first() { self.outstanding(name) } else { 0 };
        units = units.saturating_sub(lent);
        for other in self.board.others.values() {
            for (end, lending) in self.usable(other, now) {
                let left = lending.loans.get(name).map_or(0, |loan| loan.left());
                if left > 0 {
                    units = units.saturating_add(left);
                    until = until.min(end);
                }
            }
        }
        Share { units: units.min(quota.whole), until }
    }

    /// The units in use beyond what this node may use. The service has to close them.
    pub(super) fn overdue(&self, name: &str, release: &dyn Release) -> u64 {
        let in_use = release.in_use(name);
        if in_use == 0 { 0 } else { in_use.saturating_sub(self.share(name).units) }
    }

    /// How long this node waits before it announces that an expired claim or loan lease is over, so that the service can close
    /// overdue permits. Zero if no limit has permits.
    pub(super) fn closing(&self) -> Duration {
        let permits = self.names.values().any(|named| named.rate.is_none());
        if permits { self.times.closing } else { Duration::ZERO }
    }

    /// What this node may use of each limit that it does not share out.
    pub fn base(&self) -> Base {
        let held: Vec<_> = self.held_claims().collect();
        Base {
            epoch: self.epoch.number,
            since: self.epoch.since,
            units: held.iter().map(|(seat, _)| self.initial_share(*seat, UNITS)).sum(),
            until: held.iter().map(|(_, end)| *end).min().unwrap_or(Time::NEVER),
        }
    }

    /// A founder's initial part of a whole: equal parts; the first founders get the remainder.
    pub(super) fn initial_share(&self, seat: usize, whole: u64) -> u64 {
        let n = self.founding.founders.len() as u64;
        whole / n + u64::from((seat as u64) < whole % n)
    }
}
