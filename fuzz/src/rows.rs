//! The row codec: arbitrary batches are read or refused, and what is read is written and read again as the same rows.

use tallymesh_schemas::Version;
use tallymesh_schemas::bounds;
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, RowsError, WireRow};

/// A row that owns its key.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    slot: u32,
    version: u64,
    state: State,
}

/// What a row says, its bytes owned.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Live(Option<Vec<u8>>, u64, u64),
    Content(Option<Vec<u8>>, u64, u64, Vec<u8>),
    Vacant,
}

/// Reads a batch: 8 bytes for the version that it begins behind, and the rest for the rows.
pub fn run(data: &[u8]) {
    let Some((after, bytes)) = data.split_first_chunk::<8>() else { return };
    let after = u64::from_le_bytes(*after) % bounds::VERSION.next().0;
    let (rows, result) = read(bytes, after);
    assert!(rows.len() <= bytes.len(), "a row takes at least a byte");
    let written = write(&rows, after);
    assert_eq!(read(&written, after), (rows.clone(), Ok(())));
    if result.is_ok() {
        assert!(written.len() <= bytes.len(), "the encoding is the shortest form");
    }
    assert_eq!(write(&read(&written, after).0, after), written, "equal batches have equal bytes");
}

/// The rows up to the end or the first fault.
fn read(bytes: &[u8], after: u64) -> (Vec<Row>, Result<(), RowsError>) {
    let mut reader = RowReader::new(bytes, Version(after));
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let row = match reader.next_row() {
            Ok(Some(row)) => row,
            Ok(None) => return (rows, Ok(())),
            Err(error) => return (rows, Err(error)),
        };
        assert!(row.slot < bounds::ROWS_PER_ACTOR);
        assert!(row.version <= bounds::VERSION && row.version > Version(rows.last().map_or(after, |row| row.version)));
        let state = match row.state {
            RowState::Live { key, added, removed } => {
                assert!(key.is_none_or(|key| key.len() <= bounds::ROW_KEY_BYTES));
                State::Live(key.map(<[u8]>::to_vec), added, removed)
            }
            RowState::Content { key, stamp, expires_ms, value } => {
                assert!(key.is_none_or(|key| key.len() <= bounds::ROW_KEY_BYTES));
                assert!(value.len() <= bounds::VALUE_BYTES && expires_ms <= bounds::UNIX_MS);
                State::Content(key.map(<[u8]>::to_vec), stamp, expires_ms, value.to_vec())
            }
            RowState::Vacant => State::Vacant,
        };
        rows.push(Row { slot: row.slot, version: row.version.0, state });
    }
}

fn write(rows: &[Row], after: u64) -> Vec<u8> {
    let mut writer = RowWriter::new(Version(after));
    for Row { slot, version, state } in rows {
        let state = match state {
            State::Live(key, added, removed) => {
                RowState::Live { key: key.as_deref(), added: *added, removed: *removed }
            }
            State::Content(key, stamp, expires_ms, value) => {
                RowState::Content { key: key.as_deref(), stamp: *stamp, expires_ms: *expires_ms, value }
            }
            State::Vacant => RowState::Vacant,
        };
        writer.push(WireRow { slot: *slot, version: Version(*version), state });
    }
    assert_eq!(writer.rows(), rows.len());
    writer.finish()
}
