//! The saved state of a node: rows in their wire form, the extent of each actor's rows, and a few facts.
//!
//! The engine produces [`Change`]s and accepts [`Part`]s back. The storage in between needs only the types of this module.
//! A saved row is a batch of one row ([`rows`](crate::rows)) with its key, under the slot that its owner gave it.

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::bounds;
use crate::entries::{EntryReader, EntryWriter, WireEntry};
use crate::message::{CacheContext, Tombstone};
use crate::rows::{RowReader, RowState, RowWriter, RowsError};
use crate::structure::{Class, StructureId};
use crate::version::Version;

/// What a node knows in addition to rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The node's current run. Its next run has a higher number.
    pub incarnation: Incarnation,
    /// The other nodes.
    pub nodes: Vec<SavedNode>,
    /// Tombstones of forgotten runs.
    pub tombstones: Vec<Tombstone>,
}

/// A known node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNode {
    /// Its name.
    pub name: NodeName,
    /// Its latest run.
    pub incarnation: Incarnation,
    /// It has said goodbye.
    pub left: bool,
}

/// A structure whose rows are saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: Class,
}

impl Shape {
    /// The structure's id on the wire.
    pub fn id(&self) -> StructureId {
        StructureId::of(&self.name)
    }
}

/// How far an actor's rows are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extent {
    /// The rows are saved from this version on (exclusive).
    pub since: Version,
    /// And up to this one (inclusive).
    pub applied: Version,
    /// Low-water mark: rows that were retired up to this version are not saved.
    pub low_water: Version,
    /// Complete up to: everything that the actor had at one moment up to this version is saved.
    pub complete: Version,
    /// The sum of the hashes of the rows; `None` while more rows are still to come.
    pub fingerprint: Option<u64>,
}

/// One change of the saved state. Changes are ordered. All changes of one batch are saved together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Rows of an actor in a structure.
    Rows {
        /// The structure.
        shape: Shape,
        /// The owner of the rows.
        actor: Actor,
        /// Whether to remove the saved rows of this actor first.
        anew: bool,
        /// The extent after these rows are saved.
        extent: Extent,
        /// The rows are above this version.
        after: Version,
        /// The rows, each with its key.
        rows: Vec<u8>,
    },
    /// Remove the saved rows of an actor in a structure.
    Gone {
        /// The structure.
        structure: StructureId,
        /// The owner of the rows.
        actor: Actor,
    },
    /// New facts, which replace the old ones.
    Facts(Facts),
    /// Entries of a cache.
    Entries {
        /// The cache.
        shape: Shape,
        /// Whether to remove all saved entries of the cache first.
        anew: bool,
        /// Keys with their entries in the form of [`SavedEntry`]; `None` for a key that has no entry any more.
        entries: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        /// What the node had taken in when it began to hand out these changes; in the last change of the cache.
        contexts: Option<CacheContexts>,
    },
}

/// Which writes of a cache its saved entries account for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheContexts {
    /// The writes that were taken in.
    pub seen: CacheContext,
    /// Removals that were taken in and are no longer saved.
    pub collected: CacheContext,
    /// The latest stamps that were received or given: one for each of several spans of time.
    pub received: Vec<u64>,
}

/// A saved entry of a cache: the run that wrote it, and a batch of this entry alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedEntry {
    run: Actor,
    batch: Vec<u8>,
}

impl SavedEntry {
    /// The bytes of an entry.
    ///
    /// # Errors
    /// Never for an actor that this build has made.
    pub fn encode(run: &Actor, entry: &WireEntry<'_>) -> Result<Vec<u8>, postcard::Error> {
        let mut writer = EntryWriter::default();
        writer.push(&WireEntry { run: 0, ..*entry });
        let mut bytes = postcard::to_stdvec(run)?;
        bytes.extend_from_slice(&writer.finish());
        Ok(bytes)
    }

    /// Reads the bytes of an entry.
    ///
    /// # Errors
    /// [`RowsError`] when they are not those of an entry.
    pub fn decode(bytes: &[u8]) -> Result<Self, RowsError> {
        let (run, batch) = postcard::take_from_bytes(bytes).map_err(|_| RowsError::Bounds("run"))?;
        let entry = Self { run, batch: batch.to_vec() };
        let mut reader = EntryReader::new(&entry.batch, 1);
        reader.next_entry()?.ok_or(RowsError::Malformed(0))?;
        if reader.remaining() > 0 {
            return Err(RowsError::Malformed(reader.remaining()));
        }
        Ok(entry)
    }

    /// The run that wrote it.
    pub fn run(&self) -> &Actor {
        &self.run
    }

    /// Passes the entry to `take`.
    pub fn read<R>(&self, take: impl FnOnce(&WireEntry<'_>) -> R) -> Option<R> {
        EntryReader::new(&self.batch, 1).next_entry().ok().flatten().map(|entry| take(&entry))
    }
}

/// A saved row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The owner's number for the row.
    pub slot: u32,
    /// The version of its last change.
    pub version: Version,
    /// A batch of this row alone.
    pub bytes: Vec<u8>,
}

/// The description of an actor's saved rows in a structure, without the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The structure.
    pub shape: Shape,
    /// The owner of the rows.
    pub actor: Actor,
    /// How far they are saved.
    pub extent: Extent,
}

