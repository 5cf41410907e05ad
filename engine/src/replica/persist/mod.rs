//! Saved state: what a node writes while it runs, and what it restores at its start.
//!
//! The code that saves acts like a peer. For each actor's rows, of this node and of all others, the replica keeps the persisted
//! extent, and cuts the missing rows from the same logs from which it cuts deltas. Restored rows are joined like rows from a
//! peer: as rows of the actor that wrote them, which is an earlier run if it was this node. So no run writes rows of another
//! run, and stale rows lose.

pub(crate) mod error;
pub(crate) mod restore;
mod save;
pub(crate) mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tallymesh_schemas::StructureId;
use tallymesh_schemas::saved::{self, Change, Facts};

use crate::counter::persist::PersistedExtent;
use crate::replica::caches::held::Caches;
use crate::replica::held::Structures;
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

/// What a batch is in its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// More of the unit follows.
    Part,
    /// It completes the unit.
    Commit,
}

/// What the replica knows about the saved state.
#[derive(Debug, Default)]
pub(crate) struct Persistence {
    /// How far rows were handed out.
    copies: BTreeMap<StreamId, PersistedExtent>,
    /// For rows handed out since the last commit: how far they were saved before; `None` if nothing was saved.
    before: BTreeMap<StreamId, Option<PersistedExtent>>,
    facts: Facts,
    facts_before: Option<Facts>,
    /// The rest of the unit that is being handed out.
    due: VecDeque<StreamId>,
    gone: Vec<StreamId>,
    facts_due: bool,
    /// Entries of caches have changed.
    caches_due: bool,
    /// The stream that is being saved again from the start: its saved rows are incomplete until it is done.
    anew: bool,
    /// Bytes since the last commit.
    bytes: usize,
    /// The batch whose outcome is not known yet.
    out: Option<Step>,
    /// Restored rows that cannot be joined yet: they were written ahead of this node's clock, or their window has not come.
    waiting: Vec<saved::Part>,
    /// Objects with saved state that are not configured.
    pub(super) unclaimed: BTreeSet<StructureId>,
}

impl Persistence {
    fn note(&mut self, part: &StreamId, copied: Option<PersistedExtent>) {
        let was = match copied {
            Some(copied) => self.copies.insert(part.clone(), copied),
            None => self.copies.remove(part),
        };
        self.before.entry(part.clone()).or_insert(was);
    }

    fn end_unit(&mut self) {
        self.bytes = 0;
        self.before.clear();
        self.facts_before = None;
    }

    fn is_handed_out(&self) -> bool {
        self.due.is_empty() && self.gone.is_empty() && !self.facts_due && !self.caches_due
    }
}

