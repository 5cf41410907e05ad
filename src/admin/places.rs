//! The places of connections that are served: a bounded number, and none is held for ever by a silent client.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long a client may be silent before its connection gives way. One that has just connected has its request on the way.
const GRACE: Duration = Duration::from_millis(500);

/// The places.
#[derive(Debug)]
pub(super) struct Places {
    capacity: usize,
    taken: Mutex<Taken>,
    /// A place has become free, or its connection has begun to wait for its client.
    changed: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    last: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug, Default)]
struct Connection {
    /// Since when the node waits for the client, if it does.
    waits_since: Option<Instant>,
    task: Option<AbortHandle>,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, taken: Mutex::default(), changed: Notify::new() })
    }

    /// Takes a place. When none is free, the connection whose client has been silent for longest is ended; when no client is
    /// silent, this waits until one is or a connection ends.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // A client that is silent now may have been so for long enough then.
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

    /// Ends the connection whose client has been silent for longest, if any is.
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

/// A place that is taken. It is free when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Place {
    /// The task that serves the connection, by which it can be ended.
    pub(super) fn served_by(places: &Places, id: u64, task: AbortHandle) {
        if let Some(connection) = places.taken.lock().connections.get_mut(&id) {
            connection.task = Some(task);
        }
        places.changed.notify_one();
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Does something that depends on the client: the connection may have to give way meanwhile.
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
