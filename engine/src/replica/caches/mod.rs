//! The caches of a node: their exchange with peers, their upkeep, and their saved state.

pub(crate) mod persist;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::message::{CacheCompare, CacheEntries, CacheKeys, CacheReport};
use tallymesh_schemas::{Actor, NodeName, StructureId, UnixMs};

use crate::cache::exchange::Exchange;
use crate::cache::handle::Cache;
use crate::cache::receiver::Receiver;
use crate::cache::writers::Writers;
use crate::primitive::Ordering;
use crate::replica::Replica;
use crate::replica::caches::persist::SavedCache;
use crate::replica::peer::Peers;
use crate::replica::report::{Event, PeerError};
use crate::replica::runs::Runs;
use crate::replica::timers::Timer;
use crate::time::{Now, Time};

/// The caches by their id on the wire, and for each peer the caches that may have something for it.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    held: BTreeMap<StructureId, HeldCache>,
    due: BTreeMap<NodeName, BTreeSet<StructureId>>,
    are_saved: bool,
    /// What the wall clock showed at the last input, in milliseconds since 1970.
    pub(crate) unix_ms: UnixMs,
}

/// A cache and the replica's state for it.
#[derive(Debug)]
pub(crate) struct HeldCache {
    pub(crate) cache: Cache,
    exchange: Exchange,
    /// Whether the node exchanges it with peers.
    pub(crate) shared: bool,
    /// When writes were last released to be sent.
    flushed_at: Option<Time>,
    pub(crate) saved: SavedCache,
}

/// What a node knows of the runs that wrote a cache's entries.
struct Known<'a> {
    runs: &'a Runs,
    peers: &'a Peers,
}

impl Writers for Known<'_> {
    fn is_linked(&self, node: &NodeName) -> bool {
        self.peers.is_linked(node)
    }

    fn has_ended(&self, run: &Actor) -> bool {
        self.runs.is_over(run)
    }

    fn lives(&self, run: &Actor) -> bool {
        self.runs.lives(run)
    }
}

impl HeldCache {
    fn new(cache: Cache, shared: bool) -> Self {
        let exchange = Exchange::new(cache.id());
        Self { cache, exchange, shared, flushed_at: None, saved: SavedCache::default() }
    }

    /// What a peer has said of it.
    pub(crate) fn receiver(&self, peer: &NodeName) -> Option<&Receiver> {
        self.exchange.receiver(peer)
    }

    /// Whether writes wait to be released.
    fn waits(&self) -> bool {
        self.cache.pending() > 0
    }

    fn due(&self) -> Time {
        self.flushed_at.map_or(Time(0), |at| at.after(self.cache.spec().max_delay))
    }
}

impl Caches {
    pub(crate) fn insert(&mut self, cache: Cache, shared: bool, peers: &Peers) {
        let id = cache.id();
        let mut held = HeldCache::new(cache, shared);
        if self.are_saved {
            held.cache.shared.map.write().keep_unsaved();
        }
        if shared {
            for peer in peers.links.keys() {
                held.exchange.link_up(peer);
                self.due.entry(peer.clone()).or_default().insert(id);
            }
        }
        self.held.insert(id, held);
    }

    pub(crate) fn get(&self, id: StructureId) -> Option<&HeldCache> {
        self.held.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: StructureId) -> Option<&mut HeldCache> {
        self.held.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StructureId, &HeldCache)> {
        self.held.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&StructureId, &mut HeldCache)> {
        self.held.iter_mut()
    }

    /// Number of caches that are exchanged with peers.
    pub(crate) fn shared(&self) -> usize {
        self.held.values().filter(|held| held.shared).count()
    }

    /// The number of entries about links.
    pub(crate) fn entries(&self) -> usize {
        self.held.values().map(|held| held.exchange.len()).sum()
    }

    /// A link to a peer that exchanges caches is up.
    pub(crate) fn link_up(&mut self, peer: &NodeName) {
        let shared = self.held.iter_mut().filter(|(_, held)| held.shared);
        let due = shared.map(|(id, held)| {
            held.exchange.link_up(peer);
            *id
        });
        self.due.insert(peer.clone(), due.collect());
    }

    pub(crate) fn link_down(&mut self, peer: &NodeName) {
        self.held.values_mut().for_each(|held| held.exchange.link_down(peer));
        self.due.remove(peer);
    }

    /// A cache may have something for all peers.
    fn touch(&mut self, id: StructureId) {
        for due in self.due.values_mut() {
            due.insert(id);
        }
    }

    fn touch_one(&mut self, id: StructureId, peer: &NodeName) {
        if let Some(due) = self.due.get_mut(peer) {
            due.insert(id);
        }
    }

    /// Whether there may be something to send to a peer.
    pub(crate) fn has_something(&self, peer: &NodeName) -> bool {
        self.due.get(peer).is_some_and(|due| !due.is_empty())
    }

    /// The time at which waiting writes are due.
    pub(crate) fn next_flush(&self) -> Time {
        let waiting = self.held.values().filter(|held| held.waits());
        waiting.map(HeldCache::due).fold(Time::NEVER, Time::min)
    }

    /// Releases the writes of caches that are due, or of all.
    pub(crate) fn flush(&mut self, now: Time, all: Flush) {
        let mut released = Vec::new();
        for (id, held) in &mut self.held {
            let full = held.cache.pending() >= held.cache.spec().max_pending;
            if held.waits() && (all == Flush::All || full || now >= held.due()) {
                held.cache.shared.pending.store(0, Ordering::SeqCst);
                held.flushed_at = Some(now);
                released.push(*id);
            }
        }
        released.into_iter().for_each(|id| self.touch(id));
    }
}

