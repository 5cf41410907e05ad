//! A key's cell: what this node counts itself, written by any thread without a lock, and the sum of what the others
//! count, written by the ledger.

use smallvec::SmallVec;
use tallymesh_schemas::limits;

use crate::canary::{self, Canary};
use crate::primitive::{Arc, AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use crate::slots::{CellId, EMPTY};

/// Keys up to 24 bytes lie in the cell itself.
pub(crate) type KeyBuf = SmallVec<[u8; 24]>;

/// A cell as table, ledger and counters share it.
pub(crate) type CellRef = Arc<Cell>;

#[derive(Debug)]
pub(crate) struct Cell {
    key: KeyBuf,
    added: AtomicU64,
    removed: AtomicU64,
    /// Cached aggregate of the other actors that count (I10). Written under the ledger's lock only.
    others: AtomicI64,
    /// The cell's number in the ledger. Written under the ledger's lock only.
    id: AtomicU32,
    shard: u32,
    dirty: AtomicBool,
    /// Whether the ledger has it on its list of cells without rows. Written under the ledger's lock only.
    parked: AtomicBool,
}

impl Cell {
    pub(crate) fn new(key: &[u8], shard: u32) -> Self {
        Self {
            key: SmallVec::from_slice(key),
            added: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            others: AtomicI64::new(0),
            id: AtomicU32::new(EMPTY),
            shard,
            dirty: AtomicBool::new(false),
            parked: AtomicBool::new(false),
        }
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn shard(&self) -> usize {
        self.shard as usize
    }

    /// Adds `n`, or removes `-n`. Returns whether the caller has to put the cell on its shard's dirty list.
    ///
    /// The adder writes a total and then reads the flag; the committer clears the flag and then reads the totals. All
    /// four are sequentially consistent, so either the committer sees the addition, or the adder sees the flag cleared
    /// and the cell is listed again: no change is missed (I5).
    #[must_use]
    #[inline]
    pub(crate) fn add(&self, n: i64) -> bool {
        let n = n.clamp(-limits::STEP, limits::STEP);
        let total = if n < 0 { &self.removed } else { &self.added };
        total.fetch_add(n.unsigned_abs(), Ordering::SeqCst);
        self.mark()
    }

    #[inline]
    fn mark(&self) -> bool {
        !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst)
    }

    /// Raises the totals to at least those given; returns what [`Cell::add`] returns.
    #[must_use]
    pub(crate) fn raise(&self, added: u64, removed: u64) -> bool {
        self.added.fetch_max(added, Ordering::SeqCst);
        self.removed.fetch_max(removed, Ordering::SeqCst);
        self.mark()
    }

    /// Takes off what has been counted elsewhere, whatever is added at the same time.
    pub(crate) fn lower(&self, added: u64, removed: u64) {
        self.added.fetch_sub(added, Ordering::SeqCst);
        self.removed.fetch_sub(removed, Ordering::SeqCst);
    }

    /// Adds `n` > 0 if the cluster-wide count, as far as this node knows it, is then at most `limit`. Atomic among the
    /// threads of this node: the addition happens only if no other one came between it and the check.
    ///
    /// `None` when there is no room; else what [`Cell::add`] returns.
    pub(crate) fn add_within(&self, n: i64, limit: i64) -> Option<bool> {
        let n = n.clamp(0, limits::STEP);
        let mut added = self.added.load(Ordering::SeqCst);
        loop {
            // A removal that comes in between only makes more room.
            let removed = self.removed.load(Ordering::SeqCst);
            let own = added.wrapping_sub(removed) as i64;
            let total = own.saturating_add(self.others.load(Ordering::SeqCst));
            if total.saturating_add(n) > limit {
                return None;
            }
            let more = added.wrapping_add(n.unsigned_abs());
            match self.added.compare_exchange_weak(added, more, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(self.mark()),
                Err(now) => added = now,
            }
        }
    }

    /// Clears the dirty flag and then reads the totals, in that order: see [`Cell::add`].
    pub(crate) fn take(&self) -> (u64, u64) {
        if canary::broken(Canary::FlagClearedLate) {
            let totals = self.totals();
            canary::interleave();
            self.dirty.swap(false, Ordering::SeqCst);
            return totals;
        }
        self.dirty.swap(false, Ordering::SeqCst);
        canary::interleave();
        self.totals()
    }

    /// Removed first: a hold that comes and goes between the two reads counts as open, never as less than nothing.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let removed = self.removed.load(Ordering::SeqCst);
        (self.added.load(Ordering::SeqCst), removed)
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// This node's own part.
    pub(crate) fn own(&self) -> i64 {
        let (added, removed) = self.totals();
        added.wrapping_sub(removed) as i64
    }

    pub(crate) fn others(&self) -> i64 {
        self.others.load(Ordering::SeqCst)
    }

    pub(crate) fn add_others(&self, n: i64) {
        self.others.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn id(&self) -> Option<CellId> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != EMPTY)
    }

    /// Notes whether the ledger has it on its list of cells without rows; returns whether it had.
    pub(crate) fn set_parked(&self, parked: bool) -> bool {
        self.parked.swap(parked, Ordering::Relaxed)
    }

    pub(crate) fn set_id(&self, id: CellId) {
        self.id.store(id, Ordering::Relaxed);
    }
}
