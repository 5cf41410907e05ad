//! A cache as handles and driver share it: values by key, of which the last write wins.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, limits};

use crate::ledger::{Ledger, Needless, OwnRow, Refused, Register};
use crate::primitive::Ordering;
use crate::radix::KeyOf;
use crate::stamp::Stamp;
use crate::structure::Structure;

/// A cache: keys and values of any bytes, the same on all nodes. Of two writes of a key the later one wins, by hybrid
/// logical clock; of two at the same moment, one that all nodes agree on.
///
/// Cheap to clone. All methods may be called from any number of threads: a read takes the structure's ledger lock and that
/// of one of 128 shards of the keys for reading, a write the ledger's for writing. All of them take the wall clock, in
/// milliseconds since 1970, because the engine has none. Where that is far behind the clocks of most other nodes, the cache
/// goes by theirs.
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
    /// Who tells of it: who wrote it, or who has taken it over from a run that is gone.
    pub actor: Actor,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
}

/// Why a cache was not written to. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The key is none.
    #[error("a key of {len} bytes: a cache takes keys of 1 to {max} bytes", max = limits::KEY_BYTES)]
    Key {
        /// Its bytes.
        len: usize,
    },
    /// The value is too long.
    #[error("a value of {len} bytes: a cache takes values of up to {max} bytes", max = limits::VALUE_BYTES)]
    Value {
        /// Its bytes.
        len: usize,
    },
    /// The value does not fit into the cache.
    #[error("key and value of {len} bytes are more than the whole cache may hold: raise its max_bytes")]
    Bound {
        /// Their bytes.
        len: usize,
    },
    /// The wall clock has gone back, or is behind the other nodes' clocks and there is no majority of them to go by.
    #[error(
        "this node's wall clock is {by:?} behind what it has already written or taken, more than {max:?}: set the clock right",
        max = limits::MAX_DRIFT
    )]
    Clock {
        /// By how much.
        by: Duration,
    },
    /// The node leaves.
    #[error("this node is leaving the cluster: write on another one")]
    Leaving,
    /// Too many rows.
    #[error("this node has written as many keys as one may, {max}: spread the writes over more nodes", max = limits::ROWS_PER_ACTOR)]
    Full,
}

impl Cache {
    /// The cache that a structure is; `None` when it is none.
    pub fn of(structure: &Arc<Structure>) -> Option<Self> {
        let cache = structure.ledger.read().is_cache();
        cache.then(|| Self { structure: Arc::clone(structure) })
    }

    /// The structure that it is.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// What the time is for this cache where the wall clock shows `unix_ms`: that, or what most other nodes' clocks show where
    /// the wall clock is far behind.
    pub fn time(&self, unix_ms: u64) -> u64 {
        self.structure.time(unix_ms)
    }

    /// The value of a key. O(1), nothing is copied.
    #[inline]
    pub fn get(&self, key: &[u8], unix_ms: u64) -> Option<Arc<[u8]>> {
        let time = self.structure.time(unix_ms);
        self.structure.read(key, |register| register.value.clone().filter(|_| !register.expired(time)))
    }

    /// The entry of a key.
    pub fn entry(&self, key: &[u8], unix_ms: u64) -> Option<CacheEntry> {
        let time = self.structure.time(unix_ms);
        self.structure.read(key, |register| entry(key, register, time))
    }

    /// Writes a value, which expires after `ttl`; never, if that is zero. Returns its stamp. O(1), and up to 64 removals
    /// where the cache is bounded and full.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn set(
        &self,
        key: &[u8],
        value: impl Into<Arc<[u8]>>,
        ttl: Duration,
        unix_ms: u64,
    ) -> Result<Stamp, CacheError> {
        let value = value.into();
        let len = key.len() + value.len();
        if value.len() > limits::VALUE_BYTES {
            return Err(CacheError::Value { len: value.len() });
        }
        let expires_ms = match u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) {
            0 if ttl.is_zero() => 0,
            millis => self.structure.time(unix_ms).saturating_add(millis.max(1)).min(limits::UNIX_MS),
        };
        if !self.structure.ledger.read().registers().fits(key.len(), value.len()) {
            return Err(CacheError::Bound { len });
        }
        self.structure.write(key, Some((expires_ms, value)), unix_ms)
    }

    /// Removes an entry, on all nodes; its stamp, or `None` when there is none to be read here. What is written elsewhere
    /// at the same time and is not known here wins or loses by its stamp.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remove(&self, key: &[u8], unix_ms: u64) -> Result<Option<Stamp>, CacheError> {
        match self.get(key, unix_ms) {
            Some(_) => self.structure.write(key, None, unix_ms).map(Some),
            None => Ok(None),
        }
    }

    /// Entries behind `after` in order of key, at most `limit`. O(limit), and of those that are passed over.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, unix_ms: u64) -> Vec<CacheEntry> {
        let time = self.structure.time(unix_ms);
        let ledger = self.structure.ledger.read();
        let mut page = Vec::new();
        let mut next = ledger.index().seek(after.unwrap_or_default(), after.is_none(), ledger.cells());
        while let Some(id) = next.filter(|_| page.len() < limit) {
            let key = ledger.cells().key_of(id);
            page.extend(ledger.registers().get(id).and_then(|register| entry(&key, register, time)));
            next = ledger.index().seek(&key, false, ledger.cells());
        }
        page
    }

    /// Entries that there are to be read. O(1), and of those that have expired within the last minute.
    pub fn len(&self, unix_ms: u64) -> usize {
        let time = self.structure.time(unix_ms);
        let ledger = self.structure.ledger.read();
        (ledger.registers().size().0 as usize).saturating_sub(ledger.registers().expired(time))
    }

    /// Whether there is none.
    pub fn is_empty(&self, unix_ms: u64) -> bool {
        self.len(unix_ms) == 0
    }

    /// Bytes of all keys and values, those included that have expired within the last minute.
    pub fn value_bytes(&self) -> u64 {
        self.structure.ledger.read().registers().size().1
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.structure.spec().name).finish_non_exhaustive()
    }
}