/// Which writes to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Due,
    All,
}

/// Messages of peers.
impl Replica {
    /// A peer reports what it has of a cache.
    pub(crate) fn handle_cache_report(&mut self, now: Now, peer: &NodeName, report: &CacheReport) {
        let us = self.runs.actor.node.clone();
        for (run, _) in report.seen.runs.iter().filter(|(run, _)| run.node != us) {
            self.note_run(now, run, peer);
        }
        let Self { caches, runs, peers, .. } = self;
        let Some(held) = caches.held.get_mut(&report.structure).filter(|held| held.shared) else {
            return self.report_kind(peer, report.structure);
        };
        let known = Known { runs, peers };
        let unix_ms = held.cache.time(now.unix_ms);
        let ours = held.exchange.handle_report(&mut held.cache.shared.map.write(), (peer, unix_ms), report, &known);
        caches.touch_one(report.structure, peer);
        if let Some(run) = ours {
            self.conflict(now, run.incarnation, peer);
        }
    }

    /// A peer has a cache where this node has another structure: the two do not exchange it.
    fn report_kind(&mut self, peer: &NodeName, id: StructureId) {
        let Some(held) = self.structures.get(&id).filter(|held| held.shared) else { return };
        let spec = held.structure.spec().clone();
        if self.peers.links.get_mut(peer).is_some_and(|link| link.mismatched.insert(id)) {
            let here = format!("{} ({})", spec.name, spec.class.kind().label());
            let there = format!("{} ({})", spec.name, tallymesh_schemas::Kind::Cache.label());
            self.event(Event::KindMismatch { peer: peer.clone(), structure: spec.name, here, there });
        }
    }

    /// Entries of a cache have come from a peer.
    pub(crate) fn handle_cache_entries(
        &mut self,
        now: Now,
        peer: &NodeName,
        entries: &CacheEntries<'_>,
    ) -> Result<(), PeerError> {
        let Self { caches, runs, peers, .. } = self;
        let id = entries.structure;
        let Some(held) = caches.held.get_mut(&id).filter(|held| held.shared) else { return Ok(()) };
        let (unix_ms, shared) = (held.cache.time(now.unix_ms), &held.cache.shared);
        let known = Known { runs, peers };
        let brought = shared.watchers.with_sink(|sink| {
            let map = &mut shared.map.write();
            let changed = |key: &[u8]| sink.changed(|| key);
            held.exchange.handle_entries(map, (peer, unix_ms), entries, &known, changed)
        });
        let brought = brought.map_err(PeerError::Entries)?;
        self.output.counters.deltas_in += 1;
        self.output.counters.row_bytes_in += entries.entries.len() as u64;
        if held.exchange.is_working() {
            self.timers.set(Timer::Caches, now.mono.after(upkeep::STEP));
        }
        // Peers without a link to the writer get the entries at once.
        caches.touch(id);
        let name = held_name(caches, id);
        if brought.no_room
            && let Some(held) = caches.get(id)
        {
            held.cache.shared.tally.reached(tallymesh_schemas::bound::Bound::Rows);
        }
        if let (Some((by, actor)), Some(structure)) = (brought.ahead, name) {
            self.output.counters.ahead += 1;
            if self.peers.links.get_mut(peer).is_some_and(|link| link.ahead.insert(id)) {
                self.event(Event::Ahead { peer: peer.clone(), structure, actor, by });
            }
        } else if brought.is_marked
            && let Some(link) = self.peers.links.get_mut(peer)
        {
            link.ahead.remove(&id);
        }
        self.work_on_caches();
        Ok(())
    }

    /// A peer asks which keys this node holds.
    pub(crate) fn handle_cache_compare(&mut self, peer: &NodeName, compare: CacheCompare) {
        let id = compare.structure;
        if let Some(held) = self.caches.held.get_mut(&id).filter(|held| held.shared) {
            held.exchange.handle_compare(peer, compare);
            self.work_on_caches();
        }
    }

    /// A peer answers which keys it holds.
    pub(crate) fn handle_cache_keys(&mut self, peer: &NodeName, keys: &CacheKeys<'_>) {
        if let Some(held) = self.caches.held.get_mut(&keys.structure).filter(|held| held.shared) {
            held.exchange.handle_keys(peer, keys);
            self.work_on_caches();
        }
    }

    /// Appends the next message about caches for a peer to `buf`. Returns whether there was one.
    pub(crate) fn next_of_caches(&mut self, peer: &NodeName, buf: &mut Vec<u8>) -> bool {
        let Self { caches, output, config, .. } = self;
        let now_ms = caches.unix_ms;
        let Some(due) = caches.due.get_mut(peer) else { return false };
        while let Some(id) = due.first().copied() {
            let Some(held) = caches.held.get_mut(&id) else {
                due.remove(&id);
                continue;
            };
            let unix_ms = held.cache.time(now_ms);
            let map = &mut held.cache.shared.map.write();
            let before = buf.len();
            let limits = (unix_ms, config.delta_bytes);
            let sent = held.exchange.next(map, peer, limits, |message| {
                crate::replica::peer::encode::send(message, buf);
                if let tallymesh_schemas::message::Message::CacheEntries(entries) = message {
                    output.counters.deltas_out += 1;
                    output.counters.row_bytes_out += entries.entries.len() as u64;
                }
            });
            if sent && buf.len() > before {
                return true;
            }
            due.remove(&id);
        }
        false
    }
}

fn held_name(caches: &Caches, id: StructureId) -> Option<tallymesh_schemas::StructureName> {
    caches.get(id).map(|held| held.cache.spec().name.clone())
}
