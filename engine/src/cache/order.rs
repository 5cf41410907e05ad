//! The keys of a cache in order: built when somebody lists them for the first time, then kept.

use std::ops::Bound;

use crate::cache::entry::Entry;
use crate::cache::map::CacheMap;
use crate::cache::slots::SlotId;

impl CacheMap {
    /// Whether the keys are in order.
    pub(crate) fn is_ordered(&self) -> bool {
        self.order.built == SlotId::MAX
    }

    /// Adds the next `most` slots to the order. Returns whether all are in it.
    pub(crate) fn order_keys(&mut self, most: u32) -> bool {
        let end = self.slots.end().min(self.order.built.saturating_add(most));
        for slot in self.order.built..end {
            if let Some(entry) = self.slots.get(slot) {
                self.order.keys.insert(entry.key().into(), slot);
            }
        }
        self.order.built = if end == self.slots.end() { SlotId::MAX } else { end };
        self.is_ordered()
    }

    /// The entries from a key on, in order of key.
    pub(crate) fn keys_from(&self, from: Bound<&[u8]>) -> impl Iterator<Item = &Entry> {
        let slots = self.order.keys.range::<[u8], _>((from, Bound::Unbounded)).map(|(_, slot)| *slot);
        slots.filter_map(|slot| self.slots.get(slot))
    }
}
