//! What follows from the entries of a cache, kept up to date with every change of one entry.

use std::collections::BTreeSet;

use tallymesh_schemas::{Bounds, UnixMs};

use crate::cache::entry::{Content, Entry, RunId};
use crate::cache::fingerprint::Fingerprint;
use crate::cache::slots::SlotId;
use crate::hlc::Stamp;

/// The aggregates of the entries (I10).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    pub(crate) bounds: Bounds,
    /// Live entries.
    pub(crate) entries: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
    pub(crate) fingerprint: Fingerprint,
    /// Live entries by stamp; only in a bounded cache.
    pub(crate) by_age: BTreeSet<(Stamp, SlotId)>,
    /// Live entries that expire.
    pub(crate) by_expiry: BTreeSet<(UnixMs, SlotId)>,
    /// Removed entries by run and number.
    pub(crate) removed: BTreeSet<(RunId, u64, SlotId)>,
}

impl Derived {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    pub(crate) fn add(&mut self, slot: SlotId, entry: &Entry) {
        match entry.content {
            Content::Value => {
                self.entries += 1;
                self.bytes += entry.bytes.len() as u64;
                self.fingerprint.add(entry);
                if self.bounds != Bounds::default() {
                    self.by_age.insert((entry.stamp, slot));
                }
                if entry.expires_ms != UnixMs::ZERO {
                    self.by_expiry.insert((entry.expires_ms, slot));
                }
            }
            Content::Removed => drop(self.removed.insert((entry.run, entry.number, slot))),
        }
    }

    pub(crate) fn subtract(&mut self, slot: SlotId, entry: &Entry) {
        match entry.content {
            Content::Value => {
                self.entries -= 1;
                self.bytes -= entry.bytes.len() as u64;
                self.fingerprint.subtract(entry);
                self.by_age.remove(&(entry.stamp, slot));
                self.by_expiry.remove(&(entry.expires_ms, slot));
            }
            Content::Removed => drop(self.removed.remove(&(entry.run, entry.number, slot))),
        }
    }

    /// An entry to remove because the cache is too large: an expired one, else the oldest one.
    pub(crate) fn excess(&self, unix_ms: UnixMs) -> Option<SlotId> {
        let over = |bound: Option<std::num::NonZeroU64>, has: u64| bound.is_some_and(|bound| has > bound.get());
        if !over(self.bounds.elements, self.entries) && !over(self.bounds.bytes, self.bytes) {
            return None;
        }
        let expired = self.by_expiry.first().filter(|(expires_ms, _)| *expires_ms <= unix_ms);
        expired.map(|(_, slot)| *slot).or_else(|| self.by_age.first().map(|(_, slot)| *slot))
    }

    /// Number of entries that have expired at this wall clock time and are still live.
    pub(crate) fn expired(&self, unix_ms: UnixMs) -> u64 {
        self.by_expiry.range(..=(unix_ms, SlotId::MAX)).count() as u64
    }

    /// Whether a key and a value of these lengths fit into the cache at all.
    pub(crate) fn fits(&self, key: usize, value: usize) -> bool {
        self.bounds.bytes.is_none_or(|bound| (key + value) as u64 <= bound.get())
    }

    /// Memory in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        (self.by_age.len() + self.by_expiry.len() + self.removed.len()) * 24
    }
}
