//! The log of a cache: the slots of all entries in the order in which this replica wrote or received them.
//!
//! A key that changes moves to the end, so the log has one position for each entry. Senders keep positions in it. A position
//! is never used twice.

use std::collections::BTreeMap;

use crate::cache::slots::SlotId;

/// No slot: the entry that stood here has changed since and stands at a later position.
const NONE: SlotId = SlotId::MAX;

/// Positions of one chunk.
const CHUNK: u64 = 1024;

/// A chunk with fewer entries gives them up: they move to the end of the log.
const LEAST: u16 = 256;

#[derive(Debug)]
struct Chunk {
    slots: Vec<SlotId>,
    live: u16,
}

/// The slots in order of position. Positions start at 1.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// The chunks that have entries, by the number of the chunk.
    chunks: BTreeMap<u64, Chunk>,
    end: u64,
}

/// The chunk of a position, and the place in it.
fn place(position: u64) -> (u64, usize) {
    let at = position.saturating_sub(1);
    (at / CHUNK, usize::try_from(at % CHUNK).unwrap_or(0))
}

impl Log {
    /// The last position that was given.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends a slot. Returns its position.
    pub(crate) fn append(&mut self, slot: SlotId) -> u64 {
        self.end += 1;
        let (chunk, at) = place(self.end);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| Chunk { slots: Vec::new(), live: 0 });
        chunk.slots.resize(at, NONE);
        chunk.slots.push(slot);
        chunk.live += 1;
        self.end
    }

    /// Removes what stands at a position. Returns the slots that have to be appended again, because few are left near it.
    pub(crate) fn remove(&mut self, position: u64) -> Vec<SlotId> {
        let (number, at) = place(position);
        let Some(chunk) = self.chunks.get_mut(&number) else { return Vec::new() };
        match chunk.slots.get_mut(at) {
            Some(slot) if *slot != NONE => *slot = NONE,
            _ => return Vec::new(),
        }
        chunk.live -= 1;
        let is_last = number == place(self.end).0;
        if is_last || chunk.live >= LEAST {
            return Vec::new();
        }
        let left = self.chunks.remove(&number).map(|chunk| chunk.slots).unwrap_or_default();
        left.into_iter().filter(|slot| *slot != NONE).collect()
    }

    /// The slots behind a position, in order, each with its position.
    pub(crate) fn behind(&self, position: u64) -> impl Iterator<Item = (u64, SlotId)> {
        let (first, _) = place(position + 1);
        let all = self.chunks.range(first..).flat_map(|(number, chunk)| {
            let from = number * CHUNK + 1;
            (from..).zip(chunk.slots.iter().copied())
        });
        all.filter(move |(at, slot)| *at > position && *slot != NONE)
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.values().map(|chunk| chunk.slots.capacity() * size_of::<SlotId>() + size_of::<(u64, Chunk)>()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_slot_has_one_position_in_order_of_its_last_change(changes in prop::collection::vec(0u32..700, 1..6000)) {
            let mut log = Log::default();
            let mut positions: BTreeMap<SlotId, u64> = BTreeMap::new();
            for slot in changes {
                let mut again = Vec::new();
                if let Some(position) = positions.remove(&slot) {
                    again = log.remove(position);
                }
                again.retain(|other| *other != slot);
                for slot in again.into_iter().chain([slot]) {
                    positions.insert(slot, log.append(slot));
                }
            }
            let mut expected: Vec<_> = positions.iter().map(|(slot, position)| (*position, *slot)).collect();
            expected.sort_unstable();
            let middle = expected[expected.len() / 2].0;
            prop_assert_eq!(log.behind(0).collect::<Vec<_>>(), expected.clone());
            expected.retain(|(position, _)| *position > middle);
            prop_assert_eq!(log.behind(middle).collect::<Vec<_>>(), expected);
        }
    }
}
