//! The messages in which two nodes exchange the entries of a cache.

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::borrowed_bytes;
use crate::structure::StructureId;
use crate::unix_ms::UnixMs;

/// Which writes of a cache a node has taken in: a version vector. A run numbers its writes of a cache from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CacheContext {
    /// Runs, and the number of the last write of each that the node has taken in, with all earlier ones.
    pub runs: Vec<(Actor, u64)>,
    /// Nodes, and the first run of each that is not over: the node has taken in all writes of earlier runs.
    pub ended: Vec<(NodeName, Incarnation)>,
}

/// What the sender has of a cache, and how it wants to receive the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheReport {
    /// The structure.
    pub structure: StructureId,
    /// The number of the session in which the receiver of the report is to send entries. With a new number, it first sends
    /// everything that `seen` does not contain.
    pub session: u64,
    /// The sender's current run.
    pub incarnation: Incarnation,
    /// Numbers the reports about this cache on this link: an earlier one that arrives late says nothing.
    pub number: u64,
    /// The writes that the sender has taken in. Within a session: those that have changed since the last report.
    pub seen: CacheContext,
    /// Runs that the sender has stopped to name, and that some node may still name.
    pub endings: Vec<CacheEnding>,
    /// Whether the sender wants entries from all writers, because it has no link to some of them.
    pub relay: bool,
    /// Whether the sender has the contents only since it joined.
    pub partial: bool,
    /// The sum of the hashes of the entries that expire never or after `after_ms`.
    pub fingerprint: u64,
    /// In milliseconds since 1970.
    pub after_ms: UnixMs,
}

/// Runs of a node that have ended, with all their writes. A node that has all these writes, and names no earlier run of the
/// node, need not name these runs either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEnding {
    /// The node.
    pub node: NodeName,
    /// The first of these runs.
    pub from: Incarnation,
    /// The first run after them.
    pub first: Incarnation,
    /// Those of the runs that have written, and the number of the last write of each.
    pub last: Vec<(Incarnation, u64)>,
}

/// Entries of a cache, in the order in which the sender received them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheEntries<'a> {
    /// The structure.
    pub structure: StructureId,
    /// The session, as the receiver has numbered it.
    pub session: u64,
    /// The position of this message among all messages of the session, from 0.
    pub position: u64,
    /// The runs that wrote the entries.
    pub runs: Vec<Actor>,
    /// The entries, see [`entries`](crate::entries).
    #[serde(with = "borrowed_bytes")]
    pub entries: &'a [u8],
    /// What the receiver has taken in once it has all messages up to this one.
    pub mark: Option<CacheMark>,
}

impl CacheEntries<'_> {
    /// The session of messages that belong to none: the receiver joins their entries, and nothing else follows from them. No
    /// receiver gives a session this number.
    pub const REPAIR: u64 = 0;
}

/// The statement that the receiver of a cache's entries has all that the sender knows of some runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheMark {
    /// The writes of these runs.
    pub runs: Vec<RunMark>,
    /// As in [`CacheContext::ended`].
    pub ended: Vec<(NodeName, Incarnation)>,
    /// Removed and expired entries that the sender no longer holds, and that the receiver has not reported.
    pub collected: CacheContext,
}

/// A part of a mark: one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMark {
    /// The run.
    pub run: Actor,
    /// It holds for a receiver that has taken in the run's writes up to this one.
    pub after: u64,
    /// The receiver has then taken in those up to this one.
    pub upto: u64,
}

/// Asks the receiver which keys it holds where its copy of a cache differs from the sender's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCompare {
    /// The structure.
    pub structure: StructureId,
    /// Numbers the sender's questions.
    pub question: u64,
    /// The sums cover the entries that expire never or after this time, in milliseconds since 1970.
    pub after_ms: UnixMs,
    /// For each part of the space of key hashes, the sum of the hashes of the entries in it.
    pub sums: Vec<u64>,
}

/// Keys that the sender holds in the parts of the key space whose sums differ from those of a [`CacheCompare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheKeys<'a> {
    /// The structure.
    pub structure: StructureId,
    /// The question that it answers.
    pub question: u64,
    /// The position of this message in the answer, from 0.
    pub position: u64,
    /// In the first message: what the sender had taken in before it looked for the keys.
    pub seen: Option<CacheContext>,
    /// In the last message: the parts that differ.
    pub parts: Option<Vec<u32>>,
    /// Hashes of keys, eight bytes each, in little-endian order.
    #[serde(with = "borrowed_bytes")]
    pub hashes: &'a [u8],
}
