//! One actor's rows by slot, in chunks that are made when the first row falls into them: slots of a replica that did
//! not see an actor's beginning may be sparse.

use tallymesh_schemas::Version;

use crate::row::Row;

const CHUNK: usize = 64;

/// Which key a slot belongs to: the number of its cell in the ledger, or one of the two marks.
pub(crate) type CellId = u32;

/// No row was ever here, or it was purged.
pub(crate) const EMPTY: CellId = u32::MAX;

/// The row was retired; the slot remembers at which version until that is purged.
pub(crate) const VACANT: CellId = u32::MAX - 1;

#[derive(Clone, Copy, Debug)]
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

#[derive(Debug, Default)]
pub(crate) struct Slots {
    chunks: Vec<Option<Box<[Slot; CHUNK]>>>,
}

impl Slots {
    pub(crate) fn get(&self, slot: u32) -> Slot {
        let chunk = self.chunks.get(slot as usize / CHUNK).and_then(Option::as_ref);
        chunk.map_or(Slot::NONE, |chunk| chunk[slot as usize % CHUNK])
    }

    pub(crate) fn set(&mut self, slot: u32, state: Slot) {
        let at = slot as usize / CHUNK;
        if at >= self.chunks.len() {
            self.chunks.resize_with(at + 1, || None);
        }
        self.chunks[at].get_or_insert_with(|| Box::new([Slot::NONE; CHUNK]))[slot as usize % CHUNK] = state;
    }

    /// The slots that are live or vacant, in order.
    pub(crate) fn used(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        let chunks = self.chunks.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.as_ref()?)));
        chunks
            .flat_map(|(at, chunk)| chunk.iter().enumerate().map(move |(i, slot)| ((at * CHUNK + i) as u32, *slot)))
            .filter(|(_, slot)| slot.cell != EMPTY)
    }

    /// The live rows in order of slot.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, Slot)> + '_ {
        self.used().filter(|(_, slot)| slot.is_live())
    }

    /// Bytes that they take.
    pub(crate) fn bytes(&self) -> usize {
        let made = self.chunks.iter().flatten().count();
        made * size_of::<[Slot; CHUNK]>() + self.chunks.capacity() * size_of::<usize>()
    }
}
