//! A round of retirement of one cache; see [`crate::replica::runs::retire`].

use std::collections::BTreeMap;

use tallymesh_schemas::message::SeenEntry;
use tallymesh_schemas::{Actor, UnixMs, Version};

use crate::counter::structure::Structure;
use crate::counter::writes::{OwnRow, removals_wait_for_all, rounds_are_skipped};
use crate::replica::stream::Vector;

/// The maximum number of rows in one round.
const ROWS: usize = 1 << 16;

/// A round in progress, and the rows that wait for its end.
#[derive(Debug)]
pub(crate) struct Round {
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
    /// Ends a round, if it is over, and begins the next one, if there are rows to retire.
    pub(crate) fn next(
        round: Option<Self>,
        structure: &Structure,
        others: &[&Vector],
        expiry_ms: UnixMs,
    ) -> Option<Self> {
        let ours = structure.vector();
        let (mut known, mut alone) = (Vec::new(), Vec::new());
        if let Some(round) = round {
            if removals_wait_for_all() && !is_over(&round.cut, &ours, others) {
                return Some(round);
            }
            if rounds_are_skipped() {
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
        let round = Self { cut, dominated: needless.dominated, final_rows: needless.over, known, alone };
        (!round.is_idle()).then_some(round)
    }

    fn is_idle(&self) -> bool {
        [&self.dominated, &self.final_rows, &self.known, &self.alone].iter().all(|rows| rows.is_empty())
    }
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
        *cut == Version::ZERO || all_whole() || all_same()
    })
}
