//! The counter of one key.

use tallymesh_engine::{Count, Hold};

use crate::clock::Clock;

/// The counter of one key, looked up once: for keys that are counted often.
///
/// Cheap to clone; usable from any thread. [`Counter::add`] takes a few nanoseconds and no lock.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let open = node.domains("outbound_domains")?.counter("example.com")?;
/// open.add(1);
/// println!("{} are open, {} of them here", open.count().total, open.count().local);
/// open.add(-1);
/// // Count one more until the guard is dropped, if there are at most 20 then.
/// if let Some(guard) = open.try_hold(20) {
///     drop(guard);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    inner: tallymesh_engine::Counter,
    clock: Clock,
}

impl Counter {
    pub(crate) fn new(inner: tallymesh_engine::Counter, clock: Clock) -> Self {
        Self { inner, clock }
    }

    /// Adds `n` to this node's count; a negative `n` removes. A step beyond [`MAX_STEP`](crate::MAX_STEP) in either direction
    /// is reduced to that value.
    #[inline]
    pub fn add(&self, n: i64) {
        self.inner.add(n);
    }

    /// Adds `n` if the cluster-wide count, as far as this node knows, is at most `limit` afterwards. Returns whether it added.
    /// An `n` below zero counts as zero. Exact among the threads of this node.
    #[must_use]
    pub fn add_within(&self, n: i64, limit: i64) -> bool {
        self.inner.add_within(n, limit)
    }

    /// Counts one until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.inner.hold()
    }

    /// Counts one until the guard is dropped, if the cluster-wide count, as far as this node knows, is at most `limit`
    /// afterwards.
    #[must_use]
    pub fn try_hold(&self, limit: i64) -> Option<Hold> {
        self.inner.try_hold(limit)
    }

    /// The count. O(1), no lock.
    pub fn count(&self) -> Count {
        self.inner.count(self.clock.time())
    }
}
