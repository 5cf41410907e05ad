//! The compacting version log of one actor's rows: which slot changed at which version.
//!
//! Versions only rise, so appending keeps the order. When a slot changes again, its earlier entry is dead. Entries are not
//! marked dead, because that would cost a cache miss at every change; readers of the log compare the slot's version instead.
//! A new chunk that begins while more than half of the log may be dead starts a sweep over twice a chunk's entries, from the
//! end of the last sweep, and removes the dead ones. During one full round of sweeps, half as many entries are appended as
//! there were. So the log never has more than about twice as many entries as there are rows, of 6 to 9 bytes each.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "positions are inside the log that they were found in"
)]

use std::collections::VecDeque;

use tallymesh_schemas::Version;

use crate::spare;

/// Number of versions that one chunk covers.
const SPAN: u64 = 4096;

#[derive(Debug, Default)]
pub(crate) struct Log {
    chunks: VecDeque<Chunk>,
    /// Number of entries, dead ones included.
    len: usize,
    /// The version at which the next sweep begins.
    looked: Version,
}

#[derive(Debug)]
struct Chunk {
    base: Version,
    offsets: Vec<u16>,
    slots: Vec<u32>,
}

impl FromIterator<(Version, u32)> for Log {
    /// Builds the log of slots that last changed at these versions, given in any order.
    fn from_iter<I: IntoIterator<Item = (Version, u32)>>(changes: I) -> Self {
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_unstable();
        let mut log = Self::default();
        changes.into_iter().for_each(|(version, slot)| log.insert(version, slot));
        log
    }
}

impl Log {
    /// Notes that `slot` changed at `version`. Out of order this costs a search and a shift within one chunk.
    pub(crate) fn insert(&mut self, version: Version, slot: u32) {
        let (base, offset) = split(version);
        self.len += match self.chunks.back_mut() {
            Some(last) if last.base == base => last.insert(offset, slot),
            Some(last) if last.base > base => match self.chunks.binary_search_by_key(&base, |chunk| chunk.base) {
                Ok(at) => self.chunks[at].insert(offset, slot),
                Err(at) => {
                    self.chunks.insert(at, Chunk::new(base, offset, slot));
                    1
                }
            },
            _ => {
                self.chunks.push_back(Chunk::new(base, offset, slot));
                1
            }
        };
    }

    /// Returns whether a sweep for dead entries is due, given the number of rows.
    #[inline]
    pub(crate) fn is_due(&self, rows: usize) -> bool {
        self.chunks.back().is_some_and(|last| last.slots.len() == 1) && self.is_large(rows)
    }

    /// Returns whether it has more entries than it should have, given the number of rows.
    fn is_large(&self, rows: usize) -> bool {
        self.len > 2 * rows + SPAN as usize
    }

    /// Makes the sweeps that are due because so many rows are gone.
    pub(crate) fn sweep_after(&mut self, gone: usize, rows: usize, lives: impl Fn(Version, u32) -> bool) {
        for _ in 0..=gone / SPAN as usize {
            if gone > 0 && self.is_large(rows) {
                self.sweep(&lives);
            }
        }
    }

    /// Visits some entries and keeps those for which `lives` returns true.
    pub(crate) fn sweep(&mut self, mut lives: impl FnMut(Version, u32) -> bool) {
        let from = self.chunks.partition_point(|chunk| chunk.base < self.looked);
        let mut left = 2 * SPAN as usize;
        for at in (from..self.chunks.len()).chain(0..from) {
            let chunk = &mut self.chunks[at];
            left = left.saturating_sub(chunk.slots.len());
            self.looked = chunk.base.next();
            self.len -= chunk.sweep(&mut lives);
            if left == 0 {
                break;
            }
        }
        self.chunks.retain(|chunk| !chunk.slots.is_empty());
        spare::trim_queue(&mut self.chunks);
    }

