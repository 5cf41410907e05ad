//! The ordered index of a structure: of addresses it knows the sum under any prefix, of names only the order.

use tallymesh_schemas::Kind;

use crate::radix::{KeyOf, Radix, Sum};
use crate::slots::CellId;

#[derive(Debug)]
pub(crate) enum Index {
    Sums(Radix<Sum>),
    Order(Radix<()>),
}

impl Index {
    pub(crate) fn new(kind: Kind) -> Self {
        match kind {
            Kind::CidrTree => Self::Sums(Radix::default()),
            Kind::GaugeTable | Kind::ThrottleTable => Self::Order(Radix::default()),
        }
    }

    pub(crate) fn insert(&mut self, id: CellId, keys: &impl KeyOf) {
        match self {
            Self::Sums(radix) => radix.insert(id, keys),
            Self::Order(radix) => radix.insert(id, keys),
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) {
        match self {
            Self::Sums(radix) => radix.remove(key),
            Self::Order(radix) => radix.remove(key),
        }
    }

    /// The first key behind `key`, or `key` itself if `or_equal`.
    pub(crate) fn seek(&self, key: &[u8], or_equal: bool, keys: &impl KeyOf) -> Option<CellId> {
        match self {
            Self::Sums(radix) => radix.seek(key, or_equal, keys),
            Self::Order(radix) => radix.seek(key, or_equal, keys),
        }
    }

    /// Adds to a key, where sums are kept.
    pub(crate) fn add(&mut self, id: CellId, n: Sum, keys: &impl KeyOf) {
        if let Self::Sums(radix) = self
            && n != Sum::default()
        {
            radix.add(keys.key_of(id), n);
        }
    }

    /// The sum under the first `bits` bits of `prefix`; zero where no sums are kept.
    pub(crate) fn sum(&self, prefix: &[u8], bits: usize, keys: &impl KeyOf) -> Sum {
        match self {
            Self::Sums(radix) => radix.sum(prefix, bits, keys),
            Self::Order(_) => Sum::default(),
        }
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Sums(radix) => radix.bytes(),
            Self::Order(radix) => radix.bytes(),
        }
    }
}
