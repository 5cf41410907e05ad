//! A peer's entry about a run of another node, beside this node's copy of that run. Nothing here changes state.

use tallymesh_schemas::Version;
use tallymesh_schemas::message::DigestEntry;

use crate::counter::join::owners_fingerprint_is_compared;
use crate::counter::sync::Progress;
use crate::replica::stream::StreamId;

/// A peer's entry about a run, and this node's copy of it.
#[derive(Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) part: StreamId,
    pub(crate) entry: &'a DigestEntry,
    /// This node's copy.
    pub(crate) progress: Progress,
    /// The peer is the owner, and is in this run.
    pub(crate) from_owner: bool,
    /// The owner is in this run and has a link to this node.
    pub(crate) owner_linked: bool,
    /// The owner sends no more rows: the run has ended, or its node is dead or has left.
    pub(crate) ended: bool,
}

/// This node's copy in relation to the peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// It is behind. The peer's copy begins after the version that this node has reached, and other peers can help.
    OutOfReach,
    /// It is behind, and the peer has the missing rows.
    Behind,
    /// It is behind. The peer does not have the missing rows now, and fetches them when this node asks.
    BehindBoth,
    /// It is not behind.
    Level,
}

impl Comparison<'_> {
    /// This node's copy in relation to the peer's.
    pub(crate) fn position(&self) -> Position {
        let Self { entry, progress, .. } = self;
        if entry.applied <= progress.applied {
            return Position::Level;
        }
        let follows = progress.applied == progress.since || entry.low_water <= progress.applied.max(progress.low_water);
        let helps = entry.since <= if follows { progress.applied } else { progress.since };
        match helps {
            true => Position::Behind,
            false if self.owner_linked || self.ended => Position::OutOfReach,
            false => Position::BehindBoth,
        }
    }

    /// Whether both copies have the same version and the same rows.
    pub(crate) fn is_same(&self) -> bool {
        (self.entry.applied, self.entry.fingerprint) == (self.progress.applied, self.progress.fingerprint)
    }

    /// Whether both copies are whole and have the same version, so that they should have the same rows.
    fn is_whole(&self) -> bool {
        self.entry.applied == self.progress.applied
            && self.entry.since == Version::ZERO
            && self.progress.since == Version::ZERO
    }

    /// Whether the owner states the fingerprint of this node's version.
    pub(crate) fn is_stated_by_owner(&self) -> bool {
        self.from_owner && self.is_whole() && owners_fingerprint_is_compared()
    }

    /// Whether the copies differ at the same version, and there is no link to the owner that would show which one is right.
    pub(crate) fn differs_without_owner(&self) -> bool {
        !self.owner_linked && self.is_whole() && !self.is_same()
    }
}
