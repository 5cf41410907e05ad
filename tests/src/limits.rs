//! Limits on simulated nodes, and the checker of all admissions of all nodes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Bucket, Founding, Limiter, Soft, UNITS};
use tallymesh_engine::{Structure, Time, Wake};
use tallymesh_schemas::{NodeName, Rate, Strength, StructureName, ThrottleSpec};

/// The limits of every node of a cluster.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The seats among which hard limits are divided.
    pub founding: Founding,
    /// The throttles: structure, name, and specification.
    pub throttles: Vec<(String, String, ThrottleSpec)>,
    /// The pools of permits: structure, name, and number of permits.
    pub pools: Vec<(String, String, u64)>,
    /// Throttles that a node does not know before a service uses them, and that no handle keeps in between.
    pub late: BTreeSet<String>,
    /// The specification of a throttle on a node with a different configuration: by node and throttle.
    pub elsewhere: BTreeMap<(String, String), ThrottleSpec>,
}

impl Limits {
    /// Limits that these seats share, with no limit yet.
    ///
    /// # Panics
    /// When these cannot be seats.
    pub fn founded(founders: &[&str], reclaim_after: Duration) -> Self {
        let names = founders.iter().map(|name| NodeName::new(name).unwrap_or_else(|error| panic!("{name}: {error}")));
        let founding = Founding::new(names, reclaim_after).unwrap_or_else(|error| panic!("{error}"));
        Self { founding, throttles: Vec::new(), pools: Vec::new(), late: BTreeSet::new(), elsewhere: BTreeMap::new() }
    }

    /// Gives one node a different configuration of a throttle. The checker demands the smallest one.
    #[must_use]
    pub fn but_on(mut self, node: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.elsewhere.insert((node.to_owned(), name.to_owned()), spec);
        self
    }

    /// The specification of a throttle on a node.
    fn spec_on(&self, node: &NodeName, name: &str, spec: ThrottleSpec) -> ThrottleSpec {
        self.elsewhere.get(&(node.as_str().to_owned(), name.to_owned())).copied().unwrap_or(spec)
    }

    /// The smallest rate that any node has for a throttle.
    fn smallest(&self, name: &str, rate: Rate) -> Rate {
        let others = self.elsewhere.iter().filter(|((_, throttle), _)| throttle == name).map(|(_, spec)| spec.rate);
        let speed = |rate: &Rate| u128::from(rate.tokens()) * 1_000_000_000 / u128::from(rate.period_us());
        others.chain([rate]).min_by_key(speed).unwrap_or(rate)
    }

    /// Adds a throttle.
    #[must_use]
    pub fn throttle(mut self, structure: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.throttles.push((structure.to_owned(), name.to_owned(), spec));
        self
    }

    /// Adds a throttle that each node creates when its service first uses it, as a program does, and releases when it is idle.
    #[must_use]
    pub fn late_throttle(mut self, structure: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.late.insert(name.to_owned());
        self.throttle(structure, name, spec)
    }

    /// The specification of a late throttle.
    pub(crate) fn late_spec(&self, name: &str) -> Option<ThrottleSpec> {
        let of_name = |(_, throttle, _): &&(String, String, ThrottleSpec)| throttle == name;
        self.throttles.iter().find(of_name).filter(|_| self.late.contains(name)).map(|(.., spec)| *spec)
    }

    /// Adds a pool of permits.
    #[must_use]
    pub fn pool(mut self, structure: &str, name: &str, permits: u64) -> Self {
        self.pools.push((structure.to_owned(), name.to_owned(), permits));
        self
    }

    /// The divided limits: structure, name, and total.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&String, &String, u64)> {
        let throttles = self.throttles.iter().filter(|(.., spec)| spec.strength == Strength::Hard);
        let wholes = throttles.map(|(structure, name, _)| (structure, name, UNITS));
        wholes.chain(self.pools.iter().map(|(structure, name, permits)| (structure, name, *permits)))
    }

    /// Whether a limit is counted in a structure.
    pub(crate) fn limited(&self, name: &StructureName) -> bool {
        let named = self.throttles.iter().map(|(structure, ..)| structure);
        named.chain(self.pools.iter().map(|(structure, ..)| structure)).any(|other| other == name.as_str())
    }

    /// The limiters of a process.
    pub(crate) fn start(
        &self,
        structures: &BTreeMap<StructureName, Arc<Structure>>,
        node: &NodeName,
        nonce: u64,
        now: Time,
        wake: &Wake,
    ) -> BTreeMap<StructureName, Arc<Limiter>> {
        let mut limiters = BTreeMap::new();
        for (name, structure) in structures.iter().filter(|(name, _)| self.limited(name)) {
            let founding = Some(self.founding.clone());
            let limiter = Limiter::new(Arc::clone(structure), founding, node.clone(), nonce, now, Arc::clone(wake));
            let declared = |(of, throttle, _): &&(String, String, ThrottleSpec)| {
                of == name.as_str() && !self.late.contains(throttle)
            };
            for (_, throttle, spec) in self.throttles.iter().filter(declared) {
                limiter
                    .declare(throttle, self.spec_on(node, throttle, *spec), now)
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            for (_, pool, permits) in self.pools.iter().filter(|(of, ..)| of == name.as_str()) {
                limiter.pool(pool, *permits, now).unwrap_or_else(|error| panic!("{error}"));
            }
            limiter.seal(&[]);
            limiters.insert(name.clone(), Arc::new(limiter));
        }
        limiters
    }
}

