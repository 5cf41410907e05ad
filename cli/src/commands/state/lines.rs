//! A saved state as lines of JSON: the state, then each actor's rows of a structure, a line for the extent first; and each
//! cache, a line for what its entries account for first.

use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tallymesh::NodeName;
use tallymesh_schemas::entries::WireEntry;
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{CacheContexts, Extent, Facts, Part, Row, SavedEntry, Shape};
use tallymesh_schemas::{Actor, Class, Kind, Version, key};

/// Bytes of a line: more than the largest row needs.
const LINE_BYTES: u64 = 1 << 20;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// The first line: the node, and its facts beside rows.
    State { format: u32, node: NodeName, protocol: u8, saved_ms: u64, facts: Facts },
    /// The extent of an actor's rows in a structure. The rows follow.
    Part { structure: String, class: Class, actor: Actor, extent: Extent },
    /// A row. Keys and values are in base64; `text` is for people.
    Row(RowLine),
    /// What the entries of a cache account for. The entries follow.
    Cache { structure: String, class: Class, contexts: CacheContexts },
    /// An entry of a cache, as a row.
    Entry(EntryLine),
}

/// The last write of a key of a cache.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EntryLine {
    /// The run that wrote it.
    pub(super) actor: Actor,
    /// The number of the write in that run.
    number: u64,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    stamp: u64,
    expires_ms: u64,
    /// `None` for a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
}

/// A row: totals, or a write of a cache in a state of format 1.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RowLine {
    slot: u32,
    version: Version,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    holds: Holds,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Holds {
    Entry { stamp: u64, expires_ms: u64, value: String },
    Totals { added: u64, removed: u64 },
}

/// The lines of a part's rows.
pub(super) fn rows(part: &Part) -> Result<Vec<Line>, String> {
    part.rows.iter().map(|row| of_row(part.shape.class, row)).collect()
}

fn of_row(class: Class, row: &Row) -> Result<Line, String> {
    let mut reader = RowReader::new(&row.bytes, row.version.previous());
    let read = reader.next_row().map_err(|error| error.to_string())?.ok_or("a row is empty")?;
    let (key, holds) = match read.state {
        RowState::Live { key: Some(key), added, removed } => (key, Holds::Totals { added, removed }),
        RowState::Content { key: Some(key), stamp, expires_ms, value } => {
            (key, Holds::Entry { stamp, expires_ms, value: STANDARD.encode(value) })
        }
        _ => return Err("a row has no key".to_owned()),
    };
    let text = key::display(class.kind(), key).ok();
    Ok(Line::Row(RowLine { slot: row.slot, version: row.version, key: STANDARD.encode(key), text, holds }))
}

/// The line of an entry.
pub(super) fn entry(saved: &SavedEntry) -> Result<Line, String> {
    let line = saved.read(|wire| EntryLine {
        actor: saved.run().clone(),
        number: wire.number,
        key: STANDARD.encode(wire.key),
        text: key::display(Kind::Cache, wire.key).ok(),
        stamp: wire.stamp,
        expires_ms: wire.expires_ms,
        value: wire.value.map(|value| STANDARD.encode(value)),
    });
    line.map(Line::Entry).ok_or_else(|| "an entry is empty".to_owned())
}

/// The key of a line's entry, and the bytes of the entry.
pub(super) fn to_entry(line: &EntryLine) -> Result<(Vec<u8>, Vec<u8>), String> {
    let key = bytes("key", &line.key)?;
    let value = line.value.as_deref().map(|value| bytes("value", value)).transpose()?;
    line.actor.incarnation.checked().map_err(|error| error.to_string())?;
    let (number, stamp, expires_ms) = (line.number, line.stamp, line.expires_ms);
    let wire = WireEntry { run: 0, number, stamp, key: &key, expires_ms, value: value.as_deref() };
    let saved = SavedEntry::encode(&line.actor, &wire).map_err(|error| error.to_string())?;
    // An entry within the bounds can be read again.
    SavedEntry::decode(&saved).map_err(|error| error.to_string())?;
    Ok((key, saved))
}

fn bytes(what: &str, text: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(text).map_err(|error| format!("{what} is not base64: {error}"))
}

/// The row of a line.
pub(super) fn to_row(class: Class, line: &RowLine) -> Result<Row, String> {
    let key = bytes("key", &line.key)?;
    key::check_row(class, &key).map_err(|error| error.to_string())?;
    let value;
    let state = match &line.holds {
        Holds::Totals { added, removed } => RowState::Live { key: Some(&key), added: *added, removed: *removed },
        Holds::Entry { .. } if class != Class::Cache => return Err(format!("a value in a {}", class.name())),
        Holds::Entry { stamp, expires_ms, value: text } => {
            value = bytes("value", text)?;
            RowState::Content { key: Some(&key), stamp: *stamp, expires_ms: *expires_ms, value: &value }
        }
    };
    let before = Some(line.version.previous()).filter(|before| *before < line.version).ok_or("versions begin at 1")?;
    let mut writer = RowWriter::new(before);
    writer.push(WireRow { slot: line.slot, version: line.version, state });
    let row = Row { slot: line.slot, version: line.version, bytes: writer.finish() };
    // A row within the bounds can be read again.
    let mut reader = RowReader::new(&row.bytes, before);
    reader.next_row().map_err(|error| error.to_string())?;
    Ok(row)
}

/// A part before its first row.
pub(super) fn part(structure: String, class: Class, actor: Actor, extent: Extent) -> Result<Part, String> {
    if extent.since > extent.applied || extent.complete > extent.applied {
        return Err("the versions of the part do not rise".to_owned());
    }
    Ok(Part { shape: Shape { name: structure, class }, actor, extent, rows: Vec::new() })
}

/// The next line; `None` at the end.
pub(super) fn next(from: &mut impl BufRead, line: &mut String) -> Result<Option<Line>, String> {
    line.clear();
    let read = from.by_ref().take(LINE_BYTES).read_line(line).map_err(|error| error.to_string())?;
    if read == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') && read as u64 == LINE_BYTES {
        return Err(format!("it is longer than {LINE_BYTES} bytes"));
    }
    // An editor may have put a byte-order mark before the first line.
    let text = line.strip_prefix('\u{feff}').unwrap_or(line);
    serde_json::from_str(text).map(Some).map_err(|error| error.to_string())
}
