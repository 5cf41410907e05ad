//! What a node has saved of its one cache, as a disk keeps it.

use std::collections::BTreeMap;

use tallymesh_engine::replica::Batch;
use tallymesh_engine::{Now, Replica};
use tallymesh_schemas::saved::{CacheContexts, Change, Facts, SavedEntry, Shape};

/// The facts, and the entries with what they account for.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) facts: Facts,
    pub(crate) shape: Option<Shape>,
    pub(crate) entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) contexts: CacheContexts,
}

impl Disk {
    /// Saves what has changed. Returns what was handed out.
    pub(crate) fn save(&mut self, replica: &mut Replica) -> Vec<Batch> {
        let mut batches = Vec::new();
        while let Some(batch) = replica.poll_save() {
            assert!(replica.poll_save().is_none(), "one at a time");
            replica.handle_saved();
            batch.changes.iter().for_each(|change| self.apply(change));
            batches.push(batch);
        }
        batches
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Facts(facts) => self.facts = facts.clone(),
            Change::Entries { shape, anew, entries, contexts } => {
                self.shape = Some(shape.clone());
                if *anew {
                    self.entries.clear();
                }
                for (key, entry) in entries {
                    match entry {
                        Some(entry) => drop(self.entries.insert(key.clone(), entry.clone())),
                        None => drop(self.entries.remove(key)),
                    }
                }
                if let Some(contexts) = contexts {
                    self.contexts = contexts.clone();
                }
            }
            Change::Rows { .. } | Change::Gone { .. } => {}
        }
    }

    /// Restores everything in a new process.
    pub(crate) fn restore(&self, replica: &mut Replica, now: Now) {
        replica.restore_facts(now, self.facts.clone());
        if let Some(shape) = &self.shape {
            for bytes in self.entries.values() {
                replica.restore_entry(shape, &SavedEntry::decode(bytes).unwrap()).unwrap();
            }
            replica.restore_contexts(shape, &self.contexts).unwrap();
        }
        replica.restored(now);
    }
}
