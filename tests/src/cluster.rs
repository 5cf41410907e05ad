//! A whole cluster in virtual time: one event queue, one source of randomness, and the production engine.

mod builder;
mod faults;
mod lies;
mod membership;
mod process;
mod script;
mod sent;
mod serving;
mod traffic;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use tallymesh_engine::{Cache, Config, Now, Scope, Series, Structure, Time};
use tallymesh_schemas::{
    Actor, GaugeCacheSpec, NodeName, Rate, SeriesSpec, StructureSpec, ThrottleSpec, Window, bounds,
};

pub use builder::{Builder, quick_config, series, spec};
pub use sent::Sent;
pub use serving::NoService;

use crate::admissions::Admissions;
use crate::caches::Writes;
use crate::fault::Fault;
use crate::limits::Limits;
use crate::network::{Conditions, Fate, Links, Messages};
use crate::node::Node;
use crate::panics::text_of;
use crate::random::Random;
use crate::service::Service;
use crate::trace::Trace;
use crate::truth::Truth;

/// An error that the simulation found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}, at {}.{:06}: {what}", at.0 / 1_000_000, at.0 % 1_000_000)]
pub struct Failure {
    /// The seed of the cluster.
    pub seed: u64,
    /// The simulation's time of the error.
    pub at: Time,
    /// The error.
    pub what: String,
}

#[derive(Debug)]
pub(crate) enum Event {
    Deliver { from: usize, to: usize, generation: u64, fate: Fate, bytes: Vec<u8> },
    Timer(usize),
    Service { node: usize, start: u64 },
    Save { node: usize, start: u64 },
    Tick,
    Fault(Fault),
}

#[derive(Debug)]
struct Scheduled {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// How nodes detect each other, and how often the simulation checks.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Time between two checks of links and members.
    pub tick: Duration,
    /// A link closes when an end has been silent for this long.
    pub idle_timeout: Duration,
    /// Time until a closed link is tried again.
    pub retry: Duration,
    /// Silence after which a node is suspected.
    pub suspect_after: Duration,
    /// Silence after which a node is declared dead.
    pub dead_after: Duration,
    /// Up to this number of members, every node has a link to every other one.
    pub mesh: usize,
    /// Rings that determine the links of a larger cluster.
    pub rings: u8,
    /// Time after which a leaving node ends, whether or not its goodbye reached every node.
    pub leave_within: Duration,
    /// Number of deliveries after which a node's aggregates are recomputed from its rows.
    pub audit_every: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(100),
            idle_timeout: Duration::from_secs(2),
            retry: Duration::from_millis(300),
            suspect_after: Duration::from_secs(1),
            dead_after: Duration::from_secs(4),
            mesh: bounds::MESH,
            rings: bounds::RINGS,
            leave_within: Duration::from_secs(3),
            audit_every: 16,
        }
    }
}

pub(crate) type NewService = Box<dyn Fn(&NodeName) -> Box<dyn Service>>;

type Again = Rc<dyn Fn(Time) -> Cluster>;

/// A checker of a test.
type Observer = Box<dyn FnMut(&Cluster) -> Result<(), String>>;

/// A simulated cluster. [`Builder`] makes one.
pub struct Cluster {
    pub(crate) seed: u64,
    pub(crate) now: Time,
    order: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: Links,
    pub(crate) specs: Vec<StructureSpec>,
    pub(crate) series_specs: Vec<SeriesSpec>,
    pub(crate) cache_specs: Vec<StructureSpec>,
    pub(crate) gauge_specs: Vec<GaugeCacheSpec>,
    pub(crate) writes: Rc<RefCell<Writes>>,
    pub(crate) config: Config,
    pub(crate) timing: Timing,
    /// How messages travel. It may change at any time.
    pub conditions: Conditions,
    calm: Conditions,
    pub(crate) network_random: Random,
    pub(crate) work_random: Random,
    pub(crate) truth: Rc<RefCell<Truth>>,
    pub(crate) trace: Trace,
    pub(crate) new_service: Option<NewService>,
    /// How often nodes save; `None` where they save nothing.
    pub(crate) save_every: Option<Duration>,
    pub(crate) limits: Option<Limits>,
    /// How many keys some nodes may hold.
    pub(crate) max_keys: BTreeMap<String, NonZeroU64>,
    pub(crate) admissions: Rc<RefCell<Admissions>>,
    observers: Vec<Observer>,
    /// Limits and services rest while the cluster settles.
    rests: bool,
    pub(crate) failure: Option<Failure>,
    pub(crate) again: Option<Again>,
    pub(crate) forgotten: BTreeSet<Actor>,
    /// Messages are spoilt in undetectable ways, so a replica may hold rows that their owner never had, until it has compared
    /// fingerprints.
    pub(crate) messages: Messages,
    deliveries: u64,
    events: u64,
    pub(crate) sent: Sent,
}

