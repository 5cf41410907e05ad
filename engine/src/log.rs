//! The compacting version log of one actor's rows: which slot changed at which version.
//!
//! Versions only rise, so appending keeps the order. An entry whose slot has moved on is dead; it is passed over when
//! read and swept out of its chunk when half of the chunk is dead, so the log takes 6 to 12 bytes a row however often
//! rows change. Append is O(1), the death of an entry O(log chunks).

use std::collections::VecDeque;

use tallymesh_schemas::Version;

/// Versions that one chunk covers.
const SPAN: u64 = 4096;

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

    /// Notes that the entry at `version` is dead; `is_live(slot, version)` tells of any other one.
    pub(crate) fn kill(&mut self, version: Version, is_live: impl Fn(u32, Version) -> bool) {
        let Some(at) = self.find(version) else { return };
        let chunk = &mut self.chunks[at];
        chunk.live -= 1;
        if chunk.live == 0 {
            self.chunks.remove(at);
        } else if chunk.slots.len() >= 64 && (chunk.live as usize) < chunk.slots.len() / 2 {
            chunk.sweep(is_live);
        }
    }

    fn find(&self, version: Version) -> Option<usize> {
        let base = version - version % SPAN;
        self.chunks.binary_search_by_key(&base, |chunk| chunk.base).ok()
    }

    /// The entries above `after`, dead ones included, in order of version.
    pub(crate) fn above(&self, after: Version) -> impl Iterator<Item = (Version, u32)> + '_ {
        let from = self.chunks.partition_point(|chunk| chunk.base + SPAN <= after + 1);
        self.chunks.range(from..).flat_map(move |chunk| {
            let skip = if after < chunk.base {
                0
            } else {
                chunk.offsets.partition_point(|offset| chunk.base + u64::from(*offset) <= after)
            };
            let entries = chunk.offsets[skip..].iter().zip(&chunk.slots[skip..]);
            entries.map(|(offset, slot)| (chunk.base + u64::from(*offset), *slot))
        })
    }

    /// Entries, dead ones included.
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
        if self.offsets.last().is_none_or(|last| *last < offset) {
            self.offsets.push(offset);
            self.slots.push(slot);
        } else {
            match self.offsets.binary_search(&offset) {
                // Only a dead entry can stand here: a version belongs to one row.
                Ok(at) => self.slots[at] = slot,
                Err(at) => {
                    self.offsets.insert(at, offset);
                    self.slots.insert(at, slot);
                }
            }
        }
        self.live += 1;
    }

    fn sweep(&mut self, is_live: impl Fn(u32, Version) -> bool) {
        let mut kept = 0;
        for at in 0..self.slots.len() {
            if is_live(self.slots[at], self.base + u64::from(self.offsets[at])) {
                self.slots[kept] = self.slots[at];
                self.offsets[kept] = self.offsets[at];
                kept += 1;
            }
        }
        self.slots.truncate(kept);
        self.offsets.truncate(kept);
        self.slots.shrink_to(kept * 2);
        self.offsets.shrink_to(kept * 2);
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
                    log.kill(old, |slot, at| newest.get(&slot) == Some(&at));
                }
            }
            let after = after.index(version as usize + 1) as u64;
            let is_live = |(at, slot): &(u64, u32)| newest.get(slot) == Some(at);
            let read: Vec<_> = log.above(after).filter(is_live).collect();
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
