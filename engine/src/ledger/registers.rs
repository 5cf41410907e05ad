//! The values of a cache: of each key the write that wins, and which of our own rows nobody needs any more.
//!
//! A row says when its actor last wrote a key, and the hash of what it wrote; the value itself lies here, once a key. Of two
//! writes the later one wins, whoever tells of them in which order. Whatever has won here once is outdone only by what wins
//! over it, or goes with the last row of its key.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashTable;
use tallymesh_schemas::{Actor, Bounds, limits};

use crate::canary::{self, Canary};
use crate::row::Row;
use crate::slots::CellId;
use crate::stamp::{HybridClock, Stamp};

/// The write of a key that wins.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) stamp: Stamp,
    /// The hash of the content, 0 when the entry was removed.
    pub(crate) content: u64,
    pub(crate) actor: Actor,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub(crate) expires_ms: u64,
    /// `None` when the entry was removed, or has expired long ago, or where only the row of a write is left.
    pub(crate) value: Option<Arc<[u8]>>,
}

impl Register {
    /// A removal, or with a content a write whose value is not here.
    pub(super) fn without_value(stamp: Stamp, content: u64, actor: Actor) -> Self {
        Self { stamp, content, actor, expires_ms: 0, value: None }
    }

    /// A write decides by its stamp. At the same one a removal wins, so that whoever has to make room can remove just the
    /// entry that it sees; then the content does, so that nobody has to know who wrote.
    fn order(&self) -> (Stamp, bool, u64, &Actor) {
        (self.stamp, self.content == 0, self.content, &self.actor)
    }

    pub(crate) fn is_of(&self, actor: &Actor, row: &Row) -> bool {
        self.says(row) && self.actor == *actor
    }

    /// Whether it is what the row says, whoever wrote the row.
    pub(crate) fn says(&self, row: &Row) -> bool {
        (self.stamp, self.content) == (row.stamp(), row.content())
    }

    /// Whether nothing is read because its value is not here, and may be lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.content != 0 && self.value.is_none() && self.expires_ms == 0
    }

    /// Whether it has expired by a wall clock.
    pub(crate) fn expired(&self, unix_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= unix_ms
    }
}

/// The winning writes by the number of their cell, and what follows from them (I10).
#[derive(Debug, Default)]
pub(crate) struct Registers {
    table: HashTable<(CellId, Register)>,
    pub(crate) clock: HybridClock,
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    /// Entries from the oldest on; kept only where the cache is bounded.
    by_age: BTreeSet<(Stamp, CellId)>,
    by_expiry: BTreeSet<(u64, CellId)>,
    /// Cells where our own row is not what is read.
    pub(super) needless: BTreeSet<CellId>,
    /// Cells where a write is read of which there was a row, and may be none any more: see [`super::Ledger::adopt`].
    pub(super) orphans: BTreeSet<CellId>,
}

impl Registers {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    pub(crate) fn get(&self, id: CellId) -> Option<&Register> {
        self.table.find(hash_id(id), |(other, _)| *other == id).map(|(_, register)| register)
    }

    /// The content that a row has, if it is the one that wins.
    pub(crate) fn content(&self, id: CellId, row: &Row) -> Option<(u64, &[u8])> {
        let register = self.get(id).filter(|register| register.says(row))?;
        register.value.as_deref().map(|value| (register.expires_ms, value))
    }

    /// Whether a row says that there is a value that is neither here nor outdone.
    pub(super) fn lacks(&self, id: CellId, row: &Row) -> bool {
        row.content() != 0
            && self.get(id).is_none_or(|known| known.stamp < row.stamp() || (known.says(row) && known.is_lost()))
    }

    /// Takes in a write; whether it wins.
    pub(super) fn offer(&mut self, id: CellId, key: usize, new: Register) -> bool {
        self.clock.observe(new.stamp);
        let loses = |old: &Register| {
            let found = old.is_lost() && !new.is_lost() && (old.stamp, old.content) == (new.stamp, new.content);
            old.order() >= new.order() && !found && !canary::broken(Canary::ArrivalWins)
        };
        if self.get(id).is_some_and(loses) {
            return false;
        }
        self.put(id, key, Some(new));
        true
    }

