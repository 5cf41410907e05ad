//! The checker of all admissions of all nodes: declared throttles, those of scopes, and those that a service creates on demand.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Soft, Throttle};
use tallymesh_engine::{Structure, Time};
use tallymesh_schemas::{Rate, Strength, StructureName, ThrottleSpec};

use crate::limits::Limits;
use crate::truth::RunId;

/// Parts per million.
const MILLION: u64 = 1_000_000;

/// One bucket that sees all admissions. An admission for which it has no room exceeds `B + R·t` in some window. In integers,
/// without rounding: a token is the period in microseconds times a million grains.
#[derive(Debug)]
struct Whole {
    rate: Rate,
    /// The rate of the fastest clock: a million is the rate of the simulation's clock.
    speed: u64,
    /// Negative by what some window has beyond `B + R·t`.
    level: i128,
    at: Time,
}

impl Whole {
    fn new(rate: Rate, drift_ppm: u64, now: Time) -> Self {
        let mut whole = Self { rate, speed: MILLION + drift_ppm, level: 0, at: now };
        whole.level = whole.room();
        whole
    }

    fn token(&self) -> i128 {
        i128::from(self.rate.period_us()) * i128::from(MILLION)
    }

    /// The burst, and one microsecond: a clock that is read twice shows up to one more than has passed.
    fn room(&self) -> i128 {
        i128::from(self.rate.burst()) * self.token() + i128::from(self.rate.tokens()) * i128::from(self.speed)
    }

    fn fill(&mut self, time: Duration) {
        let micros = i128::try_from(time.as_micros()).unwrap_or(i128::MAX);
        let grains = micros.saturating_mul(i128::from(self.rate.tokens()) * i128::from(self.speed));
        self.level = self.level.saturating_add(grains).min(self.room());
    }

    fn settle(&mut self, now: Time) {
        self.fill(now.since(self.at));
        self.at = self.at.max(now);
    }

    /// Takes tokens. Returns by how many tokens some window is now beyond `B + R·t`.
    fn take(&mut self, now: Time, n: u64) -> u64 {
        self.settle(now);
        self.level = self.level.saturating_sub(i128::from(n).saturating_mul(self.token()));
        let owed = u128::try_from(-self.level.min(0)).unwrap_or(0);
        u64::try_from(owed.div_ceil(self.token().unsigned_abs())).unwrap_or(u64::MAX)
    }

    /// Changes the rate. Tokens that were taken stay taken.
    fn set_rate(&mut self, now: Time, rate: Rate) {
        self.settle(now);
        let old = i128::from(self.rate.period_us());
        self.rate = rate;
        self.level = (self.level / old * i128::from(rate.period_us())).min(self.room());
    }
}

/// What all nodes admitted under one name, in order of time.
#[derive(Debug)]
pub struct Tally {
    whole: Whole,
    hard: bool,
    /// Admitted tokens.
    pub admitted: u64,
    /// Refused requests.
    pub refused: u64,
    /// The greatest overshoot of any window, in tokens.
    pub overshoot: u64,
    /// The latest admissions of each process, for [`Tally::counted_at`].
    counted: BTreeMap<RunId, Vec<Counted>>,
}

/// A process has admitted tokens.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Time,
    /// Its count of the throttle then.
    count: i64,
}

/// How long the checker stores admissions of a process, beyond the last one.
const STORED: Duration = Duration::from_secs(120);

impl Tally {
    fn new(rate: Rate, strength: Strength, drift_ppm: u64, now: Time) -> Self {
        let (whole, hard) = (Whole::new(rate, drift_ppm, now), strength == Strength::Hard);
        Self { whole, hard, admitted: 0, refused: 0, overshoot: 0, counted: BTreeMap::new() }
    }

    /// Records a process's count after an admission of `n` tokens. A count that does not continue the last one began again at
    /// zero, because the throttle was idle.
    fn note_count(&mut self, run: RunId, at: Time, n: u64, count: i64) {
        let counted = self.counted.entry(run).or_default();
        if counted.last().is_some_and(|last| last.count.saturating_add_unsigned(n) != count) {
            counted.clear();
        }
        // Of those that are too old, the last one is still needed.
        let old = counted.partition_point(|old| at.since(old.at) > STORED).saturating_sub(1);
        counted.drain(..old);
        counted.push(Counted { at, count });
    }

