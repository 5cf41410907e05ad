//! The row: one actor's count for one key, and the row hash that fingerprints are built from.

use crdts::CvRDT;
use tallymesh_schemas::{Version, limits};

use crate::stamp::Stamp;

/// One actor's count for one key: two totals that only grow, and the version at which they last changed.
///
/// The actor is the only writer, so the state with the higher version is the newer one. The join keeps that state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// Total of all additions.
    pub added: u64,
    /// Total of all removals.
    pub removed: u64,
    /// The version of the last change.
    pub version: Version,
}

/// The count of two totals: additions minus removals, within [`limits::COUNT`].
#[inline(always)]
pub(crate) fn value((added, removed): (u64, u64)) -> i64 {
    let by = i64::try_from(added.abs_diff(removed)).unwrap_or(i64::MAX).min(limits::COUNT);
    if added < removed { -by } else { by }
}

impl Row {
    /// The actor's count: additions minus removals, clamped to [`limits::COUNT`](limits::COUNT) in both
    /// directions, whatever a peer sends.
    #[inline]
    pub fn value(&self) -> i64 {
        value((self.added, self.removed))
    }

    /// In a cache: the stamp of the write.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.added)
    }

    /// In a cache: the hash of the written content; 0 for a removal.
    pub fn content(&self) -> u64 {
        self.removed
    }
}

/// Two states of a row with the same version differ: the row had more than one writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("two different rows claim version {0}")]
pub struct TwoWriters(
    /// The version.
    pub Version,
);

impl CvRDT for Row {
    type Validation = TwoWriters;

    fn validate_merge(&self, other: &Self) -> Result<(), TwoWriters> {
        if self.version == other.version && self != other { Err(TwoWriters(self.version)) } else { Ok(()) }
    }

    fn merge(&mut self, other: Self) {
        if other.version > self.version {
            *self = other;
        }
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd1b5_4a32_d192_ed03;

fn fold(a: u64, b: u64) -> u64 {
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

/// The hash of a live row. A fingerprint is the sum of these modulo 2^64, so a change of one row updates it without the
/// other rows.
pub fn row_hash(key_hash: u64, row: &Row) -> u64 {
    let hash = fold(key_hash ^ row.added, FACTOR).wrapping_add(SEED);
    let hash = fold(hash ^ row.removed, FACTOR).wrapping_add(SEED);
    fold(hash ^ row.version, FACTOR).wrapping_add(SEED)
}

/// The hash of a cache entry's content. It is never 0, which stands for a removal.
pub(crate) fn content_hash(expires_ms: u64, value: &[u8]) -> u64 {
    fold(key_hash(value) ^ expires_ms, FACTOR).wrapping_add(SEED).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The successive states of one writer's row.
    fn history() -> impl Strategy<Value = Vec<Row>> {
        prop::collection::vec((0u64..5, 0u64..5), 1..20).prop_map(|steps| {
            let mut row = Row::default();
            let mut states = vec![row];
            for (added, removed) in steps {
                row = Row { added: row.added + added, removed: row.removed + removed, version: row.version + 1 };
                states.push(row);
            }
            states
        })
    }

    fn join(mut a: Row, b: Row) -> Row {
        a.merge(b);
        a
    }

    proptest! {
        /// I2.
        #[test]
        fn merge_is_a_join(states in history(), picks: [prop::sample::Index; 3]) {
            let [a, b, c] = picks.map(|pick| states[pick.index(states.len())]);
            prop_assert_eq!(join(a, b), join(b, a));
            prop_assert_eq!(join(join(a, b), c), join(a, join(b, c)));
            prop_assert_eq!(join(a, a), a);
            prop_assert!(join(a, b).added >= a.added && join(a, b).removed >= a.removed);
            prop_assert!(a.validate_merge(&b).is_ok());
        }

        #[test]
        fn a_key_in_words_has_the_same_hash(key in prop::collection::vec(any::<u8>(), 0..=24)) {
            let mut bytes = [0; 24];
            bytes[..key.len()].copy_from_slice(&key);
            let words: Vec<_> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
            prop_assert_eq!(key_hash_of_words(&words, key.len()), key_hash(&key));
        }

        #[test]
        fn the_hash_sees_every_field(key: Vec<u8>, added: u64, removed: u64, version: u64, bit in 0u32..64) {
            let row = Row { added, removed, version };
            let hash = row_hash(key_hash(&key), &row);
            let flip = 1u64 << bit;
            let others = [Row { added: added ^ flip, ..row }, Row { removed: removed ^ flip, ..row }, Row { version: version ^ flip, ..row }];
            for other in others {
                prop_assert_ne!(hash, row_hash(key_hash(&key), &other));
            }
            let mut longer = key.clone();
            longer.push(0);
            prop_assert_ne!(key_hash(&key), key_hash(&longer));
        }
    }
}
