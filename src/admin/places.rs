//! The places of served connections. Their number is bounded, and a silent client cannot keep one for ever.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long a client may be silent before its connection may be closed for another one. A new client's first request is on its
/// way.
const GRACE: Duration = Duration::from_millis(500);

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    capacity: usize,
    taken: Mutex<Taken>,
    /// A place became free, or a connection began to wait for its client.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Since when the node waits for the client; `None` while it does not.
    waits_since: Option<Instant>,
    task: Option<AbortHandle>,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, taken: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a place. If none is free, ends the connection whose client has been silent for the longest time. If no client is
    /// silent, waits until one is, or until a connection ends.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // A client that has just become silent may have been silent for long enough after this time.
            let _ = tokio::time::timeout(GRACE, self.changed.notified()).await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        if self.taken.lock().connections.len() >= self.capacity && !self.end_longest_silent() {
            return None;
        }
        let mut taken = self.taken.lock();
        taken.last += 1;
        let id = taken.last;
        taken.connections.insert(id, Connection::default());
        Some(Place { places: Arc::clone(self), id })
    }

    /// Ends the connection whose client has been silent for the longest time, if one has been silent for long enough.
    pub(super) fn end_longest_silent(&self) -> bool {
        let mut taken = self.taken.lock();
        let silent = taken.connections.iter().filter(|(_, connection)| connection.task.is_some());
        let silent = silent.filter_map(|(id, connection)| Some((connection.waits_since?, *id)));
        let Some((since, id)) = silent.min().filter(|(since, _)| since.elapsed() >= GRACE) else { return false };
        let task = taken.connections.remove(&id).and_then(|connection| connection.task);
        drop(taken);
        if let Some(task) = task {
            task.abort();
        }
        tracing::debug!(silent_for = ?since.elapsed(), "an admin connection gives way to a new one");
        true
    }
}

/// A taken place. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Place {
    /// Records the task that serves the connection, so that it can be aborted.
    pub(super) fn served_by(places: &Places, id: u64, task: AbortHandle) {
        if let Some(connection) = places.taken.lock().connections.get_mut(&id) {
            connection.task = Some(task);
        }
        places.changed.notify_one();
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the client. The connection may be ended meanwhile to free its place.
    pub(super) async fn wait<T>(&self, client: impl Future<Output = T>) -> T {
        self.set(Some(Instant::now()));
        self.places.changed.notify_one();
        let done = client.await;
        self.set(None);
        done
    }

    fn set(&self, waits_since: Option<Instant>) {
        if let Some(connection) = self.places.taken.lock().connections.get_mut(&self.id) {
            connection.waits_since = waits_since;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.lock().connections.remove(&self.id);
        self.places.changed.notify_one();
    }
}
