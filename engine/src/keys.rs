//! From a key to its cell: a hash table in shards, so that threads that count different keys rarely meet.

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::cell::Cell;
use crate::primitive::{Arc, Mutex, Ordering, RwLock, fence};

const SHARDS: usize = if cfg!(loom) { 1 } else { 128 };

/// The cells of a structure by key, and the lists of those that have changed.
#[derive(Debug)]
pub(crate) struct Keys {
    hasher: FixedState,
    shards: Box<[Shard]>,
}

/// On two cache lines of its own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    cells: RwLock<HashTable<Arc<Cell>>>,
    dirty: Mutex<Vec<Arc<Cell>>>,
}

impl Keys {
    /// `seed` keeps whoever chooses keys from knowing which of them collide.
    pub(crate) fn new(seed: u64) -> Self {
        Self { hasher: FixedState::with_seed(seed), shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> usize {
        // The table takes the lowest and the highest bits.
        (hash >> 40) as usize % SHARDS
    }

    /// Calls `f` with the key's cell, if there is one, under its shard's read lock.
    #[inline]
    pub(crate) fn with<R>(&self, key: &[u8], f: impl FnOnce(&Arc<Cell>) -> R) -> Option<R> {
        let hash = self.hash(key);
        let cells = self.shards[self.shard(hash)].cells.read();
        cells.find(hash, |cell| cell.key() == key).map(f)
    }

    /// Calls `f` with the key's cell, made if need be, under its shard's lock: while `f` runs, the cell is not removed.
    #[inline]
    pub(crate) fn with_or_new<R>(&self, key: &[u8], f: impl FnOnce(&Arc<Cell>) -> R) -> R {
        let hash = self.hash(key);
        let at = self.shard(hash);
        {
            let cells = self.shards[at].cells.read();
            if let Some(cell) = cells.find(hash, |cell| cell.key() == key) {
                return f(cell);
            }
        }
        let mut cells = self.shards[at].cells.write();
        match cells.entry(hash, |cell| cell.key() == key, |cell| self.hash(cell.key())) {
            Entry::Occupied(found) => f(found.get()),
            Entry::Vacant(vacant) => f(vacant.insert(Arc::new(Cell::new(key, at as u32))).get()),
        }
    }

    /// Removes a cell that nobody counts in: its own part is zero and committed, and only the table and the caller's
    /// `held` references know it. Whether it was removed.
    pub(crate) fn remove_unused(&self, cell: &Arc<Cell>, held: usize) -> bool {
        let hash = self.hash(cell.key());
        let mut cells = self.shards[cell.shard()].cells.write();
        // Under the write lock nobody can find the cell, so if nobody holds it now, nobody adds to it any more.
        if Arc::strong_count(cell) != held + 1 {
            return false;
        }
        // Whoever let go of it did so after its last addition: see that one.
        fence(Ordering::Acquire);
        if cell.is_dirty() || cell.own() != 0 {
            return false;
        }
        match cells.find_entry(hash, |other| Arc::ptr_eq(other, cell)) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    /// Lists a cell that [`Cell::add`] found newly changed.
    pub(crate) fn list(&self, cell: &Arc<Cell>) {
        self.shards[cell.shard()].dirty.lock().push(Arc::clone(cell));
    }

    /// Takes the lists of changed cells, in order of shard and of listing.
    pub(crate) fn drain(&self, into: &mut Vec<Arc<Cell>>) {
        for shard in &self.shards {
            into.append(&mut shard.dirty.lock());
        }
    }

    /// Bytes of tables and cells.
    pub(crate) fn bytes(&self) -> usize {
        let one = size_of::<Cell>() + 2 * size_of::<usize>();
        let table = |cells: &HashTable<Arc<Cell>>| cells.allocation_size() + cells.len() * one;
        self.shards.iter().map(|shard| size_of::<Shard>() + table(&shard.cells.read())).sum()
    }

    /// Cells.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.cells.read().len()).sum()
    }
}
