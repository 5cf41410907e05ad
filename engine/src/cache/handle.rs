//! A cache, shared by handles and driver.

use std::fmt;
use std::ops::{Bound, Deref};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bound;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, Kind, NodeName, OverBudget, StructureId, StructureSpec, UnixMs, bounds};

use crate::budget::NodeBudget;
use crate::cache::entry::Entry;
use crate::cache::map::{CacheMap, Refused};
use crate::counter::watch::{Watch, Watchers};
use crate::hlc::Stamp;
use crate::primitive::{AtomicBool, AtomicU64, AtomicUsize, Ordering, RwLock};
use crate::time::millis;
use crate::wake::Wake;

/// Entries that a listing reads while it holds the lock.
const SLICE: usize = 1 << 10;

/// Keys that one step adds to the order of keys while it holds the lock.
const ORDERED: u32 = 1 << 14;

/// What handles and driver share of a cache.
pub(crate) struct Shared {
    pub(crate) spec: StructureSpec,
    pub(crate) map: RwLock<CacheMap>,
    pub(crate) watchers: Watchers,
    /// Writes that wait to be sent.
    pub(crate) pending: AtomicUsize,
    wake: Wake,
    /// The configuration does not name it any more.
    pub(crate) detached: AtomicBool,
    /// The bounds that this cache has reached.
    pub(crate) tally: bound::Tally,
    /// How many milliseconds the cluster's time is ahead of this node's wall clock, if that clock is far behind.
    lead: AtomicU64,
    /// An upper limit of the cluster's time until the next comparison of the clocks.
    lead_upto: AtomicU64,
}

/// A cache: keys and values of any bytes, the same on all nodes. Of two writes of a key, the later one by hybrid logical
/// clock wins. Of two writes with the same stamp, all nodes choose the same one.
///
/// Cheap to clone. All methods may be called from any number of threads. A read takes the cache's lock for reading, and a
/// write takes it for writing. The engine has no clock, so all methods take the wall clock time, in milliseconds since 1970.
/// When that is far behind the clocks of most other nodes, the cache uses the time of those nodes instead.
#[derive(Clone)]
pub struct Cache {
    pub(crate) shared: Arc<Shared>,
}

/// A value of a cache. It shares the memory of the entry.
#[derive(Clone)]
pub struct CacheValue {
    bytes: Arc<[u8]>,
    start: usize,
}

/// An entry of a cache.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CacheEntry {
    /// The key; [`key::display_bytes`] makes it readable.
    pub key: Vec<u8>,
    /// The value.
    pub value: CacheValue,
    /// When it was written.
    pub stamp: Stamp,
    /// The run that wrote it, or that wrote it again in place of an earlier run of the same node.
    pub actor: Actor,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: UnixMs,
}

