//! The row codec: a batch of one actor's rows in order of version, with a few bytes for each row.
//!
//! A row is named by its **slot**, the number that its owner gave it. The sender includes the key only where the receiver may
//! not know it. The sender knows at which version the slot got its key, and which version the receiver has applied.
//!
//! ```text
//! row     := head [gap] state
//! head    := varint( zigzag(slot − previous slot − 1) << 3 | GAP | kind )
//! gap     := varint( version − previous version − 2 )            only with GAP; without it the version is the next one
//! state   := values                 kind 0, known: the slot's key is the one that the receiver has
//!          | key values             kind 1, keyed
//!          |                        kind 2, vacant: the owner has retired the row
//!          | content                kind 3, a cache's entry with its value; only in state that version 1 saved
//! key     := varint(bytes shared with the previous key) varint(further bytes) further bytes
//! values  := varint(added) varint(removed)
//! content := varint(expiry << 1 | KEYED) [key] varint(stamp) varint(bytes) bytes      with key if KEYED
//! ```
//! The previous slot and version of the first row are −1 and the `after` of the batch.
//!
//! Builds of protocol version 1 kept caches in rows: with the stamp in `added` and the hash of the content in `removed`, 0 when the
//! entry was removed. The row of the last write of a key has its content in place of the hash. The engine converts such rows when
//! it restores them.

use crate::bounds;
use crate::varint;
use crate::version::Version;

const KIND_MASK: u64 = 0b011;
const GAP: u64 = 0b100;
const KNOWN: u64 = 0;
const KEYED: u64 = 1;
const VACANT: u64 = 2;
const CONTENT: u64 = 3;

/// One row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireRow<'a> {
    /// The owner's number for the row.
    pub slot: u32,
    /// The version of its last change.
    pub version: Version,
    /// Its state since that version.
    pub state: RowState<'a>,
}

/// The state of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowState<'a> {
    /// Totals under a key.
    Live {
        /// The key; `None` when the receiver has it.
        key: Option<&'a [u8]>,
        /// Total of all additions.
        added: u64,
        /// Total of all removals.
        removed: u64,
    },
    /// An entry of a cache, with its value.
    Content {
        /// The key; `None` when the receiver has it.
        key: Option<&'a [u8]>,
        /// The stamp of the write: its time and order by the writer's clock.
        stamp: u64,
        /// When it expires, in milliseconds since 1970; 0 for never.
        expires_ms: u64,
        /// The value.
        value: &'a [u8],
    },
    /// No state: the owner retired the row.
    Vacant,
}

/// Why a batch was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The bytes end within a row, or a number in them is not in its shortest form.
    #[error("rows: cut short or malformed {0} bytes before the end")]
    Malformed(usize),
    /// A slot, version or key outside its bounds.
    #[error("rows: {0} out of bounds")]
    Bounds(&'static str),
}

/// Writes a batch.
#[derive(Debug, Default)]
pub struct RowWriter {
    buf: Vec<u8>,
    key: Vec<u8>,
    slot: i64,
    version: Version,
    rows: usize,
}

impl RowWriter {
    /// A batch of rows with versions above `after`.
    pub fn new(after: Version) -> Self {
        Self { slot: -1, version: after, ..Self::default() }
    }

    /// Appends a row. Versions must rise from row to row.
    pub fn push(&mut self, row: WireRow<'_>) {
        debug_assert!(row.version > self.version, "rows are written in order of version");
        let kind = match row.state {
            RowState::Live { key: None, .. } => KNOWN,
            RowState::Live { key: Some(_), .. } => KEYED,
            RowState::Content { .. } => CONTENT,
            RowState::Vacant => VACANT,
        };
        let gap = row.version.since(self.version.next());
        let slot = i64::from(row.slot);
        let head = varint::zigzag(slot - self.slot - 1) << 3 | kind | if gap > 0 { GAP } else { 0 };
        varint::put(&mut self.buf, head);
        if gap > 0 {
            varint::put(&mut self.buf, gap - 1);
        }
        match row.state {
            RowState::Live { key, added, removed } => {
                self.push_key(key);
                varint::put(&mut self.buf, added);
                varint::put(&mut self.buf, removed);
            }
            RowState::Content { key, stamp, expires_ms, value } => {
                varint::put(&mut self.buf, expires_ms << 1 | u64::from(key.is_some()));
                self.push_key(key);
                varint::put(&mut self.buf, stamp);
                varint::put(&mut self.buf, value.len() as u64);
                self.buf.extend_from_slice(value);
            }
            RowState::Vacant => {}
        }
        (self.slot, self.version) = (slot, row.version);
        self.rows += 1;
    }

