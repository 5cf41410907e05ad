//! Writes changes into the file.

use redb::{ReadableTable, WriteTransaction};
use serde::Serialize;
use tallymesh_engine::replica::Batch;
use tallymesh_schemas::saved::{self, CacheContexts, Change, Extent, Facts, Shape};
use tallymesh_schemas::{Actor, StructureId, Version, bounds};

use crate::state::seal::Seal;
use crate::state::tables::{CONTEXTS, ENTRIES, FORMAT, META, PARTS, ROWS, SHAPES, SavedPart, entries_of};

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

/// Records the form of the content. A file of an earlier format has the present one from its first commit on: the builds that
/// wrote the earlier format refuse it then.
pub(super) fn form(write: &WriteTransaction) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("format", &FORMAT.to_le_bytes()[..])?;
    meta.insert("protocol", &[bounds::PROTOCOL_VERSION][..])?;
    drop(meta);
    write.open_table(SHAPES)?;
    write.open_table(PARTS)?;
    write.open_table(ROWS)?;
    write.open_table(ENTRIES)?;
    write.open_table(CONTEXTS)?;
    Ok(())
}

/// Records the number of this commit, and the form of the content.
pub(super) fn seal(write: &WriteTransaction, seal: &Seal) -> Result<(), redb::Error> {
    form(write)?;
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
            Change::Entries { shape, anew, entries: changed, contexts: accounted } => {
                if *anew {
                    write.open_table(ENTRIES)?.retain_in(entries_of(shape.id().0), |_, _| false)?;
                }
                entries(write, shape, changed)?;
                if let Some(accounted) = accounted {
                    contexts(write, shape, accounted)?;
                }
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

/// Writes entries of a cache; `None` in place of an entry removes the key.
pub(super) fn entries(
    write: &WriteTransaction,
    shape: &Shape,
    changed: &[(Vec<u8>, Option<Vec<u8>>)],
) -> Result<(), redb::Error> {
    let id = shape.id().0;
    let mut all = write.open_table(ENTRIES)?;
    for (key, entry) in changed {
        match entry {
            Some(entry) => drop(all.insert((id, key.as_slice()), entry.as_slice())?),
            None => drop(all.remove((id, key.as_slice()))?),
        }
    }
    Ok(())
}

/// Records what the entries of a cache account for.
pub(super) fn contexts(write: &WriteTransaction, shape: &Shape, contexts: &CacheContexts) -> Result<(), redb::Error> {
    let id = shape.id().0;
    write.open_table(SHAPES)?.insert(id, encoded(shape)?.as_slice())?;
    write.open_table(CONTEXTS)?.insert(id, encoded(contexts)?.as_slice())?;
    Ok(())
}

/// Removes a part, and the name of the structure if nothing else of it is saved.
fn gone(write: &WriteTransaction, structure: StructureId, actor: &Actor) -> Result<(), redb::Error> {
    remove_part(write, structure, actor)?;
    let parts = write.open_table(PARTS)?;
    let mut left = parts.range((structure.0, "", 0)..)?;
    let next = left.next().transpose()?;
    let is_cache = write.open_table(CONTEXTS)?.get(structure.0)?.is_some();
    if !is_cache && next.is_none_or(|(key, _)| key.value().0 != structure.0) {
        write.open_table(SHAPES)?.remove(structure.0)?;
    }
    Ok(())
}
