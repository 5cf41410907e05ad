//! Saved state: the replica hands it out to be saved, and the next run restores it.
//!
//! The code that saves acts like a peer. For each actor's rows, of this node and of all others, the replica keeps the persisted
//! extent, and cuts the missing rows from the same logs from which it cuts deltas. Restored rows are joined like rows from a
//! peer: as rows of the actor that wrote them, which is an earlier run if it was this node. So no run writes rows of another
//! run, and stale rows lose.

use std::collections::BTreeSet;

use tallymesh_schemas::saved::{Change, Facts, Known};

use crate::replica::Replica;
use crate::replica::persist::Store;
use crate::replica::runs::life::Life;
use crate::replica::stream::StreamId;

/// The approximate bytes of rows in a batch. While the replica cuts a batch, it does nothing else.
const BATCH_BYTES: usize = 1 << 20;

/// After this many bytes of rows, the replica commits what it handed out, even if there is more.
const SAVED_BYTES: usize = 8 << 20;

/// Changes to save, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
    /// The changes handed out since the last commit form one unit, which is saved completely or not at all. If false, more of
    /// the unit follows first.
    pub commit: bool,
    /// The saved state then holds everything that existed when its unit was begun.
    pub complete: bool,
}

/// Saving.
impl Replica {
    /// Turns on saving: the replica hands out caches, gauge caches, and the windows of persistent series.
    pub fn keep_state(&mut self) {
        self.store.get_or_insert_default();
    }

    /// The next changes to save; `None` when there are none, or [`Replica::handle_saved`] was not called for the last batch. A
    /// batch that completes a unit describes the state of this node at one moment. Nothing in it is later than the state when
    /// the first batch of that unit was handed out. O(actors of the structures) plus O(rows).
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
        // Changes that replace or belong to other changes are saved together with them.
        let calm = store.gone.is_empty() && !store.facts_due && !store.anew;
        batch.complete = store.is_handed_out();
        batch.commit = batch.complete || (calm && store.bytes >= SAVED_BYTES);
        store.out = true;
        Some(batch)
    }

    /// Reports the outcome of the last batch. The replica hands out again what was not saved, with everything before it in its
    /// unit.
    pub fn handle_saved(&mut self, saved: bool, commit: bool) {
        let Some(store) = &mut self.store else { return };
        store.out = false;
        if commit || !saved {
            store.settle(saved);
        }
    }

    /// Saved facts that are not rows: this run, the known nodes, and the tombstones.
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

    /// Compares the current state with the saved state.
    fn look_for_changes(&self, store: &mut Store) {
        // Rows that wait to be restored stay saved as they are.
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

    /// Cuts the next piece of a stream; returns its bytes. A stream that has reached its end is not due any more.
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
