//! The entries of a cache by slot, and the slots by key.

use hashbrown::HashTable;

use crate::cache::entry::Entry;
use crate::keyspace::hash::key_hash;

/// The number of a slot. An entry keeps its slot while its key has an entry.
pub(crate) type SlotId = u32;

/// Parts of the table, so that a part that grows moves few entries at a time.
const PARTS: usize = 64;

/// The entries, each in a slot.
#[derive(Debug)]
pub(crate) struct Slots {
    entries: Vec<Option<Entry>>,
    free: Vec<SlotId>,
    /// Each with the lower half of the hash of its key.
    table: Vec<HashTable<(u32, SlotId)>>,
    len: usize,
}

/// Where the table finds a key.
fn place(hash: u64) -> (usize, u32) {
    let [a, b, c, d, e, ..] = hash.to_le_bytes();
    (usize::from(e) % PARTS, u32::from_le_bytes([a, b, c, d]))
}

/// Spreads the bits of the stored half, of which the table uses the highest and the lowest.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Default for Slots {
    fn default() -> Self {
        let table = std::iter::repeat_with(HashTable::new).take(PARTS).collect();
        Self { entries: Vec::new(), free: Vec::new(), table, len: 0 }
    }
}

impl Slots {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Number of slots that have ever been in use: slots are numbered below it.
    pub(crate) fn end(&self) -> SlotId {
        SlotId::try_from(self.entries.len()).unwrap_or(SlotId::MAX)
    }

    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<SlotId> {
        let (part, half) = place(key_hash(key));
        let is_it = |(other, slot): &(u32, SlotId)| *other == half && self.get(*slot).is_some_and(|e| e.key() == key);
        self.table.get(part)?.find(spread(half), is_it).map(|(_, slot)| *slot)
    }

    /// Whether a key with this hash has an entry.
    pub(crate) fn has_hash(&self, hash: u64) -> bool {
        let (part, half) = place(hash);
        let is_it = |(other, slot): &(u32, SlotId)| {
            *other == half && self.get(*slot).is_some_and(|entry| key_hash(entry.key()) == hash)
        };
        self.table.get(part).is_some_and(|part| part.find(spread(half), is_it).is_some())
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
        let (part, half) = place(key_hash(entry.key()));
        let slot = self.free.pop().unwrap_or(self.end());
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
        let (part, half) = place(key_hash(entry.key()));
        if let Some(part) = self.table.get_mut(part) {
            if let Ok(found) = part.find_entry(spread(half), |(_, other)| *other == slot) {
                found.remove();
            }
            if part.len() * 8 < part.capacity() && part.capacity() > 64 {
                part.shrink_to(part.len() * 2, |(half, _)| spread(*half));
            }
        }
        self.len -= 1;
        self.free.push(slot);
        self.shrink();
        Some(entry)
    }

    /// Gives up the memory of slots behind the last one in use when few are in use.
    fn shrink(&mut self) {
        if self.len * 4 > self.entries.len() || self.entries.len() < 1024 {
            return;
        }
        while self.entries.last().is_some_and(Option::is_none) {
            self.entries.pop();
        }
        let end = self.end();
        self.free.retain(|slot| *slot < end);
        self.entries.shrink_to_fit();
        self.free.shrink_to_fit();
    }

    /// All entries in order of slot.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Entry)> {
        (0..).zip(&self.entries).filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// Memory in bytes, with the keys and values.
    pub(crate) fn bytes(&self) -> usize {
        let tables: usize = self.table.iter().map(HashTable::allocation_size).sum();
        self.entries.capacity() * size_of::<Option<Entry>>() + self.free.capacity() * size_of::<SlotId>() + tables
    }
}
