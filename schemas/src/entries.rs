//! The codec of cache entries: a batch of entries, with a few bytes for each one in addition to its key and value.
//!
//! Each entry is the last write of its key that the sender knows. A **dot** names a write: the run that wrote it, and the number
//! of the write in that run, from 1. The message that contains the batch lists the runs, and an entry states a position in
//! that list.
//!
//! ```text
//! entry := varint(run << 2 | EXPIRES | REMOVED) varint(zigzag(number − previous number)) varint(zigzag(stamp − previous stamp))
//!          key [varint(expiry)] [varint(bytes) bytes]          the expiry only with EXPIRES, the value only without REMOVED
//! key   := varint(bytes shared with the previous key) varint(further bytes) further bytes
//! ```
//! The previous number and stamp of the first entry are 0, and the previous key is empty.

use crate::bounds;
use crate::rows::RowsError;
use crate::varint;

const REMOVED: u64 = 0b01;
const EXPIRES: u64 = 0b10;

/// One entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireEntry<'a> {
    /// The position of the run that wrote it in the list of runs of the message.
    pub run: u32,
    /// The number of the write in that run.
    pub number: u64,
    /// The stamp of the write: its time and order by the writer's clock.
    pub stamp: u64,
    /// The key.
    pub key: &'a [u8],
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// The value; `None` for a removal.
    pub value: Option<&'a [u8]>,
}

/// Writes a batch.
#[derive(Debug, Default)]
pub struct EntryWriter {
    buf: Vec<u8>,
    key: Vec<u8>,
    number: u64,
    stamp: u64,
    entries: usize,
}

impl EntryWriter {
    /// Appends an entry.
    pub fn push(&mut self, entry: &WireEntry<'_>) {
        let flags = if entry.value.is_none() { REMOVED } else { 0 } | if entry.expires_ms != 0 { EXPIRES } else { 0 };
        varint::put(&mut self.buf, u64::from(entry.run) << 2 | flags);
        varint::put(&mut self.buf, difference(self.number, entry.number));
        varint::put(&mut self.buf, difference(self.stamp, entry.stamp));
        let shared = self.key.iter().zip(entry.key).take_while(|(a, b)| a == b).count();
        let further = entry.key.get(shared..).unwrap_or_default();
        varint::put(&mut self.buf, shared as u64);
        varint::put(&mut self.buf, further.len() as u64);
        self.buf.extend_from_slice(further);
        self.key.truncate(shared);
        self.key.extend_from_slice(further);
        if entry.expires_ms != 0 {
            varint::put(&mut self.buf, entry.expires_ms);
        }
        if let Some(value) = entry.value {
            varint::put(&mut self.buf, value.len() as u64);
            self.buf.extend_from_slice(value);
        }
        (self.number, self.stamp) = (entry.number, entry.stamp);
        self.entries += 1;
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether no entry was written.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Entries so far.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// The batch.
    pub fn finish(self) -> Vec<u8> {
        self.buf
    }
}

/// Reads a batch entry by entry. It allocates memory only for the current key.
#[derive(Debug)]
pub struct EntryReader<'a> {
    input: &'a [u8],
    key: Vec<u8>,
    number: u64,
    stamp: u64,
    /// Runs in the list of the message.
    runs: usize,
}

impl<'a> EntryReader<'a> {
    /// A reader of a batch whose message lists so many runs.
    pub fn new(input: &'a [u8], runs: usize) -> Self {
        Self { input, key: Vec::new(), number: 0, stamp: 0, runs }
    }

    /// Bytes that are not read yet.
    pub fn remaining(&self) -> usize {
        self.input.len()
    }

