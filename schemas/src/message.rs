//! The messages in which two nodes exchange rows, and entries of caches. docs/protocol.md describes the protocol. Golden vectors
//! in `schemas/tests` pin the bytes.

mod caches;

use serde::{Deserialize, Serialize};

pub use crate::message::caches::{
    CacheCompare, CacheContext, CacheEnding, CacheEntries, CacheKeys, CacheMark, CacheReport, RunMark,
};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::borrowed_bytes;
use crate::bounds;
use crate::structure::{Kind, StructureId};
use crate::unix_ms::UnixMs;
use crate::version::Version;

/// A message of the replication protocol: the payload of one frame, in postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// How far the sender's copies reach.
    #[serde(borrow)]
    Digest(Digest<'a>),
    /// A request for rows.
    Want(Want),
    /// Rows.
    #[serde(borrow)]
    Delta(Delta<'a>),
    /// A request for a digest of everything.
    Probe {
        /// The answer repeats it in [`Digest::answers`].
        nonce: u64,
    },
    /// The last message of a node that leaves on purpose. It sets its gauges to zero before.
    Goodbye,
    /// The sender's state of a cache, taken at one moment. Only in protocol version 1: later builds ignore it.
    Seen(Seen),
    /// Asks the receiver to send no more of an actor's rows, because another node sends them.
    Prune(Prune),
    /// What the sender has of a cache.
    CacheReport(CacheReport),
    /// Entries of a cache.
    #[serde(borrow)]
    CacheEntries(CacheEntries<'a>),
    /// Asks the receiver which keys it holds where its copy of a cache differs from the sender's.
    CacheCompare(CacheCompare),
    /// The answer: keys that the sender holds.
    #[serde(borrow)]
    CacheKeys(CacheKeys<'a>),
}

/// A node's state of a cache, all of it at one moment, as builds of protocol version 1 send it: their caches are rows. Later builds
/// ignore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The structure.
    pub structure: StructureId,
    /// Every actor of which the sender holds rows, its own run included.
    pub entries: Vec<SeenEntry>,
}

/// How far a node's copy of one actor's rows reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenEntry {
    /// The owner of the rows.
    pub actor: Actor,
    /// The sender has applied the rows up to this version, except rows that changed again in between.
    pub applied: Version,
    /// Complete up to: at one moment the sender held everything of the actor up to this version.
    pub complete: Version,
    /// Sum of the hashes of the live rows.
    pub fingerprint: u64,
}

/// How far a node's copies reach, actor by actor. A digest contains the changes since the last one on the link, or everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest<'a> {
    /// The sender's current run. Its own rows belong to this actor.
    pub incarnation: Incarnation,
    /// The sender's clock, which numbers the windows of series, in milliseconds since 1970.
    pub clock_ms: UnixMs,
    /// The nonce of the probe that this digest answers; 0 if it answers none.
    pub answers: u64,
    /// Whether this is the last message of a digest that contains everything.
    pub complete: bool,
    /// The structures with their actors.
    #[serde(borrow)]
    pub structures: Vec<StructureDigest<'a>>,
    /// Tombstones of forgotten actors; only in digests that contain everything, and when there is a new one.
    pub tombstones: Vec<Tombstone>,
}

/// A structure's part of a digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructureDigest<'a> {
    /// The structure.
    pub structure: StructureId,
    /// Its name.
    pub name: &'a str,
    /// The kind of the structure, as the sender has it.
    pub kind: Kind,
    /// Actors, and how far the sender's copy of each reaches.
    pub entries: Vec<DigestEntry>,
}

/// How far a node's copy of one actor's rows reaches. In the owner's own digest this states the head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DigestEntry {
    /// The owner of the rows.
    pub actor: Actor,
    /// The sender knows the rows after this version (exclusive); 0 means all of them.
    pub since: Version,
    /// The sender has applied the rows up to this version (inclusive).
    pub applied: Version,
    /// Low-water mark: vacant rows up to this version were purged. A peer below it needs a snapshot.
    pub low_water: Version,
    /// Sum of the hashes of the live rows, see the engine's `fingerprint`.
    pub fingerprint: u64,
    /// How long ago, in milliseconds, this was known to be the owner's head; `None` when it never was.
    pub age_ms: Option<u64>,
}

/// Asks the receiver to send rows of `actor` above `after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Want {
    /// The structure.
    pub structure: StructureId,
    /// The owner of the rows.
    pub actor: Actor,
    /// The sender knows the rows after this version.
    pub since: Version,
    /// The sender has applied the rows up to this version.
    pub after: Version,
    /// Whether to start again with a snapshot: the sender's rows do not match, or its incomplete snapshot continues from
    /// `after`.
    pub snapshot: bool,
}

/// Asks the receiver to send no more rows of `actor` until the sender requests them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prune {
    /// The structure.
    pub structure: StructureId,
    /// The owner of the rows.
    pub actor: Actor,
}

