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

use tallymesh_schemas::message::Seen;
use tallymesh_schemas::{NodeName, StructureId, bounds};

use crate::counter::writes::{WallClock, removals_wait_for_all};
use crate::replica::Replica;
use crate::replica::peer::Peers;
use crate::replica::runs::Runs;
use crate::replica::runs::round::Round;
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
        if let Some(link) = self.peers.links.get_mut(peer) {
            let vector = seen.entries.into_iter().map(|entry| (entry.actor.clone(), entry)).collect();
            link.seen.insert(seen.structure, vector);
        }
    }

    /// Continues the rounds of all caches.
    pub(crate) fn retire(&mut self, now: Now) {
        let Self { structures, runs, peers, .. } = self;
        // With one or two clocks, this node's own may be the wrong one: a stamp that lies in its future may be of the present.
        let certain = peers.clocks.is_certain(now, bounds::MAX_DRIFT);
        let clock = if certain { WallClock::Certain } else { WallClock::Doubtful };
        let expiry_ms = peers.clocks.expiry_ms(now);
        for (id, held) in structures.iter_mut().filter(|(_, held)| held.structure.is_cache()) {
            held.structure.maintain(now.unix_ms, expiry_ms, clock);
            let others = if held.shared { vectors(runs, peers, *id) } else { Some(Vec::new()) };
            if let Some(others) = others {
                held.round = Round::next(held.round.take(), &held.structure, &others, expiry_ms);
            }
        }
    }
}

/// The reports of all other nodes about a cache; `None` if one of them is missing.
fn vectors<'a>(runs: &Runs, peers: &'a Peers, id: StructureId) -> Option<Vec<&'a Vector>> {
    if !removals_wait_for_all() {
        return Some(Vec::new());
    }
    let mut vectors = Vec::new();
    for node in runs.nodes.keys() {
        let link = peers.links.get(node)?;
        match link.seen.get(&id) {
            Some(vector) => vectors.push(vector),
            None if link.completes < SILENT || link.peer_progress.keys().any(|(of, _)| *of == id) => return None,
            None => {}
        }
    }
    Some(vectors)
}
