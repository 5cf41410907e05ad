//! Writes changes into the file.

use redb::{ReadableTable, WriteTransaction};
use serde::Serialize;
use tallymesh_engine::replica::Batch;
use tallymesh_schemas::saved::{self, Change, Extent, Facts, Shape};
use tallymesh_schemas::{Actor, StructureId, Version};

use crate::state::seal::Seal;
use crate::state::tables::{META, PARTS, ROWS, SHAPES, SavedPart};

/// The node's own types can always be encoded.
fn encoded(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    postcard::to_stdvec(value).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// Replaces the saved facts.
pub(super) fn facts(write: &WriteTransaction, facts: &Facts) -> Result<(), redb::Error> {
    write.open_table(META)?.insert("facts", encoded(facts)?.as_slice())?;
    Ok(())
}

/// Records the time up to which the file is complete.
pub(super) fn saved_upto(write: &WriteTransaction, unix_ms: u64) -> Result<(), redb::Error> {
    write.open_table(META)?.insert("saved", &unix_ms.to_le_bytes()[..])?;
    Ok(())
}

/// Records the number of this commit.
pub(super) fn seal(write: &WriteTransaction, seal: &Seal) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    for (key, number) in [("lineage", seal.lineage), ("commit", seal.commit), ("committed", seal.at_ms)] {
        meta.insert(key, &number.to_le_bytes()[..])?;
    }
    Ok(())
}

/// Writes a batch.
pub(super) fn batch(write: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    for change in &batch.changes {
        match change {
            Change::Facts(known) => facts(write, known)?,
            Change::Gone { structure, actor } => gone(write, *structure, actor)?,
            Change::Rows { shape, actor, anew, extent, after, rows: batch } => {
                if *anew {
                    remove_part(write, shape.id(), actor)?;
                }
                let number = part(write, shape, actor, *extent)?;
                rows(write, number, *after, batch)?;
            }
        }
    }
    Ok(())
}

/// Records the extent of a part. Returns the part number of its rows.
fn part(write: &WriteTransaction, shape: &Shape, actor: &Actor, extent: Extent) -> Result<u64, redb::Error> {
    let id = shape.id();
    write.open_table(SHAPES)?.insert(id.0, encoded(shape)?.as_slice())?;
    let key = (id.0, actor.node.as_str(), actor.incarnation.0);
    let mut parts = write.open_table(PARTS)?;
    let known = parts.get(key)?.and_then(|found| postcard::from_bytes::<SavedPart>(found.value()).ok());
    let number = match known {
        Some(known) => known.number,
        None => next(write)?,
    };
    parts.insert(key, encoded(&SavedPart { number, extent })?.as_slice())?;
    Ok(number)
}

/// Removes a part and its rows.
fn remove_part(write: &WriteTransaction, structure: StructureId, actor: &Actor) -> Result<(), redb::Error> {
    let mut parts = write.open_table(PARTS)?;
    let known = parts.remove((structure.0, actor.node.as_str(), actor.incarnation.0))?;
    let known = known.and_then(|found| postcard::from_bytes::<SavedPart>(found.value()).ok());
    if let Some(known) = known {
        let mut all = write.open_table(ROWS)?;
        all.retain_in((known.number, 0)..=(known.number, u32::MAX), |_, _| false)?;
    }
    Ok(())
}

/// A part number that was never used.
fn next(write: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut meta = write.open_table(META)?;
    let last = meta.get("parts")?.and_then(|found| found.value().try_into().map(u64::from_le_bytes).ok());
    let next = last.unwrap_or(0) + 1;
    meta.insert("parts", &next.to_le_bytes()[..])?;
    Ok(next)
}

fn rows(write: &WriteTransaction, number: u64, after: Version, batch: &[u8]) -> Result<(), redb::Error> {
    let mut all = write.open_table(ROWS)?;
    let mut written = Ok(());
    let split = saved::split(batch, after, |slot, row| {
        if written.is_ok() {
            written = match row {
                Some(row) => all.insert((number, slot), (row.version.0, row.bytes.as_slice())).map(drop),
                None => all.remove((number, slot)).map(drop),
            };
        }
    });
    written?;
    split.map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// Removes a part, and the structure if it was the last one.
fn gone(write: &WriteTransaction, structure: StructureId, actor: &Actor) -> Result<(), redb::Error> {
    remove_part(write, structure, actor)?;
    let parts = write.open_table(PARTS)?;
    let mut left = parts.range((structure.0, "", 0)..)?;
    let next = left.next().transpose()?;
    if next.is_none_or(|(key, _)| key.value().0 != structure.0) {
        write.open_table(SHAPES)?.remove(structure.0)?;
    }
    Ok(())
}
