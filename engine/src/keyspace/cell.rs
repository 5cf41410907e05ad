//! A key's cell: this node's own count, which any thread changes without a lock, and the sum of the other actors' counts,
//! which the ledger writes. It is one cache line, so that counting touches only one.
#![allow(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "words of a key are inside the cell")]

use tallymesh_schemas::bounds;

use crate::canary::{self, Canary};
use crate::keyspace::hash::key_hash_of_words;
use crate::keyspace::id::EMPTY;
use crate::keyspace::key::{CellKey, SHORT, Wanted};
use crate::keyspace::totals::Totals;
use crate::primitive::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::shape::Role;

/// The result of an addition to a cell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Added {
    /// The caller has to put the cell on its shard's dirty list.
    First,
    /// The cell is on that list already.
    Again,
    /// Nothing was added: the total is at its bound.
    Refused,
}

/// A flag of a cell. Only the ledger writes it, under its lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Flag {
    /// The ledger has the cell on its list of cells without rows.
    Parked = 1,
    /// Other actors have rows below zero in the cell.
    InDebt = 2,
    /// The cell is in the ledger's index.
    Indexed = 4,
}

/// The length value that stands for a longer key.
const LONG: u8 = u8::MAX;

/// A key in words, as a cell stores it. The lock of the thread that makes the cell publishes the words together with the
/// cell's number. They do not change while any thread has that number.
type Words = [std::sync::atomic::AtomicU64; SHORT / 8];

#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cell {
    words: Words,
    added: AtomicU64,
    removed: AtomicU64,
    /// Cached sum over the other actors that count (I10). Written under the ledger's lock only.
    others: AtomicI64,
    /// The slot of the own row; [`EMPTY`] when there is none. Written under the ledger's lock only.
    own_slot: AtomicU32,
    /// Number of rows of all actors, own row included. Written under the ledger's lock only.
    rows: AtomicU32,
    /// Number of counters that pin this cell.
    holders: AtomicU32,
    len: std::sync::atomic::AtomicU8,
    /// The [`Role`] of its rows.
    role: std::sync::atomic::AtomicU8,
    dirty: AtomicBool,
    /// The [`Flag`]s that are set.
    flags: AtomicU8,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            words: Words::default(),
            added: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            others: AtomicI64::new(0),
            own_slot: AtomicU32::new(EMPTY),
            rows: AtomicU32::new(0),
            holders: AtomicU32::new(0),
            len: std::sync::atomic::AtomicU8::new(0),
            role: std::sync::atomic::AtomicU8::new(0),
            dirty: AtomicBool::new(false),
            flags: AtomicU8::new(0),
        }
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Cell>() == 64, "a cell is a cache line");

impl Cell {
    /// Gives a new cell, which no other thread knows yet, its key and the role of its rows. For a long key, `place` is where
    /// the key is stored.
    pub(crate) fn name(&self, wanted: &Wanted<'_>, role: Role, place: u64) {
        self.role.store(role as u8, Ordering::Relaxed);
        let words = if wanted.is_long() { [place, 0, 0] } else { wanted.words };
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        self.len.store(if wanted.is_long() { LONG } else { wanted.key.len() as u8 }, Ordering::Relaxed);
    }

    /// Returns whether this cell has that short key.
    #[inline(always)]
    pub(crate) fn is(&self, wanted: &Wanted<'_>) -> bool {
        // One comparison of all words instead of a branch per word.
        let [a, b, c] = [0, 1, 2].map(|at| self.words[at].load(Ordering::Relaxed) ^ wanted.words[at]);
        a | b | c | (u64::from(self.len.load(Ordering::Relaxed)) ^ wanted.key.len() as u64) == 0
    }

    /// The place where its long key is stored.
    pub(crate) fn place(&self) -> Option<u64> {
        (self.len.load(Ordering::Relaxed) == LONG).then(|| self.words[0].load(Ordering::Relaxed))
    }

    /// Its key, if it is a short one.
    #[inline]
    pub(crate) fn short_key(&self) -> Option<CellKey> {
        let len = self.len.load(Ordering::Relaxed);
        let mut bytes = [0; SHORT];
        for (eight, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&self.words) {
            *eight = word.load(Ordering::Relaxed).to_le_bytes();
        }
        (len != LONG).then_some(CellKey::Short(bytes, len))
    }

    /// The hash of its key in fingerprints, if the key is a short one.
    #[inline]
    pub(crate) fn short_key_hash(&self) -> Option<u64> {
        let len = self.len.load(Ordering::Relaxed);
        let [a, b, c] = &self.words;
        let words = [a.load(Ordering::Relaxed), b.load(Ordering::Relaxed), c.load(Ordering::Relaxed)];
        (len != LONG).then(|| key_hash_of_words(&words, usize::from(len)))
    }

    /// Adds `n`, or removes `-n`, if the total stays within [`bounds::TOTAL`].
    ///
    /// The adding thread writes a total and then reads the flag. The committing thread clears the flag and then reads the
    /// totals. All four operations are sequentially consistent. So either the commit sees the addition, or the adding thread
    /// sees the flag cleared and lists the cell again: no change is missed (I5).
    #[inline]
    pub(crate) fn add(&self, n: i64) -> Added {
        let n = n.clamp(-bounds::STEP, bounds::STEP);
        let total = if n < 0 { &self.removed } else { &self.added };
        // Threads that check at the same time exceed the bound by one step each; that is far from the end of the range.
        if total.load(Ordering::Relaxed) > bounds::TOTAL - n.unsigned_abs() {
            return Added::Refused;
        }
        total.fetch_add(n.unsigned_abs(), Ordering::SeqCst);
        self.mark()
    }

