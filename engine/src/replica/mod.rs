//! The replication state machine of one node.
//!
//! The caller drives it; it does no I/O. Its methods are grouped as in `quinn-proto`: getters; commands; `handle_*` for input;
//! `poll_*` for output. After a command or a `handle_*`, poll [`Replica::poll_transmit`] for every link that has room, then
//! [`Replica::poll_event`]. Call [`Replica::handle_timeout`] no later than [`Replica::poll_timeout`] says.
//!
//! Counting and reading bypass it: callers use the [`Structure`]s that it returns. When a structure changes, it calls the
//! `wake` that it was made with, and the driver calls [`Replica::handle_changes`].

mod config;
mod events;
mod held;
mod peer;
mod persist;
mod reached;
mod relay;
pub(crate) mod report;
pub(crate) mod runs;
mod stream;
mod unheld;
pub(crate) mod verify;
mod windows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bound;
use tallymesh_schemas::message::{Message, Tombstone};
use tallymesh_schemas::{Actor, GaugeCacheSpec, Incarnation, NodeName, StructureId, StructureSpec, Version, bounds};

use crate::canary::{self, Canary};
use crate::counter::gauge_cache::GaugeCache;
use crate::counter::structure::Structure;
use crate::random::Random;
pub use crate::replica::config::Config;
use crate::replica::events::Events;
use crate::replica::held::Held;
use crate::replica::peer::clock::ClusterTime;
pub use crate::replica::peer::clock::PeerClock;
use crate::replica::peer::link::Link;
use crate::replica::persist::Store;
pub use crate::replica::persist::error::RestoreError;
pub use crate::replica::persist::restore::next_run;
pub use crate::replica::persist::save::Batch;
pub use crate::replica::persist::stored::SavedRows;
pub use crate::replica::report::{Counters, Event, EventKind, PeerError, StructureError};
pub use crate::replica::runs::life::Life;
use crate::replica::runs::node::Node;
use crate::replica::runs::succession::Succession;
use crate::replica::runs::tombstone::Contested;
use crate::replica::stream::StreamId;
use crate::replica::unheld::Unheld;
pub use crate::replica::verify::found::{Fault, Finding, Outcome, Unheld as NotHeld, Verification};
pub use crate::replica::verify::rounds::Verifier;
use crate::replica::windows::HeldSeries;
use crate::replica::windows::clock::WindowClock;
use crate::time::{Now, Time};
use crate::wake::Wake;

/// The replication state machine of one node; see the [module](self).
#[derive(Debug)]
pub struct Replica {
    config: Config,
    actor: Actor,
    structures: BTreeMap<StructureId, Held>,
    series: Vec<HeldSeries>,
    gauge_caches: Vec<Arc<GaugeCache>>,
    clock: WindowClock,
    /// The time that most of the known clocks show.
    cluster_time: Option<ClusterTime>,
    /// Boxed because links are large and the nodes of the map should be small.
    links: BTreeMap<NodeName, Box<Link>>,
    nodes: BTreeMap<NodeName, Node>,
    /// The runs that nodes state over connections that are up.
    hellos: BTreeMap<NodeName, Incarnation>,
    /// Tombstones that wait because their node states a run that they cover.
    contested: BTreeMap<NodeName, Contested>,
    /// The parents: the peers that relay rows whose owner has no link to this node.
    parents: BTreeMap<StreamId, NodeName>,
    /// Rows of other actors that a peer has asked this node for.
    forwarded: BTreeSet<StreamId>,
    /// Cache rows whose sender sent them without a value and is gone, and for how many digest intervals.
    awaiting_values: BTreeMap<StreamId, u32>,
    /// Rows of other actors, from before the start of this node's copy, that a peer has asked this node for.
    wanted_history: BTreeSet<StreamId>,
    /// When claims of peers may make this node renew as another run.
    succession: Succession,
    /// [`Event::LastRun`] has been reported.
    last_run: bool,
    /// The time of the last reading of a peer's clock, or else the first time that was known.
    clock_heard_at: Option<Time>,
    /// By node and the first run that is void.
    tombstones: BTreeMap<(NodeName, Incarnation), Tombstone>,
    events: Events,
    /// The bounds that were reached, except those of structures, which count their own.
    tally: Arc<bound::Tally>,
    /// What is not held here because a bound was reached.
    unheld: Unheld,
    counters: Counters,
    random: Random,
    sweep_at: Time,
    chase_at: Time,
    /// Nodes that are new or whose life changed: whether their rows count has to be updated.
    life_changed: BTreeSet<NodeName>,
    /// A link went down: from now on the membership decides whether its node is alive.
    unlinked: bool,
    life_updated: Time,
    /// When the next node's rows stop counting, as of `life_updated`.
    death_at: Time,
    /// The time of the last input.
    now: Time,
    nonce: u64,
    leaving: bool,
    /// The bookkeeping of saved state, if saving is on.
    store: Option<Box<Store>>,
}

