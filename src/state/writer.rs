//! Writes batches into the file, as long as the file is the one that the node opened.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use redb::WriteTransaction;
use tallymesh_engine::replica::Batch;
use tallymesh_schemas::NodeName;
use tallymesh_schemas::saved::{Change, Facts};

use crate::clock::unix_ms;
use crate::state::error::StateError;
use crate::state::file::StateFile;
use crate::state::seal::{Note, Seal};
use crate::state::write;

/// Identifies a file independently of its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    /// The file that a path leads to.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|found| Self { device: found.dev(), number: found.ino() })
    }
}

/// The place of a state, existing or not.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) path: PathBuf,
    pub(super) node: NodeName,
}

pub(super) struct Writer {
    place: Place,
    /// `None` after an I/O error, until it is opened again.
    file: Option<StateFile>,
    /// The file that was opened; `None` if there was none yet.
    inode: Option<Inode>,
    /// The transaction of a save whose batches have not all arrived.
    open: Option<WriteTransaction>,
    /// The last commit.
    seal: Seal,
    note: Option<Note>,
}

impl Writer {
    /// For an existing file; `seal` is the latest known commit.
    pub(super) fn new(place: Place, file: StateFile, seal: Seal) -> Result<Self, StateError> {
        let path = place.path.clone();
        let inode = Inode::of(&path).map_err(|error| StateError::Io { what: "look for", path, source: error })?;
        Ok(Self { place, file: Some(file), inode: Some(inode), open: None, seal, note: None })
    }

    /// For a file that could not be created yet.
    pub(super) fn without_file(place: Place) -> Self {
        Self { place, file: None, inode: None, open: None, seal: Seal::default(), note: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Durably records facts before the node uses them towards others.
    pub(super) fn write_facts(&mut self, facts: Facts) -> Result<(), StateError> {
        let batch = Batch { changes: vec![Change::Facts(facts)], commit: true, complete: false };
        let written = self.try_write(&batch, 0);
        if written.is_err() {
            self.give_up();
        }
        written.map_err(|error| StateError::Io { what: "write to", path: self.place.path.clone(), source: error })
    }

    /// Writes a batch.
    pub(super) fn write(&mut self, batch: &Batch, upto_ms: u64) -> Result<(), String> {
        if let Err(trouble) = self.look() {
            // The handle of the file stays open: the file may come back, for example when a disk is mounted again.
            self.open = None;
            return Err(trouble);
        }
        let written = self.try_write(batch, upto_ms);
        if written.is_err() {
            self.give_up();
        }
        written.map_err(|error| error.to_string())
    }

    /// Checks that the file's path still leads to the open file. Without this check, the node would keep writing into a file
    /// that was deleted or replaced, and would not notice.
    pub(super) fn look(&self) -> Result<(), String> {
        let Some(opened) = self.inode else { return Ok(()) };
        let path = self.place.path.display();
        match Inode::of(&self.place.path) {
            Ok(found) if found == opened => Ok(()),
            Ok(_) => Err(format!(
                "{path} is another file than the one that this node opened: put that one back, or restart the node"
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!(
                "{path} is gone: its folder was deleted, moved, or is not mounted; put it back, or restart the node"
            )),
            Err(error) => Err(format!("{path} cannot be found: {error}")),
        }
    }

    /// After an I/O error the database accepts no more writes until it is opened again.
    fn give_up(&mut self) {
        (self.open, self.file) = (None, None);
    }

    fn try_write(&mut self, batch: &Batch, upto_ms: u64) -> io::Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.reopen()?,
        };
        let file = self.file.insert(file);
        let open = match self.open.take() {
            Some(open) => open,
            None => file.db.begin_write().map_err(|error| plain(error.into()))?,
        };
        write::batch(&open, batch).map_err(plain)?;
        if batch.complete {
            write::saved_upto(&open, upto_ms).map_err(plain)?;
        }
        let facts = |change: &'_ Change| if let Change::Facts(facts) = change { Some(facts.incarnation) } else { None };
        if let Some(run) = batch.changes.iter().rev().find_map(facts) {
            self.seal.incarnation = run.0;
        }
        if !batch.commit {
            self.open = Some(open);
            return Ok(());
        }
        let seal = self.seal.next(unix_ms().0);
        write::seal(&open, &seal).map_err(plain)?;
        open.commit().map_err(|error| plain(error.into()))?;
        self.seal = seal;
        let note = match self.note.take() {
            Some(note) => note,
            None => Note::open(&self.place.dir).map_err(io::Error::other)?,
        };
        self.note.insert(note).write(&seal)
    }

    /// Opens the file again, or creates it if there was none.
    fn reopen(&mut self) -> io::Result<StateFile> {
        let Place { dir, path, node } = &self.place;
        if self.inode.is_none() {
            StateFile::create(dir, node).map_err(cause)?;
        }
        let file = StateFile::open_at(path.clone()).map_err(cause)?;
        if self.inode.is_none() {
            self.inode = Some(Inode::of(path)?);
            self.seal = Seal { incarnation: self.seal.incarnation, ..file.seal().map_err(cause)? };
        }
        Ok(file)
    }
}

/// The operating system's own error, if there is one.
fn plain(error: redb::Error) -> io::Error {
    match error {
        redb::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

fn cause(error: StateError) -> io::Error {
    match error {
        StateError::Io { source, .. } => source,
        error => io::Error::other(error),
    }
}
