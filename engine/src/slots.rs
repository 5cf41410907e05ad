//! One actor's rows by slot, in chunks that are made when the first row falls into them: slots of a replica that did
//! not see an actor's beginning may be sparse.
//!
//! Rows are what most memory goes to, so they lie packed, in 24 bytes each. Totals that need more than 32 bits, which few
//! ever do, are kept aside.

use std::collections::BTreeMap;

use tallymesh_schemas::{Version, limits};

use crate::row::Row;

const CHUNK: usize = 64;

/// Chunks that the directory may have places for, for each one that is made: what lies further out, as only the slots of a
/// few rows of a once large actor do, is kept aside.
const REACH: usize = 16;

/// Which key a slot belongs to: the number of its cell in the ledger, or one of the two marks.
pub(crate) type CellId = u32;

/// No row was ever here, or it was purged.
pub(crate) const EMPTY: CellId = u32::MAX;

/// The row was retired; the slot remembers at which version until that is purged.
pub(crate) const VACANT: CellId = u32::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) row: Row,
    /// The slot has belonged to its key at least since this version.
    pub(crate) born: Version,
    pub(crate) cell: CellId,
}

impl Slot {
    pub(crate) const NONE: Self = Self { row: Row { added: 0, removed: 0, version: 0 }, born: 0, cell: EMPTY };

    pub(crate) fn is_live(&self) -> bool {
        self.cell < VACANT
    }
}

/// A slot as it lies in memory.
#[derive(Clone, Copy, Debug)]
struct Packed {
    cell: CellId,
    added: u32,
    removed: u32,
    /// How many versions the slot has belonged to its key. Stops at its largest value: the key is then taken to be younger
    /// than it is, and travels to a peer or two that know it.
    age: u32,
    version_low: u32,
    version_high: u16,
    wide: bool,
}

const _: () = assert!(limits::VERSION < 1 << 48, "a version is packed into 48 bits");

const NONE: Packed = Packed { cell: EMPTY, added: 0, removed: 0, age: 0, version_low: 0, version_high: 0, wide: false };

impl Packed {
    fn version(&self) -> Version {
        Version::from(self.version_high) << 32 | Version::from(self.version_low)
    }
}

type Chunk = Box<[Packed; CHUNK]>;

#[derive(Debug, Default)]
pub(crate) struct Slots {
    chunks: Vec<Option<Chunk>>,
    /// Chunks beyond the directory, by their place.
    far: BTreeMap<usize, Chunk>,
    made: usize,
    /// Totals that do not fit their packed slot.
    wide: BTreeMap<u32, (u64, u64)>,
}

impl Slots {
    pub(crate) fn get(&self, slot: u32) -> Slot {
        let at = slot as usize / CHUNK;
        let chunk = match self.chunks.get(at) {
            Some(place) => place.as_ref(),
            None => self.far.get(&at),
        };
        chunk.map_or(Slot::NONE, |chunk| self.unpack(slot, &chunk[slot as usize % CHUNK]))
    }

    fn unpack(&self, slot: u32, packed: &Packed) -> Slot {
        let narrow = (u64::from(packed.added), u64::from(packed.removed));
        let (added, removed) = if packed.wide { self.wide.get(&slot).copied().unwrap_or(narrow) } else { narrow };
        let version = packed.version();
        let born = version - Version::from(packed.age).min(version);
        Slot { row: Row { added, removed, version }, born, cell: packed.cell }
    }

    pub(crate) fn set(&mut self, slot: u32, state: Slot) {
        let Row { added, removed, version } = state.row;
        let narrow = u32::try_from(added).ok().zip(u32::try_from(removed).ok());
        let packed = &mut self.chunk(slot as usize / CHUNK)[slot as usize % CHUNK];
        let was_wide = packed.wide;
        let is_wide = narrow.is_none();
        let (low_added, low_removed) = narrow.unwrap_or_default();
        *packed = Packed {
            cell: state.cell,
            added: low_added,
            removed: low_removed,
            age: u32::try_from(version - state.born.min(version)).unwrap_or(u32::MAX),
            version_low: version as u32,
            version_high: (version >> 32) as u16,
            wide: is_wide,
        };
        if was_wide {
            self.wide.remove(&slot);
        }
        if is_wide {
            self.wide.insert(slot, (added, removed));
        }
    }

