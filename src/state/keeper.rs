//! The thread that writes: one transaction for what belongs together, and never in the driver's way.

use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use tallymesh_engine::replica::Batch;
use tokio::sync::mpsc;

use super::StateError;
use super::writer::Writer;

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    /// Write a batch; `upto_ms` is up to when all is in the file when it is.
    Write { batch: Batch, upto_ms: u64 },
    /// Look whether the file is still in its place.
    Look,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    /// A batch was written, or not.
    Written { result: Result<(), String>, commit: bool, complete: bool },
    /// The file is in its place, or not.
    Looked(Result<(), String>),
}

/// Where work goes, and where it is said what became of it.
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
                        let Batch { commit, complete, .. } = batch;
                        Done::Written { result, commit, complete }
                    }
                };
                if says.send(done).is_err() {
                    return;
                }
            }
            // The file first: whoever sees that nothing more is said takes it for closed.
            drop(writer);
            drop(says);
        });
        let thread = thread.map_err(|error| StateError::Io { what: "start a thread for", path, error })?;
        Ok(Self { work, done, thread })
    }

    /// Hands on work. At most one piece is on its way.
    pub(super) fn give(&self, work: Work) {
        // A thread that has ended says so where its word is waited for.
        let _ = self.work.send(work);
    }

    /// What became of the work; `None` when the thread has ended.
    pub(super) async fn done(&mut self) -> Option<Done> {
        self.done.recv().await
    }

    /// Ends the thread, and closes the file. When the caller stops waiting, the thread is left to the disk that it waits for.
    pub(super) async fn close(self) {
        let Self { work, mut done, thread } = self;
        drop(work);
        while done.recv().await.is_some() {}
        // It has said its last word, so it ends now.
        if thread.join().is_err() {
            tracing::error!("the thread that saves ended badly");
        }
    }
}
