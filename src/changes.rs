//! The changes of an object's keys, as a stream.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Serialize;
use tallymesh_engine::Watch;
use tallymesh_schemas::key;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::events::Announced;
use crate::object::Object;

/// Changed keys that may wait for a reader. Beyond that, the oldest are dropped, and the reader receives their number.
const CHANGES: usize = 1 << 12;

/// A key that this node or another one has changed.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Change;
///
/// let mut changes = node.changes("inbound_cidr")?;
/// while let Some(Change { key, count, lost, .. }) = changes.next().await {
///     println!("{key} has {count}; {lost} changes were lost before");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// The key in readable form.
    pub key: String,
    /// The cluster-wide count of the key now, as far as this node knows; 0 for a key of a cache.
    pub count: i64,
    /// Changes that were dropped before this one because the reader was too slow.
    pub lost: u64,
}

/// The stream of changed keys from the call of [`Node::changes`](crate::Node::changes) on.
///
/// A key that changes several times between two reads appears once, with its count at the time of the read. Bounded: a reader
/// that is more than 4,096 changes behind loses the oldest, and [`Change::lost`] states how many.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// let mut changes = node.changes("inbound_cidr")?;
/// let first = changes.next().await.map(|change| change.key);
/// println!("{first:?} has changed");
/// let _rest = changes.into_stream(); // a `futures_core::Stream`
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Changes {
    object: Object,
    watch: Arc<Watch>,
    changed: Arc<Notify>,
    waiting: VecDeque<Vec<u8>>,
    lost: u64,
    node: Announced,
    clock: Clock,
}

impl Changes {
    pub(crate) fn new(object: Object, node: Announced, clock: Clock) -> Self {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watch = object.watch(CHANGES, Arc::new(move || wake.notify_one()));
        Self { object, watch, changed, waiting: VecDeque::new(), lost: 0, node, clock }
    }

    /// The next changed key; `None` when the node has been shut down.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                let count = self.object.total(&bytes, self.clock.time());
                let key = key::display(self.object.spec().class.kind(), &bytes).unwrap_or_default();
                return Some(Change { key, count, lost: std::mem::take(&mut self.lost) });
            }
            let (mut keys, lost) = self.watch.take();
            self.lost = self.lost.saturating_add(lost);
            keys.sort_unstable();
            keys.dedup();
            self.waiting = keys.into();
            if self.waiting.is_empty() {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = self.node.ended() => return None,
                }
            }
        }
    }

    /// The changes as a [`Stream`].
    pub fn into_stream(self) -> impl Stream<Item = Change> + Send {
        unfold(self, |mut changes| async move { changes.next().await.map(|change| (change, changes)) })
    }
}
