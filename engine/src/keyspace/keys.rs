//! From a key to its cell: a hash table in shards, so that threads that count different keys rarely contend.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a hash is masked to the number of shards"
)]

use std::convert::Infallible;
use std::sync::Arc;

use foldhash::quality::FixedState;

use crate::keyspace::cell::Cell;
use crate::keyspace::cells::Cells;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::Wanted;
use crate::keyspace::quota::{Full, Quota, Reservation};
use crate::keyspace::table::Table;
use crate::primitive::{Mutex, RwLock};
use crate::shape::Shape;
use crate::spare;

const SHARDS: usize = if cfg!(loom) { 1 } else { 128 };

/// The cells of a structure by key, and the lists of changed cells.
#[derive(Debug)]
pub(crate) struct Keys {
    hasher: Hasher,
    shards: Box<[Shard; SHARDS]>,
    cells: Arc<Cells>,
    quota: Quota,
}

/// A value on two cache lines of its own, so that neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    numbers: RwLock<Table>,
    dirty: Mutex<Vec<CellId>>,
}

/// A key's hash: the shard, and the hash inside the shard's table.
#[derive(Clone, Copy)]
struct Hash {
    shard: usize,
    hash: u32,
}

/// Hashes keys with secrets, so that a party that chooses keys cannot know which of them collide. It uses folded
/// multiplication, like foldhash. Longer keys go through foldhash; shorter ones use the words that are already loaded.
#[derive(Debug)]
struct Hasher {
    secrets: [u64; 4],
    long: FixedState,
}

impl Hasher {
    fn new(seed: u64) -> Self {
        use std::hash::BuildHasher;
        let long = FixedState::with_seed(seed);
        Self { secrets: [1_u64, 2, 3, 4].map(|n| long.hash_one(n)), long }
    }

    #[inline(always)]
    fn hash(&self, wanted: &Wanted<'_>) -> Hash {
        let [a, b, c, d] = self.secrets;
        let [first, second, third] = wanted.words;
        let hash = if wanted.is_long() {
            self.hash_long(wanted.key)
        } else {
            let hash = fold(first ^ a, second ^ b);
            fold(hash ^ third ^ c, d ^ wanted.key.len() as u64)
        };
        Hash { shard: (hash >> 57) as usize % SHARDS, hash: hash as u32 }
    }

    #[cold]
    fn hash_long(&self, key: &[u8]) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        let mut hasher = self.long.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

impl Keys {
    /// The secret `seed` keeps a party that chooses keys from knowing which of them collide.
    pub(crate) fn new(shape: Shape, seed: u64, quota: Quota) -> Self {
        Self {
            quota,
            hasher: Hasher::new(seed),
            shards: Box::new(std::array::from_fn(|_| Shard::default())),
            cells: Arc::new(Cells::new(shape)),
        }
    }

    pub(crate) fn cells(&self) -> &Arc<Cells> {
        &self.cells
    }

    /// The budgets that count the keys.
    pub(crate) fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Calls `f` with the key's cell, if there is one, under its shard's read lock.
    #[inline]
    pub(crate) fn with<R>(&self, key: &[u8], f: impl FnOnce(CellId, &Cell) -> R) -> Option<R> {
        let wanted = Wanted::new(key);
        let Hash { shard, hash } = self.hasher.hash(&wanted);
        let numbers = self.shards[shard].numbers.read();
        numbers.find(hash, |id| self.cells.get_if(id, &wanted)).map(|(id, cell)| f(id, cell))
    }

    /// The number of the key's cell, if there is one.
    pub(crate) fn find(&self, key: &[u8]) -> Option<CellId> {
        self.with(key, |id, _| id)
    }

    /// Calls `f` with the key's cell, which is made if needed, under its shard's lock. While `f` runs, the cell is not
    /// removed.
    ///
    /// # Errors
    /// There is no cell, and no room for one.
    pub(crate) fn with_or_new<R>(&self, key: &[u8], f: impl FnOnce(CellId, &Cell) -> R) -> Result<R, Full> {
        self.find_or_make(key, || self.quota.take(1), f)
    }

    /// As [`Keys::with_or_new`]. A new cell uses reserved room.
    pub(crate) fn with_or_reserved<R>(
        &self,
        key: &[u8],
        room: &mut Reservation<'_>,
        f: impl FnOnce(CellId, &Cell) -> R,
    ) -> R {
        let admit = || {
            room.draw();
            Ok::<(), Infallible>(())
        };
        let Ok(made) = self.find_or_make(key, admit, f);
        made
    }

    /// Calls `f` with the key's cell. Makes it if `admit` allows that.
    #[inline]
    fn find_or_make<R, E>(
        &self,
        key: &[u8],
        admit: impl FnOnce() -> Result<(), E>,
        f: impl FnOnce(CellId, &Cell) -> R,
    ) -> Result<R, E> {
        let wanted = Wanted::new(key);
        let Hash { shard, hash } = self.hasher.hash(&wanted);
        let shard = &self.shards[shard];
        {
            let numbers = shard.numbers.read();
            if let Some((id, cell)) = numbers.find(hash, |id| self.cells.get_if(id, &wanted)) {
                return Ok(f(id, cell));
            }
        }
        let mut numbers = shard.numbers.write();
        // Another thread may have made the cell in between.
        let id = match numbers.find(hash, |id| self.cells.get_if(id, &wanted)) {
            Some((id, _)) => id,
            None => {
                admit()?;
                let id = self.cells.make(&wanted);
                numbers.insert(hash, id);
                id
            }
        };
        Ok(f(id, self.cells.get(id)))
    }

    /// Removes an unused cell: it has no row, its own part is zero and committed, and no counter pins it. Returns whether it
    /// was removed. Runs under the ledger's lock.
    pub(crate) fn remove_unused(&self, id: CellId) -> bool {
        let Hash { shard, hash } = self.hasher.hash(&Wanted::new(&self.cells.key_of(id)));
        let mut numbers = self.shards[shard].numbers.write();
        // Under the write lock no thread can find the cell. If no counter pins it now, no thread adds to it any more.
        let removed = self.cells.get(id).is_unused() && numbers.remove(hash, id);
        if removed {
            self.cells.give_back(id);
            self.quota.give_back(1);
        }
        removed
    }

    /// Lists a cell that [`Cell::add`] reported as newly changed.
    pub(crate) fn list(&self, id: CellId) {
        self.shards[id as usize % SHARDS].dirty.lock().push(id);
    }

    /// Moves the lists of changed cells into `into`.
    pub(crate) fn drain(&self, into: &mut Vec<CellId>) {
        for shard in &*self.shards {
            let mut dirty = shard.dirty.lock();
            let listed = dirty.len();
            into.append(&mut dirty);
            if let Some(kept) = spare::kept(listed, dirty.capacity()) {
                dirty.shrink_to(kept);
            }
        }
    }

    /// Bytes of tables and cells.
    pub(crate) fn bytes(&self) -> usize {
        let table = |shard: &Shard| {
            let dirty = shard.dirty.lock().capacity() * size_of::<CellId>();
            size_of::<Shard>() + shard.numbers.read().bytes() + dirty
        };
        self.cells.bytes() + self.shards.iter().map(table).sum::<usize>()
    }

    /// Number of cells.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.numbers.read().len()).sum()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.quota.give_back(self.len() as u64);
    }
}