/// Every row of an actor whose version lies in `(after, upto]`, except rows that changed again since then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta<'a> {
    /// The structure.
    pub structure: StructureId,
    /// The owner of the rows.
    pub actor: Actor,
    /// The delta omits the keys of rows that were created above this version
    pub since: Version,
    /// and up to this one, because the sender assumes that the receiver knows them.
    pub keys_complete: Version,
    /// The rows are above this version.
    pub after: Version,
    /// And up to this one.
    pub upto: Version,
    /// The owner's low-water mark.
    pub low_water: Version,
    /// The rows belong to a snapshot that replaces the receiver's copy when it is complete.
    pub snapshot: bool,
    /// The fingerprint of the sender's rows, where `upto` is everything that the sender has.
    pub fingerprint: Option<u64>,
    /// The rows, see [`rows`](crate::rows).
    #[serde(with = "borrowed_bytes")]
    pub rows: &'a [u8],
}

/// Forgotten runs of a node. An operator forgot them, or a later run has stated their counts again. The runs from `from` to
/// `incarnation` count no more, and nodes do not accept them again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The node.
    pub node: NodeName,
    /// The first forgotten run; 0 means all runs up to the last.
    pub from: Incarnation,
    /// The last forgotten run.
    pub incarnation: Incarnation,
    /// When the tombstone itself may be removed, in milliseconds since 1970.
    pub until_ms: UnixMs,
}

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes are not a message.
    #[error("not a message of protocol version {version}: {0}", version = bounds::PROTOCOL_VERSION)]
    Malformed(postcard::Error),
    /// Bytes remain after the message.
    #[error("{0} bytes left over behind the message")]
    Trailing(usize),
    /// A number is over its bound.
    #[error("{what} is {value}; at most {max} is allowed")]
    Bound {
        /// The number.
        what: &'static str,
        /// Its value.
        value: u64,
        /// Its bound.
        max: u64,
    },
}

fn bound(what: &'static str, value: u64, max: u64) -> Result<(), MessageError> {
    if value > max { Err(MessageError::Bound { what, value, max }) } else { Ok(()) }
}

impl<'a> Message<'a> {
    /// Reads one message and checks every bound that needs no knowledge of rows.
    ///
    /// # Errors
    /// [`MessageError`] for anything that is not exactly one message within the bounds of [`bounds`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MessageError> {
        bound("frame", bytes.len() as u64, bounds::FRAME_BYTES as u64)?;
        let (message, rest): (Self, _) = postcard::take_from_bytes(bytes).map_err(MessageError::Malformed)?;
        if !rest.is_empty() {
            return Err(MessageError::Trailing(rest.len()));
        }
        message.check()?;
        Ok(message)
    }

    /// Appends the message to `buf`.
    ///
    /// # Errors
    /// [`MessageError::Bound`] when it is larger than a frame may be; `buf` is then unchanged.
    pub fn encode(&self, buf: &mut Vec<u8>) -> Result<(), MessageError> {
        debug_assert_eq!(self.check(), Ok(()), "we keep the bounds that we ask of others");
        let start = buf.len();
        // Serialising into a vector cannot fail: these types have known lengths.
        *buf = postcard::to_extend(self, std::mem::take(buf)).map_err(MessageError::Malformed)?;
        let len = buf.len() - start;
        if len > bounds::FRAME_BYTES {
            buf.truncate(start);
        }
        bound("frame", len as u64, bounds::FRAME_BYTES as u64)
    }

    fn check(&self) -> Result<(), MessageError> {
        match self {
            Self::Digest(digest) => digest.check(),
            Self::Want(want) => {
                check_actor(&want.actor)?;
                check_span(want.since, want.after)
            }
            Self::Delta(delta) => {
                check_actor(&delta.actor)?;
                check_span(delta.since, delta.keys_complete)?;
                check_span(delta.keys_complete, delta.after)?;
                check_span(delta.after, delta.upto)?;
                bound("low_water", delta.low_water.0, delta.upto.max(delta.low_water).min(bounds::VERSION).0)?;
                bound("rows", delta.rows.len() as u64, bounds::FRAME_BYTES as u64)
            }
            Self::Prune(prune) => check_actor(&prune.actor),
            Self::Seen(seen) => {
                bound("seen entries", seen.entries.len() as u64, bounds::SEEN_ENTRIES as u64)?;
                seen.entries.iter().try_for_each(|entry| {
                    check_actor(&entry.actor)?;
                    check_span(entry.complete, entry.applied)
                })
            }
            Self::CacheReport(report) => {
                bound("incarnation", report.incarnation.0, bounds::INCARNATION)?;
                check_context(&report.seen)?;
                bound("endings", report.endings.len() as u64, bounds::NODES as u64)?;
                report.endings.iter().try_for_each(CacheEnding::check)?;
                bound("time", report.after_ms.0, bounds::UNIX_MS)
            }
            Self::CacheEntries(entries) => entries.check(),
            Self::CacheCompare(compare) => {
                bound("sums", compare.sums.len() as u64, bounds::CACHE_PARTS as u64)?;
                bound("time", compare.after_ms.0, bounds::UNIX_MS)
            }
            Self::CacheKeys(keys) => {
                let parts = keys.parts.as_deref().unwrap_or_default();
                bound("parts", parts.len() as u64, bounds::CACHE_PARTS as u64)?;
                keys.seen.as_ref().map_or(Ok(()), check_context)?;
                bound("hashes", keys.hashes.len() as u64, bounds::FRAME_BYTES as u64)
            }
            Self::Probe { .. } | Self::Goodbye => Ok(()),
        }
    }
}

