//! A cache, shared by handles and driver: values by key; the last write wins.
#![allow(clippy::cast_possible_truncation, reason = "a number of entries is below 64 bits")]

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, UnixMs, bounds};

use crate::counter::keep::Keep;
use crate::counter::structure::Structure;
use crate::counter::writes::{Needless, OwnRow, Refused, WallClock};
use crate::hlc::Stamp;
use crate::keyspace::id::KeyOf;
use crate::primitive::Ordering;
use crate::rows::registers::Register;
use crate::time::millis;

/// A cache: keys and values of any bytes, the same on all nodes. Of two writes of a key, the later one by hybrid logical
/// clock wins. Of two writes with the same stamp, all nodes choose the same one.
///
/// Cheap to clone. All methods may be called from any number of threads. A read takes the structure's ledger lock and the
/// lock of one of 128 key shards for reading; a write takes the ledger lock for writing. The engine has no clock, so all
/// methods take the wall clock time, in milliseconds since 1970. When that is far behind the clocks of most other nodes, the
/// cache uses the time of those nodes instead.
#[derive(Clone)]
pub struct Cache {
    structure: Arc<Structure>,
}

/// An entry of a cache.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CacheEntry {
    /// The key; [`key::display_bytes`] makes it readable.
    pub key: Vec<u8>,
    /// The value.
    pub value: Arc<[u8]>,
    /// When it was written.
    pub stamp: Stamp,
    /// The actor whose row states the entry: the writer, or the node that republished it from a run that is gone.
    pub actor: Actor,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: UnixMs,
}

/// Why a write to a cache failed. A failed write changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The key is not valid.
    #[error("a key of {len} bytes: a cache takes keys of 1 to {max} bytes", max = bounds::KEY_BYTES)]
    Key {
        /// Its length in bytes.
        len: usize,
    },
    /// The value is too long.
    #[error("a value of {len} bytes: a cache takes values of up to {max} bytes", max = bounds::VALUE_BYTES)]
    Value {
        /// Its length in bytes.
        len: usize,
    },
    /// The value does not fit into the cache.
    #[error("key and value of {len} bytes are more than the whole cache may hold: raise its max_bytes")]
    Bound {
        /// Length of key and value in bytes.
        len: usize,
    },
    /// The wall clock has gone back, or it is behind the other nodes' clocks and these have no majority to follow.
    #[error(
        "this node's wall clock is {by:?} behind what it has already written or taken, more than {max:?}: set the clock right",
        max = bounds::MAX_DRIFT
    )]
    Clock {
        /// How far the clock is behind.
        by: Duration,
    },
    /// This node is leaving.
    #[error("this node is leaving the cluster: write on another one")]
    Leaving,
    /// Too many rows.
    #[error("this node has written as many keys as one may, {max}: spread the writes over more nodes", max = bounds::ROWS_PER_ACTOR)]
    Full,
}

impl Cache {
    /// Returns the structure as a cache; `None` when it is not a cache.
    pub fn of(structure: &Arc<Structure>) -> Option<Self> {
        structure.is_cache().then(|| Self { structure: Arc::clone(structure) })
    }

    /// The structure that holds this cache.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// Returns the cache's time when the wall clock shows `unix_ms`: the same value, or the time of most other nodes' clocks
    /// when the wall clock is far behind them.
    pub fn time(&self, unix_ms: UnixMs) -> UnixMs {
        self.structure.time(unix_ms)
    }

    /// Returns the value of a key. O(1), without a copy.
    #[inline]
    pub fn get(&self, key: &[u8], unix_ms: UnixMs) -> Option<Arc<[u8]>> {
        let time = self.structure.time(unix_ms);
        self.structure.read(key, |register| register.value.clone().filter(|_| !register.expired(time)))
    }

    /// Returns the entry of a key.
    pub fn entry(&self, key: &[u8], unix_ms: UnixMs) -> Option<CacheEntry> {
        let time = self.structure.time(unix_ms);
        self.structure.read(key, |register| entry(key, register, time))
    }

    /// Writes a value that expires after `ttl`, or never if `ttl` is zero. Returns its stamp. O(1), plus up to 64 removals
    /// when the cache is bounded and full.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn set(
        &self,
        key: &[u8],
        value: impl Into<Arc<[u8]>>,
        ttl: Duration,
        unix_ms: UnixMs,
    ) -> Result<Stamp, CacheError> {
        let value = value.into();
        let len = key.len() + value.len();
        if value.len() > bounds::VALUE_BYTES {
            return Err(CacheError::Value { len: value.len() });
        }
        let expires_ms = match millis(ttl) {
            0 if ttl.is_zero() => UnixMs::ZERO,
            ms => UnixMs(self.structure.time(unix_ms).0.saturating_add(ms.max(1)).min(bounds::UNIX_MS)),
        };
        if !self.structure.ledger.read().registers().fits(key.len(), value.len()) {
            return Err(CacheError::Bound { len });
        }
        self.structure.write(key, Some((expires_ms, value)), unix_ms)
    }

    /// Removes an entry on all nodes. Returns the removal's stamp, or `None` when this node reads no entry. A concurrent
    /// write on another node that is not known here wins or loses by its stamp.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remove(&self, key: &[u8], unix_ms: UnixMs) -> Result<Option<Stamp>, CacheError> {
        match self.get(key, unix_ms) {
            Some(_) => self.structure.write(key, None, unix_ms).map(Some),
            None => Ok(None),
        }
    }

    /// Returns at most `limit` entries behind `after`, in order of key. O(limit), plus the entries skipped.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, unix_ms: UnixMs) -> Vec<CacheEntry> {
        let time = self.structure.time(unix_ms);
        let ledger = self.structure.ledger.read();
        let mut page = Vec::new();
        let mut next = ledger.index().seek(after.map_or(Bound::Unbounded, Bound::Excluded), ledger.cells());
        while let Some(id) = next.filter(|_| page.len() < limit) {
            let key = ledger.cells().key_of(id);
            page.extend(ledger.registers().get(id).and_then(|register| entry(&key, register, time)));
            next = ledger.index().seek(Bound::Excluded(&key), ledger.cells());
        }
        page
    }

    /// Number of readable entries. O(1), plus the entries that have expired within the last minute.
    pub fn len(&self, unix_ms: UnixMs) -> usize {
        let time = self.structure.time(unix_ms);
        let ledger = self.structure.ledger.read();
        (ledger.registers().entries() as usize).saturating_sub(ledger.registers().expired(time))
    }

    /// Whether the cache has no readable entry.
    pub fn is_empty(&self, unix_ms: UnixMs) -> bool {
        self.len(unix_ms) == 0
    }

    /// Bytes of all keys and values, including entries that have expired within the last minute.
    pub fn value_bytes(&self) -> u64 {
        self.structure.ledger.read().registers().bytes()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.structure.spec().name).finish_non_exhaustive()
    }
}

