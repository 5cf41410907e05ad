//! The saved state of simulated nodes: what a real node writes into its file, kept in memory.

use std::collections::BTreeMap;

use tallymesh_engine::Time;
use tallymesh_engine::replica::Batch;
use tallymesh_schemas::saved::{self, CacheContexts, Change, Extent, Facts, Part, Row, Shape};
use tallymesh_schemas::{Actor, StructureId};

use crate::caches::SeenWrites;

/// Earlier states of a disk that are kept, so that it can be set back to one of them.
const REMEMBERED: usize = 64;

#[derive(Debug, Clone)]
struct Rows {
    shape: Shape,
    extent: Extent,
    rows: BTreeMap<u32, Row>,
}

/// A saved cache.
#[derive(Debug, Clone)]
pub(crate) struct SavedCache {
    pub(crate) shape: Shape,
    pub(crate) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) contexts: CacheContexts,
}

/// The saved state at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub(crate) facts: Facts,
    parts: BTreeMap<(StructureId, Actor), Rows>,
    caches: BTreeMap<StructureId, SavedCache>,
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
            Change::Entries { shape, anew, entries, contexts } => {
                let fresh = || SavedCache {
                    shape: shape.clone(),
                    entries: BTreeMap::new(),
                    contexts: CacheContexts::default(),
                };
                let cache = self.caches.entry(shape.id()).or_insert_with(fresh);
                if *anew {
                    cache.entries.clear();
                }
                for (key, entry) in entries {
                    match entry {
                        Some(entry) => drop(cache.entries.insert(key.clone(), entry.clone())),
                        None => drop(cache.entries.remove(key)),
                    }
                }
                if let Some(contexts) = contexts {
                    cache.contexts = contexts.clone();
                }
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

    /// The saved caches.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &SavedCache> {
        self.caches.values()
    }
}

/// A node's disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    saved: Saved,
    /// The saved state with writes that are not complete yet.
    draft: Saved,
    earlier: Vec<(Time, Saved)>,
    /// A full save is in progress.
    saves: bool,
    /// Nothing can be written.
    pub(crate) full: bool,
}

impl Disk {
    /// Starts again with these facts, on the saved state.
    pub(crate) fn begin(&mut self, facts: Facts) {
        self.saved.facts = facts;
        self.draft = self.saved.clone();
        self.saves = false;
    }

    /// A process saves, and was seen to have these writes. They count if this begins a full save.
    pub(crate) fn note(&mut self, seen: &SeenWrites) {
        if !self.saves {
            self.draft.seen = seen.clone();
        }
    }

    /// Writes a batch. Returns whether it could.
    pub(crate) fn write(&mut self, at: Time, batch: &Batch) -> bool {
        if self.full {
            self.draft = self.saved.clone();
            self.saves = false;
            return false;
        }
        self.saves = !batch.complete;
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
