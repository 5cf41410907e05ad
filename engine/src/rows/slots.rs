//! One actor's rows by slot. Dense slots lie in chunks; slots that are far apart are stored one by one. A replica that did
//! not see an actor's beginning may have sparse slots, and a peer can invent slots anywhere.
//!
//! Rows take most of the memory, so they are packed into 24 bytes each. Totals that need more than 32 bits take 16 bytes
//! more in a separate table; few counts do. A chunk is made only if its slots are used, or if nearly all slots of the existing
//! chunks are. So a row takes no more than about a hundred bytes, wherever its slot is (I6).
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a slot is looked up in the directory before its chunk is indexed; packed fields have checked widths"
)]

use std::collections::BTreeMap;

use tallymesh_schemas::{Version, bounds};

use crate::keyspace::id::{CellId, EMPTY};
use crate::keyspace::totals::Totals;
use crate::rows::row::Row;
use crate::spare;

const CHUNK: usize = 64;

/// Number of used slots that justifies a chunk in any case.
const WORTH: usize = CHUNK / 4;

/// Number of directory entries allowed per full chunk's worth of used slots. Slots further out are stored outside the
/// chunks; only the few remaining rows of a once large actor have such slots.
const REACH: usize = 16;

/// The row was retired. Until it is purged, the slot keeps the version of the retirement.
pub(crate) const VACANT: CellId = u32::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) row: Row,
    /// The slot has belonged to its key since this version or earlier.
    pub(crate) born: Version,
    pub(crate) cell: CellId,
}

impl Slot {
    pub(crate) const NONE: Self =
        Self { row: Row { added: 0, removed: 0, version: Version::ZERO }, born: Version::ZERO, cell: EMPTY };

    pub(crate) fn is_live(&self) -> bool {
        self.cell < VACANT
    }
}

/// A slot as stored in memory.
#[derive(Clone, Copy, Debug)]
struct Packed {
    cell: CellId,
    /// The total of additions or, for wide totals, the position of both totals in the separate table.
    added: u32,
    removed: u32,
    /// For how many versions the slot has belonged to its key. The value saturates: then the key seems younger than it is,
    /// and is also sent to a few peers that know it already.
    age: u32,
    version_low: u32,
    version_high: u16,
    wide: bool,
}

const _: () = assert!(bounds::VERSION.0 < 1 << 48, "a version is packed into 48 bits");

const NONE: Packed = Packed { cell: EMPTY, added: 0, removed: 0, age: 0, version_low: 0, version_high: 0, wide: false };

impl Packed {
    fn version(&self) -> Version {
        Version(u64::from(self.version_high) << 32 | u64::from(self.version_low))
    }
}

type Chunk = Box<[Packed; CHUNK]>;

#[derive(Debug, Default)]
pub(crate) struct Slots {
    chunks: Vec<Option<Chunk>>,
    /// Number of chunks made.
    made: usize,
    /// Used slots outside the chunks.
    aside: BTreeMap<u32, Packed>,
    /// Number of slots that are live or vacant.
    used: usize,
    wide: Wide,
}

/// Totals that do not fit into their packed slots. The packed slots store the positions in this table.
#[derive(Debug, Default)]
struct Wide {
    totals: Vec<Totals>,
    free: Vec<u32>,
}

impl Wide {
    fn insert(&mut self, totals: Totals) -> u32 {
        if let Some(at) = self.free.pop() {
            self.totals[at as usize] = totals;
            return at;
        }
        self.totals.push(totals);
        (self.totals.len() - 1) as u32
    }

    fn remove(&mut self, at: u32) {
        self.free.push(at);
        if self.free.len() == self.totals.len() {
            *self = Self::default();
        }
    }

    fn bytes(&self) -> usize {
        self.totals.capacity() * size_of::<Totals>() + self.free.capacity() * size_of::<u32>()
    }
}

impl Slots {
    pub(crate) fn get(&self, slot: u32) -> Slot {
        self.packed(slot).map_or(Slot::NONE, |packed| self.unpack(packed))
    }

    #[inline]
    fn packed(&self, slot: u32) -> Option<&Packed> {
        match self.chunks.get(slot as usize / CHUNK) {
            Some(Some(chunk)) => Some(&chunk[slot as usize % CHUNK]),
            _ => self.aside.get(&slot),
        }
    }

    /// The version of a slot; 0 when it is empty.
    #[inline]
    pub(crate) fn version(&self, slot: u32) -> Version {
        self.packed(slot).map_or(Version::ZERO, Packed::version)
    }

    /// The cell of a slot.
    #[inline]
    pub(crate) fn cell(&self, slot: u32) -> CellId {
        self.packed(slot).map_or(EMPTY, |packed| packed.cell)
    }

