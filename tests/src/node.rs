//! A simulated node: a process with a replica, its clocks, and its knowledge of the other nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tallymesh_engine::limiter::Limiter;
use tallymesh_engine::{Life, Now, Replica, Series, Structure, Time};
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, Overlay, StructureId, StructureName, Window};

use crate::admissions::References;
use crate::caches::{SeenWrites, SimCache};
use crate::check::seen::{Looked, Seen};
use crate::clock::Clock;
use crate::disk::Disk;
use crate::gauges::SimGauge;
use crate::hold::SimHold;
use crate::network::Fate;
use crate::service::Service;
use crate::truth::RunId;

/// A message that waits for a stopped process.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) from: usize,
    pub(crate) generation: u64,
    pub(crate) fate: Fate,
    pub(crate) bytes: Vec<u8>,
}

/// A node's knowledge of another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Contact {
    pub(crate) at: Time,
    pub(crate) incarnation: Incarnation,
    pub(crate) life: Life,
}

/// A machine: what remains when its process ends.
pub struct Node {
    pub(crate) label: String,
    pub(crate) name: NodeName,
    pub(crate) clock: Clock,
    pub(crate) process: Option<Process>,
    pub(crate) stopped: bool,
    pub(crate) slow: bool,
    pub(crate) waiting: VecDeque<Waiting>,
    pub(crate) contacts: BTreeMap<NodeName, Contact>,
    /// The nodes to which it has a connection, with the run in each one's hello.
    pub(crate) hellos: BTreeMap<usize, Incarnation>,
    /// The links that it should have.
    pub(crate) overlay: Overlay,
    /// The nodes to which it has links.
    pub(crate) linked: BTreeSet<usize>,
    pub(crate) timer_at: Time,
    /// Its usable share of each divided limit; `None` when something has happened since the last check.
    pub(crate) units: Option<Vec<u64>>,
    /// The incarnation that the last process began with.
    pub(crate) began_as: Incarnation,
    pub(crate) starts: u64,
    pub(crate) disk: Disk,
    /// The last of its runs that left.
    pub(crate) left: Option<Incarnation>,
}

/// A running process.
pub struct Process {
    pub(crate) replica: Replica,
    pub(crate) structures: BTreeMap<StructureName, Arc<Structure>>,
    pub(crate) limiters: BTreeMap<StructureName, Arc<Limiter>>,
    /// Upper bounds for the admissions of its soft throttles.
    pub(crate) references: References,
    pub(crate) caches: BTreeMap<StructureName, SimCache>,
    /// Its gauge caches by name.
    pub(crate) gauges: BTreeMap<StructureName, SimGauge>,
    /// What its caches were seen to have.
    pub(crate) cache_seen: SeenWrites,
    pub(crate) run: RunId,
    /// Its actor at the last check.
    pub(crate) actor: Actor,
    pub(crate) woken: Arc<AtomicBool>,
    pub(crate) holds: Vec<SimHold>,
    pub(crate) leaving: Option<Time>,
    pub(crate) service: Option<Box<dyn Service>>,
    pub(crate) seen: Seen,
    /// The latest run that each other node has stated itself.
    pub(crate) said: BTreeMap<NodeName, Incarnation>,
    pub(crate) looked: Looked,
    /// The current window of each series at the last check.
    pub(crate) windows_seen: Vec<Window>,
    /// The structures that count events: the windows at that time, in order of name, and gauge caches.
    pub(crate) windows: Vec<Arc<Structure>>,
}

impl Node {
    pub(crate) fn new(label: String, overlay: Overlay, name: NodeName, clock: Clock) -> Self {
        Self {
            label,
            name,
            clock,
            process: None,
            stopped: false,
            slow: false,
            waiting: VecDeque::new(),
            contacts: BTreeMap::new(),
            hellos: BTreeMap::new(),
            overlay,
            linked: BTreeSet::new(),
            timer_at: Time::NEVER,
            units: None,
            began_as: Incarnation(0),
            starts: 0,
            disk: Disk::default(),
            left: None,
        }
    }

    /// Its label in scripts.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its name in the cluster.
    pub fn name(&self) -> &NodeName {
        &self.name
    }

    /// Its process, if one is running.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Whether it runs and is not stopped.
    pub fn is_working(&self) -> bool {
        self.process.is_some() && !self.stopped
    }

    /// A process begins on this node.
    pub(crate) fn begin(&mut self, incarnation: Incarnation) {
        self.began_as = incarnation;
        self.starts += 1;
        self.stopped = false;
        self.waiting.clear();
        self.contacts.clear();
        self.hellos.clear();
    }

    pub(crate) fn read_clock(&self, at: Time) -> Now {
        self.clock.read(at)
    }
}

impl Process {
    /// The windows of a series on this node, the next one first.
    pub(crate) fn windows_of(&self, series: &Series) -> Vec<(Window, Arc<Structure>)> {
        let (current, kept) = (series.current(), u64::from(series.spec().windows));
        let windows = (current.saturating_sub(kept.saturating_sub(1))..=current + 1).rev();
        let held = windows.filter_map(|window| {
            let name = series.spec().structure(window).name;
            Some((window, Arc::clone(self.replica.structure(name.as_str())?)))
        });
        held.collect()
    }

    /// The windows of all series, and gauge caches, in order of name.
    pub(crate) fn windows(&self) -> &[Arc<Structure>] {
        &self.windows
    }

    /// A structure, or the window of a series.
    pub(crate) fn structure_of(&self, id: StructureId) -> Option<Arc<Structure>> {
        self.structures.values().chain(&self.windows).find(|structure| structure.id() == id).cloned()
    }

    /// Lets the limits process what has arrived, if it is time.
    pub(crate) fn limit(&mut self, now: Now) {
        if self.limits_due() > now.mono {
            return;
        }
        self.references.learn(&self.structures, now.mono);
        for limiter in self.limiters.values().filter(|limiter| limiter.poll_timeout() <= now.mono) {
            limiter.handle_timeout(now, self.replica.reach(), &self.replica.forgotten());
        }
    }

    /// When the limits are due next. A leaving node has given back what it could.
    pub(crate) fn limits_due(&self) -> Time {
        let due = self.limiters.values().filter(|_| self.leaving.is_none()).map(|limiter| limiter.poll_timeout());
        due.min().unwrap_or(Time::NEVER)
    }

    /// Its limits by structure.
    pub fn limiters(&self) -> &BTreeMap<StructureName, Arc<Limiter>> {
        &self.limiters
    }

    /// Its replica.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Its structures by name.
    pub fn structures(&self) -> &BTreeMap<StructureName, Arc<Structure>> {
        &self.structures
    }

    /// Its number in the ground truth.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Whether it is leaving.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }
}

/// The structures in which a replica counts events, except limits.
pub(crate) fn events(replica: &Replica) -> Vec<Arc<Structure>> {
    let mut structures = replica.structures();
    structures.retain(|structure| {
        let class = structure.spec().class;
        class.is_window() || class == Class::GaugeCache
    });
    structures
}
