//! The entries of a cache by slot, and the slots by key.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use crate::cache::entry::Entry;
use crate::spare::{self, Vacant};

/// The number of a slot. An entry keeps its slot while its key has an entry.
pub(crate) type SlotId = u32;

/// Parts of the table, so that a part that grows moves few entries at a time.
const PARTS: usize = 64;

/// The entries, each in a slot.
#[derive(Debug)]
pub(crate) struct Slots {
    entries: Vec<Option<Entry>>,
    vacant: Vacant,
    /// Each with the lower half of the hash of its key.
    table: Vec<HashTable<(u32, SlotId)>>,
    /// Hashes keys with a secret, so that a party that chooses keys cannot know which of them collide.
    hasher: FixedState,
    len: usize,
}

/// Spreads the bits of the stored half, of which the table uses the highest and the lowest.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Slots {
    /// No entries. `seed` is a secret.
    pub(crate) fn new(seed: u64) -> Self {
        let table = std::iter::repeat_with(HashTable::new).take(PARTS).collect();
        Self { entries: Vec::new(), vacant: Vacant::default(), table, hasher: FixedState::with_seed(seed), len: 0 }
    }

    /// Where the table finds a key.
    #[inline]
    fn place(&self, key: &[u8]) -> (usize, u32) {
        let [a, b, c, d, e, ..] = self.hasher.hash_one(key).to_le_bytes();
        (usize::from(e) % PARTS, u32::from_le_bytes([a, b, c, d]))
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots are numbered below it.
    pub(crate) fn end(&self) -> SlotId {
        SlotId::try_from(self.entries.len()).unwrap_or(SlotId::MAX)
    }

    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<SlotId> {
        let (part, half) = self.place(key);
        let is_it = |(other, slot): &(u32, SlotId)| *other == half && self.get(*slot).is_some_and(|e| e.key() == key);
        self.table.get(part)?.find(spread(half), is_it).map(|(_, slot)| *slot)
    }

    #[inline]
    pub(crate) fn get(&self, slot: SlotId) -> Option<&Entry> {
        self.entries.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Entry> {
        self.entries.get_mut(slot as usize)?.as_mut()
    }

    /// Replaces the entry of a slot by another one of the same key. Returns the earlier one.
    pub(crate) fn replace(&mut self, slot: SlotId, entry: Entry) -> Option<Entry> {
        self.get_mut(slot).map(|old| std::mem::replace(old, entry))
    }

    /// Adds an entry of a key that has none. Returns its slot; `None` if all slots are in use.
    pub(crate) fn insert(&mut self, entry: Entry) -> Option<SlotId> {
        let (part, half) = self.place(entry.key());
        let entries = &self.entries;
        let vacant = self.vacant.take(|slot| matches!(entries.get(slot as usize), Some(None)));
        let slot = vacant.unwrap_or(self.end());
        match self.entries.get_mut(slot as usize) {
            Some(place) => *place = Some(entry),
            None if slot == SlotId::MAX => return None,
            None => self.entries.push(Some(entry)),
        }
        if let Some(part) = self.table.get_mut(part) {
            part.insert_unique(spread(half), (half, slot), |(half, _)| spread(*half));
        }
        self.len += 1;
        Some(slot)
    }

    /// Removes the entry of a slot.
    pub(crate) fn remove(&mut self, slot: SlotId) -> Option<Entry> {
        let entry = self.entries.get_mut(slot as usize)?.take()?;
        let (part, half) = self.place(entry.key());
        if let Some(part) = self.table.get_mut(part) {
            if let Ok(found) = part.find_entry(spread(half), |(_, other)| *other == slot) {
                found.remove();
            }
            if let Some(kept) = spare::kept(part.len(), part.capacity()) {
                part.shrink_to(kept, |(half, _)| spread(*half));
            }
        }
        self.len -= 1;
        self.vacant.give(slot, &mut self.entries, Option::is_none);
        Some(entry)
    }

    /// All entries in order of slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// Memory in bytes, with the keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let tables: usize = self.table.iter().map(HashTable::allocation_size).sum();
        self.entries.capacity() * size_of::<Option<Entry>>() + self.vacant.bytes() + tables
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keyspace::hash::{FACTOR, SEED, fold, key_hash};

    /// I6. Somebody who knows the hash of the fingerprints chooses keys that have the same one. They do not meet in the table.
    #[test]
    fn chosen_keys_do_not_collide() {
        let key = |n: u64| {
            let first = n.wrapping_mul(FACTOR);
            let second = fold(SEED ^ 16 ^ first, FACTOR).wrapping_add(SEED);
            [first.to_le_bytes(), second.to_le_bytes()].concat()
        };
        let keys: Vec<_> = (1..1000).map(key).collect();
        assert_eq!(keys.iter().map(|key| key_hash(key)).collect::<BTreeSet<_>>().len(), 1);
        let slots = Slots::new(4711);
        assert_eq!(keys.iter().map(|key| slots.place(key)).collect::<BTreeSet<_>>().len(), keys.len());
    }
}
