//! The places of served connections. Their number is bounded, and a silent client cannot keep one for ever.

use std::collections::BTreeMap;
#[cfg(feature = "admin")]
use std::future::Future;
use std::sync::Arc;
#[cfg(feature = "http")]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// The places.
#[derive(Debug)]
pub(crate) struct Places {
    capacity: usize,
    /// How long a client may be silent before its connection may be closed for another one. A new client's first request is on
    /// its way.
    grace: Duration,
    taken: Mutex<Taken>,
    /// A place became free, or a connection began to wait for its client.
    changed: Notify,
    /// Connections that were ended to free their places.
    #[cfg(feature = "http")]
    ended: AtomicU64,
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
    pub(crate) fn new(capacity: usize, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            grace,
            taken: Mutex::default(),
            changed: Notify::new(),
            #[cfg(feature = "http")]
            ended: AtomicU64::new(0),
        })
    }

    /// Takes a place. If none is free, ends the connection whose client has been silent for the longest time. If no client is
    /// silent, waits until one is, or until a connection ends.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_take() {
                return place;
            }
            // A client that has just become silent may have been silent for long enough after this time.
            let _ = tokio::time::timeout(self.grace, self.changed.notified()).await;
        }
    }

    /// Connections that were ended to free their places.
    #[cfg(feature = "http")]
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Places that are taken.
    #[cfg(feature = "http")]
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().connections.len()
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
    pub(crate) fn end_longest_silent(&self) -> bool {
        let mut taken = self.taken.lock();
        let silent = taken.connections.iter().filter(|(_, connection)| connection.task.is_some());
        let silent = silent.filter_map(|(id, connection)| Some((connection.waits_since?, *id)));
        let Some((since, id)) = silent.min().filter(|(since, _)| since.elapsed() >= self.grace) else { return false };
        let task = taken.connections.remove(&id).and_then(|connection| connection.task);
        drop(taken);
        if let Some(task) = task {
            task.abort();
        }
        #[cfg(feature = "http")]
        self.ended.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(silent_for = ?since.elapsed(), "a connection gives way to a new one");
        true
    }
}

/// A taken place. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
}

impl Place {
    /// Records the task that serves the connection, so that it can be aborted.
    pub(crate) fn served_by(places: &Places, id: u64, task: AbortHandle) {
        if let Some(connection) = places.taken.lock().connections.get_mut(&id) {
            connection.task = Some(task);
        }
        places.changed.notify_one();
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the client. The connection may be ended meanwhile to free its place.
    #[cfg(feature = "admin")]
    pub(crate) async fn wait<T>(&self, client: impl Future<Output = T>) -> T {
        self.begin_wait();
        let done = client.await;
        self.end_wait();
        done
    }

    /// The node waits for the client from now on. The connection may be ended to free its place.
    pub(crate) fn begin_wait(&self) {
        self.set(Some(Instant::now()));
        self.places.changed.notify_one();
    }

    /// The client has sent or read something, and the node works for it.
    pub(crate) fn end_wait(&self) {
        self.set(None);
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
