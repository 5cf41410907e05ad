//! When a cache's rows may go: in rounds, at whose end everybody has what anybody had at their beginning.
//!
//! Who owns a row retires it, and only when that can bring back nothing that it outdoes:
//!
//! - A row over which another write wins goes when everybody has that one: at the end of a round that began when it was
//!   known here. So what is read somewhere is never less than what was read before.
//! - A row that wins and says that there is nothing, because the entry was removed or has expired, goes in three rounds. At
//!   the end of the first everybody has it; whatever is written from then on is later. So all that it outdoes was written
//!   by then, and at the end of the second everything of that is known here. If no other row of its key is left here then,
//!   the third makes sure that none is anywhere.
//!
//! A node that is known and not forgotten and says nothing stops the rounds: it may have anything.

use std::collections::BTreeMap;

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::message::{Message, Seen, SeenEntry};
use tallymesh_schemas::{Actor, NodeName, StructureId, Version, limits};

use super::Replica;
use super::digest::send;
use super::link::Link;
use super::liveness::Node;
use crate::canary::{self, Canary};
use crate::ledger::OwnRow;
use crate::structure::Structure;
use crate::time::Now;

/// What a node has of each actor's rows in a cache, all of it at one moment.
pub(super) type Vector = BTreeMap<Actor, SeenEntry>;

/// Rows that one round takes up at most.
const ROWS: usize = 1 << 16;

/// Digests of everything in which a peer names nothing of a cache before it is taken not to have it.
const SILENT: u32 = 2;

/// A round that is under way, and the rows that wait for its end.
#[derive(Debug)]
pub(super) struct Round {
    /// What anybody had of each actor when it began.
    cut: BTreeMap<Actor, Version>,
    dominated: Vec<OwnRow>,
    /// Rows that are over, which everybody will have at its end.
    final_rows: Vec<OwnRow>,
    /// Everybody has them; at its end everything that they outdo will be known here.
    known: Vec<OwnRow>,
    /// They were alone here; at its end they are so everywhere.
    alone: Vec<OwnRow>,
}

impl Round {
    fn is_idle(&self) -> bool {
        [&self.dominated, &self.final_rows, &self.known, &self.alone].iter().all(|rows| rows.is_empty())
    }
}

impl Replica {
    /// Takes note of what a peer has.
    pub(super) fn handle_seen(&mut self, peer: &NodeName, seen: Seen) {
        let Some(held) = self.structures.get(&seen.structure) else { return };
        if !held.shared || !held.structure.is_cache() {
            return;
        }
        if let Some(link) = self.links.get_mut(peer) {
            let vector = seen.entries.into_iter().map(|entry| (entry.actor.clone(), entry)).collect();
            link.seen.insert(seen.structure, vector);
        }
    }

    /// Appends to `buf` what we have of a cache; whether there is something to tell.
    pub(super) fn transmit_seen(&self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        while let Some(id) = link.seen_due.pop_first() {
            let Some(held) = self.structures.get(&id) else { continue };
            let vector = held.structure.vector();
            if vector.len() > limits::SEEN_ENTRIES {
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

    /// Notes which caches a peer is to be told of: those that have changed, or all.
    pub(super) fn schedule_seen(&self, link: &mut Link, all: bool) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.shared && held.structure.is_cache()) {
            if all || link.seen_sent.get(id) != Some(&held.structure.vector()) {
                link.seen_due.insert(*id);
            }
        }
    }

    /// Goes on with the rounds of all caches.
    pub(super) fn retire(&mut self, now: Now) {
        let caches = self.structures.iter().filter(|(_, held)| held.structure.is_cache());
        let caches: Vec<_> = caches.map(|(id, _)| *id).collect();
        // One peer's clock against ours: ours may be the wrong one, and what it calls the future the present.
        let certain = caches.is_empty() || self.clocks_agree(now, limits::MAX_DRIFT);
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

/// What everybody else has of a cache; `None` when somebody does not say.
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

/// Whether everybody has everything up to the cut.
fn is_over(cut: &BTreeMap<Actor, Version>, ours: &Vector, others: &[&Vector]) -> bool {
    cut.iter().all(|(actor, cut)| {
        let whole = |entry: &SeenEntry| entry.complete >= *cut;
        let Some(own) = ours.get(actor) else {
            // Forgotten: it has to be by all.
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

/// Ends a round, if it is over, and begins the next one, if there is something to retire.
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
    // What was retired just now is part of what the next round waits for.
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
