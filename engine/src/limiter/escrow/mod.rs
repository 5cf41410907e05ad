//! Escrow: which node holds how much of each limit, and how shares move. See the [module above](super) for the algorithm and
//! the proof.
//!
//! A pure function of its inputs, driven like [`Replica`](crate::replica::Replica): [`Escrow::learn`] receives the rows of other
//! nodes, and [`Escrow::handle_timeout`] the time. [`Escrow::poll_write`] returns the rows to write, and
//! [`Escrow::share`] what this node may use.

pub(crate) mod founding;
mod loans;
pub(crate) mod rows;
pub(crate) mod tenure;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Bound, NodeName, Rate, bounds};

use crate::canary::{self, Canary};
use crate::difference::Difference;
use crate::limiter::agreement::{Agreement, Configurations};
use crate::limiter::board::{Board, Stage};
use crate::limiter::escrow::founding::Founding;
use crate::limiter::escrow::founding::Times;
use crate::limiter::escrow::loans::Term;
use crate::limiter::escrow::rows::Rows;
use crate::limiter::escrow::tenure::{Claim, Epoch, Vote};
use crate::limiter::fact::{self, Fact, Seat};
use crate::limiter::share::{Base, Share, UNITS};
use crate::limiter::target::Quota;
use crate::time::Time;

/// Releases idle units of a limit. Called before a share leaves: released units are no longer used on this node.
pub trait Release {
    /// Permanently stops using up to `units` of a limit. Returns how many.
    fn release(&mut self, name: &str, units: u64) -> u64;

    /// Units that are in use and cannot be released.
    fn in_use(&self, name: &str) -> u64;
}

/// For limits whose share can be given away at any time: rates.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseAll;

impl Release for ReleaseAll {
    fn release(&mut self, _: &str, units: u64) -> u64 {
        units
    }

    fn in_use(&self, _: &str) -> u64 {
        0
    }
}

/// Whether a rate admits less than another one: compares the long-term rate first, then the burst.
fn is_smaller(rate: Rate, than: Rate) -> bool {
    let speed = |rate: Rate, other: Rate| u128::from(rate.tokens()) * u128::from(other.period_us());
    (speed(rate, than), rate.burst()) < (speed(than, rate), than.burst())
}

/// A limit that is shared out.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) quota: Quota,
    /// The rate of the whole limit; `None` for permits.
    pub(crate) rate: Option<Rate>,
    pub(crate) demand: u64,
    pub(crate) published: u64,
    pub(crate) round: u64,
}

/// The escrow of one structure: all hard limits in it.
#[derive(Debug)]
pub struct Escrow {
    pub(crate) founding: Founding,
    pub(crate) config_fingerprint: u64,
    pub(crate) times: Times,
    pub(crate) seat: Seat,
    /// This node's index among the founders; `None` if it is not a founder.
    pub(crate) rank: Option<usize>,
    pub(crate) started: Time,
    pub(crate) now: Time,
    /// The last published reading of this process's clock.
    pub(crate) heartbeat: u64,
    heartbeat_at: Time,
    pub(crate) board: Board,
    /// The claim that this process supports for each founder's share, except its own share.
    pub(crate) votes: BTreeMap<usize, Vote>,
    /// The claims of this process.
    pub(crate) claims: BTreeMap<usize, Claim>,
    /// The last number given to a claim or a vote of this process.
    pub(crate) next_number: u64,
    /// The earliest time of the next claim to each founder's share.
    pub(crate) again: BTreeMap<usize, Time>,
    pub(crate) lent: BTreeMap<Seat, Vec<Term>>,
    pub(crate) next_term: u64,
    /// The last term of each lender that is over for this process, whatever it receives later.
    pub(crate) ended: BTreeMap<Seat, u64>,
    pub(crate) names: BTreeMap<Arc<str>, Named>,
    /// Limits that others ask this founder for and that it does not know.
    asked: BTreeMap<Arc<str>, Rate>,
    epoch: Epoch,
    /// Founders that an operator has forgotten.
    pub(crate) forgotten: Vec<NodeName>,
    rows: Rows,
    strangers: u64,
    agreement: Agreement,
    fingerprint: u64,
    configurations: Configurations,
    /// Another process has a different configuration, so this process publishes its own, limit by limit.
    tells: bool,
    pub(crate) leaving: bool,
}

