//! The thread that writes: one transaction for what belongs together, and never in the driver's way.

use std::path::PathBuf;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use redb::WriteTransaction;
use tallymesh_engine::replica::Batch;
use tokio::sync::mpsc;

use super::file::StateFile;
use super::{StateError, write};

/// A batch to be written, and up to when all is in the file when it is.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) upto_ms: u64,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) result: Result<(), String>,
    pub(super) commit: bool,
    pub(super) complete: bool,
}

/// Where batches go, and where it is said what became of them.
#[derive(Debug)]
pub(super) struct Keeper {
    work: blocking::Sender<Work>,
    done: mpsc::UnboundedReceiver<Done>,
    thread: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(file: StateFile) -> Result<Self, StateError> {
        let (work, works) = blocking::channel();
        let (says, done) = mpsc::unbounded_channel();
        let path = file.path.clone();
        let mut writer = Writer { file: Some(file), path: path.clone(), open: None };
        let thread = std::thread::Builder::new().name("tallymesh-state".to_owned()).spawn(move || {
            while let Ok(Work { batch, upto_ms }) = works.recv() {
                let result = writer.write(&batch, upto_ms);
                let Batch { commit, complete, .. } = batch;
                if says.send(Done { result, commit, complete }).is_err() {
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

    /// Hands on a batch. At most one is on its way.
    pub(super) fn write(&self, work: Work) {
        // A thread that has ended says so where its word is waited for.
        let _ = self.work.send(work);
    }

    /// What became of the batch; `None` when the thread has ended.
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

struct Writer {
    file: Option<StateFile>,
    path: PathBuf,
    /// What belongs together and is not all there yet.
    open: Option<WriteTransaction>,
}

impl Writer {
    fn write(&mut self, batch: &Batch, upto_ms: u64) -> Result<(), String> {
        let written = self.try_write(batch, upto_ms);
        if written.is_err() {
            self.open = None;
            // After an error of the system the database takes nothing more until it is opened again.
            self.file = self.file.take().and_then(|file| file.reopen().ok());
        }
        written
    }

    fn try_write(&mut self, batch: &Batch, upto_ms: u64) -> Result<(), String> {
        let file = match self.file.take() {
            Some(file) => file,
            None => StateFile::open_at(self.path.clone()).map_err(|error| error.to_string())?,
        };
        let file = self.file.insert(file);
        let said = |error: redb::Error| match error {
            redb::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let open = match self.open.take() {
            Some(open) => open,
            None => file.db.begin_write().map_err(|error| said(error.into()))?,
        };
        write::batch(&open, batch).map_err(said)?;
        if batch.complete {
            write::saved_upto(&open, upto_ms).map_err(said)?;
        }
        if batch.commit {
            open.commit().map_err(|error| said(error.into()))
        } else {
            self.open = Some(open);
            Ok(())
        }
    }
}
