//! The queue of events for the reader.
#![allow(clippy::cast_possible_truncation, reason = "INBOX_BYTES is a constant below 2^32")]

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::bounds::{INBOX_BYTES, INBOX_EVENTS};
use crate::event::Event;
use crate::shared::Shared;

/// The events of an endpoint. One task reads them.
///
/// The endpoint reads links only as fast as this task reads: when [1024 events](INBOX_EVENTS) or [8 MiB](INBOX_BYTES) wait, the
/// peers' QUIC windows fill up and their queues report that there is no room.
#[derive(Debug)]
pub struct Events {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Queued>,
}

/// The sending side of the queue; links put their events here.
#[derive(Debug, Clone)]
pub(crate) struct Inbox {
    queue: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
}

#[derive(Debug)]
struct Queued {
    event: Event,
    /// Released when the event is read.
    _bytes: Option<OwnedSemaphorePermit>,
}

/// The reader is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unread;

/// An empty inbox and its reader.
pub(crate) fn inbox(shared: Arc<Shared>) -> (Inbox, Events) {
    let (sender, queue) = mpsc::channel(INBOX_EVENTS);
    (Inbox { queue: sender, bytes: Arc::new(Semaphore::new(INBOX_BYTES)) }, Events { shared, queue })
}

impl Inbox {
    /// Adds an event when there is room.
    pub(crate) async fn put(&self, event: Event) -> Result<(), Unread> {
        let bytes = match &event {
            Event::Frame { payload, .. } => {
                let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).min(INBOX_BYTES as u32);
                Some(Arc::clone(&self.bytes).acquire_many_owned(len).await.map_err(|_| Unread)?)
            }
            _ => None,
        };
        self.queue.send(Queued { event, _bytes: bytes }).await.map_err(|_| Unread)
    }
}

impl Events {
    /// The next event, or `None` when the endpoint is closed. May be cancelled without losing an event.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            if let Some(notice) = self.shared.notices.pop() {
                return Some(notice);
            }
            tokio::select! {
                () = self.shared.notices.changed() => {}
                queued = self.queue.recv() => {
                    return queued.map(|queued| queued.event).or_else(|| self.shared.notices.pop());
                }
            }
        }
    }

    /// Number of events that wait in the queue of the links.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// The next event, if one is queued.
    pub fn try_recv(&mut self) -> Option<Event> {
        self.shared.notices.pop().or_else(|| self.queue.try_recv().ok().map(|queued| queued.event))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // Wakes links that wait for room, so that they can end.
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
    }
}