/// Getters.
impl Escrow {
    /// This process.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The founding of this escrow.
    pub fn founding(&self) -> &Founding {
        &self.founding
    }

    /// The number of facts received from nodes with another list of founders or another `reclaim_after`. An operator should
    /// check their configuration.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }

    /// The differences between the configurations of other nodes and this node's.
    pub fn differences(&self) -> Vec<Difference> {
        let mut all = self.configurations.differences(&self.agreement);
        for (name, named) in &self.names {
            let Some(ours) = named.rate else { continue };
            let others = self.board.others.iter().filter(|(_, other)| other.is_fresh(self.now, self.times.loan));
            let theirs =
                others.filter_map(|(seat, other)| Some((seat, other.rate_of(name).filter(|rate| *rate != ours)?)));
            let text = |rate: Rate| format!("{rate},burst={}", rate.burst());
            all.extend(theirs.map(|(seat, rate)| Difference {
                node: seat.node.clone(),
                what: format!("throttle {name}"),
                here: text(ours),
                there: text(rate),
            }));
        }
        all
    }

    /// Whether another process has a different configuration of all hard limits, or of this one. O(processes).
    pub(super) fn is_in_conflict(&self, name: &str) -> bool {
        let rate = self.names.get(name).and_then(|named| named.rate);
        self.configurations.any_differs(self.fingerprint) || self.gives_way(name, rate)
    }

    /// Whether another node uses a limit of this name with a smaller rate. Then this node does not use its own. O(processes).
    fn gives_way(&self, name: &str, rate: Option<Rate>) -> bool {
        let Some(ours) = rate else { return false };
        let fresh = self.board.others.values().filter(|other| other.is_fresh(self.now, self.times.loan));
        fresh.filter_map(|other| other.rate_of(name)).any(|theirs| is_smaller(theirs, ours))
    }

    /// The number of limits that are shared out.
    pub fn shared(&self) -> usize {
        self.names.len()
    }

    /// The founders whose share this node holds, and until when if it receives no further answer.
    pub fn holdings(&self) -> Vec<(&NodeName, Time)> {
        let held =
            self.held_claims().filter_map(|(founder, until)| Some((self.founding.founders.get(founder)?, until)));
        held.collect()
    }

    /// How much of a limit this node has lent, by borrower.
    pub fn lent(&self, name: &str) -> BTreeMap<NodeName, u64> {
        let mut sums = BTreeMap::new();
        for (seat, terms) in &self.lent {
            let lent: u64 = terms.iter().map(|term| term.left(name)).sum();
            if lent > 0 {
                *sums.entry(seat.node.clone()).or_default() += lent;
            }
        }
        sums
    }

    /// How much of a limit this node has borrowed and may use now, by lender.
    pub fn borrowed(&self, name: &str) -> BTreeMap<NodeName, u64> {
        let mut sums = BTreeMap::new();
        for (seat, other) in &self.board.others {
            let usable = self.usable(other, self.now).filter_map(|(_, lending)| lending.loans.get(name));
            let sum: u64 = usable.map(|loan| loan.left()).sum();
            if sum > 0 {
                *sums.entry(seat.node.clone()).or_default() += sum;
            }
        }
        sums
    }

