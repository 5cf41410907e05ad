//! The handle of a gauge cache.

use std::sync::Arc;

use tallymesh_engine::Entry;
use tallymesh_schemas::GaugeCacheSpec;
use tallymesh_schemas::key::KeyError;

use crate::clock::Clock;

/// A gauge cache: names, each with a count that all nodes add to and that expires after its last change anywhere.
///
/// Cheap to clone; usable from any thread.
#[derive(Clone, Debug)]
pub struct GaugeCache {
    inner: Arc<tallymesh_engine::GaugeCache>,
    clock: Clock,
}

impl GaugeCache {
    pub(crate) fn new(inner: Arc<tallymesh_engine::GaugeCache>, clock: Clock) -> Self {
        Self { inner, clock }
    }

    /// How it is configured.
    pub fn spec(&self) -> &GaugeCacheSpec {
        self.inner.spec()
    }

    /// Adds `n`, and makes the entry if there is none. Where that makes too many, the oldest go.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be a key.
    pub fn inc(&self, key: &str, n: i64) -> Result<(), KeyError> {
        self.inner.add(key.as_bytes(), n, self.clock.time())
    }

    /// Takes `n` away, and makes the entry if there is none.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be a key.
    pub fn dec(&self, key: &str, n: i64) -> Result<(), KeyError> {
        self.inc(key, n.saturating_neg())
    }

    /// What is counted; `None` when there is no entry.
    pub fn get(&self, key: &str) -> Option<i64> {
        self.inner.get(key.as_bytes(), self.clock.time())
    }

    /// Removes an entry, on all nodes; whether there was one. What is counted elsewhere at the same time, and is not known
    /// here yet, stays.
    ///
    /// # Errors
    /// [`KeyError`] when it cannot be a key.
    pub fn remove(&self, key: &str) -> Result<bool, KeyError> {
        self.inner.remove(key.as_bytes(), self.clock.time())
    }

    /// The entries behind `after`, from the first one on if there is none, in order of key, at most `limit`.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize) -> Vec<Entry> {
        self.inner.entries(after, limit, self.clock.time())
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.inner.len(self.clock.time())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