    /// What a process had counted at a moment, as far as it still counts it; `count` is its count now. Zero if it has begun to
    /// count again since.
    pub(crate) fn counted_at(&self, run: RunId, at: Time, count: i64) -> i64 {
        let Some(counted) = self.counted.get(&run).filter(|all| all.last().is_some_and(|last| last.count == count))
        else {
            return 0;
        };
        let until = counted.partition_point(|then| then.at <= at);
        until.checked_sub(1).and_then(|last| counted.get(last)).map_or(0, |then| then.count)
    }
}

/// A throttle that a node has used first: its structure, its name and its limit.
pub(crate) type Met = (StructureName, String, ThrottleSpec);

/// All admissions of all nodes.
#[derive(Debug, Default)]
pub struct Admissions {
    tallies: BTreeMap<String, Tally>,
    /// Open permits by pool, with the number of permits that exist.
    open: BTreeMap<String, (u64, u64)>,
    opened: u64,
    drift_ppm: u64,
    /// Throttles that were created after the start, by a service or for a scope.
    late: Vec<String>,
    /// Those of them that the cluster has not asked for yet.
    met: Vec<Met>,
    /// Requests that each process has admitted, by name.
    requests: BTreeMap<(RunId, String), u64>,
}

impl Admissions {
    /// For these limits, with clocks that run fast by up to this many parts per million.
    pub(crate) fn new(limits: &Limits, drift_ppm: u64, now: Time) -> Rc<RefCell<Self>> {
        let mut all = Self { late: limits.late.iter().cloned().collect(), drift_ppm, ..Self::default() };
        for (_, name, spec) in &limits.throttles {
            let rate = limits.smallest(name, spec.rate);
            all.tallies.insert(name.clone(), Tally::new(rate, spec.strength, drift_ppm, now));
        }
        for (_, name, permits) in &limits.pools {
            all.open.insert(name.clone(), (0, *permits));
        }
        Rc::new(RefCell::new(all))
    }

    /// A node uses a throttle. From its first use on, this checker demands its limit.
    pub(crate) fn meet(&mut self, table: &StructureName, name: &str, spec: ThrottleSpec, now: Time) {
        if self.tallies.contains_key(name) {
            return;
        }
        self.tallies.insert(name.to_owned(), Tally::new(spec.rate, spec.strength, self.drift_ppm, now));
        self.late.push(name.to_owned());
        self.met.push((table.clone(), name.to_owned(), spec));
    }

    /// The throttles that were first used since the last call.
    pub(crate) fn take_met(&mut self) -> Vec<Met> {
        std::mem::take(&mut self.met)
    }

    /// From now on all nodes have a different configuration of a throttle.
    pub(crate) fn change(&mut self, name: &str, rate: Rate, drift_ppm: u64, now: Time) {
        let Some(tally) = self.tallies.get_mut(name) else { return };
        tally.whole.speed = MILLION + drift_ppm;
        tally.whole.set_rate(now, rate);
    }

