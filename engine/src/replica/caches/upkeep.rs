//! The upkeep of caches: expiry, rounds of collection, sessions, and what follows from a new run.

use std::time::Duration;

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::{Actor, NodeName, StructureId, UnixMs, bounds};

use crate::cache::collect::{self, Round};
use crate::cache::context::Context;
use crate::replica::Replica;
use crate::replica::caches::held::{Flush, Known};
use crate::replica::peer::Peers;
use crate::replica::runs::succession::Cause;
use crate::replica::timers::Timer;
use crate::time::Now;

/// After so many complete digests without a report about a cache, a peer counts as not having the cache.
const SILENT: u32 = 2;

/// The least number of entries of a cache that a step expires, and that it collects.
const LEAST: usize = 64;

/// Time between two steps of a comparison of keys, and of a collection.
pub(crate) const STEP: Duration = Duration::from_millis(1);

impl Replica {
    /// Releases the writes of caches that are due.
    pub(crate) fn flush_caches(&mut self, now: Now, all: Flush) {
        self.caches.flush(now.mono, all);
    }

    /// Expires entries, collects removals, and writes again what was written ahead of the clock.
    pub(crate) fn keep_caches(&mut self, now: Now) {
        let Self { caches, runs, peers, config, .. } = self;
        // With one or two clocks, this node's own may be the wrong one: a stamp that lies in its future may be of the present.
        let is_certain = peers.clocks.is_certain(now, bounds::MAX_DRIFT);
        let expiry_ms = peers.clocks.expiry_ms(now);
        let known = Known { runs, peers };
        let mut changed = Vec::new();
        let most = (collect::STEP / caches.iter().count().max(1)).max(LEAST);
        for (id, held) in caches.iter_mut() {
            let time = held.cache.time(now.unix_ms);
            let map = &mut held.cache.shared.map.write();
            let end = map.log_end();
            let expires = map.expire_until(expiry_ms, most);
            if is_certain {
                map.return_to_present(time);
            }
            let others = runs.nodes.iter().filter(|(_, node)| !node.is_gone_for(now.mono, config.retention));
            let reports = others.filter_map(|(node, _)| report(peers, held.exchange.said(node), node));
            let round = match held.shared {
                true => Round::of(map.seen(), reports),
                false => Round::of(map.seen(), std::iter::empty()),
            };
            held.is_behind = held.exchange.collect(map, round, (expiry_ms, most), &known) || expires;
            map.note_position();
            held.cache.shared.tally.reached_times(Bound::Actors, map.take_refused_runs());
            if map.log_end() != end {
                changed.push(*id);
            }
        }
        changed.into_iter().for_each(|id| self.caches.touch(id));
        self.come_back_for_collection(now);
    }

    /// Goes on to expire and to collect what the last step has left, a step for one cache after the other.
    pub(crate) fn go_on_collecting(&mut self, now: Now) {
        let Self { caches, runs, peers, .. } = self;
        let (expiry_ms, known) = (peers.clocks.expiry_ms(now), Known { runs, peers });
        let last = caches.collected;
        let behind = caches.iter().filter(|(_, held)| held.is_behind).map(|(id, _)| *id);
        let behind: Vec<_> = behind.collect();
        let mut changed = None;
        let next = behind.iter().find(|id| Some(**id) > last).or(behind.first()).copied();
        caches.collected = next;
        if let Some(held) = next.and_then(|id| caches.get_mut(id)) {
            let map = &mut held.cache.shared.map.write();
            let end = map.log_end();
            let expires = map.expire_until(expiry_ms, collect::STEP);
            held.is_behind = held.exchange.collect(map, None, (expiry_ms, collect::STEP), &known) || expires;
            changed = next.filter(|_| map.log_end() != end);
        }
        changed.into_iter().for_each(|id| self.caches.touch(id));
        self.come_back_for_collection(now);
    }

