//! The replication state machine of one node.
//!
//! The caller drives it; it does no I/O. Its methods are grouped as in `quinn-proto`: getters; commands; `handle_*` for input;
//! `poll_*` for output. After a command or a `handle_*`, poll [`Replica::poll_transmit`] for every link that has room, then
//! [`Replica::poll_event`]. Call [`Replica::handle_timeout`] no later than [`Replica::poll_timeout`] says.
//!
//! Counting and reading bypass it: callers use the [`Structure`]s that it returns. When a structure changes, it calls the
//! `wake` that it was made with, and the driver calls [`Replica::handle_changes`].

mod awaited;
pub(crate) mod caches;
mod changed;
mod config;
pub(crate) mod confirmation;
mod crowded;
mod events;
mod examine;
mod gauge_caches;
mod held;
mod input;
mod output;
mod peer;
mod persist;
mod poll;
mod position;
mod reached;
mod relay;
pub(crate) mod report;
pub(crate) mod runs;
mod stream;
mod timeout;
mod timers;
mod unheld;
pub(crate) mod verify;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureId, StructureName, StructureSpec, bounds};

use crate::budget::{Budget, NodeBudget};
use crate::cache::handle::Cache;
use crate::counter::structure::Structure;
use crate::keyspace::quota::Quota;
use crate::random::Random;
pub use crate::replica::awaited::Awaited;
use crate::replica::caches::held::{Caches, Exchanged};
use crate::replica::changed::ChangeOrder;
pub use crate::replica::config::Config;
pub use crate::replica::confirmation::{Confirmation, Confirmed};
use crate::replica::crowded::Crowded;
pub use crate::replica::examine::{LinkPlace, Standings};
use crate::replica::gauge_caches::GaugeCaches;
use crate::replica::held::{Held, Structures};
use crate::replica::output::Output;
use crate::replica::peer::Peers;
pub use crate::replica::peer::clock::PeerClock;
use crate::replica::peer::clocks::Clocks;
pub use crate::replica::persist::Batch;
use crate::replica::persist::Persistence;
pub use crate::replica::persist::error::RestoreError;
pub use crate::replica::persist::restore::next_run;
pub use crate::replica::persist::stored::SavedRows;
use crate::replica::relay::Relay;
pub use crate::replica::report::{Counters, Event, EventKind, PeerError, StructureError};
use crate::replica::runs::Runs;
pub use crate::replica::runs::life::Life;
use crate::replica::timers::{Timer, Timers};
pub use crate::replica::verify::found::{Fault, Finding, Outcome, Unheld as NotHeld, Verification};
pub use crate::replica::verify::rounds::{Backlog, Verifier};
use crate::replica::windows::Windows;
use crate::time::{Now, Time};
use crate::wake::Wake;

/// The replication state machine of one node; see the [module](self).
///
/// It composes components, each of which owns its state and knows nothing of the others. Its methods call one component, and
/// pass what that returns on to the others.
#[derive(Debug)]
pub struct Replica {
    config: Config,
    structures: Structures,
    /// Which structures have changed.
    changes: ChangeOrder,
    caches: Caches,
    gauge_caches: GaugeCaches,
    windows: Windows,
    runs: Runs,
    peers: Peers,
    relay: Relay,
    /// The bookkeeping of saved state, if saving is on.
    persistence: Option<Box<Persistence>>,
    /// What the objects hold together.
    budget: Arc<NodeBudget>,
    /// Rows of other nodes for which there is no room.
    crowded: Crowded,
    output: Output,
    timers: Timers,
    random: Random,
    /// The time of the last input.
    now: Time,
    leaving: bool,
}

/// Getters.
impl Replica {
    /// This run of this node.
    pub fn actor(&self) -> &Actor {
        &self.runs.actor
    }

    /// The structures in order of name, including the windows of series.
    pub fn structures(&self) -> Vec<Arc<Structure>> {
        let mut list: Vec<_> = self.structures.values().map(|held| Arc::clone(&held.structure)).collect();
        list.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
        list
    }

    /// A structure by its name.
    pub fn structure(&self, name: &str) -> Option<&Arc<Structure>> {
        let held = self.structures.get(&StructureId::of(name))?;
        (held.structure.spec().name.as_str() == name).then_some(&held.structure)
    }

    /// The peers with a link to this node.
    pub fn links(&self) -> impl Iterator<Item = &NodeName> {
        self.peers.links.keys()
    }

    /// Whether there is a link to a peer.
    pub fn is_linked(&self, peer: &NodeName) -> bool {
        self.peers.is_linked(peer)
    }

    /// Counters of the work so far.
    pub fn counters(&self) -> Counters {
        Counters { keys_refused: self.budget.changes_refused(), ..self.output.counters }
    }

    /// What all objects hold together, and may hold.
    pub fn budget(&self) -> &Arc<NodeBudget> {
        &self.budget
    }

    /// The number of entries that the replica keeps about its links: cursors, nothing that grows with changes (I7).
    pub fn link_entries(&self) -> usize {
        self.peers.entries() + self.caches.entries()
    }

