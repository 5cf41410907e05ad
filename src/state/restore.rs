//! What an earlier run has saved: opens it when a node starts, and restores the replica from it.

use std::path::PathBuf;

use tallymesh_engine::replica::next_run;
use tallymesh_engine::{Now, Replica};
use tallymesh_schemas::config::OnFullDisk;
use tallymesh_schemas::saved::Facts;
use tallymesh_schemas::{Incarnation, NodeName, UnixMs};

use crate::state::error::StateError;
use crate::state::file::StateFile;
use crate::state::opening::Opened;
use crate::state::read::NotTaken;
use crate::state::saving::Saving;

/// The state in a node's folder, opened and not restored yet.
pub(crate) struct Earlier {
    opened: Opened,
    /// `None` if there was no earlier run.
    facts: Option<Facts>,
}

impl Earlier {
    /// Opens the state of a node, on a thread for blocking work. Creates an empty one if there is none.
    pub(crate) async fn open(dir: PathBuf, node: NodeName, full: OnFullDisk) -> Result<Self, StateError> {
        blocking(move || {
            let opened = Opened::open(&dir, &node, full)?;
            let facts = opened.facts()?;
            Ok(Self { opened, facts })
        })
        .await
    }

    /// The incarnation of the run that begins: `wanted`, or the one after the last saved if that is higher.
    ///
    /// # Errors
    /// The last saved incarnation, when no run can follow it.
    pub(crate) fn next_run(&self, wanted: Incarnation) -> Result<Incarnation, Incarnation> {
        match &self.facts {
            Some(facts) => next_run(facts, UnixMs(wanted.0)).map_err(|_| facts.incarnation),
            None => Ok(wanted),
        }
    }

    /// Restores the state into the replica, and durably records that this run has begun. Runs on a thread for blocking work.
    pub(crate) async fn restore(self, mut replica: Replica, now: Now) -> Result<(Replica, Saving), StateError> {
        blocking(move || {
            let Self { opened, facts } = self;
            replica.keep_state();
            if let Some((facts, file)) = facts.zip(opened.file()) {
                replica.restore_facts(now, facts);
                let path = file.path().to_owned();
                restore_content(file, &mut replica, now).map_err(|error| match error {
                    NotTaken::File(error) => error,
                    NotTaken::Content(error) => StateError::Restore { path, source: Box::new(error) },
                })?;
                replica.restored(now);
            }
            let saving = Saving::start(opened, &replica, now)?;
            Ok((replica, saving))
        })
        .await
    }
}

/// Restores the rows, and the entries of caches one by one.
fn restore_content(file: &StateFile, replica: &mut Replica, now: Now) -> Result<(), NotTaken> {
    file.each_head(|head, rows| replica.restore_rows(now, head, &rows))?;
    for (cache, contexts) in file.caches()? {
        file.each_entry(&cache, |entry| Ok::<(), NotTaken>(replica.restore_entry(&cache, &entry)?))?;
        replica.restore_contexts(&cache, &contexts)?;
    }
    Ok(())
}

/// Runs disk work off the async tasks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, StateError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