    #[inline]
    fn mark(&self) -> Added {
        if !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst) {
            Added::First
        } else {
            Added::Again
        }
    }

    /// Raises the totals to at least those given.
    pub(crate) fn raise(&self, totals: Totals) -> Added {
        self.added.fetch_max(totals.added, Ordering::SeqCst);
        self.removed.fetch_max(totals.removed, Ordering::SeqCst);
        self.mark()
    }

    /// Subtracts totals that are counted elsewhere, while threads may add at the same time.
    pub(crate) fn lower(&self, totals: Totals) {
        self.added.fetch_sub(totals.added, Ordering::SeqCst);
        self.removed.fetch_sub(totals.removed, Ordering::SeqCst);
    }

    /// Adds `n` > 0 if the cluster-wide count, as known on this node, is at most `limit` afterwards. `others` returns the
    /// other actors' count for a limit. Atomic among the threads of this node: it adds only if no other addition came
    /// between the check and it. Returns [`Added::Refused`] when there is no room.
    pub(crate) fn add_within(&self, n: i64, limit: i64, others: impl Fn(&Self) -> i64) -> Added {
        let n = n.clamp(0, bounds::STEP);
        let mut added = self.added.load(Ordering::SeqCst);
        loop {
            // A removal in between only makes more room.
            let removed = self.removed.load(Ordering::SeqCst);
            // An own count below zero makes no room for others.
            let own = added.saturating_sub(removed);
            let total = i64::try_from(own).unwrap_or(i64::MAX).saturating_add(others(self));
            if total.saturating_add(n) > limit || added > bounds::TOTAL - n.unsigned_abs() {
                return Added::Refused;
            }
            let more = added + n.unsigned_abs();
            match self.added.compare_exchange_weak(added, more, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return self.mark(),
                Err(now) => added = now,
            }
        }
    }

    /// Clears the dirty flag and then reads the totals, in that order: see [`Cell::add`].
    pub(crate) fn take(&self) -> Totals {
        if flag_is_cleared_late() {
            let totals = self.totals();
            canary::interleave();
            self.dirty.swap(false, Ordering::SeqCst);
            return totals;
        }
        self.dirty.swap(false, Ordering::SeqCst);
        canary::interleave();
        self.totals()
    }

    /// Reads `removed` first: a hold that begins and ends between the two reads counts as open, never as less than nothing.
    pub(crate) fn totals(&self) -> Totals {
        let removed = self.removed.load(Ordering::SeqCst);
        Totals { added: self.added.load(Ordering::SeqCst), removed }
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::SeqCst)
    }

    /// This node's own part.
    pub(crate) fn own(&self) -> i64 {
        self.totals().value()
    }

    /// The role of its rows.
    #[inline]
    pub(crate) fn role(&self) -> Role {
        Role::of(self.role.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn has(&self, flag: Flag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag as u8 != 0
    }

    pub(crate) fn set(&self, flag: Flag) {
        self.flags.fetch_or(flag as u8, Ordering::Relaxed);
    }

    pub(crate) fn unset(&self, flag: Flag) {
        self.flags.fetch_and(!(flag as u8), Ordering::Relaxed);
    }

    pub(crate) fn others(&self) -> i64 {
        self.others.load(Ordering::SeqCst)
    }

    /// Adds to the other actors' sum and returns the new sum. Runs under the ledger's lock, so no other addition comes in
    /// between.
    #[inline]
    pub(crate) fn add_others(&self, n: i64) -> i64 {
        // Each of them counts so little that the sum does not wrap: see `bounds::COUNT`.
        let others = self.others.load(Ordering::Relaxed).saturating_add(n);
        self.others.store(others, Ordering::Release);
        others
    }

    /// The slot of the own row; [`EMPTY`] when there is none.
    #[inline]
    pub(crate) fn own_slot(&self) -> u32 {
        self.own_slot.load(Ordering::Relaxed)
    }

    pub(crate) fn set_own_slot(&self, slot: u32) {
        self.own_slot.store(slot, Ordering::Relaxed);
    }

    /// Number of rows of all actors.
    pub(crate) fn rows(&self) -> u32 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Counts one row more. Runs under the ledger's lock.
    pub(crate) fn add_row(&self) {
        self.rows.store(self.rows() + 1, Ordering::Relaxed);
    }

    /// Counts one row less. Runs under the ledger's lock.
    pub(crate) fn remove_row(&self) {
        self.rows.store(self.rows() - 1, Ordering::Relaxed);
    }

    /// Pins the cell. The caller holds the lock of the cell's key, or has a pin already.
    pub(crate) fn hold(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Removes a pin. The owner of the pin does this after its last addition.
    pub(crate) fn unpin(&self) {
        self.holders.fetch_sub(1, Ordering::Release);
    }

    /// Returns whether the cell is unused: no counter pins it, it has no row, and its own part is zero and committed. Runs
    /// under the write lock of its key, so no thread can find it.
    pub(crate) fn is_unused(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0 && self.rows() == 0 && !self.is_dirty() && self.own() == 0
    }

    /// Returns whether the cell is unused once the one row that it has is removed.
    pub(crate) fn has_only_a_row(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0 && self.rows() == 1 && !self.is_dirty() && self.own() == 0
    }

    /// Resets an unused cell that no thread can find to its state before it had a key.
    pub(crate) fn reset(&self) {
        self.added.store(0, Ordering::Relaxed);
        self.removed.store(0, Ordering::Relaxed);
        self.flags.store(0, Ordering::Relaxed);
    }
}

/// Returns whether the dirty flag is cleared after the totals are read, so that a change between the two is lost.
fn flag_is_cleared_late() -> bool {
    canary::broken(Canary::FlagClearedLate)
}
