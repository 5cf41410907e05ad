//! The values of a cache: the winner of each key, and the own rows that are no longer needed.
//!
//! A row states when its actor last wrote a key, and the hash of what it wrote. The value itself is stored here, once per
//! key. Of two writes the later one wins, whichever rows state them and in whichever order these arrive. A write that has
//! won here stays until a greater write supersedes it, or until the last row of its key is dropped.
#![allow(clippy::cast_possible_truncation, reason = "a key and a value are bounded far below 32 bits")]

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;
use tallymesh_schemas::{Actor, Bounds, UnixMs, bounds};

use crate::canary::{self, Canary};
use crate::hlc::{HybridClock, Stamp};
use crate::keyspace::id::CellId;
use crate::keyspace::totals::Totals;
use crate::rows::row::Row;

/// The winner of a key.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) stamp: Stamp,
    /// The hash of the content; 0 for a removal.
    pub(crate) content: u64,
    pub(crate) actor: Actor,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub(crate) expires_ms: UnixMs,
    /// `None` for a removal, for an entry that expired long ago, or for a row without value.
    pub(crate) value: Option<Arc<[u8]>>,
}

impl Register {
    /// A removal; or, with a content, a write whose value is not held here.
    pub(crate) fn without_value(stamp: Stamp, content: u64, actor: Actor) -> Self {
        Self { stamp, content, actor, expires_ms: UnixMs::ZERO, value: None }
    }

    /// The order of writes: first by stamp. At an equal stamp a removal wins, so that a node that needs room can remove
    /// exactly the entry that it sees. Then the greater content hash wins, so that the result does not depend on the writer.
    fn order(&self) -> (Stamp, bool, u64, &Actor) {
        (self.stamp, self.content == 0, self.content, &self.actor)
    }

    /// The totals of a row that states this write.
    pub(crate) fn totals(&self) -> Totals {
        Totals { added: self.stamp.0, removed: self.content }
    }

    pub(crate) fn is_of(&self, actor: &Actor, row: &Row) -> bool {
        self.says(row) && self.actor == *actor
    }

    /// Returns whether the row states this write, whichever actor wrote the row.
    pub(crate) fn says(&self, row: &Row) -> bool {
        self.totals() == row.totals()
    }

    /// Returns whether the key reads as empty because the value is not held here and may be lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.content != 0 && self.value.is_none() && self.expires_ms == UnixMs::ZERO
    }

    /// Returns whether it has expired at this wall clock time.
    pub(crate) fn expired(&self, unix_ms: UnixMs) -> bool {
        self.expires_ms != UnixMs::ZERO && self.expires_ms <= unix_ms
    }
}

/// The winners by the number of their cell, and the aggregates derived from them (I10).
#[derive(Debug, Default)]
pub(crate) struct Registers {
    table: HashTable<(CellId, Register)>,
    pub(crate) clock: HybridClock,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    /// Entries, the oldest first; kept only for a bounded cache.
    by_age: BTreeSet<(Stamp, CellId)>,
    by_expiry: BTreeSet<(UnixMs, CellId)>,
    /// Cells whose readable write is not this node's own row.
    pub(crate) needless: BTreeSet<CellId>,
    /// Cells with a readable write that had a row and may have none now: see [`crate::counter::ledger::Ledger::republish_unowned`].
    pub(crate) orphans: BTreeSet<CellId>,
}

impl Registers {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    pub(crate) fn get(&self, id: CellId) -> Option<&Register> {
        self.table.find(hash_id(id), |(other, _)| *other == id).map(|(_, register)| register)
    }

    /// Returns the content of a row's write, if that write is the winner.
    pub(crate) fn content(&self, id: CellId, row: &Row) -> Option<(UnixMs, &[u8])> {
        let register = self.get(id).filter(|register| register.says(row))?;
        register.value.as_deref().map(|value| (register.expires_ms, value))
    }

    /// Returns whether a row's value is neither held here nor superseded.
    pub(crate) fn lacks(&self, id: CellId, row: &Row) -> bool {
        row.content() != 0
            && self.get(id).is_none_or(|known| known.stamp < row.stamp() || (known.says(row) && known.is_lost()))
    }

    /// Takes in a write. Returns whether it wins.
    pub(crate) fn offer(&mut self, id: CellId, key: usize, new: Register) -> bool {
        self.clock.observe(new.stamp);
        let loses = |old: &Register| {
            let found = old.is_lost() && !new.is_lost() && (old.stamp, old.content) == (new.stamp, new.content);
            is_later(old, &new) && !found
        };
        if self.get(id).is_some_and(loses) {
            return false;
        }
        self.put(id, key, Some(new));
        true
    }

    /// Returns whether a write loses to another write received from the same actor.
    pub(crate) fn loses_to_its_actor(&self, id: CellId, new: &Register) -> bool {
        self.get(id).is_some_and(|old| old.actor == new.actor && old.order() > new.order())
    }