    /// The number of entries that the replica keeps about other actors' rows that peers have asked it for.
    pub fn relay_entries(&self) -> usize {
        self.relay.entries()
    }

    /// Whether a leaving node has sent everything to every peer, including its goodbye.
    pub fn has_left(&self) -> bool {
        self.leaving && self.peers.links.values().all(|link| link.said_goodbye)
    }
}

/// Commands.
impl Replica {
    /// A node without any state. The incarnation has to be higher than that of any earlier run of the name, as the wall clock's
    /// milliseconds are. If it is not, peers report that, and the replica takes a higher one.
    pub fn new(config: Config, node: NodeName, incarnation: Incarnation) -> Self {
        let clocks = Clocks::new(config.digest_interval);
        let random = Random::new(config.seed);
        let mut timers = Timers::default();
        timers.set(Timer::Sweep, Time(0));
        timers.set(Timer::Chase, Time(0));
        Self {
            budget: Arc::new(NodeBudget::new(config.budget)),
            crowded: Crowded::default(),
            config,
            structures: BTreeMap::new(),
            changes: ChangeOrder::default(),
            caches: Caches::default(),
            gauge_caches: GaugeCaches::default(),
            windows: Windows::default(),
            runs: Runs::new(Actor::new(node, incarnation)),
            peers: Peers::new(clocks),
            relay: Relay::default(),
            persistence: None,
            output: Output::new(),
            timers,
            random,
            now: Time(0),
            leaving: false,
        }
    }

    /// Replicates a structure. It calls `wake`, from whichever thread counts, when [`Replica::handle_changes`] is to be called.
    ///
    /// # Errors
    /// [`StructureError`] when the name is taken or there are too many.
    pub fn replicate(&mut self, spec: StructureSpec, wake: Wake) -> Result<Arc<Structure>, StructureError> {
        if spec.class == Class::Cache {
            return Err(StructureError::Cache(spec.name));
        }
        let id = self.check_name(&spec.name)?;
        let quota = Quota::new(Arc::new(Budget::new(spec.max_keys)), Arc::clone(&self.budget));
        let (actor, seed) = (self.runs.actor.clone(), self.random.next());
        let structure = Arc::new(Structure::new(spec, actor, seed, wake, self.changes.list(), quota));
        self.structures.insert(id, Held::new(Arc::clone(&structure)));
        // The structures determine when nodes stop counting.
        self.timers.set(Timer::Death, Time(0));
        Ok(structure)
    }

    /// Checks that there is room for an object of this name. Returns its id.
    fn check_name(&self, name: &StructureName) -> Result<StructureId, StructureError> {
        let id = name.id();
        let structure = self.structures.get(&id).map(|held| &held.structure.spec().name);
        if let Some(other) = structure.or(self.caches.get(id).map(|held| &held.cache.spec().name)) {
            return Err(if other == name {
                StructureError::Duplicate(other.clone())
            } else {
                StructureError::Collision(other.clone(), name.clone())
            });
        }
        let structures = self.structures.values().filter(|held| !held.structure.is_window()).count();
        if structures + self.caches.iter().count() >= bounds::STRUCTURES {
            return Err(StructureError::TooMany);
        }
        Ok(id)
    }

    /// Replicates a cache. It calls `wake`, from whichever thread writes, when [`Replica::handle_changes`] is to be called.
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn replicate_cache(&mut self, spec: StructureSpec, wake: Wake) -> Result<Cache, StructureError> {
        self.add_cache(spec, wake, Exchanged::Yes)
    }

    /// Makes a cache of this node's own. It is saved like others, and no other node receives it. `wake` as for
    /// [`Replica::replicate_cache`].
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn keep_cache(&mut self, spec: StructureSpec, wake: Wake) -> Result<Cache, StructureError> {
        self.add_cache(spec, wake, Exchanged::No)
    }

    fn add_cache(&mut self, spec: StructureSpec, wake: Wake, exchanged: Exchanged) -> Result<Cache, StructureError> {
        self.check_name(&spec.name)?;
        let cache = Cache::new(spec, self.runs.actor.clone(), self.random.next(), wake, Arc::clone(&self.budget));
        self.caches.insert(cache.clone(), exchanged, &self.peers);
        Ok(cache)
    }

    /// The caches in order of name.
    pub fn caches(&self) -> Vec<Cache> {
        let mut list: Vec<_> = self.caches.iter().map(|(_, held)| held.cache.clone()).collect();
        list.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
        list
    }

    /// Makes a structure of this node's own. It is saved like others, and no other node receives it. `wake` as for
    /// [`Replica::replicate`].
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn keep(&mut self, spec: StructureSpec, wake: Wake) -> Result<Arc<Structure>, StructureError> {
        let structure = self.replicate(spec, wake)?;
        if let Some(held) = self.structures.get_mut(&structure.id()) {
            held.shared = false;
        }
        Ok(structure)
    }

    /// Leaves: this node's gauges become zero. Once that is sent, each link gets a goodbye. Counting afterwards has no effect.
    pub fn leave(&mut self, now: Now) {
        self.leaving = true;
        for held in self.structures.values_mut() {
            held.structure.close();
        }
        self.close_caches();
        self.flush(now);
    }
}
