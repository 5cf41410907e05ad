//! The saved state of a cache: which entries to save, and restoring them.
//!
//! Saved entries and contexts keep invariant V: for every write that the saved context covers, the saved entries have it or a
//! later one, or it was collected. So a unit first hands out every entry that has changed since the last one, and then the
//! context from before it began.

use tallymesh_schemas::entries::WireEntry;
use tallymesh_schemas::message::CacheContext;
use tallymesh_schemas::saved::{CacheContexts, SavedEntry};
use tallymesh_schemas::{Actor, UnixMs};

use crate::cache::context::Context;
use crate::cache::map::{CacheMap, Fit, Joined, Unsaved, Write};
use crate::cache::slots::SlotId;
use crate::hlc::Stamp;

/// Keys without entry that wait to be saved. Beyond this number, everything is saved anew.
const GONE: usize = 1 << 20;

/// A unit of changes that is being handed out.
#[derive(Debug)]
pub(crate) struct Unit {
    seen: CacheContext,
    /// The slots that were handed out, and the keys that are gone.
    handed: Unsaved,
    next: SlotId,
    is_anew: bool,
    is_begun: bool,
}

/// Some changes of a unit.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) anew: bool,
    pub(crate) entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    pub(crate) contexts: Option<CacheContexts>,
    pub(crate) bytes: usize,
}

impl CacheMap {
    /// Keeps track of what has to be saved: everything that changes from now on.
    pub(crate) fn keep_unsaved(&mut self) {
        self.unsaved.get_or_insert_default();
    }

    /// Whether something is to be saved, if this context was saved last.
    pub(crate) fn has_unsaved(&self, saved: &CacheContext) -> bool {
        let unsaved = self.unsaved.as_ref();
        unsaved.is_some_and(|unsaved| !unsaved.slots.is_empty() || !unsaved.gone.is_empty() || self.stated() != *saved)
    }

    /// What was taken in.
    pub(crate) fn stated(&self) -> CacheContext {
        self.seen.beyond(&Context::default())
    }

    /// Begins a unit.
    pub(crate) fn begin_unit(&mut self) -> Unit {
        let seen = self.stated();
        let is_anew = self.unsaved.as_ref().is_some_and(|unsaved| unsaved.gone.len() > GONE);
        if is_anew {
            self.forget_saved();
        }
        let handed = Unsaved { gone: self.take_gone(), ..Unsaved::default() };
        Unit { seen, handed, next: 0, is_anew, is_begun: false }
    }

    /// Nothing is saved: all entries have to be saved again.
    pub(crate) fn forget_saved(&mut self) {
        let all = self.slots.iter().map(|(slot, _)| slot).collect();
        if let Some(unsaved) = &mut self.unsaved {
            *unsaved = Unsaved { slots: all, ..Unsaved::default() };
        }
    }

    fn take_gone(&mut self) -> std::collections::BTreeSet<Box<[u8]>> {
        self.unsaved.as_mut().map(|unsaved| std::mem::take(&mut unsaved.gone)).unwrap_or_default()
    }

    /// The next changes of a unit, about `most` bytes. With the last ones come the contexts.
    pub(crate) fn next_changes(&mut self, unit: &mut Unit, most: usize) -> Changes {
        let mut changes = Changes { anew: unit.is_anew && !unit.is_begun, ..Changes::default() };
        if !unit.is_begun {
            unit.is_begun = true;
            changes.entries.extend(unit.handed.gone.iter().map(|key| (key.to_vec(), None)));
        }
        while changes.bytes < most {
            let next = self.unsaved.as_ref().and_then(|unsaved| unsaved.slots.range(unit.next..).next().copied());
            let Some(slot) = next else {
                let collected = self.collected.beyond(&Context::default());
                changes.contexts = Some(CacheContexts {
                    seen: unit.seen.clone(),
                    collected,
                    received: self.received.iter().map(|stamp| stamp.0).collect(),
                });
                break;
            };
            unit.next = slot + 1;
            if let Some(unsaved) = &mut self.unsaved {
                unsaved.slots.remove(&slot);
            }
            unit.handed.slots.insert(slot);
            if let Some((key, bytes)) = self.saved_entry(slot) {
                changes.bytes += key.len() + bytes.len();
                changes.entries.push((key, Some(bytes)));
            }
        }
        changes
    }

    /// The saved form of a slot's entry.
    fn saved_entry(&self, slot: SlotId) -> Option<(Vec<u8>, Vec<u8>)> {
        let entry = self.slots.get(slot)?;
        let (number, stamp, expires_ms) = (entry.number, entry.stamp.0, entry.expires_ms);
        let wire =
            WireEntry { run: 0, number, stamp, key: entry.key(), expires_ms: expires_ms.0, value: entry.value() };
        let bytes = SavedEntry::encode(self.writer(entry), &wire).ok()?;
        Some((entry.key().to_vec(), bytes))
    }

    /// A unit was not saved: it has to be handed out again.
    pub(crate) fn take_back(&mut self, unit: Unit) {
        let Some(unsaved) = &mut self.unsaved else { return };
        unsaved.slots.extend(unit.handed.slots);
        for key in unit.handed.gone {
            if self.slots.find(&key).is_none() {
                unsaved.gone.insert(key);
            }
        }
        if unit.is_anew {
            self.forget_saved();
        }
    }

    /// Restores an entry. Returns whether there was room. It counts as saved.
    pub(crate) fn restore(&mut self, entry: &SavedEntry) -> bool {
        let unsaved = self.unsaved.take();
        self.fit = Fit::Unchecked;
        let restored = entry.read(|wire| {
            let (stamp, number, expires_ms) = (Stamp(wire.stamp), wire.number, UnixMs(wire.expires_ms));
            let write = Write { key: wire.key, stamp, run: entry.run(), number, expires_ms, value: wire.value };
            self.join(&write, 0)
        });
        self.unsaved = unsaved;
        self.fit = Fit::Checked;
        restored.is_some_and(|joined| joined != Joined::NoRoom)
    }

    /// Takes in a write that is not saved in the present form.
    pub(crate) fn take_in(
        &mut self,
        key: &[u8],
        stamp: Stamp,
        (run, number): (&Actor, u64),
        (expires_ms, value): (UnixMs, Option<&[u8]>),
    ) {
        self.fit = Fit::Unchecked;
        self.join(&Write { key, stamp, run, number, expires_ms, value }, 0);
        self.fit = Fit::Checked;
    }

    /// All writes of a run up to a number were taken in.
    pub(crate) fn account_for(&mut self, run: &Actor, number: u64) {
        self.seen.raise(run, number);
    }

    /// Restores what had been taken in when the entries were saved.
    pub(crate) fn restore_contexts(&mut self, contexts: &CacheContexts) {
        self.seen.join_stated(&contexts.seen);
        self.collected.join_stated(&contexts.collected);
        contexts.received.iter().for_each(|stamp| self.received.note(Stamp(*stamp)));
    }
}