    /// The chunk at a place, made if need be.
    fn chunk(&mut self, at: usize) -> &mut Chunk {
        let make = || Box::new([NONE; CHUNK]);
        if at >= self.chunks.len() && at <= REACH * self.made {
            self.chunks.resize_with(at + 1, || None);
            let beyond = self.far.split_off(&(at + 1));
            for (at, chunk) in std::mem::replace(&mut self.far, beyond) {
                self.chunks[at] = Some(chunk);
            }
        }
        let made = &mut self.made;
        match self.chunks.get_mut(at) {
            Some(place) => place.get_or_insert_with(|| {
                *made += 1;
                make()
            }),
            None => self.far.entry(at).or_insert_with(|| {
                *made += 1;
                make()
            }),
        }
    }

    /// The slots that are live or vacant, in order.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let chunks = self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.as_ref()?)));
        let chunks = chunks.chain(self.far.iter().map(|(at, chunk)| (*at, chunk)));
        let packed = chunks
            .flat_map(|(at, chunk)| chunk.iter().enumerate().map(move |(i, packed)| ((at * CHUNK + i) as u32, packed)));
        packed.filter(|(_, packed)| packed.cell != EMPTY).map(|(slot, packed)| (slot, self.unpack(slot, packed)))
    }

    /// The live rows in order of slot.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.used().filter(|(_, slot)| slot.is_live())
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        let wide = self.wide.len() * size_of::<(u32, (u64, u64))>();
        self.made * size_of::<[Packed; CHUNK]>() + self.chunks.capacity() * size_of::<usize>() + wide
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn totals() -> impl Strategy<Value = u64> {
        prop_oneof![0..10_u64, any::<u32>().prop_map(u64::from), any::<u64>()]
    }

    proptest! {
        /// Whatever is put into a slot is what it holds, whether it is packed or kept aside, and a key is never taken to be
        /// older than it is.
        #[test]
        fn a_slot_holds_what_was_put(changes in prop::collection::vec(
            (prop_oneof![0..200_u32, 0..limits::ROWS_PER_ACTOR], totals(), totals(), 1..limits::VERSION, any::<u64>(), 0..1000_u32), 1..100,
        )) {
            let (mut slots, mut model) = (Slots::default(), BTreeMap::new());
            for (slot, added, removed, version, born, cell) in changes {
                let state = Slot { row: Row { added, removed, version }, born: born % (version + 1), cell };
                slots.set(slot, state);
                model.insert(slot, state);
            }
            for (slot, state) in &model {
                let held = slots.get(*slot);
                prop_assert_eq!((held.row, held.cell), (state.row, state.cell));
                prop_assert!(held.born >= state.born);
                prop_assert!(held.born == state.born || state.row.version - state.born > u64::from(u32::MAX));
            }
            let used: Vec<_> = slots.used().map(|(slot, _)| slot).collect();
            prop_assert_eq!(used, model.keys().copied().collect::<Vec<_>>());
            prop_assert!(slots.bytes() <= model.len() * 2 * size_of::<[Packed; CHUNK]>() + 1024);
        }

        /// Chunks that were kept aside are found when the directory has grown past them.
        #[test]
        fn the_directory_takes_in_what_lay_beyond_it(far in 64 * 64..64 * 1000_u32, upto in 0..64 * 80_u32) {
            let mut slots = Slots::default();
            let state = |slot| Slot { row: Row { added: 1, removed: 0, version: u64::from(slot) + 1 }, born: 1, cell: slot };
            for slot in (0..upto).step_by(40).chain([far]).chain((0..upto).step_by(50)) {
                slots.set(slot, state(slot));
                prop_assert_eq!(slots.get(slot), state(slot));
            }
            for slot in (0..upto).step_by(40) {
                prop_assert_eq!(slots.get(slot), state(slot));
            }
            prop_assert_eq!(slots.get(far), state(far));
            prop_assert!(slots.used().map(|(slot, _)| slot).is_sorted());
        }
    }

    #[test]
    fn a_slot_takes_24_bytes() {
        assert_eq!(size_of::<Packed>(), 24);
    }
}
