//! Builds a cluster.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU64;
use std::rc::Rc;
use std::time::Duration;

use tallymesh_engine::{Config, Time};
use tallymesh_schemas::{
    Class, GaugeCacheSpec, Kind, NodeName, Overlay, SeriesName, SeriesSpec, StructureName, StructureSpec,
};

use super::{Cluster, Event, NewService, Sent, Timing};
use crate::admissions::Admissions;
use crate::clock::Clock;
use crate::limits::Limits;
use crate::network::{Conditions, Links, Messages};
use crate::node::Node;
use crate::random::Random;
use crate::service::Service;
use crate::trace::Trace;
use crate::truth::Truth;

/// The settings of a cluster. The defaults are three quick nodes `a`, `b`, `c` with an `inbound_cidr` structure, on a network
/// without losses.
pub struct Builder {
    seed: u64,
    names: Vec<String>,
    specs: Vec<StructureSpec>,
    series_specs: Vec<SeriesSpec>,
    cache_specs: Vec<StructureSpec>,
    gauge_specs: Vec<GaugeCacheSpec>,
    config: Config,
    timing: Timing,
    conditions: Conditions,
    drift_ppm: u64,
    skew: Duration,
    verbose: bool,
    new_service: Option<NewService>,
    save_every: Option<Duration>,
    limits: Option<Limits>,
    max_keys: BTreeMap<String, NonZeroU64>,
}

/// A configuration for simulations: what takes minutes in a real cluster takes seconds, so a run of a few virtual seconds
/// covers all of it.
pub fn quick_config() -> Config {
    Config {
        digest_interval: Duration::from_millis(500),
        full_digest_interval: Duration::from_secs(3),
        delta_bytes: 256 << 10,
        idle_after: Duration::from_secs(2),
        retention: Duration::from_secs(6),
        tombstone_life: Duration::from_secs(24 * 3600),
        ..Config::default()
    }
}

/// A structure with its class's defaults.
///
/// # Panics
/// When the name is no valid structure name.
pub fn spec(name: &str, class: Class) -> StructureSpec {
    let name = StructureName::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    StructureSpec::new(name, class)
}