/// Time between two sweeps for idle rows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Getters.
impl Replica {
    /// This run of this node.
    pub fn actor(&self) -> &Actor {
        &self.actor
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
        self.links.keys()
    }

    /// Whether there is a link to a peer.
    pub fn is_linked(&self, peer: &NodeName) -> bool {
        self.links.contains_key(peer)
    }

    /// Counters of the work so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of entries that the replica keeps about its links: cursors, nothing that grows with changes (I7).
    pub fn link_entries(&self) -> usize {
        self.links.values().map(|link| link.entries()).sum()
    }

    /// The number of entries that the replica keeps about other actors' rows that peers have asked it for.
    pub fn relay_entries(&self) -> usize {
        self.forwarded.len() + self.wanted_history.len()
    }

    /// Whether a leaving node has sent everything to every peer, including its goodbye.
    pub fn has_left(&self) -> bool {
        self.leaving && self.links.values().all(|link| link.said_goodbye)
    }
}

/// Commands.
impl Replica {
    /// A node without any state. The incarnation has to be higher than that of any earlier run of the name, as the wall clock's
    /// milliseconds are. If it is not, peers report that, and the replica takes a higher one.
    pub fn new(config: Config, node: NodeName, incarnation: Incarnation) -> Self {
        let random = Random::new(config.seed);
        let tally = Arc::<bound::Tally>::default();
        Self {
            config,
            actor: Actor::new(node, incarnation),
            structures: BTreeMap::new(),
            series: Vec::new(),
            gauge_caches: Vec::new(),
            clock: WindowClock::default(),
            cluster_time: None,
            links: BTreeMap::new(),
            nodes: BTreeMap::new(),
            hellos: BTreeMap::new(),
            contested: BTreeMap::new(),
            parents: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            awaiting_values: BTreeMap::new(),
            wanted_history: BTreeSet::new(),
            succession: Succession::default(),
            last_run: false,
            clock_heard_at: None,
            tombstones: BTreeMap::new(),
            events: Events::new(Arc::clone(&tally)),
            tally,
            unheld: Unheld::default(),
            counters: Counters::default(),
            random,
            sweep_at: Time(0),
            chase_at: Time(0),
            life_changed: BTreeSet::new(),
            unlinked: false,
            life_updated: Time(0),
            death_at: Time::NEVER,
            now: Time(0),
            nonce: 0,
            leaving: false,
            store: None,
        }
    }

    /// Replicates a structure. It calls `wake`, from whichever thread counts, when [`Replica::handle_changes`] is to be called.
    ///
    /// # Errors
    /// [`StructureError`] when the name is taken or there are too many.
    pub fn replicate(&mut self, spec: StructureSpec, wake: Wake) -> Result<Arc<Structure>, StructureError> {
        let id = spec.name.id();
        if let Some(held) = self.structures.get(&id) {
            let other = held.structure.spec().name.clone();
            return Err(if other == spec.name {
                StructureError::Duplicate(other)
            } else {
                StructureError::Collision(other, spec.name)
            });
        }
        if self.structures.values().filter(|held| !held.structure.is_window()).count() >= bounds::STRUCTURES {
            return Err(StructureError::TooMany);
        }
        let joining = !spec.snapshot;
        let structure = Arc::new(Structure::new(spec, self.actor.clone(), self.random.next(), wake));
        let held = Held::new(Arc::clone(&structure), joining, true);
        self.structures.insert(id, held);
        // The structures determine when nodes stop counting.
        self.death_at = Time(0);
        Ok(structure)
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

    /// Makes a gauge cache. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn replicate_gauge_cache(
        &mut self,
        spec: GaugeCacheSpec,
        wake: Wake,
    ) -> Result<Arc<GaugeCache>, StructureError> {
        let made = spec.structure();
        let structure = if spec.replicate { self.replicate(made, wake)? } else { self.keep(made, wake)? };
        let gauge_cache = Arc::new(GaugeCache::new(spec, structure));
        self.gauge_caches.push(Arc::clone(&gauge_cache));
        Ok(gauge_cache)
    }