    /// What this node may use of a limit.
    pub fn share(&self, name: &str) -> Share {
        let now = self.now;
        let mut until = Time::NEVER;
        let mut units = 0_u64;
        let Some((quota, rate)) = self.names.get(name).map(|named| (named.quota, named.rate)) else {
            return Share { units, until };
        };
        if self.gives_way(name, rate) {
            return Share { units, until };
        }
        for (founder, end) in self.held_claims() {
            units += self.founded(founder, quota.whole);
            until = until.min(end);
        }
        let lent = if canary::broken(Canary::TakenBeforeGiven) { 0 } else { self.outstanding(name) };
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
    fn overdue(&self, name: &str, release: &dyn Release) -> u64 {
        let in_use = release.in_use(name);
        if in_use == 0 { 0 } else { in_use.saturating_sub(self.share(name).units) }
    }

    /// How long this node waits before it announces that an expired claim or term is over, so that the service can close
    /// overdue permits. Zero if no limit has permits.
    fn closing(&self) -> Duration {
        let permits = self.names.values().any(|named| named.rate.is_none());
        if permits { self.times.closing } else { Duration::ZERO }
    }

    /// What this node may use of each limit that it does not share out.
    pub fn base(&self) -> Base {
        let held: Vec<_> = self.held_claims().collect();
        Base {
            epoch: self.epoch.number,
            since: self.epoch.since,
            units: held.iter().map(|(founder, _)| self.founded(*founder, UNITS)).sum(),
            until: held.iter().map(|(_, end)| *end).min().unwrap_or(Time::NEVER),
        }
    }

    /// A founder's initial part of a whole: equal parts; the first founders get the remainder.
    pub(crate) fn founded(&self, founder: usize, whole: u64) -> u64 {
        let n = self.founding.founders.len() as u64;
        whole / n + u64::from((founder as u64) < whole % n)
    }
}

/// Commands.
impl Escrow {
    /// A process that holds nothing yet. `nonce` is a number that no other process of the node draws; `now` is a reading of
    /// its monotonic clock.
    pub fn new(founding: Founding, node: NodeName, nonce: u64, now: Time) -> Self {
        let agreement = Agreement::new(&founding);
        let (universe, times, rank) = (founding.config_fingerprint(), Times::of(&founding), founding.index(&node));
        Self {
            founding,
            config_fingerprint: universe,
            times,
            seat: Seat { node, nonce },
            rank,
            started: now,
            now,
            heartbeat: 0,
            heartbeat_at: now,
            board: Board::default(),
            votes: BTreeMap::new(),
            claims: BTreeMap::new(),
            next_number: 1,
            again: BTreeMap::new(),
            lent: BTreeMap::new(),
            next_term: 1,
            ended: BTreeMap::new(),
            names: BTreeMap::new(),
            asked: BTreeMap::new(),
            epoch: Epoch::default(),
            forgotten: Vec::new(),
            rows: Rows::default(),
            strangers: 0,
            fingerprint: agreement.fingerprint(),
            agreement,
            configurations: Configurations::default(),
            tells: false,
            leaving: false,
        }
    }

    /// Sets the configuration. Must be called before time passes: all facts of this process depend on it.
    pub fn agree(&mut self, agreement: Agreement) {
        self.fingerprint = agreement.fingerprint();
        self.agreement = agreement;
    }

    /// Shares a limit out, or changes it: the whole of a rate, or permits. While nodes have different rates for it, only
    /// those with the smallest rate use it.
    pub fn share_out(&mut self, name: &str, quota: Quota, rate: Option<Rate>) {
        let Some(named) = self.names.get_mut(name) else {
            self.names.insert(name.into(), Named { quota, rate, demand: 0, published: 0, round: 0 });
            return;
        };
        named.quota = quota;
        let was = std::mem::replace(&mut named.rate, rate);
        if was != rate && std::mem::take(&mut named.published) > 0 {
            self.write_gauge(&Fact::Demand { rate: was, name: name.into() }, 0);
        }
    }

    /// Whether no node asks for a limit, and nothing of it is lent or borrowed.
    pub fn rests(&self, name: &str) -> bool {
        let wanted = self.names.get(name).is_some_and(|named| named.demand > 0 || named.published > 0);
        !wanted && self.outstanding(name) == 0 && !self.is_asked_for(name) && !self.is_borrowed(name)
    }

