//! Reading saved rows: in order of version, one piece at a time, independent of the storage format.
//!
//! A saved part may be larger than free memory. So a reader first collects the order of its rows, at 16 bytes per row, and then
//! fetches row after row into a piece of the size of a delta.

use tallymesh_schemas::Version;
use tallymesh_schemas::rows::{RowReader, RowWriter, RowsError};
use tallymesh_schemas::saved::{Extent, PIECE_BYTES, Piece, Row};

use crate::replica::persist::error::RestoreError;

/// The rows of one saved part, in any storage.
pub trait SavedRows {
    /// The error type.
    type Error: From<RestoreError>;

    /// Passes every row to `each`, in any order: its slot, its version, and its bytes.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn each_row(&self, each: &mut dyn FnMut(u32, Version, &[u8])) -> Result<(), Self::Error>;

    /// Passes the row of a slot to `take`, if there is one: its version and its bytes.
    ///
    /// # Errors
    /// The row cannot be read.
    fn row(&self, slot: u32, take: &mut dyn FnMut(Version, &[u8])) -> Result<(), Self::Error>;
}

/// Rows in memory, in order of slot.
pub(crate) struct InMemory(Vec<Row>);

impl InMemory {
    pub(crate) fn new(mut rows: Vec<Row>) -> Self {
        rows.sort_by_key(|row| row.slot);
        Self(rows)
    }

    /// Reads all rows of a part.
    pub(crate) fn read<R: SavedRows>(rows: &R) -> Result<Self, R::Error> {
        let mut all = Vec::new();
        rows.each_row(&mut |slot, version, bytes| all.push(Row { slot, version, bytes: bytes.to_vec() }))?;
        Ok(Self::new(all))
    }

    pub(crate) fn into_rows(self) -> Vec<Row> {
        self.0
    }
}

impl SavedRows for InMemory {
    type Error = RestoreError;

    fn each_row(&self, each: &mut dyn FnMut(u32, Version, &[u8])) -> Result<(), RestoreError> {
        self.0.iter().for_each(|row| each(row.slot, row.version, &row.bytes));
        Ok(())
    }

    fn row(&self, slot: u32, take: &mut dyn FnMut(Version, &[u8])) -> Result<(), RestoreError> {
        if let Ok(at) = self.0.binary_search_by_key(&slot, |row| row.slot)
            && let Some(row) = self.0.get(at)
        {
            take(row.version, &row.bytes);
        }
        Ok(())
    }
}

/// The order of the rows of a part.
pub(crate) fn order<R: SavedRows>(rows: &R) -> Result<Vec<(Version, u32)>, R::Error> {
    let mut order = Vec::new();
    rows.each_row(&mut |slot, version, _| order.push((version, slot)))?;
    order.sort_unstable();
    Ok(order)
}

/// Passes the rows to `each` in this order, in pieces that fit into a delta. There is at least one piece, and the last one ends
/// at the extent's applied version. `wrong` adds the location to an error of the rows.
pub(crate) fn each_piece<R: SavedRows>(
    rows: &R,
    order: &[(Version, u32)],
    extent: &Extent,
    wrong: impl Fn(RowsError) -> RestoreError,
    mut each: impl FnMut(&Piece) -> Result<(), RestoreError>,
) -> Result<(), R::Error> {
    let (mut after, mut last) = (extent.since, extent.since);
    let mut writer = RowWriter::new(after);
    for (version, slot) in order.iter().copied() {
        if version <= last || version > extent.applied {
            return Err(wrong(RowsError::Bounds("version")).into());
        }
        if writer.len() >= PIECE_BYTES {
            let rows = std::mem::replace(&mut writer, RowWriter::new(last)).finish();
            each(&Piece { after, upto: last, rows })?;
            after = last;
        }
        let mut pushed = Err(RowsError::Bounds("slot"));
        rows.row(slot, &mut |found, bytes| {
            pushed = match found == version {
                true => push(&mut writer, (version, slot), bytes),
                false => Err(RowsError::Bounds("version")),
            };
        })?;
        pushed.map_err(&wrong)?;
        last = version;
    }
    each(&Piece { after, upto: extent.applied, rows: writer.finish() })?;
    Ok(())
}

/// Adds a row, which must have the slot and version under which it was saved.
fn push(writer: &mut RowWriter, (version, slot): (Version, u32), bytes: &[u8]) -> Result<(), RowsError> {
    let mut reader = RowReader::new(bytes, version.previous());
    let row = reader.next_row()?.ok_or(RowsError::Malformed(0))?;
    if (row.slot, row.version) != (slot, version) {
        return Err(RowsError::Bounds("slot"));
    }
    writer.push(row);
    Ok(())
}