    /// The gauge caches in the order of their creation.
    pub fn gauge_caches(&self) -> &[Arc<GaugeCache>] {
        &self.gauge_caches
    }

    /// Leaves: this node's gauges become zero. Once that is sent, each link gets a goodbye. Counting afterwards has no effect.
    pub fn leave(&mut self, now: Now) {
        self.leaving = true;
        for held in self.structures.values_mut() {
            held.structure.close();
        }
        self.flush(now);
    }
}

/// Input.
impl Replica {
    /// A link to a peer is up. A link to this node's own name is ignored: that process is not a peer. Reports about this node's
    /// runs come from the other peers.
    pub fn handle_link_up(&mut self, now: Now, peer: &NodeName) {
        if *peer == self.actor.node {
            return;
        }
        let mut link = Link::new(now.mono, Arc::clone(&self.tally));
        // A verification may be in progress. The probe on the previous link was lost with that link.
        link.probe = (self.nonce > 0).then_some(self.nonce);
        link.unsent_tombstone = self.contested.get(peer).map(|contested| contested.tombstone.clone());
        self.links.insert(peer.clone(), Box::new(link));
        self.take_from_owner(peer);
        self.ask_again_for_values();
        self.set_life(now, peer, Life::Alive);
        // A node with a link is not an invented name.
        if let Some(known) = self.nodes.get_mut(peer) {
            known.reported_by = None;
        }
    }

    /// A link is down. The membership decides whether the peer is dead.
    pub fn handle_link_down(&mut self, peer: &NodeName) {
        if let Some(link) = self.links.remove(peer) {
            self.unlinked = true;
            self.awaiting_values.extend(link.without_values.into_iter().map(|part| (part, 0)));
            self.replace_parents(peer);
        }
    }

    /// A message from a peer.
    ///
    /// # Errors
    /// [`PeerError`] when it is not a message that a node of this protocol sends.
    pub fn handle_message(&mut self, now: Now, peer: &NodeName, bytes: &[u8]) -> Result<(), PeerError> {
        if !self.links.contains_key(peer) {
            return Err(PeerError::NoLink(peer.clone()));
        }
        self.now = now.mono;
        if let Some(link) = self.links.get_mut(peer) {
            link.spoke = true;
        }
        let result = Message::decode(bytes).map_err(PeerError::from).and_then(|message| {
            match message {
                Message::Digest(digest) => self.handle_digest(now, peer, &digest),
                Message::Want(want) => self.handle_want(now, peer, &want),
                Message::Delta(delta) => return self.handle_delta(now, peer, &delta),
                Message::Probe { nonce } => self.handle_probe(now, peer, nonce),
                Message::Seen(seen) => self.handle_seen(peer, seen),
                Message::Prune(prune) => self.handle_prune(peer, prune),
                Message::Goodbye => self.handle_goodbye(now, peer),
            }
            Ok(())
        });
        self.counters.refused += u64::from(result.is_err());
        result
    }

    /// Counts have changed: releases them to be sent, at once or when they are due.
    pub fn handle_changes(&mut self, now: Now) {
        self.now = now.mono;
        self.release(now.mono, |held| {
            if !held.waits() {
                return false;
            }
            if canary::broken(Canary::FlushForgotten) && held.flushed_at.is_some_and(|at| at != now.mono) {
                held.flushed_at = Some(now.mono);
                return false;
            }
            now.mono >= held.due() || held.structure.pending() >= held.structure.spec().max_pending
        });
    }

    /// Releases the changes in the structures that are `due`, so that all linked peers get them.
    fn release(&mut self, now: Time, due: impl Fn(&mut Held) -> bool) {
        for (id, held) in &mut self.structures {
            if due(held) && held.flush(now) {
                let part = (*id, self.actor.clone());
                self.links.values_mut().for_each(|link| link.touch(&part));
            }
        }
    }