    /// Stops sharing a limit that [rests](Escrow::rests): from then on, [`Escrow::base`] states what may be used. Returns
    /// whether it stopped.
    pub fn retire(&mut self, name: &str) -> bool {
        self.rests(name) && self.names.remove(name).is_some()
    }

    /// Removes and returns the names and rates that others asked this founder for and that it does not share out.
    pub fn take_asked(&mut self) -> BTreeMap<Arc<str>, Rate> {
        std::mem::take(&mut self.asked)
    }

    /// Sets the units that this node could use, and the total use of the limit by all nodes (any number that grows).
    pub fn demand(&mut self, name: &str, units: u64, round: u64) {
        if let Some(named) = self.names.get_mut(name) {
            (named.demand, named.round) = (units.min(named.quota.whole), round);
        }
    }

    /// Sets the founders that an operator has forgotten: no process waits for them.
    pub fn forget(&mut self, nodes: impl IntoIterator<Item = NodeName>) {
        self.forgotten = nodes.into_iter().collect();
    }

    /// Begins to leave. This node lends nothing more and returns its loans. When the borrowers have returned everything that
    /// this node has lent, its claims end. [`Escrow::has_left`] returns whether that is complete.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.end_terms();
    }

    /// Whether this node holds nothing any more.
    pub fn has_left(&self) -> bool {
        self.leaving && self.claims.is_empty() && self.lent.is_empty()
    }
}

/// Input.
impl Escrow {
    /// Handles a row of another node in its latest known state. It has no effect beyond the writer's rights: only
    /// a founder's support, claims and loans count, and none for this process itself.
    pub fn learn(&mut self, now: Time, node: &NodeName, key: &[u8], added: u64, removed: u64) {
        let Some((universe, by, fact)) = fact::decode(key) else { return };
        if *node == self.seat.node && by == self.seat.nonce {
            return;
        }
        let seat = Seat { node: node.clone(), nonce: by };
        if self.learn_configuration(now, &seat, &fact, added > removed) {
            return;
        }
        if universe != self.config_fingerprint {
            self.strangers = self.strangers.saturating_add(1);
            self.tells = true;
            return;
        }
        if self.configurations.differs(&seat, self.fingerprint) {
            return;
        }
        let founder = self.founding.founders.contains(node);
        let closed = removed >= added;
        if matches!(fact, Fact::Support { .. } | Fact::Ack { .. }) {
            // End what has expired before handling a fact that might extend it.
            self.now = self.now.max(now);
            self.lapse();
            self.end_lendings();
        }
        match fact {
            Fact::Heartbeat => {
                let Some(other) = self.board.entry(now, &seat) else { return };
                if added > other.beat {
                    if other.beat > 0 {
                        other.heard = Some(now);
                    }
                    other.beat = added;
                }
            }
            Fact::Claim { founder: of, claim } if founder && of < self.founding.founders.len() => {
                if let (Some(stage), Some(other)) = (Stage::from(added), self.board.entry(now, &seat)) {
                    other.claim(of, claim, stage);
                }
            }
            Fact::Support { founder: of, to, claim, vote } if founder && to == self.seat => {
                if let Some(other) = self.board.entry(now, &seat) {
                    other.support(of, claim, vote, added);
                }
            }
            Fact::Ack { to, term } if founder && to == self.seat => self.learn_ack(now, &seat, term, added, closed),
            Fact::Lent { to, term, name } if founder && to == self.seat => {
                self.learn_lent(now, &seat, term, name, added, closed);
            }
            Fact::Returned { to, term, name } if to == self.seat => self.learn_returned(&seat, term, &name, added),
            Fact::Demand { rate, name } => self.learn_demand(now, &seat, rate, name, added.saturating_sub(removed)),
            _ => {}
        }
    }