/// What all nodes admitted under one name, in order of time.
#[derive(Debug)]
pub struct Tally {
    /// One bucket that sees all admissions. An admission for which it has no room exceeds `B + R·t` in some window.
    whole: Bucket,
    rate: Rate,
    hard: bool,
    /// Admitted tokens.
    pub admitted: u64,
    /// Refused requests.
    pub refused: u64,
    /// The greatest overshoot of any window, in tokens.
    pub overshoot: u64,
    /// The debt of this bucket: admissions beyond it that have not been made up for.
    owed: u64,
    /// How large the debt may be, in thousandths of tokens: what forward jumps of clocks have granted.
    allowed: u64,
}

/// All admissions of all nodes.
#[derive(Debug, Default)]
pub struct Admissions {
    tallies: BTreeMap<String, Tally>,
    /// Open permits by pool, with the number of permits that exist.
    open: BTreeMap<String, (u64, u64)>,
    opened: u64,
    late: BTreeSet<String>,
}

/// This bucket counts in thousandths of tokens, and its clock is as fast as the fastest node's.
const MILLI: u64 = 1000;

impl Admissions {
    /// For these limits, with clocks that run fast by up to this many parts per million.
    pub(crate) fn new(limits: &Limits, drift_ppm: u64, now: Time) -> Rc<RefCell<Self>> {
        let mut all = Self { late: limits.late.clone(), ..Self::default() };
        for (_, name, spec) in &limits.throttles {
            let rate = limits.smallest(name, spec.rate);
            let fast = Rate::new(rate.tokens() * (1_000_000 + drift_ppm), rate.period() * 1000, rate.burst() * MILLI);
            let fast = fast.unwrap_or_else(|error| panic!("{name} cannot be checked: {error}"));
            let whole = Bucket::whole(fast, now);
            let hard = spec.strength == Strength::Hard;
            let tally = Tally { whole, rate, hard, admitted: 0, refused: 0, overshoot: 0, owed: 0, allowed: 0 };
            all.tallies.insert(name.clone(), tally);
        }
        for (_, name, permits) in &limits.pools {
            all.open.insert(name.clone(), (0, *permits));
        }
        Rc::new(RefCell::new(all))
    }

    /// From now on all nodes have a different configuration of a throttle.
    pub(crate) fn change(&mut self, name: &str, rate: Rate, drift_ppm: u64, now: Time) {
        let Some(tally) = self.tallies.get_mut(name) else { return };
        let fast = Rate::new(rate.tokens() * (1_000_000 + drift_ppm), rate.period() * 1000, rate.burst() * MILLI);
        tally.whole.set_rate(now, fast.unwrap_or_else(|error| panic!("{name} cannot be checked: {error}")));
        tally.rate = rate;
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
        let Some(tally) = self.tallies.get_mut(name) else { return Ok(()) };
        tally.admitted += n;
        let there = tally.whole.tokens(at);
        let pays = there.min(tally.owed + n * MILLI);
        tally.whole.take(at, pays);
        tally.owed = tally.owed + n * MILLI - pays;
        tally.overshoot = tally.overshoot.max(tally.owed.div_ceil(MILLI));
        let over = tally.hard && tally.owed > tally.allowed;
        if over {
            Err(format!("I9: {name}: {} beyond what is allowed in some window", tally.overshoot))
        } else {
            Ok(())
        }
    }

    /// A node's clock has jumped ahead. On this clock that much time has passed, with the node's part of every rate.
    pub(crate) fn jump(&mut self, by: Duration) {
        for tally in self.tallies.values_mut() {
            let rate = tally.rate;
            tally.allowed += (rate.within(by)).min(rate.burst()) * MILLI;
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

/// Reference soft throttles: they have existed since their process began and have received every row when it arrived. No
/// throttle may admit what its reference would refuse (I11).
#[derive(Debug, Default)]
pub(crate) struct References(RefCell<BTreeMap<String, (StructureName, Soft)>>);

impl References {
    /// The references of a process that starts now.
    pub(crate) fn start(
        limits: Option<&Limits>,
        structures: &BTreeMap<StructureName, Arc<Structure>>,
        now: Time,
    ) -> Self {
        let mut all = BTreeMap::new();
        let soft =
            limits.iter().flat_map(|limits| &limits.throttles).filter(|(.., spec)| spec.strength == Strength::Soft);
        for (of, name, spec) in soft {
            let Some((table, structure)) = structures.iter().find(|(table, _)| table.as_str() == of) else { continue };
            let reference = Soft::new(spec.rate, u64::from(spec.epsilon), structure.others(name.as_bytes()), now);
            all.insert(name.clone(), (table.clone(), reference));
        }
        Self(RefCell::new(all))
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