fn entry(key: &[u8], register: &Register, unix_ms: u64) -> Option<CacheEntry> {
    let value = register.value.clone().filter(|_| !register.expired(unix_ms))?;
    let Register { stamp, ref actor, expires_ms, .. } = *register;
    Some(CacheEntry { key: key.to_vec(), value, stamp, actor: actor.clone(), expires_ms })
}

impl Structure {
    /// What the time is for a cache: the wall clock, or the cluster's time where the wall clock is far behind that.
    pub(crate) fn time(&self, unix_ms: u64) -> u64 {
        match self.lead.load(Ordering::Relaxed) {
            0 => unix_ms,
            // The wall clock may have been set right since.
            lead => unix_ms.saturating_add(lead).min(self.lead_upto.load(Ordering::Relaxed)).max(unix_ms),
        }
    }

    /// Says by how many milliseconds the cluster's time is ahead of the wall clock, and what it will be at most when it is
    /// looked at again.
    pub(crate) fn set_lead(&self, millis: u64, upto: u64) {
        self.lead_upto.store(upto, Ordering::Relaxed);
        self.lead.store(millis, Ordering::Relaxed);
    }

    fn read<R>(&self, key: &[u8], read: impl FnOnce(&Register) -> Option<R>) -> Option<R> {
        // The ledger first: while it is held, the number stays the key's.
        let ledger = self.ledger.read();
        let id = self.keys.find(key)?;
        read(ledger.registers().get(id)?)
    }

    fn write(&self, key: &[u8], value: Option<(u64, Arc<[u8]>)>, unix_ms: u64) -> Result<Stamp, CacheError> {
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

    /// Whether it is a cache.
    pub(crate) fn is_cache(&self) -> bool {
        self.spec().class.cell() == tallymesh_schemas::Cell::Register
    }

    /// Looks after a cache by the wall clock; entries end by `expiry_ms`. `certain` says that no other clock speaks against the wall
    /// clock.
    pub(crate) fn maintain(&self, unix_ms: u64, expiry_ms: u64, certain: bool) {
        let mut ledger = self.ledger.write();
        ledger.maintain(self.time(unix_ms), expiry_ms, certain, &self.keys);
        self.note_head(&ledger);
    }

    /// Our own rows that nobody needs here and that were not named before; `expiry_ms` as for [`Structure::maintain`].
    pub(crate) fn take_needless(&self, expiry_ms: u64, most: usize) -> Needless {
        self.ledger.write().take_needless(expiry_ms, most)
    }

    /// Retires those of our rows that are as they were; of `over` those that are the only one of their key, and returns the
    /// others.
    pub(crate) fn retire(&self, dominated: &[OwnRow], over: &[OwnRow]) -> Vec<OwnRow> {
        let mut ledger = self.ledger.write();
        dominated.iter().for_each(|row| ledger.retire_register(row, &self.keys));
        let (gone, stay): (Vec<_>, Vec<_>) = over.iter().partition(|row| ledger.is_alone(row));
        gone.iter().for_each(|row| ledger.retire_register(row, &self.keys));
        self.note_head(&ledger);
        stay
    }

    /// Parts rows into those that are the only one of their key and those that are not.
    pub(crate) fn part_alone(&self, rows: Vec<OwnRow>) -> (Vec<OwnRow>, Vec<OwnRow>) {
        let ledger = self.ledger.read();
        rows.into_iter().partition(|row| ledger.is_alone(row))
    }

    /// Goes on as another run that knows nothing, or with `keep` only what it has written itself: what this node knew may
    /// have been retired by all others.
    pub(crate) fn start_over(&self, actor: Actor, keep: bool) {
        let mut ledger = self.ledger.write();
        Ledger::start_over(&mut ledger, actor, keep, &self.keys);
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
