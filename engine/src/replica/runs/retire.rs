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
use tallymesh_schemas::message::{Message, Seen, SeenEntry};
use tallymesh_schemas::{Actor, NodeName, StructureId, Version, bounds};

use crate::canary::{self, Canary};
use crate::counter::structure::Structure;
use crate::counter::writes::OwnRow;
use crate::replica::Replica;
use crate::replica::peer::encode::send;
use crate::replica::peer::link::Link;
use crate::replica::runs::liveness::Node;
use crate::replica::stream::Vector;
use crate::time::Now;

/// The maximum number of rows in one round.
const ROWS: usize = 1 << 16;

/// After so many complete digests without an entry of a cache, a peer counts as not having the cache.
const SILENT: u32 = 2;

/// A round in progress, and the rows that wait for its end.
#[derive(Debug)]
pub(in crate::replica) struct Round {
    /// The highest applied version of each actor on any node when the round began.
    cut: BTreeMap<Actor, Version>,
    dominated: Vec<OwnRow>,
    /// Winners without a live value. Every node has them at the end of the round.
    final_rows: Vec<OwnRow>,
    /// Every node has these rows. At the end of the round this node has every row that they supersede.
    known: Vec<OwnRow>,
    /// The only rows of their keys on this node. At the end of the round that holds on all nodes.
    alone: Vec<OwnRow>,
}

impl Round {
    fn is_idle(&self) -> bool {
        [&self.dominated, &self.final_rows, &self.known, &self.alone].iter().all(|rows| rows.is_empty())
    }
}

impl Replica {
    /// Records what a peer has of a cache.
    pub(in crate::replica) fn handle_seen(&mut self, peer: &NodeName, seen: Seen) {
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
    pub(in crate::replica) fn transmit_seen(&self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
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
    pub(in crate::replica) fn schedule_seen(&self, link: &mut Link, all: bool) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.shared && held.structure.is_cache()) {
            if all || link.seen_sent.get(id) != Some(&held.structure.vector()) {
                link.seen_due.insert(*id);
            }
        }
    }

    /// Continues the rounds of all caches.
    pub(in crate::replica) fn retire(&mut self, now: Now) {
        let caches = self.structures.iter().filter(|(_, held)| held.structure.is_cache());
        let caches: Vec<_> = caches.map(|(id, _)| *id).collect();
        // With only two clocks, this node's own may be the wrong one: a stamp that lies in its future may be of the present.
        let certain = caches.is_empty() || self.clocks_agree(now, bounds::MAX_DRIFT);
        let expiry_ms = self.expiry_ms(now);
        for id in caches {
            let Some(held) = self.structures.get_mut(&id) else { continue };
            let others = if held.shared { vectors(&self.nodes, &self.links, id) } else { Some(Vec::new()) };
            held.structure.maintain(now.unix_ms, expiry_ms, certain);
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

/// Whether every node has everything up to the cut.
fn is_over(cut: &BTreeMap<Actor, Version>, ours: &Vector, others: &[&Vector]) -> bool {
    cut.iter().all(|(actor, cut)| {
        let whole = |entry: &SeenEntry| entry.complete >= *cut;
        let Some(own) = ours.get(actor) else {
            // The actor is forgotten here: all nodes have to forget it.
            return others.iter().all(|vector| !vector.contains_key(actor));
        };
        let same = |entry: &SeenEntry| {
            entry.applied >= *cut && (entry.applied, entry.fingerprint) == (own.applied, own.fingerprint)
        };
        let entries = || others.iter().map(|vector| vector.get(actor));
        let all_same = || own.applied >= *cut && entries().all(|entry| entry.is_some_and(same));
        let all_whole = || whole(own) && entries().all(|entry| entry.is_some_and(|entry| whole(entry) || same(entry)));
        *cut == 0 || all_whole() || all_same()
    })
}

/// Ends a round, if it is over, and begins the next one, if there are rows to retire.
fn next(structure: &Structure, round: Option<Round>, others: &[&Vector], expiry_ms: u64) -> Option<Round> {
    let ours = structure.vector();
    let (mut known, mut alone) = (Vec::new(), Vec::new());
    if let Some(round) = round {
        if !is_over(&round.cut, &ours, others) && !canary::broken(Canary::RemovalForgotten) {
            return Some(round);
        }
        if canary::broken(Canary::RoundsSkipped) {
            structure.retire(&[], &round.final_rows);
        }
        let still = structure.retire(&round.dominated, &round.alone);
        (alone, known) = structure.part_alone(round.known);
        known.extend(still);
        known.extend(round.final_rows);
    }
    // The next round also waits for the retirements made just now.
    let ours = structure.vector();
    let needless = structure.take_needless(expiry_ms, ROWS);
    let mut cut: BTreeMap<Actor, Version> = BTreeMap::new();
    for entry in std::iter::once(&ours).chain(others.iter().copied()).flat_map(BTreeMap::values) {
        let most = cut.entry(entry.actor.clone()).or_default();
        *most = (*most).max(entry.applied);
    }
    let round = Round { cut, dominated: needless.dominated, final_rows: needless.over, known, alone };
    (!round.is_idle()).then_some(round)
}