fn entry(key: &[u8], register: &Register, unix_ms: UnixMs) -> Option<CacheEntry> {
    let value = register.value.clone().filter(|_| !register.expired(unix_ms))?;
    let Register { stamp, ref actor, expires_ms, .. } = *register;
    Some(CacheEntry { key: key.to_vec(), value, stamp, actor: actor.clone(), expires_ms })
}

impl Structure {
    /// The time of a cache: the wall clock, or the cluster's time when the wall clock is far behind it.
    pub(crate) fn time(&self, unix_ms: UnixMs) -> UnixMs {
        match self.lead.load(Ordering::Relaxed) {
            0 => unix_ms,
            // The wall clock may have been corrected since.
            lead => UnixMs(unix_ms.0.saturating_add(lead).min(self.lead_upto.load(Ordering::Relaxed))).max(unix_ms),
        }
    }

    /// Sets by how much the cluster's time is ahead of the wall clock, and an upper limit of that time until
    /// the next comparison.
    pub(crate) fn set_lead(&self, lead: Duration, upto: UnixMs) {
        self.lead_upto.store(upto.0, Ordering::Relaxed);
        self.lead.store(millis(lead), Ordering::Relaxed);
    }

    fn read<R>(&self, key: &[u8], read: impl FnOnce(&Register) -> Option<R>) -> Option<R> {
        // The ledger lock comes first: while it is held, the cell number stays assigned to the key.
        let ledger = self.ledger.read();
        let id = self.keys.find(key)?;
        read(ledger.registers().get(id)?)
    }

    fn write(&self, key: &[u8], value: Option<(UnixMs, Arc<[u8]>)>, unix_ms: UnixMs) -> Result<Stamp, CacheError> {
        key::check(self.kind(), key).map_err(|_: KeyError| CacheError::Key { len: key.len() })?;
        let before = {
            let mut ledger = self.ledger.write();
            let keys = &self.keys;
            let time = self.time(unix_ms);
            let written = self.watchers.with_sink(|changed| ledger.write_register(keys, key, value, time, changed));
            let written = written.map_err(CacheError::from)?;
            self.note_head(&ledger);
            (written, self.pending.fetch_add(1, Ordering::SeqCst))
        };
        if before.1 == 0 || before.1 + 1 == self.spec().max_pending {
            self.wake();
        }
        Ok(before.0)
    }

    /// Maintains a cache by the wall clock; entries expire by `expiry_ms`.
    pub(crate) fn maintain(&self, unix_ms: UnixMs, expiry_ms: UnixMs, clock: WallClock) {
        let mut ledger = self.ledger.write();
        ledger.maintain(self.time(unix_ms), expiry_ms, clock, &self.keys);
        self.note_head(&ledger);
    }

    /// Returns own rows that are not needed on this node and were not returned before; `expiry_ms` as for
    /// [`Structure::maintain`].
    pub(crate) fn take_needless(&self, expiry_ms: UnixMs, most: usize) -> Needless {
        self.ledger.write().take_needless(expiry_ms, most)
    }

    /// Retires those of the given own rows that are unchanged. Of `over` it retires only the rows that are the only one of
    /// their key, and it returns the others.
    pub(crate) fn retire(&self, dominated: &[OwnRow], over: &[OwnRow]) -> Vec<OwnRow> {
        let mut ledger = self.ledger.write();
        dominated.iter().for_each(|row| ledger.retire_register(row, &self.keys));
        let (gone, stay): (Vec<_>, Vec<_>) = over.iter().partition(|row| ledger.is_alone(row));
        gone.iter().for_each(|row| ledger.retire_register(row, &self.keys));
        self.note_head(&ledger);
        stay
    }

    /// Splits rows into those that are the only row of their key and the others.
    pub(crate) fn part_alone(&self, rows: Vec<OwnRow>) -> (Vec<OwnRow>, Vec<OwnRow>) {
        let ledger = self.ledger.read();
        rows.into_iter().partition(|row| ledger.is_alone(row))
    }

    /// Continues as a new run without any rows but those of `keep`. All other nodes may have retired the rest of what this
    /// node held.
    pub(crate) fn start_over(&self, actor: Actor, keep: Keep) {
        let mut ledger = self.ledger.write();
        ledger.start_over(actor, keep, &self.keys);
        self.note_head(&ledger);
        drop(ledger);
        self.refresh();
    }
}

impl From<Refused> for CacheError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::Leaving,
            Refused::Ahead(by) => Self::Clock { by },
            Refused::Full => Self::Full,
        }
    }
}