    /// All admissions and refusals, and the permits that were opened.
    pub(crate) fn totals(&self) -> [(&'static str, u64); 5] {
        let sum =
            |strong: bool| self.tallies.values().filter(|tally| tally.hard == strong).map(|tally| tally.admitted).sum();
        let refused = self.tallies.values().map(|tally| tally.refused).sum();
        [
            ("tokens of hard limits", sum(true)),
            ("tokens of soft limits", sum(false)),
            ("tokens of late throttles", self.late.iter().filter_map(|name| Some(self.of(name)?.admitted)).sum()),
            ("tokens refused", refused),
            ("permits opened", self.opened),
        ]
    }

    /// What was admitted under a name.
    pub fn of(&self, name: &str) -> Option<&Tally> {
        self.tallies.get(name)
    }

    /// I9: a hard limit holds in every window.
    pub(crate) fn admit(&mut self, name: &str, at: Time, n: u64) -> Result<(), String> {
        let Some(tally) = self.tallies.get_mut(name) else {
            return Err(format!("the checker does not know the limit \"{name}\""));
        };
        tally.admitted += n;
        let over = tally.whole.take(at, n);
        tally.overshoot = tally.overshoot.max(over);
        if tally.hard && over > 0 {
            Err(format!("I9: {name}: {over} beyond what is allowed in some window"))
        } else {
            Ok(())
        }
    }

    /// A throttle of a process has admitted a request for `n` tokens, and the process counts `count` now.
    pub(crate) fn note_request(&mut self, run: RunId, name: &str, at: Time, (n, count): (u64, i64)) {
        *self.requests.entry((run, name.to_owned())).or_default() += 1;
        if let Some(tally) = self.tallies.get_mut(name) {
            tally.note_count(run, at, n, count);
        }
    }

    /// A process continues with the memory that a run had in an earlier state of the cluster.
    pub(crate) fn restore(&mut self, earlier: &Self, was: RunId, run: RunId) {
        let requests = earlier.requests.iter().filter(|((of, _), _)| *of == was);
        self.requests.extend(requests.map(|((_, name), n)| ((run, name.clone()), *n)));
    }

    /// A throttle has admitted only what its service asked for through the simulator, so that this checker has seen it.
    pub(crate) fn check_seen(&self, run: RunId, throttle: &Throttle) -> Result<(), String> {
        let name = throttle.name();
        let admitted = throttle.decisions().admitted;
        let seen = self.requests.get(&(run, name.to_string())).copied().unwrap_or(0);
        if admitted <= seen {
            return Ok(());
        }
        let unseen = admitted - seen;
        Err(format!("{name}: {unseen} requests were admitted that no checker saw; take tokens with Context::take"))
    }

    /// A node's clock has jumped ahead. On this clock that much time has passed, with the node's part of every rate.
    pub(crate) fn jump(&mut self, by: Duration, now: Time) {
        for tally in self.tallies.values_mut() {
            tally.whole.settle(now);
            tally.whole.fill(by);
        }
    }

    pub(crate) fn refuse(&mut self, name: &str) {
        if let Some(tally) = self.tallies.get_mut(name) {
            tally.refused += 1;
        }
    }

    /// I9: no more permits are open than exist.
    pub(crate) fn open(&mut self, name: &str) -> Result<(), String> {
        let Some((open, permits)) = self.open.get_mut(name) else { return Ok(()) };
        *open += 1;
        self.opened += 1;
        if open > permits { Err(format!("I9: {name}: {open} are open, of {permits}")) } else { Ok(()) }
    }

    pub(crate) fn close(&mut self, name: &str) {
        if let Some((open, _)) = self.open.get_mut(name) {
            *open = open.saturating_sub(1);
        }
    }
}

/// Reference soft throttles: they have existed since their process began, or since a node first used their name, and have
/// received every row when it arrived. No throttle may admit what its reference would refuse (I11).
#[derive(Debug, Default)]
pub(crate) struct References(RefCell<BTreeMap<String, (StructureName, Soft)>>);

impl References {
    /// The references of a process that starts now.
    pub(crate) fn start(
        limits: Option<&Limits>,
        structures: &BTreeMap<StructureName, Arc<Structure>>,
        now: Time,
    ) -> Self {
        let all = Self::default();
        for (of, name, spec) in limits.iter().flat_map(|limits| limits.all_throttles()) {
            all.begin((of, name, *spec), structures, now);
        }
        all
    }

    /// Begins a reference of a throttle, if it is soft.
    pub(crate) fn begin(
        &self,
        (of, name, spec): (&str, &str, ThrottleSpec),
        structures: &BTreeMap<StructureName, Arc<Structure>>,
        now: Time,
    ) {
        if spec.strength == Strength::Soft
            && let Some((table, structure)) = structures.iter().find(|(table, _)| table.as_str() == of)
        {
            let reference = Soft::new(spec.rate, u64::from(spec.epsilon), structure.others(name.as_bytes()), now);
            self.0.borrow_mut().insert(name.to_owned(), (table.clone(), reference));
        }
    }

