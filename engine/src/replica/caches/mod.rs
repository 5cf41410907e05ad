//! The caches of a node: what peers say of them, and what peers are sent. Beside it, their upkeep and their saved state.

pub(crate) mod held;
pub(crate) mod restore;
mod saved;
mod upkeep;

use tallymesh_schemas::message::{CacheCompare, CacheEntries, CacheKeys, CacheReport};
use tallymesh_schemas::{NodeName, StructureId};

use crate::replica::Replica;
use crate::replica::caches::held::{Caches, Known};
use crate::replica::report::{Event, PeerError};
use crate::replica::timers::Timer;
use crate::time::Now;

/// Messages of peers.
impl Replica {
    /// A peer reports what it has of a cache.
    pub(crate) fn handle_cache_report(&mut self, now: Now, peer: &NodeName, report: &CacheReport) {
        self.peers.reported += 1;
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
            && held.cache.held() >= u32::MAX as usize
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