    /// Releases all changes.
    fn flush(&mut self, now: Now) {
        self.release(now.mono, |_| true);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now.mono;
        self.turn_windows(now);
        if now.mono >= self.sweep_at {
            self.sweep_at = now.mono.after(SWEEP_INTERVAL);
            self.sweep(now);
        }
        // After the sweep, because the rows that it retires are changes as well.
        self.handle_changes(now);
        if now.mono >= self.chase_at {
            self.chase_at = now.mono.after(self.config.digest_interval);
            self.chase(now.mono);
            self.fetch_history();
            self.ask_for_values();
        }
        for link in self.links.values_mut().filter(|link| link.due() <= now.mono) {
            link.handle_timeout(now.mono, &self.config, &mut self.random);
        }
        self.apply_membership(now);
        self.handle_succession(now);
        self.update_life(now);
    }

    fn sweep(&mut self, now: Now) {
        for (id, held) in &self.structures {
            held.structure.sweep(now.mono, self.config.idle_after, self.acked(*id), self.config.retention);
        }
        self.report_faults();
        self.follow_clocks(now);
        self.restore_waiting(now);
        self.retire(now);
        let cluster_ms = self.certain_ms(now);
        self.gauge_caches.iter().for_each(|gauge_cache| gauge_cache.maintain(now, cluster_ms));
        if self.structures.values().any(|held| held.structure.head() > self.config.last_version) {
            let no_later = self.renew(now, self.actor.incarnation).is_err();
            if no_later && !std::mem::replace(&mut self.last_run, true) {
                self.event(Event::LastRun);
            }
        }
        let expiry_ms = self.expiry_ms(now);
        self.tombstones.retain(|_, tombstone| tombstone.until_ms > expiry_ms);
        self.events.summarize(now.mono);
    }

    /// Reports counting calls that failed: additions above a bound, and removals below zero.
    fn report_faults(&mut self) {
        let faults =
            self.structures.values().map(|held| (held.structure.spec().name.clone(), held.structure.take_faults()));
        let faults: Vec<_> = faults.filter(|(_, (refused, below))| *refused > 0 || !below.is_empty()).collect();
        for (structure, (refused, below)) in faults {
            self.counters.totals_full = self.counters.totals_full.saturating_add(refused);
            if refused > 0 {
                let actor = self.actor.clone();
                self.event(Event::TotalFull { structure: structure.clone(), actor, times: refused });
            }
            for (actor, times) in below {
                self.counters.below_zero = self.counters.below_zero.saturating_add(times);
                self.event(Event::BelowZero { structure: structure.clone(), actor, times });
            }
        }
    }

    /// The lowest applied version of this node's rows on all live peers.
    fn acked(&self, id: StructureId) -> Version {
        let live = self.nodes.iter().filter(|(_, node)| matches!(node.life, Life::Alive | Life::Suspect));
        let acks = live.map(|(name, _)| self.links.get(name).map_or(0, |link| link.said_have(id, &self.actor)));
        acks.min().unwrap_or(Version::MAX)
    }
}

/// Output.
impl Replica {
    /// Appends the next message for a peer to `buf`; `false` when there is none. Call it only while the link has room: the
    /// replica queues cursors, not messages, so a slow peer gets newer states, and fewer of them.
    pub fn poll_transmit(&mut self, peer: &NodeName, buf: &mut Vec<u8>) -> bool {
        // Nothing that is sent to one peer depends on the links to the others.
        let mut links = std::mem::take(&mut self.links);
        let link = links.get_mut(peer).filter(|link| link.has_something(self.leaving));
        let sent = link.is_some_and(|link| self.transmit(link, buf));
        self.links = links;
        sent
    }

    /// The latest time to call [`Replica::handle_timeout`].
    pub fn poll_timeout(&self) -> Time {
        let flushes = self.structures.values().filter(|held| held.waits()).map(Held::due);
        let links = self.links.values().map(|link| link.due());
        flushes
            .chain(links)
            .chain([self.sweep_at, self.chase_at, self.death_at, self.next_window(), self.succession.due()])
            .min()
            .unwrap_or(self.sweep_at)
    }

    /// The next event for the operator. If one node causes an event repeatedly, it comes once, and then as [`Event::Repeated`]
    /// about once a minute.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// The next node that was forgotten, by an operator of this node or of another one. Every such node is returned, however
    /// many there are: the caller that keeps connections has to forget it as well.
    pub fn poll_forgotten(&mut self) -> Option<NodeName> {
        self.events.pop_forgotten()
    }

    fn event(&mut self, event: Event) {
        self.events.push(self.now, event);
    }
}