/// The most events per virtual second and node. More events mean an endless exchange of messages.
const EVENTS_PER_NODE_SECOND: u64 = 40_000;

impl Cluster {
    pub(crate) fn schedule(&mut self, at: Time, event: Event) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), order, event }));
    }

    /// Lets virtual time pass.
    ///
    /// # Errors
    /// [`Failure`] when a check failed; the simulation then stops.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.run_until(self.now.after(time))
    }

    /// Lets virtual time pass up to a moment.
    ///
    /// # Errors
    /// As [`Cluster::run_for`].
    pub fn run_until(&mut self, end: Time) -> Result<(), Failure> {
        while self.queue.peek().is_some_and(|Reverse(next)| next.at <= end) {
            self.step()?;
        }
        self.now = self.now.max(end);
        Ok(())
    }

    fn step(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(Reverse(next)) = self.queue.pop() else { return Ok(()) };
        self.now = next.at;
        self.events += 1;
        let allowed = EVENTS_PER_NODE_SECOND * self.nodes.len() as u64 * (self.now.0 / 1_000_000 + 5);
        if self.events > allowed {
            self.fail(format!("talk without end: {} events", self.events));
        }
        match next.event {
            Event::Deliver { from, to, generation, fate, bytes } => self.arrive(from, to, generation, fate, bytes),
            Event::Timer(node) => self.timer(node),
            Event::Service { node, start } => self.serve(node, start),
            Event::Save { node, start } => self.save(node, start),
            Event::Tick => self.tick(),
            Event::Fault(fault) => self.strike(&fault),
        }
        self.run_observers();
        self.failure.clone().map_or(Ok(()), Err)
    }

    /// Runs a checker after every step of the simulation: every message that arrives, every timer, every turn of a service and
    /// every fault. Its error becomes the [`Failure`] of the run, and so does its panic.
    pub fn observe(&mut self, checker: impl FnMut(&Self) -> Result<(), String> + 'static) {
        self.observers.push(Box::new(checker));
    }

    fn run_observers(&mut self) {
        let mut observers = std::mem::take(&mut self.observers);
        for observer in &mut observers {
            let seen = catch_unwind(AssertUnwindSafe(|| observer(self)));
            let seen = seen.unwrap_or_else(|panic| Err(format!("a checker panicked: {}", text_of(&*panic))));
            if let Err(what) = seen {
                self.fail(what);
            }
        }
        self.observers = observers;
    }

    pub(crate) fn fail(&mut self, what: String) {
        let failure = self.failed(what);
        self.failure.get_or_insert(failure);
    }

    /// An error at this moment.
    pub(crate) fn failed(&self, what: String) -> Failure {
        Failure { seed: self.seed, at: self.now, what }
    }

    /// The seed that determines the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The simulation's time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The nodes, twins included.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its label.
    ///
    /// # Panics
    /// When there is none.
    pub fn node(&self, label: &str) -> &Node {
        &self.nodes[self.find(label)]
    }

    pub(crate) fn find(&self, label: &str) -> usize {
        let found = self.nodes.iter().position(|node| node.label == label);
        found.unwrap_or_else(|| panic!("{}", self.no_node(label)))
    }

    /// The nodes whose process runs.
    pub(crate) fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some())
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// The record of what happened.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The ledger of acknowledged operations.
    pub fn truth(&self) -> std::cell::Ref<'_, Truth> {
        self.truth.borrow()
    }

    /// The admissions of all nodes.
    pub fn admissions(&self) -> std::cell::Ref<'_, Admissions> {
        self.admissions.borrow()
    }

    /// A structure on a node, for reading, with the node's clock.
    ///
    /// # Panics
    /// When the node or the structure does not exist.
    pub fn structure(&self, label: &str, structure: &str) -> (&Structure, Now) {
        let node = self.node(label);
        let process = node.process.as_ref().unwrap_or_else(|| panic!("{label} does not run"));
        let found = process.structures.iter().find(|(name, _)| name.as_str() == structure);
        let (_, found) = found.unwrap_or_else(|| panic!("the cluster has no structure \"{structure}\""));
        (found, node.read_clock(self.now))
    }

    /// The cluster-wide count of a key in the view of a node.
    ///
    /// # Panics
    /// As [`Cluster::structure`].
    pub fn count(&self, label: &str, structure: &str, key: &[u8]) -> i64 {
        let (structure, now) = self.structure(label, structure);
        structure.count(key, now.mono).total
    }

    /// The ledger of acknowledged writes of caches.
    pub fn writes(&self) -> std::cell::Ref<'_, Writes> {
        self.writes.borrow()
    }

    /// A cache on a node, for reading, with the node's clock.
    ///
    /// # Panics
    /// When the node or the cache does not exist.
    pub fn cache(&self, label: &str, cache: &str) -> (&Cache, Now) {
        let node = self.node(label);
        let process = node.process.as_ref().unwrap_or_else(|| panic!("{label} does not run"));
        let found = process.caches.iter().find(|(name, _)| name.as_str() == cache);
        let (_, found) = found.unwrap_or_else(|| panic!("the cluster has no cache \"{cache}\""));
        (&found.cache, node.read_clock(self.now))
    }

    /// The value that a node reads for a key of a cache.
    ///
    /// # Panics
    /// As [`Cluster::cache`].
    pub fn cached(&self, label: &str, cache: &str, key: &[u8]) -> Option<Vec<u8>> {
        let (cache, now) = self.cache(label, cache);
        cache.get(key, now.unix_ms).map(|value| value.to_vec())
    }

    /// The count that a node reads for a key of a gauge cache; `None` when there is no entry.
    ///
    /// # Panics
    /// When the node or the gauge cache does not exist.
    pub fn gauge(&self, label: &str, gauge: &str, key: &[u8]) -> Option<i64> {
        let node = self.node(label);
        let process = node.process.as_ref().unwrap_or_else(|| panic!("{label} does not run"));
        let found = process.gauges.iter().find(|(name, _)| name.as_str() == gauge);
        let (_, found) = found.unwrap_or_else(|| panic!("the cluster has no gauge cache \"{gauge}\""));
        found.gauge.get(key, node.read_clock(self.now).mono)
    }

    /// A series on a node, for reading: the first of that name, with the node's clock.
    ///
    /// # Panics
    /// When the node or the series does not exist.
    pub fn series(&self, label: &str, series: &str) -> (&Series, Now) {
        let node = self.node(label);
        let process = node.process.as_ref().unwrap_or_else(|| panic!("{label} does not run"));
        let found = process.replica.series().find(|found| found.spec().name.as_str() == series);
        let found = found.unwrap_or_else(|| panic!("the cluster has no series \"{series}\""));
        (found, node.read_clock(self.now))
    }

    /// A node's counts for a key, in each window that it keeps and that counts something.
    ///
    /// # Panics
    /// As [`Cluster::series`].
    pub fn events(&self, label: &str, series: &str, key: &[u8]) -> BTreeMap<Window, i64> {
        let (series, now) = self.series(label, series);
        let counts = series.counts(Scope::Key(key), now.mono);
        let numbered = counts.iter().zip((0..=series.current()).rev()).map(|(count, window)| (window, count.total));
        numbered.filter(|(_, count)| *count != 0).collect()
    }

    /// Changes the configuration of a node. The change applies at its next start.
    pub fn configure(&mut self, node: &str, throttle: &str, spec: ThrottleSpec) {
        if let Some(limits) = &mut self.limits {
            limits.elsewhere.insert((node.to_owned(), throttle.to_owned()), spec);
        }
    }

    /// From now on the checker demands another rate of a throttle, with clocks that run fast by this many parts per million:
    /// all nodes use that rate now.
    pub fn demand_rate(&mut self, throttle: &str, rate: Rate, drift_ppm: u64) {
        self.admissions.borrow_mut().change(throttle, rate, drift_ppm, self.now);
    }

    /// Ends all limits and the services that use them, so that the cluster can become quiet.
    pub(crate) fn end_limits(&mut self) {
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.service = None;
            process.limiters.clear();
        }
        self.new_service = None;
        self.limits = None;
    }

    /// Sets how to rebuild this cluster's state at any moment: with the same seed, the same script, the same calls. A restored
    /// process takes its memory from there.
    pub fn again(&mut self, run: impl Fn(Time) -> Self + 'static) {
        self.again = Some(Rc::new(run));
    }
}
