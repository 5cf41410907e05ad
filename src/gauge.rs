//! The handle of a gauge cache.

use std::sync::Arc;

use tallymesh_engine::Entry;
use tallymesh_schemas::GaugeCacheSpec;
use tallymesh_schemas::key::KeyError;

use crate::clock::Clock;

/// A gauge cache: named counts. All nodes add to the same count. An entry expires after its last change on any node.
///
/// Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let sessions = node.gauge_cache("sessions")?;
/// sessions.inc("user:7", 2)?;
/// sessions.dec("user:7", 1)?;
/// assert_eq!(sessions.get("user:7"), Some(1));
/// for entry in sessions.entries(None, 100) {
///     println!("{}: {}", String::from_utf8_lossy(&entry.key), entry.count);
/// }
/// sessions.remove("user:7")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct GaugeCache {
    inner: Arc<tallymesh_engine::GaugeCache>,
    clock: Clock,
}

impl GaugeCache {
    pub(crate) fn new(inner: Arc<tallymesh_engine::GaugeCache>, clock: Clock) -> Self {
        Self { inner, clock }
    }

    /// The configuration of the gauge cache.
    pub fn spec(&self) -> &GaugeCacheSpec {
        self.inner.spec()
    }

    /// Adds `n`. Creates the entry if there is none. If that exceeds the maximum number of entries, the oldest are evicted.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not valid.
    pub fn inc(&self, key: &str, n: i64) -> Result<(), KeyError> {
        self.inner.structure().check(n)?;
        self.inner.add(key.as_bytes(), n, self.clock.time())
    }

    /// Subtracts `n`. Creates the entry if there is none.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not valid.
    pub fn dec(&self, key: &str, n: i64) -> Result<(), KeyError> {
        self.inc(key, n.saturating_neg())
    }

    /// The count; `None` when there is no entry.
    pub fn get(&self, key: &str) -> Option<i64> {
        self.inner.get(key.as_bytes(), self.clock.time())
    }

    /// Removes an entry on all nodes. Returns whether there was one. Counts that other nodes add at the same time, and that
    /// this node does not know yet, remain.
    ///
    /// # Errors
    /// [`KeyError`] when the key is not valid.
    pub fn remove(&self, key: &str) -> Result<bool, KeyError> {
        self.inner.remove(key.as_bytes(), self.clock.time())
    }

    /// At most `limit` entries in order of key, beginning after the key `after`, or at the first key if it is `None`.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize) -> Vec<Entry> {
        self.inner.entries(after, limit, self.clock.time())
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.inner.len(self.clock.time())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
