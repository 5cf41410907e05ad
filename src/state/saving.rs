//! What the driver has to do with what is saved: when to save, and what to say of it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_engine::{Now, Replica, Time};

use super::file::StateFile;
use super::keeper::{Done, Keeper, Work};
use super::{StateError, write};

/// Between two looks at what has changed.
const INTERVAL: Duration = Duration::from_secs(1);

/// After a failure, until the next attempt.
const RETRY: Duration = Duration::from_secs(5);

/// Between two lines of the log about one trouble.
const REMINDER: Duration = Duration::from_secs(60);

/// How the saving of what outlives a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateStanding {
    /// What was written up to then is saved, in milliseconds since 1970 by this node's clock.
    pub saved_ms: u64,
    /// How long ago that is.
    pub age: Duration,
    /// What is in the way, if anything is.
    pub trouble: Option<String>,
}

/// What is known of it, for whoever asks.
#[derive(Debug, Default)]
struct Known {
    saved_ms: u64,
    saved_at: Time,
    trouble: Option<String>,
}

/// How the saving stands, as the driver tells and others read it.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedStanding(Arc<Mutex<Known>>);

impl SharedStanding {
    pub(crate) fn read(&self, now: Time) -> StateStanding {
        let known = self.0.lock();
        StateStanding { saved_ms: known.saved_ms, age: now.since(known.saved_at), trouble: known.trouble.clone() }
    }
}

/// The saving of one node.
#[derive(Debug)]
pub(crate) struct Saving {
    keeper: Keeper,
    standing: SharedStanding,
    /// When to look for changes next; never while a batch is on its way.
    due: Time,
    /// When the whole was begun that is being saved.
    began: Now,
    whole: bool,
    told_at: Option<Time>,
}

impl Saving {
    /// Notes durably in which run the node is, and takes over the file. What is in it has been taken back.
    pub(crate) fn start(file: StateFile, replica: &Replica, now: Now) -> Result<Self, StateError> {
        let note = || -> Result<(), redb::Error> {
            let open = file.db.begin_write()?;
            write::facts(&open, &replica.facts())?;
            Ok(open.commit()?)
        };
        note().map_err(|error| StateError::Io {
            what: "write to",
            path: file.path.clone(),
            error: match error {
                redb::Error::Io(error) => error,
                error => std::io::Error::other(error),
            },
        })?;
        let standing = SharedStanding::default();
        *standing.0.lock() = Known { saved_ms: now.unix_ms, saved_at: now.mono, trouble: None };
        let keeper = Keeper::start(file)?;
        Ok(Self { keeper, standing, due: now.mono, began: now, whole: false, told_at: None })
    }

    pub(crate) fn standing(&self) -> SharedStanding {
        self.standing.clone()
    }

    /// When [`Saving::poll`] has something to do.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// Hands on what has changed, if it is time.
    pub(crate) fn poll(&mut self, replica: &mut Replica, now: Now) {
        if now.mono < self.due {
            return;
        }
        if !self.whole {
            (self.began, self.whole) = (now, true);
        }
        match replica.poll_save() {
            Some(batch) => {
                self.keeper.write(Work { batch, upto_ms: self.began.unix_ms });
                self.due = Time::NEVER;
            }
            None => {
                self.whole = false;
                self.saved();
                self.due = now.mono.after(INTERVAL);
            }
        }
    }

    /// Waits until it is known what became of a batch.
    pub(crate) async fn done(&mut self) -> Outcome {
        let ended = Done { result: Err("the thread that saves has ended".to_owned()), commit: true, complete: true };
        Outcome(self.keeper.done().await.unwrap_or(ended))
    }

    /// Takes in what became of a batch.
    pub(crate) fn handle(&mut self, outcome: Outcome, replica: &mut Replica, now: Now) {
        let Done { result, commit, complete } = outcome.0;
        replica.handle_saved(result.is_ok(), commit);
        match result {
            Ok(()) => {
                // More of the same whole, at once.
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
        (known.saved_ms, known.saved_at) = (self.began.unix_ms, self.began.mono);
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

    /// Saves what there is, and closes the file. What cannot be saved is told.
    pub(crate) async fn finish(mut self, replica: &mut Replica, now: impl Fn() -> Now) {
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
            let failed = outcome.0.result.is_err();
            self.handle(outcome, replica, now());
            if failed {
                break;
            }
        }
        let standing = self.standing.read(now().mono);
        if let Some(trouble) = standing.trouble {
            tracing::error!(%trouble, "what was written in the last {} s is not saved", standing.age.as_secs());
        }
        self.close().await;
    }

    /// Closes the file as it is.
    pub(crate) async fn close(self) {
        let keeper = self.keeper;
        if tokio::task::spawn_blocking(|| keeper.close()).await.is_err() {
            tracing::error!("the file of the state was not closed");
        }
    }
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) struct Outcome(Done);