    /// Number of slots that are live or vacant.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn unpack(&self, packed: &Packed) -> Slot {
        let narrow = Totals { added: u64::from(packed.added), removed: u64::from(packed.removed) };
        let totals = if packed.wide { self.wide.totals[packed.added as usize] } else { narrow };
        let version = packed.version();
        let born = version.before(u64::from(packed.age));
        Slot { row: Row::new(totals, version), born, cell: packed.cell }
    }

    pub(crate) fn set(&mut self, slot: u32, state: Slot) {
        let (Totals { added, removed }, version) = (state.row.totals(), state.row.version);
        let narrow = u32::try_from(added).ok().zip(u32::try_from(removed).ok());
        if let Some(at) = self.packed(slot).filter(|packed| packed.wide).map(|packed| packed.added) {
            self.wide.remove(at);
        }
        let (low_added, low_removed) = narrow.unwrap_or_else(|| (self.wide.insert(state.row.totals()), 0));
        let packed = Packed {
            cell: state.cell,
            added: low_added,
            removed: low_removed,
            age: u32::try_from(version.since(state.born)).unwrap_or(u32::MAX),
            version_low: version.0 as u32,
            version_high: (version.0 >> 32) as u16,
            wide: narrow.is_none(),
        };
        self.replace(slot, packed);
    }

    /// Moves a live row to its next state, if that changes only its packed slot. Returns its cell and the previous row.
    /// Returns `None`, without a change, otherwise.
    #[inline]
    pub(crate) fn advance(&mut self, slot: u32, next: &Row) -> Option<(CellId, Row)> {
        let chunk = self.chunks.get_mut(slot as usize / CHUNK)?.as_mut()?;
        let packed = &mut chunk[slot as usize % CHUNK];
        let version = packed.version();
        if packed.cell >= VACANT || packed.wide || version >= next.version {
            return None;
        }
        let (added, removed) = (u32::try_from(next.added).ok()?, u32::try_from(next.removed).ok()?);
        let old = Row { added: u64::from(packed.added), removed: u64::from(packed.removed), version };
        let older = u32::try_from(next.version.since(version)).unwrap_or(u32::MAX);
        *packed = Packed {
            added,
            removed,
            age: packed.age.saturating_add(older),
            version_low: next.version.0 as u32,
            version_high: (next.version.0 >> 32) as u16,
            ..*packed
        };
        Some((packed.cell, old))
    }

    fn replace(&mut self, slot: u32, new: Packed) {
        let at = slot as usize / CHUNK;
        if new.cell != EMPTY && !matches!(self.chunks.get(at), Some(Some(_))) && self.deserves_chunk(at) {
            self.make_chunk(at);
        }
        let old = match self.chunks.get_mut(at) {
            Some(Some(chunk)) => std::mem::replace(&mut chunk[slot as usize % CHUNK], new),
            _ if new.cell == EMPTY => self.aside.remove(&slot).unwrap_or(NONE),
            _ => self.aside.insert(slot, new).unwrap_or(NONE),
        };
        self.used = self.used + usize::from(new.cell != EMPTY) - usize::from(old.cell != EMPTY);
        if new.cell == EMPTY {
            self.drop_chunk(at);
        }
    }

    /// Gives a chunk up if none of its slots is used, and the end of the directory if no chunk is left there.
    fn drop_chunk(&mut self, at: usize) {
        let is_empty =
            |chunk: &Option<Chunk>| chunk.as_ref().is_some_and(|chunk| chunk.iter().all(|slot| slot.cell == EMPTY));
        let Some(chunk) = self.chunks.get_mut(at).filter(|chunk| is_empty(chunk)) else { return };
        *chunk = None;
        self.made -= 1;
        while self.chunks.last().is_some_and(Option::is_none) {
            self.chunks.pop();
        }
        spare::trim(&mut self.chunks);
    }

    /// Returns whether a chunk may be made here: it is within reach, and either a quarter of its slots are used, or four
    /// fifths of the slots of all chunks are.
    fn deserves_chunk(&self, at: usize) -> bool {
        let in_reach = at < self.chunks.len() || at < REACH * (self.used / CHUNK + 1);
        let dense = self.made * CHUNK <= self.used + self.used / 4;
        in_reach && (dense || self.aside.range(slots_of(at)).nth(WORTH - 2).is_some())
    }

    fn make_chunk(&mut self, at: usize) {
        let mut chunk = Box::new([NONE; CHUNK]);
        while let Some((slot, packed)) = self.aside.range(slots_of(at)).next().map(|(slot, packed)| (*slot, *packed)) {
            self.aside.remove(&slot);
            chunk[slot as usize % CHUNK] = packed;
        }
        if at >= self.chunks.len() {
            self.chunks.resize_with(at + 1, || None);
        }
        self.chunks[at] = Some(chunk);
        self.made += 1;
    }

    /// The slots that are live or vacant, in order.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let chunks = self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.as_ref()?)));
        let chunked = chunks
            .flat_map(|(at, chunk)| chunk.iter().enumerate().map(move |(i, packed)| ((at * CHUNK + i) as u32, packed)));
        let mut chunked = chunked.filter(|(_, packed)| packed.cell != EMPTY).peekable();
        let mut aside = self.aside.iter().map(|(slot, packed)| (*slot, packed)).peekable();
        std::iter::from_fn(move || {
            let (slot, packed) = match (chunked.peek(), aside.peek()) {
                (Some((chunked_slot, _)), Some((aside_slot, _))) if chunked_slot > aside_slot => aside.next()?,
                (None, _) => aside.next()?,
                _ => chunked.next()?,
            };
            Some((slot, self.unpack(packed)))
        })
    }

    /// The live rows in order of slot.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.used().filter(|(_, slot)| slot.is_live())
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        // A tree's nodes are half full when it has grown from one end.
        let aside = self.aside.len() * 2 * size_of::<(u32, Packed)>();
        let chunks = self.made * size_of::<[Packed; CHUNK]>() + self.chunks.capacity() * size_of::<usize>();
        chunks + aside + self.wide.bytes()
    }
}

