//! The tables of the state file.

use redb::TableDefinition;
use serde::{Deserialize, Serialize};
use tallymesh_schemas::saved::Extent;

/// Memory that the database uses as a cache of the file, in bytes.
pub(super) const CACHE_BYTES: usize = 16 << 20;

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Structures by id.
pub(super) const SHAPES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("structures");
/// The extent of an actor's rows, by structure, node and run, with the part number that keys its rows.
pub(super) const PARTS: TableDefinition<'_, (u64, &str, u64), &[u8]> = TableDefinition::new("parts");
/// Rows by part number and slot.
pub(super) const ROWS: TableDefinition<'_, (u64, u32), (u64, &[u8])> = TableDefinition::new("rows");

/// The extent of an actor's rows in a structure, as the file stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedPart {
    /// The part number that keys the rows.
    pub(super) number: u64,
    pub(super) extent: Extent,
}
