//! The state of a node that does not run: tools can read it, copy it out, and create a new one from a copy.

use std::collections::BTreeMap;
use std::path::Path;

use redb::WriteTransaction;
use tallymesh_schemas::saved::{CacheContexts, Change, Facts, Head, Part, SavedEntry, Shape};
use tallymesh_schemas::{Actor, NodeName, Version};

use crate::state::error::StateError;
use crate::state::file::{Header, StateFile, create};
use crate::state::write;

/// The size of one actor's rows in one structure, or of the entries of a cache that one run wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartInfo {
    /// The structure or the cache.
    pub shape: Shape,
    /// The actor that owns the rows, or that wrote the entries.
    pub actor: Actor,
    /// What it changed is on disk from this version on (exclusive).
    pub since: Version,
    /// And up to this one (inclusive).
    pub applied: Version,
    /// Everything up to this version is on disk. False while more is still to come.
    pub complete: bool,
    /// The number of rows or entries.
    pub rows: u64,
    /// The size of the rows or entries, in bytes.
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

    /// The saved caches, each with what its entries account for.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn caches(&self) -> Result<Vec<(Shape, CacheContexts)>, StateError> {
        self.file.caches()
    }

    /// Calls `each` with every entry of a cache, in order of key. Only one entry at a time is in memory.
    ///
    /// # Errors
    /// [`StateError`], and the errors of `each`.
    pub fn each_entry(
        &self,
        cache: &Shape,
        each: impl FnMut(SavedEntry) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        self.file.each_entry(cache, each)
    }

    /// The size of every part, in order of name and actor. O(rows and entries).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn parts(&self) -> Result<Vec<PartInfo>, StateError> {
        let mut all = Vec::new();
        for (shape, contexts) in self.file.caches()? {
            all.extend(self.runs_of(&shape, &contexts)?);
        }
        self.file.each_head(|Head { shape, actor, extent }, stored| -> Result<(), StateError> {
            let (mut rows, mut bytes) = (0, 0);
            stored.each(&mut |_, _, row| (rows, bytes) = (rows + 1, bytes + row.len() as u64))?;
            let (since, applied, complete) = (extent.since, extent.applied, extent.fingerprint.is_some());
            all.push(PartInfo { shape, actor, since, applied, complete, rows, bytes });
            Ok(())
        })?;
        all.sort_by(|a, b| (&a.shape.name, &a.actor).cmp(&(&b.shape.name, &b.actor)));
        Ok(all)
    }

    /// The runs that have written to a cache, with the entries of each. A commit may hold entries that were written while it
    /// was prepared. The context of that commit does not account for them yet, so their run is not complete.
    fn runs_of(&self, shape: &Shape, contexts: &CacheContexts) -> Result<Vec<PartInfo>, StateError> {
        let info = |actor: &Actor| PartInfo {
            shape: shape.clone(),
            actor: actor.clone(),
            since: Version::ZERO,
            applied: Version::ZERO,
            complete: true,
            rows: 0,
            bytes: 0,
        };
        let mut runs: BTreeMap<Actor, PartInfo> = BTreeMap::new();
        for (run, number) in &contexts.seen.runs {
            runs.entry(run.clone()).or_insert_with(|| info(run)).applied = Version(*number);
        }
        let ended: BTreeMap<_, _> = contexts.seen.ended.iter().map(|(node, first)| (node, *first)).collect();
        self.file.each_entry(shape, |entry| -> Result<(), StateError> {
            let run = runs.entry(entry.run().clone()).or_insert_with(|| info(entry.run()));
            let has_ended = ended.get(&entry.run().node).is_some_and(|first| entry.run().incarnation < *first);
            entry.read(|wire| {
                let number = Version(wire.number);
                match has_ended {
                    // All of its writes count as taken in, and its last number is not saved.
                    true => run.applied = run.applied.max(number),
                    false => run.complete &= number <= run.applied,
                }
                run.bytes += (wire.key.len() + wire.value.map_or(0, <[u8]>::len)) as u64;
            });
            run.rows += 1;
            Ok(())
        })?;
        Ok(runs.into_values().collect())
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

    /// Adds what the entries of a cache account for.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn cache(&mut self, shape: &Shape, contexts: &CacheContexts) -> Result<(), StateError> {
        write::contexts(self.write, shape, contexts).map_err(|error| self.wrong(error))
    }

    /// Adds entries of a cache: keys, each with an entry in the form of [`SavedEntry`].
    ///
    /// # Errors
    /// [`StateError`].
    pub fn entries(&mut self, shape: &Shape, entries: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StateError> {
        write::entries(self.write, shape, entries).map_err(|error| self.wrong(error))
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
