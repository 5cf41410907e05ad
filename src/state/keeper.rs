//! The thread that writes the state. It writes related changes in one transaction, and never blocks the driver.

use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tallymesh_engine::replica::Batch;
use tokio::sync::mpsc;

use crate::state::error::StateError;
use crate::state::writer::Writer;

/// Work for the thread.
#[derive(Debug)]
pub(super) enum Work {
    /// Write a batch. When it is written, the file is complete up to `upto_ms`.
    Write { batch: Batch, upto_ms: u64 },
    /// Check that the file is still in its place.
    Look,
}

/// The result of a piece of work.
#[derive(Debug)]
pub(super) enum Done {
    /// The result of writing a batch.
    Written { result: Result<(), String>, complete: bool },
    /// Whether the file is in its place.
    Looked(Result<(), String>),
}

/// The channels to and from the thread.
#[derive(Debug)]
pub(super) struct Keeper {
    work: blocking::Sender<Work>,
    done: mpsc::UnboundedReceiver<Done>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(mut writer: Writer) -> Result<Self, StateError> {
        let (work, works) = blocking::channel();
        let (says, done) = mpsc::unbounded_channel();
        let path = writer.path().to_owned();
        let thread = std::thread::Builder::new().name("tallymesh-state".to_owned()).spawn(move || {
            while let Ok(work) = works.recv() {
                let done = match work {
                    Work::Look => Done::Looked(writer.look()),
                    Work::Write { batch, upto_ms } => {
                        let result = writer.write(&batch, upto_ms);
                        Done::Written { result, complete: batch.complete }
                    }
                };
                if says.send(done).is_err() {
                    return;
                }
            }
            // Drop the file first: the other side takes a closed channel as the sign that the file is closed.
            drop(writer);
            drop(says);
        });
        let thread = thread.map_err(|error| StateError::Io { what: "start a thread for", path, source: error })?;
        Ok(Self { work, done, thread })
    }

    /// Sends work to the thread. At most one piece is in progress.
    pub(super) fn give(&self, work: Work) {
        // If the thread has ended, `done` reports it.
        let _ = self.work.send(work);
    }

    /// Waits for the result of the work; `None` when the thread has ended.
    pub(super) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// Ends the thread and closes the file. If the caller stops waiting, the thread continues alone until the disk answers.
    pub(super) async fn close(self) {
        let Self { work, mut done, thread } = self;
        drop(work);
        while done.recv().await.is_some() {}
        // Its channel is closed, so it ends now.
        if thread.join().is_err() {
            tracing::error!("the thread that saves ended badly");
        }
    }
}