    /// Handles a fact about a process's configuration. Returns whether the fact is one.
    fn learn_configuration(&mut self, now: Time, seat: &Seat, fact: &Fact, holds: bool) -> bool {
        match fact {
            Fact::Agreement { fingerprint } if holds => {
                self.configurations.note(seat, now, *fingerprint);
                if *fingerprint != self.fingerprint {
                    self.tells = true;
                    // Nothing of this process counts, including facts received earlier.
                    self.board.others.remove(seat);
                }
                true
            }
            Fact::Value { value, name } if holds => {
                self.configurations.note_value(seat, now, name, value);
                true
            }
            Fact::Agreement { .. } | Fact::Value { .. } => true,
            _ => false,
        }
    }

    /// Publishes this process's configuration: the fingerprint before anything else, and each limit when another process
    /// differs.
    fn publish_configuration(&mut self) {
        if self.heartbeat == 0 {
            self.write(&Fact::Agreement { fingerprint: self.fingerprint }, 1);
        }
        self.configurations.forget(self.now, self.times.lease);
        let facts: Vec<Fact> = if self.tells {
            let values = self.agreement.published().map(|(name, value)| (name.as_str(), value.clone()));
            let end = (crate::limiter::agreement::END, "end".to_owned());
            values.chain([end]).map(|(name, value)| Fact::Value { value, name: name.into() }).collect()
        } else {
            Vec::new()
        };
        facts.iter().for_each(|fact| self.write(fact, 1));
    }

    fn learn_demand(&mut self, now: Time, seat: &Seat, rate: Option<Rate>, name: Arc<str>, units: u64) {
        if self.board.entry(now, seat).is_none() {
            return;
        }
        if let Some(rate) = rate.filter(|_| units > 0 && self.rank.is_some() && !self.names.contains_key(&name)) {
            if self.asked.len() < bounds::SHARED_NAMES {
                self.asked.insert(name.clone(), rate);
            } else {
                self.board.tally.reached(Bound::SharedNames);
            }
        }
        let noted = self.board.entry(now, seat).is_some_and(|other| other.demand(name, rate, units));
        if !noted {
            self.board.tally.reached(Bound::SharedNames);
        }
    }

    /// Handles passed time and received facts.
    pub fn handle_timeout(&mut self, now: Time, release: &mut dyn Release) {
        self.now = self.now.max(now);
        self.forget_silent();
        self.publish_configuration();
        if self.now >= self.heartbeat_at {
            self.publish_heartbeat();
        }
        self.publish_demand();
        self.lapse();
        self.vote();
        self.claim(release);
        self.give_back(release);
        self.lend(release);
        self.note_epoch();
    }

    /// The reading of this process's clock: milliseconds since its start, from 1.
    fn reading(&self) -> u64 {
        u64::try_from(self.now.since(self.started).as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    /// The moment at which this process's clock showed a reading, or slightly earlier.
    pub(crate) fn moment(&self, beat: u64) -> Time {
        self.started.after(Duration::from_millis(beat.min(self.heartbeat).saturating_sub(1)))
    }

    /// Publishes a heartbeat. Each reading is published only once, so every answer to it was written afterwards.
    pub(crate) fn publish_heartbeat(&mut self) {
        let reading = self.reading();
        if reading <= self.heartbeat {
            self.heartbeat_at = self.now.after(Duration::from_millis(1));
            return;
        }
        self.heartbeat = reading;
        self.heartbeat_at = self.now.after(self.times.heartbeat);
        self.write(&Fact::Heartbeat, reading);
    }

    fn publish_demand(&mut self) {
        let changed = |named: &Named| {
            let change = named.demand.abs_diff(named.published);
            change > 0 && (change > named.quota.whole / 64 || named.demand == 0 || named.published == 0)
        };
        let changed = self.names.iter().filter(|(_, named)| changed(named));
        let changed: Vec<_> = changed.map(|(name, named)| (name.clone(), named.rate, named.demand)).collect();
        for (name, rate, demand) in changed {
            self.write_gauge(&Fact::Demand { rate, name: name.clone() }, demand);
            if let Some(named) = self.names.get_mut(&name) {
                named.published = demand;
            }
        }
    }
}