/// An actor's saved rows in a structure, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The structure.
    pub shape: Shape,
    /// The owner of the rows.
    pub actor: Actor,
    /// How far they are saved.
    pub extent: Extent,
    /// The rows.
    pub rows: Vec<Row>,
}

/// Reads a batch of rows with versions above `after` and calls `each` for every slot: with its row, or with `None` where the
/// row was retired.
///
/// # Errors
/// [`RowsError`] when the bytes are no such batch.
pub fn split(rows: &[u8], after: Version, mut each: impl FnMut(u32, Option<Row>)) -> Result<(), RowsError> {
    let mut reader = RowReader::new(rows, after);
    while let Some(row) = reader.next_row()? {
        let (slot, version) = (row.slot, row.version);
        if row.state == RowState::Vacant {
            each(slot, None);
            continue;
        }
        let mut one = RowWriter::new(version.previous());
        one.push(row);
        each(slot, Some(Row { slot, version, bytes: one.finish() }));
    }
    Ok(())
}

/// A piece of an actor's rows: rows of `(after, upto]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The rows are above this version.
    pub after: Version,
    /// And up to this one.
    pub upto: Version,
    /// The rows.
    pub rows: Vec<u8>,
}

impl Part {
    /// The rows in order of version, in pieces that fit into a delta. There is at least one piece. The last piece reaches the
    /// end of the saved extent.
    ///
    /// # Errors
    /// [`RowsError`] when a row does not match its slot and version.
    pub fn pieces(mut self) -> Result<Vec<Piece>, RowsError> {
        self.rows.sort_unstable_by_key(|row| row.version);
        let (mut pieces, mut after) = (Vec::new(), self.extent.since);
        let mut last = after;
        let mut writer = RowWriter::new(after);
        for row in &self.rows {
            if row.version <= last || row.version > self.extent.applied {
                return Err(RowsError::Bounds("version"));
            }
            if writer.len() >= PIECE_BYTES {
                let rows = std::mem::replace(&mut writer, RowWriter::new(last)).finish();
                pieces.push(Piece { after, upto: last, rows });
                after = last;
            }
            let mut reader = RowReader::new(&row.bytes, row.version.previous());
            let read = reader.next_row()?.ok_or(RowsError::Malformed(0))?;
            if (read.slot, read.version) != (row.slot, row.version) {
                return Err(RowsError::Bounds("slot"));
            }
            writer.push(read);
            last = row.version;
        }
        pieces.push(Piece { after, upto: self.extent.applied, rows: writer.finish() });
        Ok(pieces)
    }
}

/// Bytes of rows in a piece up to which one more row of any size still fits.
pub const PIECE_BYTES: usize = bounds::DELTA_BYTES - bounds::VALUE_BYTES - bounds::ROW_KEY_BYTES - 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::WireRow;

    fn part(rows: Vec<Row>, applied: Version) -> Part {
        let actor = Actor::new(NodeName::new("a").unwrap(), Incarnation(7));
        let shape = Shape { name: "sessions".to_owned(), class: Class::Cache };
        Part { shape, actor, extent: Extent { applied, ..Extent::default() }, rows }
    }

    #[test]
    fn split_state_is_joined_again() {
        let value = vec![7; 60_000];
        let mut batch = RowWriter::new(Version(3));
        for n in 0..40_u32 {
            let key = format!("key{n}").into_bytes();
            let version = 5 + 3 * u64::from(n);
            let state = match n % 5 {
                0 => RowState::Vacant,
                1 => RowState::Live { key: Some(&key), added: 9, removed: u64::from(n) },
                _ => RowState::Content { key: Some(&key), stamp: 77, expires_ms: 3, value: &value },
            };
            batch.push(WireRow { slot: 40 - n, version: Version(version), state });
        }
        let (mut rows, mut vacant) = (Vec::new(), 0);
        let batch = batch.finish();
        split(&batch, Version(3), |_, row| match row {
            Some(row) => rows.push(row),
            None => vacant += 1,
        })
        .unwrap();
        assert_eq!((rows.len(), vacant), (32, 8));
        rows.reverse();
        let pieces = part(rows.clone(), Version(200)).pieces().unwrap();
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.rows.len() <= bounds::DELTA_BYTES));
        assert_eq!((pieces[0].after, pieces.last().unwrap().upto), (Version(0), Version(200)));
        let mut again = Vec::new();
        for piece in &pieces {
            split(&piece.rows, piece.after, |_, row| again.extend(row)).unwrap();
        }
        again.reverse();
        assert_eq!(again, rows);
    }

    #[test]
    fn saved_rows_of_another_class_are_refused() {
        let mut one = RowWriter::new(Version(4));
        one.push(WireRow {
            slot: 2,
            version: Version(5),
            state: RowState::Live { key: Some(b"k"), added: 1, removed: 0 },
        });
        let row = Row { slot: 2, version: Version(5), bytes: one.finish() };
        assert!(part(vec![row.clone()], Version(5)).pieces().is_ok());
        for bad in [
            Row { slot: 3, ..row.clone() },
            Row { version: Version(6), ..row.clone() },
            Row { bytes: Vec::new(), ..row.clone() },
            Row { bytes: row.bytes[..3].to_vec(), ..row.clone() },
        ] {
            assert!(part(vec![bad], Version(5)).pieces().is_err());
        }
        assert!(part(vec![row.clone(), row], Version(5)).pieces().is_err());
    }
}
