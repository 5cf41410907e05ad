//! What outlives a run: handed out to be saved, and taken back by the next one.
//!
//! Whoever saves is a peer of a kind. For each actor's rows, ours and all others', the replica keeps how far they are saved,
//! and cuts what is missing from the same logs that deltas are cut from. What is taken back is joined as what a peer sends:
//! as rows of the actor that wrote them, which is an earlier run where it was this node. So nobody writes what another run
//! has written, and what is stale loses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tallymesh_schemas::saved::{self, Change, Facts, Known, Shape};
use tallymesh_schemas::{Incarnation, NodeName};

use super::link::StreamId;
use super::liveness::Life;
use super::{Held, Replica};
use crate::sync::PersistedExtent;

/// Bytes of rows in a batch, about: as long as cutting them takes, nothing else is done.
const BATCH_BYTES: usize = 1 << 20;

/// Bytes of rows after which what was handed out is saved, though there is more.
const SAVED_BYTES: usize = 8 << 20;

/// Changes that are to be saved, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
    /// What was handed out since the last such batch is one whole, saved together or not at all. Without it more is to come
    /// first.
    pub commit: bool,
    /// It is all that there was when its whole was begun.
    pub complete: bool,
}

/// What is known of what is saved.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// How far rows were handed out.
    pub(super) copies: BTreeMap<StreamId, PersistedExtent>,
    /// How far those are saved that were handed out since: none at all where there is none.
    before: BTreeMap<StreamId, Option<PersistedExtent>>,
    facts: Facts,
    facts_before: Option<Facts>,
    /// What is left of the whole that is being handed out.
    due: VecDeque<StreamId>,
    gone: Vec<StreamId>,
    facts_due: bool,
    /// The part that is being saved anew: it is not whole until it is done.
    anew: bool,
    /// Bytes since the last commit.
    bytes: usize,
    /// A batch is on its way.
    out: bool,
    /// What was taken back and cannot be joined yet: it was written ahead of our clock, or its window has not come.
    pub(super) waiting: Vec<saved::Part>,
    /// The last run of this node that is known from what was saved, if anything was.
    pub(super) last: Option<Incarnation>,
    /// Peers that have told everything since then.
    pub(super) met: BTreeSet<NodeName>,
}

impl Store {
    fn note(&mut self, part: &StreamId, copied: Option<PersistedExtent>) {
        let was = match copied {
            Some(copied) => self.copies.insert(part.clone(), copied),
            None => self.copies.remove(part),
        };
        self.before.entry(part.clone()).or_insert(was);
    }

    fn settle(&mut self, saved: bool) {
        let before = std::mem::take(&mut self.before);
        let facts = self.facts_before.take();
        self.bytes = 0;
        if saved {
            return;
        }
        for (part, was) in before {
            match was {
                Some(was) => self.copies.insert(part, was),
                None => self.copies.remove(&part),
            };
        }
        if let Some(facts) = facts {
            self.facts = facts;
        }
        self.due.clear();
        self.gone.clear();
        (self.facts_due, self.anew) = (false, false);
    }

    fn is_handed_out(&self) -> bool {
        self.due.is_empty() && self.gone.is_empty() && !self.facts_due
    }
}

impl Held {
    /// Whether its rows outlive the run.
    pub(super) fn is_saved(&self) -> bool {
        self.structure.keeps_runs() && (!self.structure.is_window() || self.persists)
    }

    fn shape(&self) -> Shape {
        let spec = self.structure.spec();
        Shape { name: spec.name.as_str().to_owned(), class: spec.class }
    }
}

/// Saving.
impl Replica {
    /// From now on what outlives a run is handed out to be saved: caches, gauge caches, windows of series that persist.
    pub fn keep_state(&mut self) {
        self.store.get_or_insert_default();
    }

    /// The next changes to be saved; `None` when there are none, or what becomes of the last ones has not been said. What
    /// one batch that completes a whole says is what there was here at one moment, and nothing of it is later than what
    /// was there when the first batch of that whole was handed out. O(actors of the structures), and of the rows.
    pub fn poll_save(&mut self) -> Option<Batch> {
        let mut store = self.store.take()?;
        let batch = if store.out { None } else { self.next_batch(&mut store) };
        self.store = Some(store);
        batch
    }

