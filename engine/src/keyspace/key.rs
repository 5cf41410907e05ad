//! The forms of a key: copied out of its cell, and prepared for a search.
#![allow(clippy::cast_possible_truncation, clippy::indexing_slicing, reason = "words of a key are inside the key")]

use std::ops::Deref;

/// Keys up to this length are stored in the cell itself.
pub(super) const SHORT: usize = 24;

/// A key, copied out of its cell.
#[derive(Clone, Debug)]
pub(crate) enum CellKey {
    Short([u8; SHORT], u8),
    Long(std::sync::Arc<[u8]>),
}

impl CellKey {
    pub(crate) fn new(key: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..key.len()) {
            Some(short) => {
                short.copy_from_slice(key);
                Self::Short(bytes, key.len() as u8)
            }
            None => Self::Long(key.into()),
        }
    }
}

impl Deref for CellKey {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Short(bytes, len) => &bytes[..usize::from(*len).min(SHORT)],
            Self::Long(key) => key,
        }
    }
}

/// A key to search for, in the form in which cells store keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) words: [u64; SHORT / 8],
}

impl<'a> Wanted<'a> {
    #[inline(always)]
    pub(crate) fn new(key: &'a [u8]) -> Self {
        let (whole, rest) = key.as_chunks::<8>();
        let word = |at: usize| match whole.get(at) {
            Some(eight) => u64::from_le_bytes(*eight),
            None if at == whole.len() => last_word(key, rest),
            None => 0,
        };
        Self { key, words: [word(0), word(1), word(2)] }
    }

    pub(crate) fn is_long(&self) -> bool {
        self.key.len() > SHORT
    }
}

/// The bytes of a key after its last whole word, as a word. (Copying them one by one, or by a call, costs more than all the
/// rest.)
#[inline(always)]
fn last_word(key: &[u8], rest: &[u8]) -> u64 {
    if let Some(eight) = key.last_chunk::<8>() {
        // The bytes before those are shifted out.
        return (u64::from_le_bytes(*eight) >> 8) >> (56 - 8 * rest.len());
    }
    match (rest.first_chunk::<4>(), rest.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let high = u64::from(u32::from_le_bytes(*last)) << (8 * (rest.len() - 4));
            u64::from(u32::from_le_bytes(*first)) | high
        }
        _ => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}