    fn push_key(&mut self, key: Option<&[u8]>) {
        let Some(key) = key else { return };
        let shared = self.key.iter().zip(key).take_while(|(a, b)| a == b).count();
        varint::put(&mut self.buf, shared as u64);
        varint::put(&mut self.buf, (key.len() - shared) as u64);
        self.buf.extend_from_slice(key.get(shared..).unwrap_or_default());
        self.key.clear();
        self.key.extend_from_slice(key);
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether no row was written.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The batch.
    pub fn finish(self) -> Vec<u8> {
        self.buf
    }
}

/// Reads a batch row by row. It allocates memory only for the current key.
#[derive(Debug)]
pub struct RowReader<'a> {
    input: &'a [u8],
    key: Vec<u8>,
    slot: i64,
    version: Version,
}

impl<'a> RowReader<'a> {
    /// A reader of a batch with versions above `after`.
    pub fn new(input: &'a [u8], after: Version) -> Self {
        Self { input, key: Vec::new(), slot: -1, version: after }
    }

    /// Bytes that are not read yet.
    pub fn remaining(&self) -> usize {
        self.input.len()
    }

    /// The next row, `None` at the end.
    ///
    /// # Errors
    /// [`RowsError`] for bytes that [`RowWriter`] does not write. The reader cannot read past them.
    #[inline(always)]
    pub fn next_row(&mut self) -> Result<Option<WireRow<'_>>, RowsError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let head = self.varint()?;
        let slot = self
            .slot
            .checked_add(varint::unzigzag(head >> 3) + 1)
            .filter(|slot| (0..i64::from(bounds::ROWS_PER_ACTOR)).contains(slot))
            .ok_or(RowsError::Bounds("slot"))?;
        let mut version = self.version.next();
        if head & GAP != 0 {
            version = version.next().after(self.varint()?).ok_or(RowsError::Bounds("version"))?;
        }
        if version > bounds::VERSION {
            return Err(RowsError::Bounds("version"));
        }
        (self.slot, self.version) = (slot, version);
        let slot = u32::try_from(slot).map_err(|_| RowsError::Bounds("slot"))?;
        let state = match head & KIND_MASK {
            KNOWN => RowState::Live { key: None, added: self.varint()?, removed: self.varint()? },
            KEYED => {
                self.take_key()?;
                let (added, removed) = (self.varint()?, self.varint()?);
                RowState::Live { key: Some(&self.key), added, removed }
            }
            VACANT => RowState::Vacant,
            CONTENT => self.take_content()?,
            _ => return Err(self.malformed()),
        };
        Ok(Some(WireRow { slot, version, state }))
    }

    fn take_content(&mut self) -> Result<RowState<'_>, RowsError> {
        let head = self.varint()?;
        let (keyed, expires_ms) = (head & 1 != 0, head >> 1);
        if expires_ms > bounds::UNIX_MS {
            return Err(RowsError::Bounds("expiry"));
        }
        if keyed {
            self.take_key()?;
        }
        let stamp = self.varint()?;
        let len = usize::try_from(self.varint()?).map_err(|_| RowsError::Bounds("value"))?;
        if len > bounds::VALUE_BYTES {
            return Err(RowsError::Bounds("value"));
        }
        let (value, rest) = self.input.split_at_checked(len).ok_or_else(|| self.malformed())?;
        self.input = rest;
        Ok(RowState::Content { key: keyed.then_some(self.key.as_slice()), stamp, expires_ms, value })
    }

    fn take_key(&mut self) -> Result<(), RowsError> {
        let shared = usize::try_from(self.varint()?).map_err(|_| RowsError::Bounds("key"))?;
        let further = usize::try_from(self.varint()?).map_err(|_| RowsError::Bounds("key"))?;
        if shared > self.key.len() || further > bounds::ROW_KEY_BYTES - shared.min(bounds::ROW_KEY_BYTES) {
            return Err(RowsError::Bounds("key"));
        }
        let (tail, rest) = self.input.split_at_checked(further).ok_or_else(|| self.malformed())?;
        self.key.truncate(shared);
        self.key.extend_from_slice(tail);
        self.input = rest;
        Ok(())
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, RowsError> {
        let left = self.input.len();
        varint::take(&mut self.input).ok_or(RowsError::Malformed(left))
    }

    fn malformed(&self) -> RowsError {
        RowsError::Malformed(self.input.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum State {
        Live(Option<Vec<u8>>, u64, u64),
        Content(Option<Vec<u8>>, u64, u64, Vec<u8>),
        Vacant,
    }

    type Row = (u32, u64, State);

    fn rows() -> impl Strategy<Value = Vec<Row>> {
        let key = || prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        let value = prop::collection::vec(any::<u8>(), 0..200);
        let state = prop_oneof![
            (key(), any::<u64>(), any::<u64>()).prop_map(|(key, a, r)| State::Live(key, a, r)),
            (key(), any::<u64>(), 0..=bounds::UNIX_MS, value).prop_map(|(key, s, e, v)| State::Content(key, s, e, v)),
            Just(State::Vacant),
        ];
        prop::collection::vec((0..bounds::ROWS_PER_ACTOR, 1u64..1000, state), 0..50)
    }

    fn read(bytes: &[u8], after: u64) -> Result<Vec<Row>, RowsError> {
        let mut reader = RowReader::new(bytes, Version(after));
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row()? {
            let state = match row.state {
                RowState::Live { key, added, removed } => State::Live(key.map(<[u8]>::to_vec), added, removed),
                RowState::Content { key, stamp, expires_ms, value } => {
                    State::Content(key.map(<[u8]>::to_vec), stamp, expires_ms, value.to_vec())
                }
                RowState::Vacant => State::Vacant,
            };
            rows.push((row.slot, row.version.0, state));
        }
        Ok(rows)
    }

    proptest! {
        #[test]
        fn rows_read_back_as_written(after in 0u64..1 << 46, batch in rows()) {
            let mut writer = RowWriter::new(Version(after));
            let mut version = after;
            let mut expected = Vec::new();
            for (slot, step, live) in batch {
                version += step;
                let state = match &live {
                    State::Live(key, added, removed) => {
                        RowState::Live { key: key.as_deref(), added: *added, removed: *removed }
                    }
                    State::Content(key, stamp, expires_ms, value) => {
                        RowState::Content { key: key.as_deref(), stamp: *stamp, expires_ms: *expires_ms, value }
                    }
                    State::Vacant => RowState::Vacant,
                };
                writer.push(WireRow { slot, version: Version(version), state });
                expected.push((slot, version, live));
            }
            prop_assert_eq!(read(&writer.finish(), after).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(after in 0u64..1 << 62, bytes: Vec<u8>) {
            let _ = read(&bytes, after);
        }
    }

    #[test]
    fn a_known_row_of_a_flush_takes_four_bytes() {
        let mut writer = RowWriter::new(Version(1_000_000));
        for i in 0..1000u32 {
            let state = RowState::Live { key: None, added: 100, removed: 90 };
            writer.push(WireRow { slot: i * 100, version: Version(1_000_001 + u64::from(i)), state });
        }
        assert!(writer.len() <= 4000, "{}", writer.len());
    }

    #[test]
    fn values_over_the_bound_are_refused_before_they_are_read() {
        let mut bytes = Vec::new();
        for number in [CONTENT, 0, 7, bounds::VALUE_BYTES as u64 + 1] {
            varint::put(&mut bytes, number);
        }
        assert_eq!(read(&bytes, 0), Err(RowsError::Bounds("value")));
    }

    #[test]
    fn keys_over_the_bound_are_refused_before_they_are_read() {
        let mut bytes = Vec::new();
        varint::put(&mut bytes, KEYED);
        varint::put(&mut bytes, 0);
        varint::put(&mut bytes, bounds::ROW_KEY_BYTES as u64 + 1);
        assert_eq!(read(&bytes, 0), Err(RowsError::Bounds("key")));
    }
}