/// A replicated series with this number of windows, and their length in seconds.
///
/// # Panics
/// When the name is no valid series name.
pub fn series(name: &str, kind: Kind, interval: u32, windows: u32) -> SeriesSpec {
    let name = SeriesName::new(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    SeriesSpec::new(name, kind, interval, windows)
}

impl Builder {
    /// A cluster whose randomness comes from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            names: ["a", "b", "c"].map(str::to_owned).to_vec(),
            specs: vec![spec("inbound_cidr", Class::InboundCidr)],
            series_specs: Vec::new(),
            cache_specs: Vec::new(),
            gauge_specs: Vec::new(),
            config: quick_config(),
            timing: Timing::default(),
            conditions: Conditions::default(),
            drift_ppm: 0,
            skew: Duration::from_secs(5),
            verbose: false,
            new_service: None,
            save_every: None,
            limits: None,
            max_keys: BTreeMap::new(),
        }
    }

    /// Names the nodes; all of them start at once.
    #[must_use]
    pub fn nodes<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.names = names.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the structures that every node replicates.
    #[must_use]
    pub fn structures(mut self, specs: impl IntoIterator<Item = StructureSpec>) -> Self {
        self.specs = specs.into_iter().collect();
        self
    }

    /// Sets the series in which every node counts events.
    #[must_use]
    pub fn series(mut self, specs: impl IntoIterator<Item = SeriesSpec>) -> Self {
        self.series_specs = specs.into_iter().collect();
        self
    }

    /// Sets the caches of every node.
    #[must_use]
    pub fn caches(mut self, specs: impl IntoIterator<Item = StructureSpec>) -> Self {
        self.cache_specs = specs.into_iter().collect();
        self
    }

    /// Sets the gauge caches of every node.
    #[must_use]
    pub fn gauges(mut self, specs: impl IntoIterator<Item = GaugeCacheSpec>) -> Self {
        self.gauge_specs = specs.into_iter().collect();
        self
    }

    /// Sets how replicas behave.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets how nodes detect each other.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// Sets how messages travel.
    #[must_use]
    pub fn conditions(mut self, conditions: Conditions) -> Self {
        self.conditions = conditions;
        self
    }

    /// Clocks run faster or slower than the simulation by up to this many parts per million.
    #[must_use]
    pub fn drift(mut self, ppm: u64) -> Self {
        self.drift_ppm = ppm;
        self
    }

    /// Wall clocks differ by up to this much. The default is a few seconds.
    #[must_use]
    pub fn skew(mut self, most: Duration) -> Self {
        self.skew = most;
        self
    }

    /// Nodes save their state at this interval.
    #[must_use]
    pub fn saves(mut self, every: Duration) -> Self {
        self.save_every = Some(every);
        self
    }

    /// Keeps lines about each event, for people.
    #[must_use]
    pub fn verbose(mut self, verbose: bool) -> Self {
        self.verbose = verbose;
        self
    }

    /// Sets the limits of every node. Their structures must be among the structures.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Sets how many keys one node may hold in all.
    #[must_use]
    pub fn max_keys(mut self, label: &str, max: NonZeroU64) -> Self {
        self.max_keys.insert(label.to_owned(), max);
        self
    }

    /// Runs a service on every node.
    #[must_use]
    pub fn service<S: Service + 'static>(mut self, new: impl Fn(&NodeName) -> S + 'static) -> Self {
        self.new_service = Some(Box::new(move |name| Box::new(new(name))));
        self
    }

    /// Starts the nodes.
    ///
    /// # Panics
    /// When a name is invalid, or two are the same.
    pub fn start(self) -> Cluster {
        let mut random = Random::new(self.seed);
        let mut nodes = Vec::new();
        for label in &self.names {
            let name = NodeName::new(label).unwrap_or_else(|error| panic!("{label}: {error}"));
            assert!(nodes.iter().all(|node: &Node| node.name != name), "two nodes are called {name}");
            let drift_ppm = random.between(0, 2 * self.drift_ppm) as i64 - self.drift_ppm as i64;
            // The clocks were never set alike: monotonic ones begin at any value, wall clocks differ by seconds.
            let offset = random.duration(Duration::ZERO, Duration::from_secs(1000));
            let mut clock = Clock { drift_ppm, offset, ..Clock::default() };
            clock.step_wall(random.below(self.skew.as_millis() as u64) as i64);
            let overlay = Overlay::new(name.clone(), self.timing.mesh, self.timing.rings);
            nodes.push(Node::new(label.clone(), overlay, name, clock));
        }
        let mut links = Links::default();
        nodes.iter().for_each(|_| links.add_node());
        let mut cluster = Cluster {
            seed: self.seed,
            now: Time(0),
            order: 0,
            queue: BinaryHeap::new(),
            nodes,
            links,
            specs: self.specs,
            series_specs: self.series_specs,
            cache_specs: self.cache_specs,
            gauge_specs: self.gauge_specs,
            writes: Rc::default(),
            config: self.config,
            timing: self.timing,
            calm: self.conditions.clone(),
            conditions: self.conditions,
            network_random: random.fork(),
            work_random: random.fork(),
            truth: Rc::new(RefCell::new(Truth::default())),
            trace: Trace::new(self.verbose),
            new_service: self.new_service,
            save_every: self.save_every,
            admissions: self
                .limits
                .as_ref()
                .map(|limits| Admissions::new(limits, self.drift_ppm, Time(0)))
                .unwrap_or_default(),
            limits: self.limits,
            max_keys: self.max_keys,
            observers: Vec::new(),
            rests: false,
            failure: None,
            again: None,
            forgotten: BTreeSet::new(),
            messages: Messages::Intact,
            deliveries: 0,
            events: 0,
            sent: Sent::default(),
        };
        cluster.truth.borrow_mut().clock_off(self.skew);
        for n in 0..cluster.nodes.len() {
            cluster.start(n, None);
        }
        cluster.schedule(Time(0), Event::Tick);
        cluster
    }
}