    /// The entries above `after` in order of version, dead ones included.
    pub(crate) fn above(&self, after: Version) -> impl Iterator<Item = (Version, u32)> + '_ {
        let from = self.chunks.partition_point(|chunk| chunk.last() <= after);
        self.chunks.range(from..).flat_map(move |chunk| {
            let skip = if after < chunk.base {
                0
            } else {
                chunk.offsets.partition_point(|offset| chunk.version(*offset) <= after)
            };
            let entries = chunk.offsets[skip..].iter().zip(&chunk.slots[skip..]);
            entries.map(|(offset, slot)| (chunk.version(*offset), *slot))
        })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(|c| c.offsets.capacity() * 2 + c.slots.capacity() * 4).sum();
        entries + self.chunks.capacity() * size_of::<Chunk>()
    }
}

/// The first version of the chunk that covers a version, and the offset of the version in it.
fn split(version: Version) -> (Version, u16) {
    let offset = version.0 % SPAN;
    (version.before(offset), offset as u16)
}

impl Chunk {
    fn new(base: Version, offset: u16, slot: u32) -> Self {
        Self { base, offsets: vec![offset], slots: vec![slot] }
    }

    /// The version at an offset.
    fn version(&self, offset: u16) -> Version {
        Version(self.base.0 + u64::from(offset))
    }

    /// The last version that the chunk covers.
    fn last(&self) -> Version {
        Version(self.base.0 + (SPAN - 1))
    }

    /// Inserts an entry. Returns how many entries were added.
    fn insert(&mut self, offset: u16, slot: u32) -> usize {
        if self.offsets.last().is_none_or(|last| *last < offset) {
            self.offsets.push(offset);
            self.slots.push(slot);
            return 1;
        }
        match self.offsets.binary_search(&offset) {
            // Only a dead entry or the same entry can be here: a version belongs to one row.
            Ok(at) => {
                self.slots[at] = slot;
                0
            }
            Err(at) => {
                self.offsets.insert(at, offset);
                self.slots.insert(at, slot);
                1
            }
        }
    }

    /// Keeps the live entries. Returns how many were removed.
    fn sweep(&mut self, mut lives: impl FnMut(Version, u32) -> bool) -> usize {
        let (before, mut kept) = (self.slots.len(), 0);
        for at in 0..before {
            let (offset, slot) = (self.offsets[at], self.slots[at]);
            if lives(self.version(offset), slot) {
                (self.offsets[kept], self.slots[kept]) = (offset, slot);
                kept += 1;
            }
        }
        if kept < before {
            self.offsets.truncate(kept);
            self.slots.truncate(kept);
            self.offsets.shrink_to_fit();
            self.slots.shrink_to_fit();
        }
        before - kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a model: the newest version of each slot, in order, and not many more entries than that.
        #[test]
        fn what_lives_is_read_in_order(
            slots in 1..3000_u32, changes in prop::collection::vec((any::<u32>(), 1u64..40), 1..60_000), after: prop::sample::Index,
        ) {
            let mut log = Log::default();
            let mut newest = BTreeMap::new();
            let mut version = 0;
            for (slot, step) in changes {
                version += step;
                newest.insert(slot % slots, Version(version));
                log.insert(Version(version), slot % slots);
                if log.is_due(newest.len()) {
                    log.sweep(|version, slot| newest.get(&slot) == Some(&version));
                }
                prop_assert!(log.len <= 4 * newest.len() + 3 * SPAN as usize, "{} for {}", log.len, newest.len());
            }
            let after = Version(after.index(version as usize + 1) as u64);
            let read: Vec<_> = log.above(after).filter(|(version, slot)| newest.get(slot) == Some(version)).collect();
            let mut expected: Vec<_> = newest.iter().map(|(s, v)| (*v, *s)).filter(|(v, _)| *v > after).collect();
            expected.sort_unstable();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(log.len, log.above(Version::ZERO).count());
        }

        #[test]
        fn order_of_arrival_does_not_matter(versions in prop::collection::hash_set(1u64..20_000, 1..200)) {
            let mut log = Log::default();
            for version in &versions {
                log.insert(Version(*version), *version as u32);
            }
            let mut sorted: Vec<_> = versions.into_iter().map(Version).collect();
            sorted.sort_unstable();
            prop_assert_eq!(log.above(Version::ZERO).map(|(v, _)| v).collect::<Vec<_>>(), sorted);
        }
    }
}