    fn next_batch(&mut self, store: &mut Store) -> Option<Batch> {
        if store.is_handed_out() {
            self.look_for_changes(store);
        }
        if store.is_handed_out() {
            return None;
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(part) = store.due.front().filter(|_| bytes < BATCH_BYTES).cloned() {
            bytes += self.save_part(store, &part, &mut batch.changes);
        }
        store.bytes += bytes;
        if store.due.is_empty() {
            for part in std::mem::take(&mut store.gone) {
                store.note(&part, None);
                batch.changes.push(Change::Gone { structure: part.0, actor: part.1 });
            }
            if std::mem::take(&mut store.facts_due) {
                let facts = self.facts();
                batch.changes.push(Change::Facts(facts.clone()));
                let was = std::mem::replace(&mut store.facts, facts);
                store.facts_before.get_or_insert(was);
            }
        }
        // What takes the place of something else, or goes with it, is saved together with it.
        let calm = store.gone.is_empty() && !store.facts_due && !store.anew;
        batch.complete = store.is_handed_out();
        batch.commit = batch.complete || (calm && store.bytes >= SAVED_BYTES);
        store.out = true;
        Some(batch)
    }

    /// Says what has become of the last batch. What was not saved is handed out again, with all that its whole had before it.
    pub fn handle_saved(&mut self, saved: bool, commit: bool) {
        let Some(store) = &mut self.store else { return };
        store.out = false;
        if commit || !saved {
            store.settle(saved);
        }
    }

    /// What is known beside rows.
    pub fn facts(&self) -> Facts {
        let nodes = self.nodes.iter().map(|(name, node)| Known {
            name: name.clone(),
            incarnation: node.incarnation,
            left: node.life == Life::Left,
        });
        let nodes = nodes.collect();
        let tombstones = self.tombstones.values().cloned().collect();
        Facts { incarnation: self.actor.incarnation, nodes, tombstones }
    }

    /// Compares what there is with what is saved.
    fn look_for_changes(&self, store: &mut Store) {
        // What waits to be taken back stays saved as it is.
        let waiting = store.waiting.iter().map(|part| (part.shape.id(), part.actor.clone()));
        let mut there: BTreeSet<_> = waiting.collect();
        for (id, held) in self.structures.iter().filter(|(_, held)| held.is_saved()) {
            held.structure.commit();
            held.structure.each_extent(&mut |actor, now| {
                let part = (*id, actor.clone());
                let new = there.insert(part.clone());
                if new && store.copies.get(&part).is_none_or(|copied| copied.differs(&now)) && !now.is_empty() {
                    store.due.push_back(part);
                }
            });
        }
        store.gone = store.copies.keys().filter(|part| !there.contains(*part)).cloned().collect();
        store.facts_due = self.facts() != store.facts;
    }

    /// Cuts the next piece of a part; returns its bytes. A part that is at its end is not due any more.
    fn save_part(&self, store: &mut Store, part: &StreamId, changes: &mut Vec<Change>) -> usize {
        let copied = store.copies.get(part).copied();
        let held = self.structures.get(&part.0);
        let piece = held.and_then(|held| Some((held, held.structure.copy(&part.1, copied, self.config.delta_bytes)?)));
        let Some((held, piece)) = piece else {
            store.due.pop_front();
            store.anew = false;
            return 0;
        };
        store.note(part, Some(piece.extent));
        store.anew = (piece.anew && copied.is_some() || store.anew) && piece.extent.fingerprint.is_none();
        if piece.extent.fingerprint.is_some() {
            store.due.pop_front();
        }
        let bytes = piece.rows.len();
        changes.push(Change::Rows {
            shape: held.shape(),
            actor: part.1.clone(),
            anew: piece.anew,
            extent: piece.extent.extent(),
            after: piece.after,
            rows: piece.rows,
        });
        bytes
    }
}