    fn come_back_for_collection(&mut self, now: Now) {
        if self.caches.iter().any(|(_, held)| held.is_behind) {
            self.timers.set(Timer::Collection, now.mono.after(STEP));
        } else {
            self.timers.stop(&Timer::Collection);
        }
    }

    /// An interval between digests has passed: reports to the peers, and asks them for what is missing.
    pub(crate) fn tick_caches(&mut self, now: Now) {
        let Self { caches, runs, peers, config, .. } = self;
        let known = Known { runs, peers };
        let shared: Vec<StructureId> = caches.iter().filter(|(_, held)| held.shared).map(|(id, _)| *id).collect();
        for (_, held) in caches.iter_mut().filter(|(_, held)| held.shared) {
            let map = &mut held.cache.shared.map.write();
            held.exchange.tick(map, now, config.digest_interval, &known);
        }
        shared.into_iter().for_each(|id| self.caches.touch(id));
        if self.caches.iter().any(|(_, held)| held.exchange.is_working()) {
            self.timers.set(Timer::Caches, now.mono.after(STEP));
        }
    }

    /// Walks on with comparisons of keys, a step for each cache, and comes back for the next step at once.
    pub(crate) fn work_on_caches(&mut self) {
        let Self { caches, runs, peers, .. } = self;
        let known = Known { runs, peers };
        let mut worked = Vec::new();
        for (id, held) in caches.iter_mut().filter(|(_, held)| held.exchange.is_working()) {
            let shared = &held.cache.shared;
            let map = &mut shared.map.write();
            shared.watchers.with_sink(|sink| held.exchange.work(map, &known, |key| sink.changed(|| key)));
            worked.push(*id);
        }
        if worked.is_empty() {
            return;
        }
        worked.into_iter().for_each(|id| self.caches.touch(id));
        if self.caches.iter().any(|(_, held)| held.exchange.is_working()) {
            self.timers.set(Timer::Caches, self.now.after(STEP));
        } else {
            self.timers.stop(&Timer::Caches);
        }
    }

    /// Reports the caches to a peer that asks for everything.
    pub(crate) fn report_caches(&mut self, peer: &NodeName) {
        let ids: Vec<StructureId> = self.caches.iter().map(|(id, _)| *id).collect();
        for (_, held) in self.caches.iter_mut().filter(|(_, held)| held.shared) {
            held.exchange.report_to(peer);
        }
        ids.into_iter().for_each(|id| self.caches.touch_one(id, peer));
    }

    /// This node is another run now.
    pub(crate) fn renew_caches(&mut self, actor: &Actor, cause: Cause) {
        let ids: Vec<StructureId> = self.caches.iter().map(|(id, _)| *id).collect();
        for (_, held) in self.caches.iter_mut() {
            let map = &mut held.cache.shared.map.write();
            match cause {
                Cause::Shared => map.renew(actor.clone()),
                Cause::Forgotten => {
                    map.continue_as(actor.clone());
                    held.exchange.walk_again();
                }
            }
        }
        ids.into_iter().for_each(|id| self.caches.touch(id));
    }

    /// No more writes of this node.
    pub(crate) fn close_caches(&mut self) {
        self.caches.iter().for_each(|(_, held)| held.cache.shared.map.write().close());
    }

    /// Sets the time of the cluster for all caches.
    pub(crate) fn set_lead_of_caches(&mut self, lead: Duration, upto: UnixMs) {
        self.caches.iter().for_each(|(_, held)| held.cache.set_lead(lead, upto));
    }
}

/// What a node has reported of a cache: `None` in place of a peer that does not have the cache, and `Some(None)` of one that
/// has not reported.
fn report<'a>(peers: &Peers, said: Option<&'a Context>, node: &NodeName) -> Option<Option<&'a Context>> {
    match said {
        Some(said) => Some(Some(said)),
        None if peers.links.get(node).is_some_and(|link| link.completes >= SILENT) => None,
        None => Some(None),
    }
}
