//! The numbers of cells.

use crate::keyspace::key::CellKey;

/// The number of a cell in a structure.
pub(crate) type CellId = u32;

/// No cell. A slot without a cell never held a row, or its row was purged.
pub(crate) const EMPTY: CellId = u32::MAX;

/// Returns the key of a cell.
pub(crate) trait KeyOf {
    fn key_of(&self, id: CellId) -> CellKey;
}
