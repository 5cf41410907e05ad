//! Opens the state when a node starts: opens the file, creates it, or starts without one while the disk is full.

use std::path::Path;

use tallymesh_schemas::config::OnFullDisk;
use tallymesh_schemas::saved::Facts;
use tallymesh_schemas::{Incarnation, NodeName};

use crate::seed::random_seed;
use crate::state::error::StateError;
use crate::state::file::{StateFile, path_in};
use crate::state::seal::{self, RolledBack, Seal};
use crate::state::shrink::shrink;
use crate::state::writer::Place;

/// An opened state, before the first write.
pub(crate) struct Opened {
    /// `None` while there is no disk space to create one.
    pub(super) file: Option<StateFile>,
    pub(super) place: Place,
    pub(super) full: OnFullDisk,
    /// Why there is no file.
    pub(super) trouble: Option<String>,
    pub(super) rolled_back: Option<RolledBack>,
    /// The latest known commit.
    pub(super) latest: Seal,
}

impl Opened {
    pub(crate) fn open(dir: &Path, node: &NodeName, full: OnFullDisk) -> Result<Self, StateError> {
        let place = Place { dir: dir.to_owned(), path: path_in(dir), node: node.clone() };
        let mut opened = Self { file: None, place, full, trouble: None, rolled_back: None, latest: Seal::default() };
        match StateFile::open_or_create(dir, node) {
            Ok(file) => opened.compare(file)?,
            // An existing state that cannot be read is an error: a node that starts without it would overwrite it.
            Err(error) if full == OnFullDisk::Serve && error.is_full() && !opened.place.path.exists() => {
                opened.trouble = Some(error.to_string());
            }
            Err(error) => return Err(error.of_full_disk()),
        }
        Ok(opened)
    }

    /// Compares the file with the seal, the note of the last commit.
    fn compare(&mut self, file: StateFile) -> Result<(), StateError> {
        let has = file.seal()?;
        let noted = seal::read(&self.place.dir, has.lineage)?;
        self.rolled_back = noted.and_then(|noted| RolledBack::between(&has, &noted));
        self.latest = noted.filter(|noted| noted.commit > has.commit).unwrap_or(has);
        if self.latest.lineage == 0 {
            self.latest.lineage = random_seed().max(1);
        }
        if let Some(RolledBack { restored_ms, last_ms, commits }) = self.rolled_back {
            tracing::error!(
                path = %self.place.path.display(),
                restored = seal::utc(restored_ms),
                last = seal::utc(last_ms),
                commits,
                "the newest commits of the state are damaged, or an older file was put in its place: the node starts with an earlier \
                 commit, and what only this node had written since then is lost"
            );
        }
        self.file = Some(file);
        Ok(())
    }

    /// The saved facts other than rows, with the latest known run; `None` if there was no earlier run.
    pub(crate) fn facts(&self) -> Result<Option<Facts>, StateError> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut facts = file.facts()?;
        facts.incarnation = facts.incarnation.max(Incarnation(self.latest.incarnation));
        Ok(Some(facts).filter(|facts| facts.incarnation.0 > 0))
    }

    /// The file; `None` while there is no disk space to create one.
    pub(crate) fn file(&self) -> Option<&StateFile> {
        self.file.as_ref()
    }
}

impl StateFile {
    /// Opens the state of a node. Creates an empty one if there is none.
    pub(super) fn open_or_create(dir: &Path, node: &NodeName) -> Result<Self, StateError> {
        let path = path_in(dir);
        let exists = path.try_exists().map_err(|error| StateError::Io {
            what: "look for",
            path: path.clone(),
            source: error,
        })?;
        if !exists {
            match Self::create(dir, node) {
                // Another process created it first. The open below decides which one uses it.
                Ok(()) | Err(StateError::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let file = Self::open(dir)?;
        let header = file.header()?;
        if header.node != *node {
            let (found, node) = (header.node.to_string(), node.to_string());
            return Err(StateError::Node { path, found, node });
        }
        shrink(file, dir)
    }
}