impl CacheEnding {
    fn check(&self) -> Result<(), MessageError> {
        bound("incarnation", self.first.0, bounds::INCARNATION)?;
        bound("runs", self.last.len() as u64, bounds::ACTORS as u64)?;
        self.last.iter().try_for_each(|(run, number)| {
            bound("incarnation", run.0, self.first.0)?;
            bound("number of a write", *number, bounds::CACHE_WRITES)
        })
    }
}

impl CacheEntries<'_> {
    fn check(&self) -> Result<(), MessageError> {
        bound("runs", self.runs.len() as u64, bounds::ACTORS as u64)?;
        self.runs.iter().try_for_each(check_actor)?;
        let Some(mark) = &self.mark else { return Ok(()) };
        bound("runs", mark.runs.len() as u64, bounds::ACTORS as u64)?;
        for run in &mark.runs {
            check_actor(&run.run)?;
            bound("number of a write", run.upto, bounds::CACHE_WRITES)?;
            bound("number of an earlier write", run.after, run.upto)?;
        }
        check_ended(&mark.ended)?;
        check_context(&mark.collected)
    }
}

fn check_context(context: &CacheContext) -> Result<(), MessageError> {
    bound("runs", context.runs.len() as u64, bounds::ACTORS as u64)?;
    for (run, number) in &context.runs {
        check_actor(run)?;
        bound("number of a write", *number, bounds::CACHE_WRITES)?;
    }
    check_ended(&context.ended)
}

fn check_ended(ended: &[(NodeName, Incarnation)]) -> Result<(), MessageError> {
    bound("nodes", ended.len() as u64, bounds::NODES as u64)?;
    ended.iter().try_for_each(|(_, run)| bound("incarnation", run.0, bounds::INCARNATION))
}

impl Digest<'_> {
    fn check(&self) -> Result<(), MessageError> {
        bound("incarnation", self.incarnation.0, bounds::INCARNATION)?;
        bound("structures", self.structures.len() as u64, bounds::DIGEST_ENTRIES as u64)?;
        bound("tombstones", self.tombstones.len() as u64, bounds::TOMBSTONES as u64)?;
        let entries: usize = self.structures.iter().map(|s| s.entries.len()).sum();
        bound("digest entries", entries as u64, bounds::DIGEST_ENTRIES as u64)?;
        for structure in &self.structures {
            bound("structure name", structure.name.len() as u64, bounds::STRUCTURE_NAME_BYTES as u64)?;
            for entry in &structure.entries {
                check_actor(&entry.actor)?;
                check_span(entry.since, entry.applied)?;
                bound("low_water", entry.low_water.0, bounds::VERSION.0)?;
            }
        }
        self.tombstones.iter().try_for_each(|t| {
            bound("incarnation", t.incarnation.0, bounds::INCARNATION)?;
            bound("first forgotten run", t.from.0, t.incarnation.0)
        })
    }
}

fn check_actor(actor: &Actor) -> Result<(), MessageError> {
    bound("incarnation", actor.incarnation.0, bounds::INCARNATION)
}

/// Checks that the versions of an interval rise.
fn check_span(from: Version, to: Version) -> Result<(), MessageError> {
    bound("version", to.0, bounds::VERSION.0)?;
    bound("interval start", from.0, to.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn actor() -> Actor {
        Actor::new(NodeName::new("relay-0-1").unwrap(), Incarnation(7))
    }

    fn delta(rows: &[u8]) -> Message<'_> {
        Message::Delta(Delta {
            structure: StructureId(1),
            actor: actor(),
            since: Version::ZERO,
            keys_complete: Version(2),
            after: Version(3),
            upto: Version(9),
            low_water: Version(2),
            snapshot: false,
            fingerprint: Some(5),
            rows,
        })
    }

    #[test]
    fn a_message_comes_back() {
        let mut buf = Vec::new();
        delta(b"rows").encode(&mut buf).unwrap();
        assert_eq!(Message::decode(&buf).unwrap(), delta(b"rows"));
        buf.push(0);
        assert_eq!(Message::decode(&buf), Err(MessageError::Trailing(1)));
    }

    #[test]
    fn a_backward_interval_is_refused() {
        let want =
            Want { structure: StructureId(1), actor: actor(), since: Version(5), after: Version(4), snapshot: false };
        let bytes = postcard::to_stdvec(&Message::Want(want)).unwrap();
        assert!(matches!(Message::decode(&bytes), Err(MessageError::Bound { what: "interval start", .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn damaged_messages_are_read_or_refused(at: prop::sample::Index, byte: u8) {
            let mut buf = Vec::new();
            delta(b"0123456789").encode(&mut buf).unwrap();
            let at = at.index(buf.len());
            buf[at] = byte;
            let _ = Message::decode(&buf);
        }
    }
}
