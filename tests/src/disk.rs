//! The saved state of simulated nodes: what a real node writes into its file, kept in memory.

use std::collections::BTreeMap;

use tallymesh_engine::replica::Batch;
use tallymesh_engine::{Stamp, Time};
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::{self, Change, Extent, Facts, Part, Row, Shape};
use tallymesh_schemas::{Actor, Class, StructureId, StructureName, UnixMs, Version};

use crate::caches::{CacheKey, SeenWrites, is_reached};

/// Earlier states of a disk that are kept, so that it can be set back to one of them.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone)]
struct Rows {
    shape: Shape,
    extent: Extent,
    rows: BTreeMap<u32, Row>,
}

/// The saved state at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub(crate) facts: Facts,
    parts: BTreeMap<(StructureId, Actor), Rows>,
    /// What the caches were seen to have when the current full save began.
    pub(crate) seen: SeenWrites,
}

impl Saved {
    fn write(&mut self, change: &Change) {
        match change {
            Change::Facts(facts) => self.facts = facts.clone(),
            Change::Gone { structure, actor } => drop(self.parts.remove(&(*structure, actor.clone()))),
            Change::Rows { shape, actor, anew, extent, after, rows } => {
                let fresh = || Rows { shape: shape.clone(), extent: *extent, rows: BTreeMap::new() };
                let part = self.parts.entry((shape.id(), actor.clone())).or_insert_with(fresh);
                if *anew {
                    part.rows.clear();
                }
                part.extent = *extent;
                let split = saved::split(rows, *after, |slot, row| match row {
                    Some(row) => drop(part.rows.insert(slot, row)),
                    None => drop(part.rows.remove(&slot)),
                });
                split.unwrap_or_else(|error| panic!("a replica writes what can be read: {error}"));
            }
        }
    }

    /// The saved rows of each actor and structure, as a node restores them.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Part> {
        self.parts.iter().map(|((_, actor), part)| Part {
            shape: part.shape.clone(),
            actor: actor.clone(),
            extent: part.extent,
            rows: part.rows.values().cloned().collect(),
        })
    }

    /// What the caches were seen to have, without the writes that wait when a process restores them and its clock shows
    /// `unix_ms`. In each run's rows of a cache, the first write that is too far ahead of that clock waits, and all that follow
    /// it.
    pub(crate) fn restored(&self, unix_ms: UnixMs) -> SeenWrites {
        let (mut joined, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        for part in self.parts().filter(|part| part.shape.class == Class::Cache) {
            let Ok(name) = StructureName::new(&part.shape.name) else { continue };
            let mut rows: Vec<_> = part.rows.iter().filter_map(key_and_stamp).collect();
            rows.sort_unstable();
            let first = rows.iter().position(|(.., stamp)| !is_reached(*stamp, unix_ms)).unwrap_or(rows.len());
            for (at, (_, key, stamp)) in rows.into_iter().enumerate() {
                let latest = if at < first { &mut joined } else { &mut waiting };
                let known: &mut Stamp = latest.entry((name.clone(), key)).or_default();
                *known = stamp.max(*known);
            }
        }
        let states =
            |of: &BTreeMap<CacheKey, Stamp>, at: &CacheKey, seen| of.get(at).is_some_and(|stamp| *stamp >= seen);
        let mut restored = self.seen.clone();
        restored.retain(|at, seen| states(&joined, at, seen) || !states(&waiting, at, seen));
        restored
    }
}

/// Whether one of these saved rows is too far ahead of a clock.
pub(crate) fn waits(rows: &[Row], unix_ms: UnixMs) -> bool {
    rows.iter().filter_map(key_and_stamp).any(|(.., stamp)| !is_reached(stamp, unix_ms))
}

/// The version, the key and the stamp of a saved row.
fn key_and_stamp(row: &Row) -> Option<(Version, Vec<u8>, Stamp)> {
    let mut reader = RowReader::new(&row.bytes, row.version.previous());
    match reader.next_row().ok()??.state {
        RowState::Live { key, added, .. } => Some((row.version, key?.to_vec(), Stamp(added))),
        RowState::Content { key, stamp, .. } => Some((row.version, key?.to_vec(), Stamp(stamp))),
        RowState::Vacant => None,
    }
}

/// A node's disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    saved: Saved,
    /// The saved state with writes that are not complete yet.
    draft: Saved,
    earlier: Vec<(Time, Saved)>,
    /// Nothing can be written.
    pub(crate) full: bool,
}

impl Disk {
    /// Starts again with these facts, on the saved state.
    pub(crate) fn begin(&mut self, facts: Facts) {
        self.saved.facts = facts;
        self.draft = self.saved.clone();
    }

    /// A full save begins; its process was seen to have these writes.
    pub(crate) fn note(&mut self, seen: SeenWrites) {
        self.draft.seen = seen;
    }

    /// Writes a batch. Returns whether it could.
    pub(crate) fn write(&mut self, at: Time, batch: &Batch) -> bool {
        if self.full {
            self.draft = self.saved.clone();
            return false;
        }
        batch.changes.iter().for_each(|change| self.draft.write(change));
        if batch.commit {
            if self.earlier.len() == REMEMBERED {
                // Every second state is enough to go back far.
                let mut keep = false;
                self.earlier.retain(|_| {
                    keep = !keep;
                    keep
                });
            }
            self.earlier.push((at, std::mem::replace(&mut self.saved, self.draft.clone())));
        }
        true
    }

    /// The saved state; `None` when nothing was ever saved.
    pub(crate) fn saved(&self) -> Option<&Saved> {
        Some(&self.saved).filter(|saved| saved.facts.incarnation.0 > 0)
    }

    /// Goes back to the state that was saved at a moment.
    pub(crate) fn rewind(&mut self, at: Time) {
        // Each state was valid until the moment stored with it.
        if let Some(from) = self.earlier.iter().position(|(until, _)| *until > at) {
            self.saved = self.earlier[from].1.clone();
            self.earlier.truncate(from);
        }
    }
}
