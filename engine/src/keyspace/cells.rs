//! The cells of a structure by number, in segments that never move. So a thread that has a number reaches its cell without a
//! lock.
//!
//! A number contains the segment and the place in it, because computing them would cost as much as the addition. Segments
//! grow with the number of cells. A cell that is given back is reused for the next key; segments stay until the structure is
//! dropped.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "cells are numbered by this table, in segments that it has made"
)]

use std::sync::{Arc, OnceLock};

use crate::keyspace::cell::{Cell, Flag};
use crate::keyspace::hash::key_hash;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::{CellKey, Wanted};
use crate::primitive::{Mutex, RwLock};
use crate::shape::Shape;
use crate::spare::Vacant;

/// Number of low bits that give a cell's place in its segment. The bits above give the segment; the highest bit is the
/// index's mark of a leaf.
const PLACE_BITS: u32 = 24;

const SEGMENTS: usize = 1 << (31 - PLACE_BITS);

/// Number of cells in the first segment.
const FIRST: usize = if cfg!(loom) { 2 } else { 16 };

/// A new segment has this fraction of the cells before it.
const GROWTH: usize = 5;

type Segment = OnceLock<Box<[Cell]>>;

#[derive(Debug)]
pub(crate) struct Cells {
    shape: Shape,
    segments: Box<[Segment; SEGMENTS]>,
    numbers: Mutex<Numbers>,
    long: RwLock<LongKeys>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// Numbers that were given back.
    free: Vec<CellId>,
    /// Number of segments made.
    segments: usize,
    /// Number of cells in use in the last segment.
    used: usize,
    /// Number of cells in all segments.
    made: usize,
}

/// Keys that do not fit into their cells.
#[derive(Debug, Default)]
struct LongKeys {
    keys: Vec<Option<Arc<[u8]>>>,
    vacant: Vacant,
    bytes: usize,
}

impl Cells {
    pub(crate) fn new(shape: Shape) -> Self {
        Self {
            shape,
            segments: Box::new([const { Segment::new() }; SEGMENTS]),
            numbers: Mutex::default(),
            long: RwLock::new(LongKeys::default()),
        }
    }

    /// The cell with this number.
    #[inline(always)]
    pub(crate) fn get(&self, id: CellId) -> &Cell {
        let segment = self.segments[(id >> PLACE_BITS) as usize % SEGMENTS].get();
        &segment.expect("a number is given out with its segment")[id as usize % (1 << PLACE_BITS)]
    }

    /// The cell with this number, if it has that key.
    #[inline(always)]
    pub(crate) fn get_if(&self, id: CellId, wanted: &Wanted<'_>) -> Option<&Cell> {
        let cell = self.get(id);
        let is = if wanted.is_long() { self.is_long(cell, wanted.key) } else { cell.is(wanted) };
        is.then_some(cell)
    }

    #[cold]
    fn is_long(&self, cell: &Cell, key: &[u8]) -> bool {
        cell.place().is_some_and(|place| *self.long.read().get(place) == *key)
    }

    /// The hash of a cell's key in fingerprints.
    #[inline]
    pub(crate) fn key_hash(&self, id: CellId) -> u64 {
        self.get(id).short_key_hash().unwrap_or_else(|| key_hash(&self.key_of(id)))
    }

    /// Makes a cell for a key that has none. (Memory runs out before numbers do: a thousand million cells take 64 GB.)
    pub(crate) fn make(&self, wanted: &Wanted<'_>) -> CellId {
        let id = self.number();
        let place = if wanted.is_long() { self.long.write().put(wanted.key) } else { 0 };
        self.get(id).name(wanted, self.shape.role(wanted.key), place);
        id
    }

    fn number(&self) -> CellId {
        let mut numbers = self.numbers.lock();
        if let Some(id) = numbers.free.pop() {
            return id;
        }
        let last = numbers.segments.checked_sub(1).and_then(|last| self.segments[last].get());
        if last.is_none_or(|last| last.len() == numbers.used) {
            let size = (numbers.made / GROWTH).clamp(FIRST, 1 << PLACE_BITS);
            self.segments[numbers.segments].get_or_init(|| (0..size).map(|_| Cell::default()).collect());
            (numbers.segments, numbers.used, numbers.made) = (numbers.segments + 1, 0, numbers.made + size);
        }
        numbers.used += 1;
        ((numbers.segments - 1) << PLACE_BITS | (numbers.used - 1)) as CellId
    }

