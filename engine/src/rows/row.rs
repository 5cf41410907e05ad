//! The row: one actor's count for one key, and the hashes that fingerprints are built from.

use crdts::CvRDT;
use tallymesh_schemas::Version;

use crate::keyspace::hash::{FACTOR, SEED, fold};
use crate::keyspace::totals::Totals;

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

impl Row {
    /// The actor's count: additions minus removals, clamped to [`COUNT`](tallymesh_schemas::bounds::COUNT) in both
    /// directions, whatever a peer sends.
    #[inline]
    pub fn value(&self) -> i64 {
        self.totals().value()
    }

    pub(crate) fn new(totals: Totals, version: Version) -> Self {
        Self { added: totals.added, removed: totals.removed, version }
    }

    #[inline]
    pub(crate) fn totals(&self) -> Totals {
        Totals { added: self.added, removed: self.removed }
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

/// The hash of a live row. A fingerprint is the sum of these modulo 2^64, so a change of one row updates it without the
/// other rows.
pub fn row_hash(key_hash: u64, row: &Row) -> u64 {
    let hash = fold(key_hash ^ row.added, FACTOR).wrapping_add(SEED);
    let hash = fold(hash ^ row.removed, FACTOR).wrapping_add(SEED);
    fold(hash ^ row.version.0, FACTOR).wrapping_add(SEED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyspace::hash::key_hash;

    /// The successive states of one writer's row.
    fn history() -> impl Strategy<Value = Vec<Row>> {
        prop::collection::vec((0u64..5, 0u64..5), 1..20).prop_map(|steps| {
            let mut row = Row::default();
            let mut states = vec![row];
            for (added, removed) in steps {
                row = Row { added: row.added + added, removed: row.removed + removed, version: row.version.next() };
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
        fn the_hash_sees_every_field(key: Vec<u8>, added: u64, removed: u64, version: u64, bit in 0u32..64) {
            let row = Row { added, removed, version: Version(version) };
            let hash = row_hash(key_hash(&key), &row);
            let flip = 1u64 << bit;
            let others = [Row { added: added ^ flip, ..row }, Row { removed: removed ^ flip, ..row }, Row { version: Version(version ^ flip), ..row }];
            for other in others {
                prop_assert_ne!(hash, row_hash(key_hash(&key), &other));
            }
            let mut longer = key.clone();
            longer.push(0);
            prop_assert_ne!(key_hash(&key), key_hash(&longer));
        }
    }
}
