//! What the HTTP listener knows of the node. It asks the driver, and reads figures, at most twice a second, however many
//! clients ask: so clients cannot keep the node busy.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout};

use crate::command::{Command, Status, ask};
use crate::http::ready::Missing;
use crate::http::requests::Requests;
use crate::metrics::figures::Format;
use crate::metrics::gather::{Sources, gather};
use crate::places::Places;
use crate::shared::Shared;

/// For this time, clients get the same answer.
const KEPT: Duration = Duration::from_millis(500);

/// How long the driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A value that several clients share for [`KEPT`].
#[derive(Debug)]
struct Kept<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Clone> Kept<T> {
    /// The value, made anew if it is too old. One client makes it, and the others wait for that.
    async fn get(&self, make: impl Future<Output = T>) -> T {
        let mut kept = self.0.lock().await;
        if let Some((_, value)) = kept.as_ref().filter(|(at, _)| at.elapsed() < KEPT) {
            return value.clone();
        }
        let value = make.await;
        *kept = Some((Instant::now(), value.clone()));
        value
    }
}

/// The driver does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer;

/// What the configuration says of the node, for its answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Whether the node is ready only while it can save its state.
    pub(crate) needs_disk: bool,
}

/// What the listener knows of its own work.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) requests: Arc<Requests>,
    pub(super) places: Arc<Places>,
}

/// Reads the node for the HTTP listener.
#[derive(Debug)]
pub(super) struct Observer {
    shared: Arc<Shared>,
    commands: mpsc::WeakSender<Command>,
    facts: Facts,
    own: Own,
    status: Kept<Option<Arc<Status>>>,
    prometheus: Kept<Option<Bytes>>,
    open_metrics: Kept<Option<Bytes>>,
}

impl Observer {
    pub(super) fn new(shared: Arc<Shared>, commands: mpsc::WeakSender<Command>, facts: Facts, own: Own) -> Self {
        let (status, prometheus, open_metrics) = (Kept::default(), Kept::default(), Kept::default());
        Self { shared, commands, facts, own, status, prometheus, open_metrics }
    }

    /// What the driver says.
    pub(super) async fn status(&self) -> Result<Arc<Status>, NoAnswer> {
        let asked = async {
            let commands = self.commands.upgrade()?;
            timeout(PATIENCE, ask(&commands, Command::Status)).await.ok().flatten().map(Arc::new)
        };
        self.status.get(asked).await.ok_or(NoAnswer)
    }

    /// What is missing until the node is ready.
    pub(super) async fn missing(&self) -> Result<Missing, NoAnswer> {
        Ok(self.missing_of(&*self.status().await?))
    }

    fn missing_of(&self, status: &Status) -> Missing {
        let trouble = self.facts.needs_disk.then(|| self.trouble()).flatten();
        Missing::of(&status.work.start, &self.shared.seeds.lock(), trouble)
    }

    #[cfg(feature = "state")]
    fn trouble(&self) -> Option<String> {
        self.shared.saving.as_ref()?.read(self.shared.clock.time()).trouble
    }

    #[cfg(not(feature = "state"))]
    fn trouble(&self) -> Option<String> {
        None
    }

    /// The metrics as text.
    pub(super) async fn text(&self, format: Format) -> Result<Bytes, NoAnswer> {
        let kept = match format {
            Format::Prometheus => &self.prometheus,
            Format::OpenMetrics => &self.open_metrics,
        };
        kept.get(self.read(format)).await.ok_or(NoAnswer)
    }

    /// Reads the figures on a thread for work that takes long: it takes the locks of all objects.
    async fn read(&self, format: Format) -> Option<Bytes> {
        let status = self.status().await.ok()?;
        let conditions = self.missing_of(&status).conditions();
        let commands = self.commands.upgrade().map_or(0, |commands| commands.max_capacity() - commands.capacity());
        let (requests, connections) = (self.own.requests.read(), self.own.places.taken());
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            let (status, conditions, requests) = (&*status, &conditions[..], &requests[..]);
            let sources = Sources { status, conditions, commands, requests, connections };
            gather(&shared, &sources).text(format)
        });
        match reading.await {
            Ok(Ok(text)) => Some(text.into()),
            failed => {
                tracing::error!(?failed, "the metrics are not written");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_clients_share_one_answer() {
        let (kept, made) = (Arc::<Kept<u32>>::default(), Arc::<AtomicU32>::default());
        for expected in 1..=3 {
            let mut clients = JoinSet::new();
            for _ in 0..1000 {
                let (kept, made) = (Arc::clone(&kept), Arc::clone(&made));
                clients.spawn(async move {
                    let make = async {
                        sleep(Duration::from_millis(10)).await;
                        made.fetch_add(1, Ordering::Relaxed) + 1
                    };
                    kept.get(make).await
                });
            }
            assert_eq!(clients.join_all().await, vec![expected; 1000]);
            sleep(KEPT).await;
        }
        assert_eq!(made.load(Ordering::Relaxed), 3);
    }
}
