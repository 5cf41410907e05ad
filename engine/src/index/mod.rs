//! The ordered index of a structure: for addresses it knows the sum under any prefix, for names only the order.

pub(crate) mod nodes;
pub(crate) mod radix;

use std::ops::Bound;

use tallymesh_schemas::Kind;

use crate::index::nodes::{Aggregate, Sum};
use crate::index::radix::{Radix, agree};
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::CellKey;

/// Number of additions that are collected and made together: see [`Radix::add_all`].
const TOGETHER: usize = 32;

#[derive(Debug)]
pub(crate) enum Index {
    Sums(Sums),
    Order(Radix<()>),
}

/// The tree of addresses, and the additions that are not in the tree yet; every sum includes both.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    radix: Radix<Sum>,
    waiting: Vec<(CellKey, Sum)>,
}

impl Sums {
    fn settle(&mut self) {
        self.radix.add_all(&self.waiting);
        self.waiting.clear();
    }
}

impl Index {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::CidrTree => Self::Sums(Sums::default()),
            Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => Self::Order(Radix::default()),
        }
    }

    pub(crate) fn insert(&mut self, id: CellId, keys: &impl KeyOf) {
        match self {
            Self::Sums(sums) => sums.radix.insert(id, keys),
            Self::Order(radix) => radix.insert(id, keys),
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        match self {
            Self::Sums(sums) => {
                sums.settle();
                sums.radix.remove(key);
            }
            Self::Order(radix) => radix.remove(key),
        }
    }

    /// The first key from `from` on.
    pub(crate) fn seek(&self, from: Bound<&[u8]>, keys: &impl KeyOf) -> Option<CellId> {
        match self {
            Self::Sums(sums) => sums.radix.seek(from, keys),
            Self::Order(radix) => radix.seek(from, keys),
        }
    }

    /// Adds to the sum of a key, if the index keeps sums.
    #[inline(always)]
    pub(crate) fn add(&mut self, id: CellId, n: Sum, keys: &impl KeyOf) {
        if let Self::Sums(sums) = self
            && n != Sum::default()
        {
            sums.waiting.push((keys.key_of(id), n));
            if sums.waiting.len() == TOGETHER {
                sums.settle();
            }
        }
    }

    /// Makes the collected additions. Reads are faster afterwards and return the same sums.
    pub(crate) fn settle(&mut self) {
        if let Self::Sums(sums) = self {
            sums.settle();
        }
    }

    /// The sum under the first `bits` bits of `prefix`; zero if the index keeps no sums.
    pub(crate) fn sum(&self, prefix: &[u8], bits: usize, keys: &impl KeyOf) -> Sum {
        let Self::Sums(sums) = self else { return Sum::default() };
        let below = sums.waiting.iter().filter(|(key, _)| agree(key, prefix, bits));
        below.fold(sums.radix.sum(prefix, bits, keys), |sum, (_, n)| sum.plus(*n))
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sums(sums) => sums.radix.bytes() + sums.waiting.capacity() * size_of::<(CellKey, Sum)>(),
            Self::Order(radix) => radix.bytes(),
        }
    }
}