    /// Whether a write loses to another one that the same actor has told of.
    pub(super) fn loses_to_its_actor(&self, id: CellId, new: &Register) -> bool {
        self.get(id).is_some_and(|old| old.actor == new.actor && old.order() > new.order())
    }

    /// Puts a write in its place, or none. `key` is the length of the cell's key.
    pub(super) fn put(&mut self, id: CellId, key: usize, new: Option<Register>) {
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
            if new.expires_ms != 0 {
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

    /// The same write is told by another actor's row.
    pub(super) fn set_actor(&mut self, id: CellId, actor: Actor) {
        if let Some((_, register)) = self.table.find_mut(hash_id(id), |(other, _)| *other == id) {
            register.actor = actor;
        }
    }

    /// An entry that has to go because the cache is too large: one that has expired, else the oldest.
    pub(super) fn excess(&self, unix_ms: u64) -> Option<CellId> {
        let over = |bound: Option<std::num::NonZeroU64>, has: u64| bound.is_some_and(|bound| has > bound.get());
        if !over(self.bounds.elements, self.entries) && !over(self.bounds.bytes, self.bytes) {
            return None;
        }
        let expired = self.by_expiry.first().filter(|(expires_ms, _)| *expires_ms <= unix_ms);
        expired.map(|(_, id)| *id).or_else(|| self.by_age.first().map(|(_, id)| *id))
    }

    /// Whether a value can be held at all.
    pub(crate) fn fits(&self, key: usize, value: usize) -> bool {
        self.bounds.bytes.is_none_or(|bound| (key + value) as u64 <= bound.get())
    }

    /// Lets go of values that have expired for everybody whose clock is as it should be; whether there are more.
    pub(super) fn spend(&mut self, unix_ms: u64, key_len: impl Fn(CellId) -> usize) -> Vec<CellId> {
        let drift = u64::try_from(limits::MAX_DRIFT.as_millis()).unwrap_or(u64::MAX);
        let upto = unix_ms.saturating_sub(drift);
        let spent: Vec<_> = self.by_expiry.range(..=(upto, CellId::MAX)).map(|(_, id)| *id).take(SPENT).collect();
        for id in &spent {
            if let Some(register) = self.get(*id).cloned() {
                self.put(*id, key_len(*id), Some(Register { value: None, ..register }));
            }
        }
        spent
    }

    /// Entries, and bytes of their keys and values. Those that have expired and are not let go of yet count.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.entries, self.bytes)
    }

    /// Entries that have expired by a wall clock and are not let go of yet.
    pub(crate) fn expired(&self, unix_ms: u64) -> usize {
        self.by_expiry.range(..=(unix_ms, CellId::MAX)).count()
    }

    /// All of them, in no order: for what does not depend on it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (CellId, &Register)> {
        self.table.iter().map(|(id, register)| (*id, register))
    }

    /// Bytes that they take.
    pub(crate) fn heap_bytes(&self) -> usize {
        let sets = self.by_age.len() + self.by_expiry.len() + self.needless.len() + self.orphans.len();
        self.table.allocation_size() + self.bytes as usize + sets * 24
    }

    /// What follows from the writes, against them.
    pub(super) fn audit(&self, key_len: impl Fn(CellId) -> usize) -> Result<(), String> {
        let mut fresh = Self::new(self.bounds);
        for (id, register) in self.iter() {
            fresh.put(id, key_len(id), Some(register.clone()));
        }
        let parts = |of: &Self| (of.entries, of.bytes, of.by_age.clone(), of.by_expiry.clone());
        if parts(&fresh) == parts(self) {
            return Ok(());
        }
        Err(format!("{:?} entries and bytes are noted, {:?} are there", self.size(), fresh.size()))
    }
}

fn hash_id(id: CellId) -> u64 {
    u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Values that one sweep lets go of.
const SPENT: usize = 1 << 16;
