//! The driver's side of the saved state: when to save, and what to report about it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::{Now, Replica, Time};

use tallymesh_schemas::config::OnFullDisk;

use crate::state::error::StateError;
use crate::state::keeper::{Done, Keeper, Work};
use crate::state::opening::Opened;
use crate::state::seal::RolledBack;
use crate::state::writer::Writer;

/// Time between two checks for changes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Time between a failure and the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// Time between two log lines about the same trouble.
const REMINDER: Duration = Duration::from_secs(60);

/// The status of the saved state.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// if let Some(state) = node.state() {
///     println!("saved {} s ago", state.age.as_secs());
///     if let Some(trouble) = state.trouble {
///         println!("cannot save: {trouble}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct StateStanding {
    /// All changes up to this time are saved, in milliseconds since 1970 by this node's clock.
    pub saved_ms: u64,
    /// The time since then.
    pub age: Duration,
    /// Why the node cannot save, if it cannot.
    pub trouble: Option<String>,
    /// Set when the node started from an earlier commit than the last completed one.
    pub rolled_back: Option<RolledBack>,
}

/// The facts behind [`StateStanding`].
#[derive(Debug, Default)]
struct Known {
    saved_ms: u64,
    saved_at: Time,
    trouble: Option<String>,
    rolled_back: Option<RolledBack>,
}

/// The status of the saved state, which the driver writes and other tasks read.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStanding(Arc<Mutex<Known>>);

impl SharedStanding {
    pub(crate) fn read(&self, now: Time) -> StateStanding {
        let known = self.0.lock();
        let Known { saved_ms, saved_at, ref trouble, rolled_back } = *known;
        StateStanding { saved_ms, age: now.since(saved_at), trouble: trouble.clone(), rolled_back }
    }
}

/// Saves the state of one node.
#[derive(Debug)]
pub(crate) struct Saving {
    keeper: Keeper,
    standing: SharedStanding,
    /// When to check for changes next; never while a batch is in progress.
    due: Time,
    /// When the current complete save began. It may consist of several batches.
    began: Now,
    whole: bool,
    told_at: Option<Time>,
}

impl Saving {
    /// Takes over the file, and durably records the incarnation of this run. The content must already be restored. If the disk
    /// has no space for the record and the node is configured to serve anyway, the node tries again later.
    pub(crate) fn start(opened: Opened, replica: &Replica, now: Now) -> Result<Self, StateError> {
        let Opened { file, place, full, mut trouble, rolled_back, latest } = opened;
        let mut writer = match file {
            Some(file) => Writer::new(place, file, latest)?,
            None => Writer::without_file(place),
        };
        if trouble.is_none()
            && let Err(error) = writer.write_facts(replica.facts())
        {
            if full == OnFullDisk::Refuse || !error.is_full() {
                return Err(error.of_full_disk());
            }
            trouble = Some(error.to_string());
        }
        let standing = SharedStanding::default();
        *standing.0.lock() = Known { saved_ms: now.unix_ms.0, saved_at: now.mono, trouble: None, rolled_back };
        let mut saving =
            Self { keeper: Keeper::start(writer)?, standing, due: now.mono, began: now, whole: false, told_at: None };
        if let Some(trouble) = trouble {
            saving.due = now.mono.after(RETRY);
            saving.failed(trouble, now.mono);
        }
        Ok(saving)
    }

    pub(crate) fn standing(&self) -> SharedStanding {
        self.standing.clone()
    }

    /// When [`Saving::poll`] is due next.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// Sends the changes to the thread, if it is time.
    pub(crate) fn poll(&mut self, replica: &mut Replica, now: Now) {
        if now.mono < self.due {
            return;
        }
        if !self.whole {
            (self.began, self.whole) = (now, true);
        }
        match replica.poll_save() {
            Some(batch) => {
                self.keeper.give(Work::Write { batch, upto_ms: self.began.unix_ms.0 });
            }
            // All changes are in the file, provided that the file is still in its place.
            None => self.keeper.give(Work::Look),
        }
        self.due = Time::NEVER;
    }

    /// Waits for the result of the work that the thread received.
    pub(crate) async fn done(&mut self) -> Outcome {
        let ended = Err("the thread that saves has ended".to_owned());
        let ended = Done::Written { result: ended, complete: true };
        Outcome(self.keeper.done().await.unwrap_or(ended))
    }

    /// Handles the result.
    pub(crate) fn handle(&mut self, outcome: Outcome, replica: &mut Replica, now: Now) {
        let (result, complete) = match outcome.0 {
            Done::Looked(result) => (result, true),
            Done::Written { result, complete } => {
                match result {
                    Ok(()) => replica.handle_saved(),
                    Err(_) => replica.handle_not_saved(),
                }
                (result, complete)
            }
        };
        match result {
            Ok(()) => {
                // The next batch of the same save follows at once.
                self.due = if complete { self.began.mono.after(INTERVAL).max(now.mono) } else { now.mono };
                if complete {
                    self.whole = false;
                    self.saved();
                }
            }
            Err(trouble) => {
                self.whole = false;
                self.due = now.mono.after(RETRY);
                self.failed(trouble, now.mono);
            }
        }
    }