    /// Takes back an unused cell that no thread can find any more.
    pub(crate) fn give_back(&self, id: CellId) {
        let cell = self.get(id);
        if let Some(place) = cell.place() {
            self.long.write().take(place);
        }
        cell.reset();
        self.numbers.lock().free.push(id);
    }

    /// The cells that have rows, or are about to get some, in order of number.
    pub(crate) fn indexed(&self) -> impl Iterator<Item = (CellId, &Cell)> {
        let made = self.segments.iter().enumerate().filter_map(|(at, cells)| Some((at, cells.get()?)));
        let all = made.flat_map(|(at, cells)| (at << PLACE_BITS..).map(|id| id as CellId).zip(cells));
        all.filter(|(_, cell)| cell.has(Flag::Indexed))
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let cells: usize = self.segments.iter().filter_map(Segment::get).map(|cells| size_of_val(&**cells)).sum();
        let numbers = self.numbers.lock().free.capacity() * size_of::<CellId>();
        cells + size_of_val(&*self.segments) + numbers + self.long.read().bytes()
    }
}

impl KeyOf for Cells {
    #[inline]
    fn key_of(&self, id: CellId) -> CellKey {
        let cell = self.get(id);
        cell.short_key().unwrap_or_else(|| self.long.read().get(cell.place().unwrap_or_default()))
    }
}

impl LongKeys {
    fn put(&mut self, key: &[u8]) -> u64 {
        self.bytes += key.len();
        let keys = &self.keys;
        let place = self.vacant.take(|place| matches!(keys.get(place as usize), Some(None)));
        let place = place.unwrap_or_else(|| {
            self.keys.push(None);
            self.keys.len() as u32 - 1
        });
        self.keys[place as usize] = Some(key.into());
        u64::from(place)
    }

    fn take(&mut self, place: u64) {
        if let Some(key) = self.keys.get_mut(place as usize).and_then(Option::take) {
            self.bytes -= key.len();
            self.vacant.give(place as u32, &mut self.keys, Option::is_none);
        }
    }

    fn get(&self, place: u64) -> CellKey {
        let key = self.keys.get(place as usize).and_then(Option::as_ref);
        CellKey::Long(Arc::clone(key.expect("a cell's key stays as long as the cell")))
    }

    fn bytes(&self) -> usize {
        let one = size_of::<Option<Arc<[u8]>>>();
        let counts = self.keys.len() * 2 * size_of::<usize>();
        self.keys.capacity() * one + self.vacant.bytes() + self.bytes + counts
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use tallymesh_schemas::Class;

    use super::*;

    #[test]
    fn cells_keep_their_keys_and_serve_again() {
        let cells = Cells::new(Shape::of(Class::OutboundDomains));
        let keys: Vec<Vec<u8>> = (0..200_usize).map(|n| vec![n as u8; n]).collect();
        let ids: Vec<_> = keys.iter().map(|key| cells.make(&Wanted::new(key))).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "numbers rise");
        for (id, key) in ids.iter().zip(&keys) {
            assert_eq!(*cells.key_of(*id), **key);
            assert!(cells.get_if(*id, &Wanted::new(key)).is_some());
            assert!(cells.get_if(*id, &Wanted::new(b"another")).is_none());
        }
        let bytes = cells.bytes();
        ids.iter().for_each(|id| cells.give_back(*id));
        let again: Vec<_> = keys.iter().map(|key| cells.make(&Wanted::new(key))).collect();
        assert!(again.iter().zip(&keys).all(|(id, key)| *cells.key_of(*id) == **key));
        assert_eq!(again.iter().max(), ids.iter().max(), "cells serve again");
        assert!(cells.bytes() <= bytes + 200 * 16);
    }
}
