//! The hash table of one shard of the keys: cell numbers by 32 bits of their keys' hashes, with open addressing and probing
//! line by line.
//!
//! A number and its hash share eight bytes, so a search touches one cache line before the cell, and growth reads no keys.
//! Removal leaves no mark: later entries move up (Knuth, The Art of Computer Programming 3, 6.4, algorithm R). A table in which few
//! are left gives memory back.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a hash is masked to the length of the table"
)]

use crate::keyspace::id::CellId;
use crate::spare;

/// Number of slots in the smallest table.
const SMALLEST: usize = 4;

#[derive(Debug, Default)]
pub(crate) struct Table {
    /// A power of two, or none. Zero means empty; else the upper half holds the hash and the lower half the number plus one.
    slots: Box<[u64]>,
    len: usize,
}

fn hash_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

fn slot_of(hash: u32, id: CellId) -> u64 {
    u64::from(hash) << 32 | (u64::from(id) + 1)
}

impl Table {
    /// The first number with that hash for which `is` returns true.
    #[inline(always)]
    pub(crate) fn find<R>(&self, hash: u32, mut is: impl FnMut(CellId) -> Option<R>) -> Option<(CellId, R)> {
        let mask = self.slots.len().wrapping_sub(1);
        let mut at = hash as usize & mask;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == 0 {
                return None;
            }
            if hash_of(slot) == hash {
                let id = (slot as u32).wrapping_sub(1);
                if let Some(found) = is(id) {
                    return Some((id, found));
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Inserts a number that is not in the table.
    pub(crate) fn insert(&mut self, hash: u32, id: CellId) {
        // At most four fifths full: then a search visits three slots on average.
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.resize((self.slots.len() * 2).max(SMALLEST));
        }
        self.len += 1;
        self.place(slot_of(hash, id));
    }

    /// `size` is a power of two, and more than the entries.
    fn resize(&mut self, size: usize) {
        let slots = vec![0; size].into_boxed_slice();
        let old = std::mem::replace(&mut self.slots, slots);
        old.into_iter().filter(|slot| *slot != 0).for_each(|slot| self.place(slot));
    }

    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = hash_of(slot) as usize & mask;
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    /// Removes a number. Returns whether it was in the table.
    pub(crate) fn remove(&mut self, hash: u32, id: CellId) -> bool {
        let mask = self.slots.len().wrapping_sub(1);
        let mut hole = hash as usize & mask;
        while self.slots.get(hole).is_some_and(|slot| *slot != 0 && *slot != slot_of(hash, id)) {
            hole = (hole + 1) & mask;
        }
        if self.slots.get(hole).is_none_or(|slot| *slot == 0) {
            return false;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == 0 {
                break;
            }
            // The entry may move up if the hole is not before the place where its search begins.
            let begins = hash_of(slot) as usize & mask;
            if (at.wrapping_sub(begins) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = 0;
        self.len -= 1;
        if let Some(kept) = spare::kept(self.len, self.slots.len()) {
            self.resize(kept.next_power_of_two());
        }
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a map, with so few hashes that searches overlap and wrap around the end.
        #[test]
        fn what_is_put_in_is_found_until_it_is_taken_out(
            steps in prop::collection::vec((any::<bool>(), 0u32..60, prop_oneof![0u32..8, Just(u32::MAX)]), 1..400),
        ) {
            let (mut table, mut model) = (Table::default(), BTreeMap::new());
            for (put, id, hash) in steps {
                let known = model.get(&id).copied();
                match (put, known) {
                    (true, None) => {
                        table.insert(hash, id);
                        model.insert(id, hash);
                    }
                    (false, known) => {
                        prop_assert_eq!(table.remove(known.unwrap_or(hash), id), known.is_some());
                        model.remove(&id);
                    }
                    (true, Some(_)) => {}
                }
                prop_assert_eq!(table.len(), model.len());
                for (id, hash) in &model {
                    let found = table.find(*hash, |other| (other == *id).then_some(()));
                    prop_assert_eq!(found, Some((*id, ())));
                }
                for absent in (0..60).filter(|id| !model.contains_key(id)) {
                    prop_assert_eq!(table.find(hash, |other| (other == absent).then_some(())), None);
                }
            }
        }
    }
}