    fn saved(&mut self) {
        let mut known = self.standing.0.lock();
        (known.saved_ms, known.saved_at) = (self.began.unix_ms.0, self.began.mono);
        if known.trouble.take().is_some() {
            tracing::info!("what outlives a run is saved again");
        }
        self.told_at = None;
    }

    fn failed(&mut self, trouble: String, now: Time) {
        let age = now.since(self.standing.0.lock().saved_at);
        if self.told_at.is_none_or(|at| now.since(at) >= REMINDER) {
            self.told_at = Some(now);
            tracing::error!(
                %trouble,
                "nothing was saved for {} s: a restart of the whole cluster loses what was written since; serving goes on",
                age.as_secs()
            );
        }
        self.standing.0.lock().trouble = Some(trouble);
    }

    /// Saves the remaining changes and closes the file, both `within` a time: a disk that hangs does not block the node.
    /// Reports changes that cannot be saved.
    pub(crate) async fn finish(self, replica: &mut Replica, now: impl Fn() -> Now, within: Duration) {
        let standing = self.standing();
        let since = |now: Now| standing.read(now.mono).age.as_secs();
        if tokio::time::timeout(within, self.save_all(replica, &now)).await.is_err() {
            tracing::error!(unsaved_s = since(now()), "the disk does not answer: what was written last is not saved");
            // A caller that asks after the end sees this: the exit code of the command depends on it.
            standing.0.lock().trouble = Some("the disk does not answer".to_owned());
        }
    }

    async fn save_all(mut self, replica: &mut Replica, now: impl Fn() -> Now) {
        if self.due == Time::NEVER {
            let outcome = self.done().await;
            self.handle(outcome, replica, now());
        }
        loop {
            self.due = Time(0);
            self.poll(replica, now());
            if self.due != Time::NEVER {
                break;
            }
            let outcome = self.done().await;
            let over = matches!(&outcome.0, Done::Looked(_) | Done::Written { result: Err(_), .. });
            self.handle(outcome, replica, now());
            if over {
                break;
            }
        }
        let standing = self.standing.read(now().mono);
        if let Some(trouble) = standing.trouble {
            tracing::error!(%trouble, "what was written in the last {} s is not saved", standing.age.as_secs());
        }
        self.keeper.close().await;
    }

    /// Closes the file without saving, `within` a time.
    pub(crate) async fn close(self, within: Duration) {
        if tokio::time::timeout(within, self.keeper.close()).await.is_err() {
            tracing::error!("the disk does not answer: the file of the state is not closed");
        }
    }
}

/// The result of the thread's work.
#[derive(Debug)]
pub(crate) struct Outcome(Done);

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Class, Incarnation, NodeName, StructureName, StructureSpec, UnixMs};

    use super::*;
    use crate::state::file::StateFile;
    use crate::state::seal::Seal;
    use crate::state::writer::Place;

    /// Simulates a disk that hangs: another writer holds the file, so the thread that saves waits for ever.
    #[tokio::test]
    async fn a_hung_disk_does_not_hold_a_leaving_node() {
        let dir = tempfile::tempdir().unwrap();
        let name = NodeName::new("n1").unwrap();
        let now = Now { mono: Time(1), unix_ms: UnixMs(1) };
        let mut replica = Replica::new(tallymesh_engine::Config::default(), name.clone(), Incarnation(1));
        let cache = StructureName::new("sessions").unwrap();
        replica.replicate_cache(StructureSpec::new(cache, Class::Cache), Arc::new(|| ())).unwrap();
        replica.keep_state();
        let file = StateFile::open_or_create(dir.path(), &name).unwrap();
        let hangs = file.db.begin_write().unwrap();
        let place = Place { dir: dir.path().to_owned(), path: file.path().to_owned(), node: name };
        let keeper = Keeper::start(Writer::new(place, file, Seal::default()).unwrap()).unwrap();
        let standing = SharedStanding::default();
        let saving = Saving { keeper, standing, due: now.mono, began: now, whole: false, told_at: None };
        let (within, begun) = (Duration::from_millis(20), std::time::Instant::now());
        let known = saving.standing();
        saving.finish(&mut replica, || now, within).await;
        assert!(begun.elapsed() >= within, "the disk hung");
        assert_eq!(known.read(now.mono).trouble.as_deref(), Some("the disk does not answer"));
        drop(hangs);
    }
}
