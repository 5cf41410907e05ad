//! The replicated cell: one actor's count for one key, and the hash that fingerprints are made of.

use crdts::CvRDT;
use tallymesh_schemas::Version;

use crate::stamp::Stamp;

/// What one actor counts for one key: two totals that only grow, and the version at which they last changed.
///
/// The actor is the only writer, so of two states of a row the one with the higher version is the newer one, and the
/// join is to keep it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// Total of all additions.
    pub added: u64,
    /// Total of all removals.
    pub removed: u64,
    /// When the row last changed.
    pub version: Version,
}

impl Row {
    /// What the actor counts: additions less removals, and at most [`limits::COUNT`](tallymesh_schemas::limits::COUNT) either
    /// way, whatever a peer says.
    #[inline]
    pub fn value(&self) -> i64 {
        crate::cell::value((self.added, self.removed))
    }

    /// Of a cache: when its actor wrote it.
    pub fn stamp(&self) -> Stamp {
        Stamp(self.added)
    }

    /// Of a cache: the hash of what was written, 0 when the entry was removed.
    pub fn content(&self) -> u64 {
        self.removed
    }
}

/// Two states of a row that claim one version but differ: its writer was not alone.
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

/// The hash of a key within fingerprints: the same on every node and machine.
pub fn key_hash(key: &[u8]) -> u64 {
    let (words, tail) = key.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    hash_words(key.len(), words.iter().map(|word| u64::from_le_bytes(*word)), u64::from_le_bytes(last))
}

/// The hash of a key that lies in words, with zeros behind its `len` bytes: as [`key_hash`] says.
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

/// The hash of a live row. A fingerprint is the sum of these, modulo 2^64, so that it follows every change of a row
/// without looking at the others.
pub fn row_hash(key_hash: u64, row: &Row) -> u64 {
    let hash = fold(key_hash ^ row.added, FACTOR).wrapping_add(SEED);
    let hash = fold(hash ^ row.removed, FACTOR).wrapping_add(SEED);
    fold(hash ^ row.version, FACTOR).wrapping_add(SEED)
}

/// The hash of a cache entry's content: never 0, which stands for a removed one.
pub(crate) fn content_hash(expires_ms: u64, value: &[u8]) -> u64 {
    fold(key_hash(value) ^ expires_ms, FACTOR).wrapping_add(SEED).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The states that one writer's row runs through.
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