    /// The next entry, `None` at the end.
    ///
    /// # Errors
    /// [`RowsError`] for bytes that [`EntryWriter`] does not write. The reader cannot read past them.
    pub fn next_entry(&mut self) -> Result<Option<WireEntry<'_>>, RowsError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let head = self.varint()?;
        let run = u32::try_from(head >> 2).ok().filter(|run| (*run as usize) < self.runs);
        let run = run.ok_or(RowsError::Bounds("run"))?;
        let number = self.varint().map(|by| apply(self.number, by))?;
        let stamp = self.varint().map(|by| apply(self.stamp, by))?;
        if !(1..=bounds::CACHE_WRITES).contains(&number) {
            return Err(RowsError::Bounds("number"));
        }
        (self.number, self.stamp) = (number, stamp);
        self.take_key()?;
        let expires_ms = if head & EXPIRES == 0 { 0 } else { self.varint()? };
        if head & EXPIRES != 0 && !(1..=bounds::UNIX_MS).contains(&expires_ms) {
            return Err(RowsError::Bounds("expiry"));
        }
        let value = if head & REMOVED == 0 {
            let len = self.len_of("value", bounds::VALUE_BYTES)?;
            Some(self.take(len)?)
        } else {
            None
        };
        Ok(Some(WireEntry { run, number, stamp, key: &self.key, expires_ms, value }))
    }

    fn take_key(&mut self) -> Result<(), RowsError> {
        let shared = self.len_of("key", self.key.len())?;
        let further = self.len_of("key", bounds::KEY_BYTES - shared)?;
        if shared + further == 0 {
            return Err(RowsError::Bounds("key"));
        }
        let further = self.take(further)?;
        self.key.truncate(shared);
        self.key.extend_from_slice(further);
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, RowsError> {
        varint::take(&mut self.input).ok_or(RowsError::Malformed(self.input.len()))
    }

    fn len_of(&mut self, what: &'static str, most: usize) -> Result<usize, RowsError> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if len > most { Err(RowsError::Bounds(what)) } else { Ok(len) }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], RowsError> {
        let (taken, rest) = self.input.split_at_checked(len).ok_or(RowsError::Malformed(self.input.len()))?;
        self.input = rest;
        Ok(taken)
    }
}

/// The difference of two numbers, modulo 2^64, with its sign in the lowest bit.
fn difference(from: u64, to: u64) -> u64 {
    varint::zigzag(to.wrapping_sub(from).cast_signed())
}

/// Undoes [`difference`].
fn apply(from: u64, by: u64) -> u64 {
    from.wrapping_add_signed(varint::unzigzag(by))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = (u32, u64, u64, Vec<u8>, u64, Option<Vec<u8>>);

    fn entries() -> impl Strategy<Value = Vec<Owned>> {
        let key = prop::collection::vec(0u8..3, 1..20);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
        let stamp = prop_oneof![any::<u64>(), 5u64..9];
        let entry = (0u32..4, 1..=bounds::CACHE_WRITES, stamp, key, prop_oneof![Just(0), 1..=bounds::UNIX_MS], value);
        prop::collection::vec(entry, 0..40)
    }

    proptest! {
        #[test]
        fn a_batch_comes_back(all in entries()) {
            let mut writer = EntryWriter::default();
            for (run, number, stamp, key, expires_ms, value) in &all {
                let (run, number, stamp, expires_ms) = (*run, *number, *stamp, *expires_ms);
                writer.push(&WireEntry { run, number, stamp, key, expires_ms, value: value.as_deref() });
            }
            prop_assert_eq!(writer.entries(), all.len());
            let bytes = writer.finish();
            let mut reader = EntryReader::new(&bytes, 4);
            for (run, number, stamp, key, expires_ms, value) in &all {
                let (run, number, stamp, expires_ms) = (*run, *number, *stamp, *expires_ms);
                let expected = WireEntry { run, number, stamp, key, expires_ms, value: value.as_deref() };
                prop_assert_eq!(reader.next_entry(), Ok(Some(expected)));
            }
            prop_assert_eq!(reader.next_entry(), Ok(None));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>, runs in 0usize..5) {
            let mut reader = EntryReader::new(&bytes, runs);
            while let Ok(Some(_)) = reader.next_entry() {}
        }
    }

    #[test]
    fn a_run_that_the_message_does_not_list_is_refused() {
        let mut writer = EntryWriter::default();
        writer.push(&WireEntry { run: 2, number: 1, stamp: 1, key: b"k", expires_ms: 0, value: None });
        let bytes = writer.finish();
        assert_eq!(EntryReader::new(&bytes, 2).next_entry(), Err(RowsError::Bounds("run")));
    }
}