/// Saving.
impl Persistence {
    /// The next changes to save; `None` when there are none, or the outcome of the last batch is not known yet.
    /// `facts` returns the current facts that are not rows.
    pub(crate) fn next_batch(
        &mut self,
        structures: &Structures,
        caches: &mut Caches,
        facts: impl Fn() -> Facts,
        chunk_bytes: usize,
    ) -> Option<Batch> {
        if self.out.is_some() {
            return None;
        }
        if self.is_handed_out() {
            self.look_for_changes(structures, &facts());
            self.caches_due = caches.begin_unit();
        }
        if self.is_handed_out() {
            return None;
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(part) = self.due.front().filter(|_| bytes < BATCH_BYTES).cloned() {
            bytes += self.save_part(structures, &part, chunk_bytes, &mut batch.changes);
        }
        while self.due.is_empty() && self.caches_due && bytes < BATCH_BYTES {
            match caches.next_changes(BATCH_BYTES - bytes) {
                Some((change, of_entries)) => {
                    bytes += of_entries;
                    batch.changes.push(change);
                }
                None => self.caches_due = false,
            }
        }
        self.bytes += bytes;
        if self.due.is_empty() && !self.caches_due {
            for part in std::mem::take(&mut self.gone) {
                self.note(&part, None);
                batch.changes.push(Change::Gone { structure: part.0, actor: part.1 });
            }
            if std::mem::take(&mut self.facts_due) {
                let facts = facts();
                batch.changes.push(Change::Facts(facts.clone()));
                let was = std::mem::replace(&mut self.facts, facts);
                self.facts_before.get_or_insert(was);
            }
        }
        // Changes that replace or belong to other changes are saved together with them.
        let calm = self.gone.is_empty() && !self.facts_due && !self.anew && !self.caches_due;
        batch.complete = self.is_handed_out();
        batch.commit = batch.complete || (calm && self.bytes >= SAVED_BYTES);
        self.out = Some(if batch.commit { Step::Commit } else { Step::Part });
        Some(batch)
    }

    /// The last batch was saved.
    pub(crate) fn note_saved(&mut self, caches: &mut Caches) {
        if self.out.take() == Some(Step::Commit) {
            self.end_unit();
            caches.note_saved();
        }
    }

    /// The last batch was not saved, and so nothing of its unit: hands out all of it again.
    pub(crate) fn note_failed(&mut self, caches: &mut Caches) {
        self.out = None;
        caches.note_failed();
        self.caches_due = false;
        for (part, was) in std::mem::take(&mut self.before) {
            match was {
                Some(was) => self.copies.insert(part, was),
                None => self.copies.remove(&part),
            };
        }
        if let Some(facts) = self.facts_before.take() {
            self.facts = facts;
        }
        self.end_unit();
        self.due.clear();
        self.gone.clear();
        (self.facts_due, self.anew) = (false, false);
    }

    /// Compares the current state with the saved state.
    fn look_for_changes(&mut self, structures: &Structures, facts: &Facts) {
        // Rows that wait to be restored stay saved as they are.
        let waiting = self.waiting.iter().map(|part| (part.shape.id(), part.actor.clone()));
        let mut there: BTreeSet<_> = waiting.collect();
        for (id, held) in structures.iter().filter(|(_, held)| held.is_saved()) {
            held.structure.commit();
            held.structure.each_extent(&mut |actor, now| {
                let part = (*id, actor.clone());
                let new = there.insert(part.clone());
                if new && self.copies.get(&part).is_none_or(|copied| copied.differs(&now)) && !now.is_empty() {
                    self.due.push_back(part);
                }
            });
        }
        self.gone = self.copies.keys().filter(|part| !there.contains(*part)).cloned().collect();
        self.facts_due = *facts != self.facts;
    }

    /// Cuts the next piece of a stream; returns its bytes. A stream that has reached its end is not due any more.
    fn save_part(
        &mut self,
        structures: &Structures,
        part: &StreamId,
        chunk_bytes: usize,
        changes: &mut Vec<Change>,
    ) -> usize {
        let copied = self.copies.get(part).copied();
        let held = structures.get(&part.0);
        let piece = held.and_then(|held| Some((held, held.structure.copy(&part.1, copied, chunk_bytes)?)));
        let Some((held, piece)) = piece else {
            self.due.pop_front();
            self.anew = false;
            return 0;
        };
        self.note(part, Some(piece.extent));
        self.anew = (piece.anew && copied.is_some() || self.anew) && piece.extent.fingerprint.is_none();
        if piece.extent.fingerprint.is_some() {
            self.due.pop_front();
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

/// Restoring.
impl Persistence {
    /// Rows of a stream are saved up to here, and are restored.
    pub(crate) fn note_copy(&mut self, part: StreamId, copied: PersistedExtent) {
        self.copies.insert(part, copied);
    }

    /// Restored rows cannot be joined yet.
    pub(crate) fn wait(&mut self, part: saved::Part) {
        self.waiting.push(part);
    }

    /// The restored rows that could not be joined yet.
    pub(crate) fn take_waiting(&mut self) -> Vec<saved::Part> {
        std::mem::take(&mut self.waiting)
    }
}
