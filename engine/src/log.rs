//! The compacting version log of one actor's rows: which slot changed at which version.
//!
//! Versions only rise, so appending keeps the order. When a slot moves on, its older entry is struck out; a chunk is swept
//! when half of it is struck out, so the log takes 6 to 12 bytes a row however often rows change. Both append and strike
//! are O(1) for a chunk without holes, and a search in one of 4096 entries with.

use std::collections::VecDeque;

use tallymesh_schemas::Version;

/// Versions that one chunk covers.
const SPAN: u64 = 4096;

/// Entries below which a chunk is not worth a sweep.
const SMALL: usize = 64;

/// A struck out entry.
const STRUCK: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
}

#[derive(Debug)]
struct Chunk {
    base: Version,
    live: u32,
    offsets: Vec<u16>,
    slots: Vec<u32>,
}

impl FromIterator<(Version, u32)> for Log {
    /// The log of slots that last changed at those versions, in any order.
    fn from_iter<I: IntoIterator<Item = (Version, u32)>>(changes: I) -> Self {
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_unstable();
        let mut log = Self::default();
        changes.into_iter().for_each(|(version, slot)| log.insert(version, slot));
        log
    }
}

impl Log {
    /// Notes that `slot` changed at `version`. Out of order it costs a search and a shift within one chunk.
    pub(crate) fn insert(&mut self, version: Version, slot: u32) {
        let base = version - version % SPAN;
        let offset = (version % SPAN) as u16;
        match self.chunks.back_mut() {
            Some(last) if last.base == base => return last.insert(offset, slot),
            Some(last) if last.base > base => {}
            _ => return self.chunks.push_back(Chunk::new(base, offset, slot)),
        }
        match self.chunks.binary_search_by_key(&base, |chunk| chunk.base) {
            Ok(at) => self.chunks[at].insert(offset, slot),
            Err(at) => self.chunks.insert(at, Chunk::new(base, offset, slot)),
        }
    }

    /// Strikes out the entry at `version`: its slot has moved on.
    pub(crate) fn strike(&mut self, version: Version) {
        let base = version - version % SPAN;
        let Some(at) = self.find(base) else { return };
        let chunk = &mut self.chunks[at];
        chunk.strike((version % SPAN) as u16);
        if chunk.live == 0 {
            self.chunks.remove(at);
        }
    }

    fn find(&self, base: Version) -> Option<usize> {
        // Without a lost chunk the place follows from the base.
        let first = self.chunks.front()?.base;
        let guess = (base.checked_sub(first)? / SPAN) as usize;
        if self.chunks.get(guess).is_some_and(|chunk| chunk.base == base) {
            return Some(guess);
        }
        self.chunks.binary_search_by_key(&base, |chunk| chunk.base).ok()
    }

    /// The entries above `after` in order of version.
    pub(crate) fn above(&self, after: Version) -> impl Iterator<Item = (Version, u32)> + '_ {
        let from = self.chunks.partition_point(|chunk| chunk.base + SPAN <= after + 1);
        let entries = self.chunks.range(from..).flat_map(move |chunk| {
            let skip = if after < chunk.base {
                0
            } else {
                chunk.offsets.partition_point(|offset| chunk.base + u64::from(*offset) <= after)
            };
            let entries = chunk.offsets[skip..].iter().zip(&chunk.slots[skip..]);
            entries.map(|(offset, slot)| (chunk.base + u64::from(*offset), *slot))
        });
        entries.filter(|(_, slot)| *slot != STRUCK)
    }

    /// Entries, those struck out included.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.slots.len()).sum()
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|c| c.offsets.capacity() * 2 + c.slots.capacity() * 4).sum();
        entries + self.chunks.capacity() * size_of::<Chunk>()
    }
}

impl Chunk {
    fn new(base: Version, offset: u16, slot: u32) -> Self {
        Self { base, live: 1, offsets: vec![offset], slots: vec![slot] }
    }

    fn insert(&mut self, offset: u16, slot: u32) {
        self.live += 1;
        if self.offsets.last().is_none_or(|last| *last < offset) {
            self.offsets.push(offset);
            self.slots.push(slot);
            return;
        }
        match self.offsets.binary_search(&offset) {
            // Only a struck out entry can stand here: a version belongs to one row.
            Ok(at) => self.slots[at] = slot,
            Err(at) => {
                self.offsets.insert(at, offset);
                self.slots.insert(at, slot);
            }
        }
    }

    fn strike(&mut self, offset: u16) {
        let Some(at) = self.find(offset).filter(|at| self.slots[*at] != STRUCK) else { return };
        self.slots[at] = STRUCK;
        self.live -= 1;
        if self.slots.len() >= SMALL && (self.live as usize) < self.slots.len() / 2 {
            self.sweep();
        }
    }

    fn find(&self, offset: u16) -> Option<usize> {
        // Without holes the place follows from the offset.
        let guess = usize::from(offset.checked_sub(*self.offsets.first()?)?);
        if self.offsets.get(guess) == Some(&offset) {
            return Some(guess);
        }
        self.offsets.binary_search(&offset).ok()
    }

    fn sweep(&mut self) {
        let mut kept = 0;
        for at in 0..self.slots.len() {
            if self.slots[at] != STRUCK {
                self.slots[kept] = self.slots[at];
                self.offsets[kept] = self.offsets[at];
                kept += 1;
            }
        }
        self.slots.truncate(kept);
        self.offsets.truncate(kept);
        self.slots.shrink_to(kept * 3 / 2);
        self.offsets.shrink_to(kept * 3 / 2);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model: the newest version of each slot, in order.
        #[test]
        fn what_is_live_is_read_in_order(changes in prop::collection::vec((0u32..40, 1u64..900), 1..400), after: prop::sample::Index) {
            let mut log = Log::default();
            let mut newest = BTreeMap::new();
            let mut version = 0;
            for (slot, step) in changes {
                version += step;
                let old = newest.insert(slot, version);
                log.insert(version, slot);
                if let Some(old) = old {
                    log.strike(old);
                }
            }
            let after = after.index(version as usize + 1) as u64;
            let read: Vec<_> = log.above(after).collect();
            let mut expected: Vec<_> = newest.iter().map(|(s, v)| (*v, *s)).filter(|(v, _)| *v > after).collect();
            expected.sort_unstable();
            prop_assert_eq!(read, expected);
            prop_assert!(log.len() <= 64 * log.chunks.len().max(1) + 2 * newest.len());
        }

        #[test]
        fn order_of_arrival_does_not_matter(versions in prop::collection::hash_set(1u64..20_000, 1..200)) {
            let mut log = Log::default();
            for version in &versions {
                log.insert(*version, *version as u32);
            }
            let mut sorted: Vec<_> = versions.into_iter().collect();
            sorted.sort_unstable();
            prop_assert_eq!(log.above(0).map(|(v, _)| v).collect::<Vec<_>>(), sorted);
        }
    }
}