    /// Processes the rows that have arrived.
    pub(crate) fn learn(&self, structures: &BTreeMap<StructureName, Arc<Structure>>, now: Time) {
        for (name, (table, reference)) in self.0.borrow_mut().iter_mut() {
            let others = structures.get(table).map_or(0, |structure| structure.others(name.as_bytes()));
            reference.learn(now, others);
        }
    }

    /// I11: a throttle has admitted `n` tokens.
    pub(crate) fn admitted(&self, name: &str, now: Time, n: u64) -> Result<(), String> {
        let mut all = self.0.borrow_mut();
        let Some((_, reference)) = all.get_mut(name) else { return Ok(()) };
        let there = reference.tokens(now);
        reference.owe(now, n);
        if u64::try_from(there).is_ok_and(|there| there >= n) {
            return Ok(());
        }
        Err(format!("I11: {name}: {n} admitted where a throttle that was always there has {there}"))
    }
}

/// A permit that the checker tracks.
#[derive(Debug)]
pub struct SimPermit {
    pub(crate) permit: Option<tallymesh_engine::limiter::Permit>,
    pub(crate) name: String,
    pub(crate) admissions: Rc<RefCell<Admissions>>,
}

impl SimPermit {
    /// Whether its node uses more permits than it has.
    pub fn is_overdue(&self, now: Time) -> bool {
        self.permit.as_ref().is_some_and(|permit| permit.is_overdue(now))
    }
}

impl Drop for SimPermit {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.admissions.borrow_mut().close(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(rate: &str, strength: Strength) -> Admissions {
        let limits = Limits::founded(&["a"], Duration::from_secs(6));
        let spec = ThrottleSpec::new(rate.parse().unwrap(), strength);
        let admissions = Admissions::new(&limits.throttle("t", "t", spec), 0, Time(0));
        Rc::into_inner(admissions).unwrap().into_inner()
    }

    #[test]
    fn periods_are_as_long_as_a_rate_may_have() {
        for rate in ["100/10m", "100/11m", "4294967296/7d", "1/7d"] {
            let mut admissions = tally(rate, Strength::Hard);
            let burst = rate.parse::<Rate>().unwrap().burst();
            assert_eq!(admissions.admit("t", Time(0), burst), Ok(()), "{rate}");
            assert!(admissions.admit("t", Time(0), 1).is_err(), "{rate}");
        }
    }

    /// What is taken between two windows counts in both.
    #[test]
    fn a_window_of_any_length_is_seen() {
        let mut admissions = tally("10/10s", Strength::Soft);
        for second in 0..20 {
            admissions.admit("t", Time(second * 1_000_000), 2).unwrap();
        }
        // Forty in nineteen seconds, of 10 + 19.
        assert_eq!(admissions.of("t").unwrap().overshoot, 11);
        admissions.admit("t", Time(3_600_000_000), 10).unwrap();
        assert_eq!(admissions.of("t").unwrap().overshoot, 11, "a burst after an hour is within the limit");
    }

    /// Of a jump, only as much is granted as there was room for.
    #[test]
    fn a_jump_grants_what_has_room() {
        let mut admissions = tally("10/10s", Strength::Hard);
        admissions.jump(Duration::from_secs(5), Time(0));
        assert_eq!(admissions.admit("t", Time(0), 10), Ok(()));
        admissions.jump(Duration::from_secs(5), Time(0));
        assert_eq!(admissions.admit("t", Time(0), 5), Ok(()));
        assert!(admissions.admit("t", Time(0), 1).is_err());
    }

    #[test]
    fn what_a_process_counted_ends_when_it_counts_again() {
        let mut tally = tally("10/10s", Strength::Soft);
        for (at, n, count) in [(1, 2, 2), (5, 3, 5)] {
            tally.note_request(0, "t", Time(at), (n, count));
        }
        let counted = |tally: &Admissions, at, count| tally.of("t").unwrap().counted_at(0, Time(at), count);
        assert_eq!([0, 1, 4, 5, 9].map(|at| counted(&tally, at, 5)), [0, 2, 2, 5, 5]);
        assert_eq!(counted(&tally, 9, 0), 0, "it was idle");
        tally.note_request(0, "t", Time(20), (1, 1));
        assert_eq!([5, 20].map(|at| counted(&tally, at, 1)), [0, 1]);
    }
}
