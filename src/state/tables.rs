//! The tables of the state file.

use std::ops::Bound;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use tallymesh_schemas::saved::Extent;

/// The latest format that this version reads, and the format that it writes. Files of format 1 have no tables of caches: their
/// caches are among the rows.
pub const FORMAT: u32 = 2;

/// Memory that the database uses as a cache of the file, in bytes.
pub(super) const CACHE_BYTES: usize = 16 << 20;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Structures and caches by id.
pub(super) const SHAPES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("structures");
/// The extent of an actor's rows, by structure, node and run, with the part number that keys its rows.
pub(super) const PARTS: TableDefinition<'_, (u64, &str, u64), &[u8]> = TableDefinition::new("parts");
/// Rows by part number and slot.
pub(super) const ROWS: TableDefinition<'_, (u64, u32), (u64, &[u8])> = TableDefinition::new("rows");

/// Entries of caches by structure and key, in the form of `SavedEntry`.
pub(super) const ENTRIES: TableDefinition<'_, (u64, &[u8]), &[u8]> = TableDefinition::new("entries");
/// By structure: what the entries of a cache account for. A cache has an entry here if anything of it is saved.
pub(super) const CONTEXTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("contexts");

/// An end of a range of entries.
type End = Bound<(u64, &'static [u8])>;

/// The range of the entries of one cache.
pub(super) fn entries_of(cache: u64) -> (End, End) {
    let end = cache.checked_add(1).map_or(Bound::Unbounded, |next| Bound::Excluded((next, [].as_slice())));
    (Bound::Included((cache, [].as_slice())), end)
}

/// The extent of an actor's rows in a structure, as the file stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedPart {
    /// The part number that keys the rows.
    pub(super) number: u64,
    pub(super) extent: Extent,
}