/// An entry as a node holds it.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct HeldEntry {
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` when the key was removed or its value has expired.
    pub value: Option<CacheValue>,
    /// When it was written.
    pub stamp: Stamp,
    /// The run that wrote it.
    pub actor: Actor,
    /// The number of the write in that run, from 1. Run and number name the write.
    pub number: u64,
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
    /// The configuration of the node does not name the cache any more.
    #[error("the configuration of this node does not have this cache any more: nothing is written")]
    Detached,
    /// This node is leaving.
    #[error("this node is leaving the cluster: write on another one")]
    Leaving,
    /// Too many keys.
    #[error("this cache holds as many keys as one may, {max}: bound it with max_size, or use several caches", max = u32::MAX)]
    Full,
    /// Key and value do not fit within what all objects of the node may hold.
    #[error(transparent)]
    Budget(#[from] OverBudget),
}

impl Cache {
    pub(crate) fn new(spec: StructureSpec, me: Actor, seed: u64, wake: Wake, budget: Arc<NodeBudget>) -> Self {
        let mut map = CacheMap::new(me, spec.bounds, seed, budget);
        if !spec.snapshot {
            map.start_in_the_middle();
        }
        Self {
            shared: Arc::new(Shared {
                map: RwLock::new(map),
                spec,
                watchers: Watchers::default(),
                pending: AtomicUsize::new(0),
                wake,
                detached: AtomicBool::new(false),
                tally: bound::Tally::default(),
                lead: AtomicU64::new(0),
                lead_upto: AtomicU64::new(0),
            }),
        }
    }

    /// The configuration of the cache.
    pub fn spec(&self) -> &StructureSpec {
        &self.shared.spec
    }

    /// The cache's id on the wire.
    pub fn id(&self) -> StructureId {
        self.spec().name.id()
    }

    /// Returns the cache's time when the wall clock shows `unix_ms`: the same value, or the time of most other nodes' clocks
    /// when the wall clock is far behind them.
    pub fn time(&self, unix_ms: UnixMs) -> UnixMs {
        match self.shared.lead.load(Ordering::Relaxed) {
            0 => unix_ms,
            // The wall clock may have been corrected since.
            lead => {
                UnixMs(unix_ms.0.saturating_add(lead).min(self.shared.lead_upto.load(Ordering::Relaxed))).max(unix_ms)
            }
        }
    }

    /// Sets by how much the cluster's time is ahead of the wall clock, and an upper limit of that time until the next
    /// comparison.
    pub(crate) fn set_lead(&self, lead: Duration, upto: UnixMs) {
        self.shared.lead_upto.store(upto.0, Ordering::Relaxed);
        self.shared.lead.store(millis(lead), Ordering::Relaxed);
    }

    /// Returns the value of a key. O(1), without a copy.
    #[inline]
    pub fn get(&self, key: &[u8], unix_ms: UnixMs) -> Option<CacheValue> {
        let time = self.time(unix_ms);
        let map = self.shared.map.read();
        map.get(key).filter(|entry| !entry.expired(time)).and_then(CacheValue::of)
    }

    /// Returns the entry of a key. O(1).
    pub fn entry(&self, key: &[u8], unix_ms: UnixMs) -> Option<CacheEntry> {
        let time = self.time(unix_ms);
        let map = self.shared.map.read();
        map.get(key).and_then(|found| entry(&map, found, time))
    }

    /// Writes a value that expires after `ttl`, or never if `ttl` is zero. Returns its stamp. O(1), plus up to 64 removals
    /// when the cache is bounded and full.
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn set(
        &self,
        key: &[u8],
        value: impl AsRef<[u8]>,
        ttl: Duration,
        unix_ms: UnixMs,
    ) -> Result<Stamp, CacheError> {
        let value = value.as_ref();
        let len = key.len() + value.len();
        if value.len() > bounds::VALUE_BYTES {
            return Err(CacheError::Value { len: value.len() });
        }
        let expires_ms = match u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX) {
            0 if ttl.is_zero() => UnixMs::ZERO,
            millis => UnixMs(self.time(unix_ms).0.saturating_add(millis.max(1)).min(bounds::UNIX_MS)),
        };
        self.write(key, Some((expires_ms, value)), unix_ms, len)
    }

    /// Removes an entry on all nodes. Returns the removal's stamp, or `None` when this node reads no entry. A concurrent
    /// write on another node that is not known here wins or loses by its stamp. O(1).
    ///
    /// # Errors
    /// [`CacheError`].
    pub fn remove(&self, key: &[u8], unix_ms: UnixMs) -> Result<Option<Stamp>, CacheError> {
        match self.get(key, unix_ms) {
            Some(_) => self.write(key, None, unix_ms, 0).map(Some),
            None => Ok(None),
        }
    }

    fn write(
        &self,
        key: &[u8],
        value: Option<(UnixMs, &[u8])>,
        unix_ms: UnixMs,
        len: usize,
    ) -> Result<Stamp, CacheError> {
        if self.is_detached() {
            return Err(CacheError::Detached);
        }
        key::check(Kind::Cache, key).map_err(|_: KeyError| CacheError::Key { len: key.len() })?;
        let time = self.time(unix_ms);
        let (stamp, before) = {
            let mut map = self.shared.map.write();
            if !map.derived().fits(len, 0) {
                return Err(CacheError::Bound { len });
            }
            let written =
                self.shared.watchers.with_sink(|sink| map.write(key, value, time, |key| sink.changed(|| key)));
            (written.map_err(CacheError::from)?, self.shared.pending.fetch_add(1, Ordering::SeqCst))
        };
        if before == 0 || before + 1 == self.shared.spec.max_pending {
            (self.shared.wake)();
        }
        Ok(stamp)
    }

    /// Returns at most `limit` entries behind `after`, in order of key. O(limit), plus the entries skipped. It reads in slices,
    /// and writes wait for at most one of them. The first call sorts the keys, in slices too.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, unix_ms: UnixMs) -> Vec<CacheEntry> {
        self.order_keys();
        let time = self.time(unix_ms);
        let mut page = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while page.len() < limit {
            let map = self.shared.map.read();
            let behind = map.keys_from(after.as_deref().map_or(Bound::Unbounded, Bound::Excluded));
            let mut last = None;
            for found in behind.take(SLICE.min(limit - page.len())) {
                page.extend(entry(&map, found, time));
                last = Some(found.key().to_vec());
            }
            if last.is_none() {
                break;
            }
            after = last;
        }
        page
    }

    pub(crate) fn order_keys(&self) {
        if self.shared.map.read().is_ordered() {
            return;
        }
        while !self.shared.map.write().order_keys(ORDERED) {}
    }

    /// Returns at most `limit` entries behind `after`, in order of key, as this node holds them: removed and expired ones too.
    /// As [`Cache::entries`].
    pub fn held_entries(&self, after: Option<&[u8]>, limit: usize) -> Vec<HeldEntry> {
        self.order_keys();
        let map = self.shared.map.read();
        let behind = map.keys_from(after.map_or(Bound::Unbounded, Bound::Excluded)).take(limit);
        let held = behind.map(|entry| HeldEntry {
            key: entry.key().to_vec(),
            value: CacheValue::of(entry),
            stamp: entry.stamp,
            actor: map.writer(entry).clone(),
            number: entry.number,
            expires_ms: entry.expires_ms,
        });
        held.collect()
    }

    /// Number of readable entries. O(1), plus the entries that have expired within the last minute.
    pub fn len(&self, unix_ms: UnixMs) -> usize {
        usize::try_from(self.shared.map.read().len(self.time(unix_ms))).unwrap_or(usize::MAX)
    }

    /// Whether the cache has no readable entry.
    pub fn is_empty(&self, unix_ms: UnixMs) -> bool {
        self.len(unix_ms) == 0
    }

    /// Bytes of all keys and values, including entries that have expired within the last minute.
    pub fn value_bytes(&self) -> u64 {
        self.shared.map.read().derived().bytes
    }

    /// Number of keys that this node holds, including those that are removed and not collected yet.
    pub fn held(&self) -> usize {
        self.shared.map.read().held()
    }

    /// Number of entries that this node has removed since its start to keep the cache within its bounds.
    pub fn evicted(&self) -> u64 {
        self.shared.map.read().evicted()
    }

    /// The writes that this node has taken in: the runs that have written and are not over, each with the number of its last
    /// write here. O(runs).
    pub fn seen(&self) -> Vec<(Actor, u64)> {
        self.shared.map.read().seen().runs().map(|(run, number)| (run.clone(), number)).collect()
    }

    /// Number of nodes and runs that this node has to name to say what it has taken in. O(1).
    pub fn context_len(&self) -> usize {
        self.shared.map.read().seen().len()
    }

    /// The latest run of a node that has written.
    pub fn latest(&self, node: &NodeName) -> Option<Actor> {
        self.shared.map.read().latest(node).cloned()
    }

    /// The sum of the hashes of all live entries that expire never or after a time. Nodes that have taken in the same writes
    /// have the same sum.
    pub fn fingerprint(&self, after_ms: UnixMs) -> u64 {
        self.shared.map.read().derived().fingerprint.after(after_ms)
    }

    /// Starts to report every key that changes on this node, whatever the origin of the change. A watcher that does not read
    /// loses the oldest changes beyond `capacity` and receives the number of lost changes.
    pub fn watch(&self, capacity: usize, wake: Wake) -> Arc<Watch> {
        self.shared.watchers.add(capacity, &[], wake)
    }

    /// Number of writes that wait to be sent.
    pub fn pending(&self) -> usize {
        self.shared.pending.load(Ordering::SeqCst)
    }

    /// Memory in bytes, without the overhead of the allocator.
    pub fn bytes(&self) -> usize {
        self.shared.map.read().heap_bytes()
    }

    /// Recomputes every aggregate from the entries.
    ///
    /// # Errors
    /// Names the aggregate that differs. That is a fault of the engine; the simulator calls this after every step.
    pub fn audit(&self) -> Result<(), String> {
        self.shared.map.read().audit()
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("name", &self.shared.spec.name).finish_non_exhaustive()
    }
}

fn entry(map: &CacheMap, entry: &Entry, unix_ms: UnixMs) -> Option<CacheEntry> {
    let value = CacheValue::of(entry).filter(|_| !entry.expired(unix_ms))?;
    let (stamp, expires_ms) = (entry.stamp, entry.expires_ms);
    Some(CacheEntry { key: entry.key().to_vec(), value, stamp, actor: map.writer(entry).clone(), expires_ms })
}

impl CacheValue {
    #[inline]
    fn of(entry: &Entry) -> Option<Self> {
        entry.value().map(|_| Self { bytes: Arc::clone(&entry.bytes), start: usize::from(entry.key_len) })
    }
}

impl Deref for CacheValue {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// A value of its own, for example one that was loaded and could not be kept.
impl From<Vec<u8>> for CacheValue {
    fn from(value: Vec<u8>) -> Self {
        Self { bytes: value.into(), start: 0 }
    }
}

impl AsRef<[u8]> for CacheValue {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for CacheValue {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for CacheValue {}

impl fmt::Debug for CacheValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl serde::Serialize for CacheValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde::Serialize::serialize(&**self, serializer)
    }
}

impl From<Refused> for CacheError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::Leaving,
            Refused::Ahead(by) => Self::Clock { by },
            Refused::Full => Self::Full,
            Refused::Budget(over) => Self::Budget(over),
        }
    }
}
