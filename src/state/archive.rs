//! The state of a node that does not run: tools can read it, copy it out, and create a new one from a copy.

use std::path::Path;

use redb::WriteTransaction;
use tallymesh_schemas::saved::{Change, Extent, Facts, Head, Part, Shape};
use tallymesh_schemas::{Actor, NodeName};

use crate::state::error::StateError;
use crate::state::file::{Header, StateFile, create};
use crate::state::write;

/// The size of one actor's rows in one structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// The structure.
    pub shape: Shape,
    /// The actor that owns the rows.
    pub actor: Actor,
    /// The persisted extent: how far the rows are on disk.
    pub extent: Extent,
    /// The number of rows.
    pub rows: u64,
    /// The size of the rows, in bytes.
    pub bytes: u64,
}

/// The state of a node that does not run.
pub struct Archive {
    file: StateFile,
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("path", &self.file.path).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens the state in a `data_dir`. While it is open, no node can start with it. Reads the whole file, to check that it is
    /// intact.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Ok(Self { file: StateFile::open(dir)? })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// The file's header.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn header(&self) -> Result<Header, StateError> {
        self.file.header()
    }

    /// The facts that the node saved in addition to rows.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn facts(&self) -> Result<Facts, StateError> {
        self.file.facts()
    }

    /// Calls `each` with every part and its rows, in order of structure and actor. Only one part at a time is in memory.
    ///
    /// # Errors
    /// [`StateError`], and the errors of `each`.
    pub fn each_part(&self, each: impl FnMut(Part) -> Result<(), StateError>) -> Result<(), StateError> {
        self.file.each_part(each)
    }

    /// The size of every part, in order of name and actor. O(rows).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn parts(&self) -> Result<Vec<PartInfo>, StateError> {
        let mut all = Vec::new();
        self.file.each_head(|Head { shape, actor, extent }, stored| -> Result<(), StateError> {
            let (mut rows, mut bytes) = (0, 0);
            stored.each(&mut |_, _, row| (rows, bytes) = (rows + 1, bytes + row.len() as u64))?;
            all.push(PartInfo { shape, actor, extent, rows, bytes });
            Ok(())
        })?;
        all.sort_by(|a, b| (&a.shape.name, &a.actor).cmp(&(&b.shape.name, &b.actor)));
        Ok(all)
    }

    /// Creates a state in a `data_dir` that has none, with the content that `fill` writes. If `fill` fails, creates no state.
    ///
    /// # Errors
    /// [`StateError`], and the errors of `fill`.
    pub fn create<E: From<StateError>>(
        dir: &Path,
        node: &NodeName,
        fill: impl FnOnce(&mut Filling<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut failed = None;
        let made = create(dir, node, |write| {
            let mut filling = Filling { write, dir };
            fill(&mut filling).map_err(|error| {
                failed = Some(error);
                StateError::Missing(dir.to_owned())
            })
        });
        match (failed, made) {
            (Some(error), _) => Err(error),
            (None, made) => Ok(made?),
        }
    }
}

/// A new state that is being filled.
pub struct Filling<'a> {
    write: &'a WriteTransaction,
    dir: &'a Path,
}

impl Filling<'_> {
    fn wrong(&self, error: impl ToString) -> StateError {
        let error = std::io::Error::other(error.to_string());
        StateError::Io { what: "write to", path: self.dir.to_owned(), source: error }
    }

    /// Writes the facts other than rows, and the time up to which the state is complete.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn facts(&mut self, facts: &Facts, saved_ms: u64) -> Result<(), StateError> {
        let written = write::facts(self.write, facts).and_then(|()| write::saved_upto(self.write, saved_ms));
        written.map_err(|error| self.wrong(error))
    }

    /// Adds an actor's rows in a structure.
    ///
    /// # Errors
    /// [`StateError`], also when a row is not valid.
    pub fn part(&mut self, part: Part) -> Result<(), StateError> {
        let (shape, actor, extent) = (part.shape.clone(), part.actor.clone(), part.extent);
        let pieces = part.pieces().map_err(|error| self.wrong(error))?;
        let pieces = pieces.into_iter().enumerate().map(|(at, piece)| Change::Rows {
            shape: shape.clone(),
            actor: actor.clone(),
            anew: at == 0,
            extent,
            after: piece.after,
            rows: piece.rows,
        });
        let batch = tallymesh_engine::replica::Batch { changes: pieces.collect(), commit: true, complete: true };
        write::batch(self.write, &batch).map_err(|error| self.wrong(error))
    }
}