    /// Sets or removes the winner of a cell. `key` is the length of the cell's key.
    pub(crate) fn put(&mut self, id: CellId, key: usize, new: Option<Register>) {
        let bounded = self.bounds != Bounds::default();
        let old = self.replace(id, new);
        if let Some((old, value)) = old.as_ref().and_then(|old| Some((old, old.value.as_ref()?))) {
            self.entries -= 1;
            self.bytes -= (key + value.len()) as u64;
            self.by_age.remove(&(old.stamp, id));
            self.by_expiry.remove(&(old.expires_ms, id));
        }
        let new = self.get(id).cloned();
        if let Some((new, value)) = new.as_ref().and_then(|new| Some((new, new.value.as_ref()?))) {
            self.entries += 1;
            self.bytes += (key + value.len()) as u64;
            if bounded {
                self.by_age.insert((new.stamp, id));
            }
            if new.expires_ms != UnixMs::ZERO {
                self.by_expiry.insert((new.expires_ms, id));
            }
        }
    }

    fn replace(&mut self, id: CellId, new: Option<Register>) -> Option<Register> {
        let hash = hash_id(id);
        match (self.table.find_entry(hash, |(other, _)| *other == id), new) {
            (Ok(mut entry), Some(new)) => Some(std::mem::replace(&mut entry.get_mut().1, new)),
            (Ok(entry), None) => Some(entry.remove().0.1),
            (Err(_), Some(new)) => {
                self.table.insert_unique(hash, (id, new), |(id, _)| hash_id(*id));
                None
            }
            (Err(_), None) => None,
        }
    }

    /// Records that another actor's row now states the same write.
    pub(crate) fn set_actor(&mut self, id: CellId, actor: Actor) {
        if let Some((_, register)) = self.table.find_mut(hash_id(id), |(other, _)| *other == id) {
            register.actor = actor;
        }
    }

    /// Returns an entry to remove because the cache is too large: an expired entry, else the oldest one.
    pub(crate) fn excess(&self, unix_ms: UnixMs) -> Option<CellId> {
        let over = |bound: Option<std::num::NonZeroU64>, has: u64| bound.is_some_and(|bound| has > bound.get());
        if !over(self.bounds.elements, self.entries) && !over(self.bounds.bytes, self.bytes) {
            return None;
        }
        let expired = self.by_expiry.first().filter(|(expires_ms, _)| *expires_ms <= unix_ms);
        expired.map(|(_, id)| *id).or_else(|| self.by_age.first().map(|(_, id)| *id))
    }

    /// Returns whether a value of this size fits into the cache at all.
    pub(crate) fn fits(&self, key: usize, value: usize) -> bool {
        self.bounds.bytes.is_none_or(|bound| (key + value) as u64 <= bound.get())
    }

    /// Removes values that have expired for every node whose clock is within its bound, at most `SPENT` per call. Returns
    /// their cells.
    pub(crate) fn spend(&mut self, unix_ms: UnixMs, key_len: impl Fn(CellId) -> usize) -> Vec<CellId> {
        let upto = unix_ms.before(bounds::MAX_DRIFT);
        let spent: Vec<_> = self.by_expiry.range(..=(upto, CellId::MAX)).map(|(_, id)| *id).take(SPENT).collect();
        for id in &spent {
            if let Some(register) = self.get(*id).cloned() {
                self.put(*id, key_len(*id), Some(Register { value: None, ..register }));
            }
        }
        spent
    }

    /// Number of entries. Expired entries count until they are removed.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes of the entries' keys and values. Expired entries count until they are removed.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of entries that have expired at this wall clock time and are not removed yet.
    pub(crate) fn expired(&self, unix_ms: UnixMs) -> usize {
        self.by_expiry.range(..=(unix_ms, CellId::MAX)).count()
    }

    /// All winners in no defined order; use it only where the order does not matter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (CellId, &Register)> {
        self.table.iter().map(|(id, register)| (*id, register))
    }

    /// Memory in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        let sets = self.by_age.len() + self.by_expiry.len() + self.needless.len() + self.orphans.len();
        self.table.allocation_size() + self.bytes as usize + sets * 24
    }

    /// Checks the derived aggregates against the winners.
    pub(crate) fn audit(&self, key_len: impl Fn(CellId) -> usize) -> Result<(), String> {
        let mut fresh = Self::new(self.bounds);
        for (id, register) in self.iter() {
            fresh.put(id, key_len(id), Some(register.clone()));
        }
        let parts = |of: &Self| (of.entries, of.bytes, of.by_age.clone(), of.by_expiry.clone());
        if parts(&fresh) == parts(self) {
            return Ok(());
        }
        let size = |of: &Self| (of.entries, of.bytes);
        Err(format!("{:?} entries and bytes are noted, {:?} are there", size(self), size(&fresh)))
    }
}

fn hash_id(id: CellId) -> u64 {
    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Number of expired values that one sweep removes at most.
const SPENT: usize = 1 << 16;

/// Returns whether `old` wins over `new` by its order, whichever arrives first.
fn is_later(old: &Register, new: &Register) -> bool {
    old.order() >= new.order() && !canary::broken(Canary::ArrivalWins)
}
