//! Retirement of cache rows that are causally stable, in rounds. At the end of a round, every node has the rows that any node
//! had at its start.
//!
//! The owner of a row retires it, and only when no write that the row supersedes can become visible again:
//!
//! - A superseded row is retired when every node has the winner: at the end of a round that began when the winner was known
//!   here. So on no node the visible write of a key goes back to an older one.
//! - A winner without a live value, because the entry was removed or has expired, is retired after three rounds. At the end of
//!   the first round every node has the row, and later writes have later stamps. So all writes that it supersedes exist by
//!   then, and at the end of the second round this node has all of them. If no other row of the key is left here then, the
//!   third round makes sure that no node has one.
//!
//! A known node that is not forgotten and does not report stops the rounds: it may have any rows.

use std::collections::BTreeMap;

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::message::{Message, Seen};
use tallymesh_schemas::{NodeName, StructureId, bounds};

use crate::canary::{self, Canary};
use crate::counter::writes::WallClock;
use crate::replica::Replica;
use crate::replica::peer::encode::send;
use crate::replica::peer::link::Link;
use crate::replica::runs::node::Node;
use crate::replica::runs::round::next;
use crate::replica::stream::Vector;
use crate::time::Now;

/// After so many complete digests without an entry of a cache, a peer counts as not having the cache.
const SILENT: u32 = 2;

impl Replica {
    /// Records what a peer has of a cache.
    pub(crate) fn handle_seen(&mut self, peer: &NodeName, seen: Seen) {
        let Some(held) = self.structures.get(&seen.structure) else { return };
        if !held.shared || !held.structure.is_cache() {
            return;
        }
        if let Some(link) = self.links.get_mut(peer) {
            let vector = seen.entries.into_iter().map(|entry| (entry.actor.clone(), entry)).collect();
            link.seen.insert(seen.structure, vector);
        }
    }

    /// Appends this node's progress in a cache to `buf`. Returns whether there was something to report.
    pub(crate) fn transmit_seen(&self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        while let Some(id) = link.seen_due.pop_first() {
            let Some(held) = self.structures.get(&id) else { continue };
            let vector = held.structure.vector();
            if vector.len() > bounds::SEEN_ENTRIES {
                self.tally.reached(Bound::SeenEntries);
                continue;
            }
            let entries = vector.values().cloned().collect();
            link.seen_sent.insert(id, vector);
            send(&Message::Seen(Seen { structure: id, entries }), buf);
            return true;
        }
        false
    }

    /// Schedules reports to a peer about the caches that have changed, or about all.
    pub(crate) fn schedule_seen(&self, link: &mut Link, all: bool) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.shared && held.structure.is_cache()) {
            if all || link.seen_sent.get(id) != Some(&held.structure.vector()) {
                link.seen_due.insert(*id);
            }
        }
    }

    /// Continues the rounds of all caches.
    pub(crate) fn retire(&mut self, now: Now) {
        let caches = self.structures.iter().filter(|(_, held)| held.structure.is_cache());
        let caches: Vec<_> = caches.map(|(id, _)| *id).collect();
        // With only two clocks, this node's own may be the wrong one: a stamp that lies in its future may be of the present.
        let certain = caches.is_empty() || self.clocks_agree(now, bounds::MAX_DRIFT);
        let clock = if certain { WallClock::Certain } else { WallClock::Doubtful };
        let expiry_ms = self.expiry_ms(now);
        for id in caches {
            let Some(held) = self.structures.get_mut(&id) else { continue };
            let others = if held.shared { vectors(&self.nodes, &self.links, id) } else { Some(Vec::new()) };
            held.structure.maintain(now.unix_ms, expiry_ms, clock);
            let round = held.round.take();
            held.round = match others {
                Some(others) => next(&held.structure, round, &others, expiry_ms),
                None => round,
            };
        }
    }
}

/// The reports of all other nodes about a cache; `None` if one of them is missing.
fn vectors<'a>(
    nodes: &BTreeMap<NodeName, Node>,
    links: &'a BTreeMap<NodeName, Box<Link>>,
    id: StructureId,
) -> Option<Vec<&'a Vector>> {
    if canary::broken(Canary::RemovalForgotten) {
        return Some(Vec::new());
    }
    let mut vectors = Vec::new();
    for node in nodes.keys() {
        let link = links.get(node)?;
        match link.seen.get(&id) {
            Some(vector) => vectors.push(vector),
            None if link.completes < SILENT || link.peer_progress.keys().any(|(of, _)| *of == id) => return None,
            None => {}
        }
    }
    Some(vectors)
}