/// The slot numbers of a chunk.
fn slots_of(at: usize) -> std::ops::Range<u32> {
    let first = (at * CHUNK) as u32;
    first..first + CHUNK as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals() -> impl Strategy<Value = u64> {
        prop_oneof![0..10_u64, any::<u32>().prop_map(u64::from), any::<u64>()]
    }

    proptest! {
        /// A slot holds exactly what was put into it, inside or outside the chunks. A key never seems older than it is.
        #[test]
        fn a_slot_holds_what_was_put(changes in prop::collection::vec(
            (prop_oneof![0..200_u32, 0..bounds::ROWS_PER_ACTOR], totals(), totals(), 1..bounds::VERSION.0, any::<u64>(), 0..1000_u32), 1..100,
        )) {
            let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
            for (slot, added, removed, version, born, cell) in changes {
                let state = Slot { row: Row { added, removed, version: Version(version) }, born: Version(born % (version + 1)), cell };
                slots.set(slot, state);
                // Rows that advance equal rows that were put.
                let next = Row { added: added / 2, removed: removed / 2, version: Version(version + born % 3).min(bounds::VERSION.previous()) };
                if let Some(was) = slots.advance(slot, &next) {
                    prop_assert_eq!(was, (cell, state.row));
                    model.insert(slot, Slot { row: next, ..state });
                } else {
                    model.insert(slot, state);
                }
            }
            for (slot, state) in &model {
                let held = slots.get(*slot);
                prop_assert_eq!((held.row, held.cell), (state.row, state.cell));
                prop_assert!(held.born >= state.born);
                prop_assert!(held.born == state.born || state.row.version.since(state.born) > u64::from(u32::MAX));
            }
            let used: Vec<_> = slots.used().map(|(slot, _)| slot).collect();
            prop_assert_eq!(used, model.keys().copied().collect::<Vec<_>>());
            prop_assert!(slots.bytes() <= model.len() * 256 + 4096);
        }

        /// However many slots are used, however far apart, and whether or not they are emptied again: the contents equal
        /// what was put, in order, in a bounded number of bytes per slot.
        #[test]
        fn far_and_near_take_about_the_same(
            runs in prop::collection::vec((0..bounds::ROWS_PER_ACTOR - 100_000, 1..90_u32, 1..500_u32), 1..20),
            emptied in 1..10_usize,
        ) {
            let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
            let state = |slot: u32| Slot { row: Row { added: 1, removed: 0, version: Version(u64::from(slot) + 1) }, born: Version(1), cell: slot };
            for (first, step, count) in runs {
                for slot in (first..).step_by(step as usize).take(count as usize) {
                    slots.set(slot, state(slot));
                    model.insert(slot, state(slot));
                }
                prop_assert!(slots.bytes() <= model.len() * 128 + 4096, "{} bytes for {}", slots.bytes(), model.len());
            }
            prop_assert!(slots.used().map(|(slot, _)| slot).eq(model.keys().copied()));
            let gone: Vec<_> = model.keys().copied().step_by(emptied).collect();
            for slot in gone {
                slots.set(slot, Slot::NONE);
                model.remove(&slot);
                prop_assert_eq!(slots.get(slot), Slot::NONE);
            }
            prop_assert!(slots.used().eq(model.iter().map(|(slot, state)| (*slot, *state))));
            for slot in model.keys() {
                slots.set(*slot, Slot::NONE);
            }
            prop_assert!(slots.bytes() <= 256, "{} bytes for none", slots.bytes());
        }
    }

    /// Dense slots lie in chunks and nowhere else.
    #[test]
    fn dense_slots_take_24_bytes_each() {
        let mut slots = Slots::default();
        for slot in 0..6400 {
            slots.set(
                slot,
                Slot {
                    row: Row { added: 1, removed: 0, version: Version(u64::from(slot) + 1) },
                    born: Version(1),
                    cell: slot,
                },
            );
            assert!(slots.aside.is_empty());
        }
        assert_eq!(slots.made, 100);
    }

    #[test]
    fn a_slot_takes_24_bytes() {
        assert_eq!(size_of::<Packed>(), 24);
    }
}
