//! The hash of keys. It is the same on every node and machine, because fingerprints compare it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "a tail of a key is shorter than a word; a hash takes the low bits on purpose"
)]

pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
pub(crate) const FACTOR: u64 = 0xd1b5_4a32_d192_ed03;

/// Mixes two numbers.
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ (product >> 64) as u64
}

/// The hash of a key in fingerprints: the same on every node and machine.
pub fn key_hash(key: &[u8]) -> u64 {
    let (words, tail) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    hash_words(key.len(), words.iter().map(|word| u64::from_le_bytes(*word)), u64::from_le_bytes(last))
}

/// The hash of a key that is stored in words, with zeros after its `len` bytes. Equals [`key_hash`].
#[inline]
pub(crate) fn key_hash_of_words(words: &[u64], len: usize) -> u64 {
    let (whole, rest) = words.split_at(words.len().min(len / 8));
    hash_words(len, whole.iter().copied(), rest.first().copied().unwrap_or(0))
}

#[inline]
fn hash_words(len: usize, whole: impl Iterator<Item = u64>, last: u64) -> u64 {
    let step = |hash, word| fold(hash ^ word, FACTOR).wrapping_add(SEED);
    step(whole.fold(SEED ^ len as u64, step), last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_in_words_has_the_same_hash(key in prop::collection::vec(any::<u8>(), 0..=24)) {
            let mut bytes = [0; 24];
            bytes[..key.len()].copy_from_slice(&key);
            let words: Vec<_> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            prop_assert_eq!(key_hash_of_words(&words, key.len()), key_hash(&key));
        }
    }
}
