//! One entry of a cache: the last write of a key.

use std::sync::Arc;
use tallymesh_schemas::UnixMs;

use crate::canary::{self, Canary};
use crate::hlc::Stamp;
use crate::keyspace::hash::{FACTOR, SEED, fold, key_hash};

/// The number of a run in a cache's table of runs.
pub(crate) type RunId = u32;

/// What an entry says of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// A value.
    Value,
    /// The key was removed, or its value has expired.
    Removed,
}

/// The last write of a key that a replica knows.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The key, and behind it the value. Reads share them.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) stamp: Stamp,
    /// The number of the write in its run.
    pub(crate) number: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub(crate) expires_ms: UnixMs,
    /// Its position in the replica's log.
    pub(crate) position: u64,
    pub(crate) run: RunId,
    pub(crate) key_len: u16,
    pub(crate) content: Content,
    /// It is another node's write and has replaced a write of this node's run, directly or through others.
    pub(crate) over_own: bool,
}

/// The order of the writes of a key: first by stamp. At an equal stamp a removal wins, so that a node that needs room removes
/// exactly the entry that it sees, and so that an expired entry can become a removal. Then the content and the writer decide,
/// so that all replicas choose the same write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank<'a> {
    stamp: Stamp,
    removed: bool,
    content: u64,
    run: &'a tallymesh_schemas::Actor,
    number: u64,
}

impl<'a> Rank<'a> {
    pub(crate) fn new(
        stamp: Stamp,
        (expires_ms, value): (UnixMs, Option<&[u8]>),
        (run, number): (&'a tallymesh_schemas::Actor, u64),
    ) -> Self {
        let content = value.map_or(0, |value| content_hash(expires_ms, value));
        Self { stamp, removed: value.is_none(), content, run, number }
    }

    /// Whether this write wins over another one of its key.
    pub(crate) fn wins(&self, over: &Self) -> bool {
        self > over || canary::broken(Canary::ArrivalWins)
    }
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.key_len)).unwrap_or_default()
    }

    /// The value; `None` if the key was removed.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match self.content {
            Content::Value => self.bytes.get(usize::from(self.key_len)..),
            Content::Removed => None,
        }
    }

    /// Whether it has expired at this wall clock time.
    pub(crate) fn expired(&self, unix_ms: UnixMs) -> bool {
        self.expires_ms != UnixMs::ZERO && self.expires_ms <= unix_ms
    }

    /// The hash of key, stamp and content: equal entries have equal hashes on all nodes, also if different runs wrote them.
    pub(crate) fn hash(&self) -> u64 {
        let content = self.value().map_or(0, |value| content_hash(self.expires_ms, value));
        let hash = fold(key_hash(self.key()) ^ self.stamp.0, FACTOR).wrapping_add(SEED);
        fold(hash ^ content, FACTOR).wrapping_add(SEED)
    }
}

/// The hash of a value and its expiry. It is never 0, which stands for a removal.
fn content_hash(expires_ms: UnixMs, value: &[u8]) -> u64 {
    fold(key_hash(value) ^ expires_ms.0, FACTOR).wrapping_add(SEED).max(1)
}
