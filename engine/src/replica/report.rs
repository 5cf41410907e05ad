//! What a replica says of itself: why it refuses something, what an operator may want to know, what it has done.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

use std::fmt;
use std::time::Duration;

use tallymesh_schemas::message::MessageError;
use tallymesh_schemas::{Actor, Incarnation, NodeName, SeriesName, StructureName, limits};

use super::{Life, RestoreError};
use crate::ledger::ApplyError;

/// Why a structure was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// The name is taken.
    #[error("there is a structure \"{0}\" already: give each its own name")]
    Duplicate(StructureName),
    /// Two names have one id.
    #[error("the names \"{0}\" and \"{1}\" have the same id on the wire: rename one of them")]
    Collision(StructureName, StructureName),
    /// There is such a series.
    #[error("there is a series \"{0}\" of {1} seconds already: give each its own name or interval")]
    DuplicateSeries(SeriesName, u32),
    /// Too many windows.
    #[error("a node keeps at most {max} windows of all its series together: keep fewer of each", max = limits::WINDOWS)]
    TooManyWindows,
    /// Too many.
    #[error("a node replicates at most {max} structures", max = limits::STRUCTURES)]
    TooMany,
}

/// Why a peer's message was refused. Its rows up to the fault may have been joined, each a state that is sound by itself;
/// the link should be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a message, or beyond a bound.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A delta that no node of this protocol sends.
    #[error("delta of {actor}: {error}")]
    Delta {
        /// Whose rows it claims to have.
        actor: Actor,
        /// What is wrong with it.
        error: ApplyError,
    },
    /// A message on a link that is not up.
    #[error("no link to {0}")]
    NoLink(NodeName),
}

/// Something that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody else wrote, or writes, under our name; we go on as a new run (I1).
    Conflict {
        /// The run that we were in.
        was: Actor,
        /// The run that we are in now.
        now: Actor,
        /// Who told us.
        peer: NodeName,
    },
    /// Others say again that somebody else runs under our name. We go on as a new run when the pause is over, and until then
    /// the others do not count us. Reported once a minute at most.
    ConflictWaits {
        /// The run that they name.
        by: Incarnation,
        /// Who told us.
        peer: NodeName,
        /// The rest of the pause.
        pause: Duration,
    },
    /// Somebody says that a run of our name exists which no node can have begun; we do not believe it. Reported once a minute
    /// at most.
    ClaimRefused {
        /// That run.
        by: Incarnation,
        /// Who told us.
        peer: NodeName,
    },
    /// We had to go on as a new run, and there is none left. Reported once.
    LastRun,
    /// Our copy of an actor's rows was not what its owner has; a snapshot is on its way.
    Diverged {
        /// Where.
        structure: StructureName,
        /// Whose rows.
        actor: Actor,
    },
    /// A snapshot has replaced what we had of an actor.
    Replaced {
        /// Where.
        structure: StructureName,
        /// Whose rows.
        actor: Actor,
    },
    /// A peer sent rows that it had no business to send; they were ignored.
    Unasked {
        /// The peer.
        peer: NodeName,
        /// Whose rows.
        actor: Actor,
    },
    /// A peer takes a structure for another kind than we do; it is not exchanged with it.
    KindMismatch {
        /// The peer.
        peer: NodeName,
        /// Which.
        structure: StructureName,
        /// What it is here.
        here: String,
        /// What it is there.
        there: String,
    },
    /// This node's wall clock has made a step of more than a minute: it was set, or the machine was suspended.
    ClockStepped {
        /// By how much.
        by: Duration,
        /// Whether it went ahead.
        ahead: bool,
    },
    /// A peer's clock is further off ours than [`Replica::clock_bound`](super::Replica::clock_bound) allows.
    ClockOff {
        /// The peer.
        peer: NodeName,
        /// By how much.
        by: Duration,
        /// Whether it is ahead of ours.
        ahead: bool,
    },
    /// A peer's clock that was off is within the bound again.
    ClockRight {
        /// The peer.
        peer: NodeName,
    },
    /// A peer sent writes of a cache whose stamps are too far ahead of our clock. They are not taken until our clock has come
    /// up to them, or they are written anew: one of the two clocks is wrong.
    Ahead {
        /// The peer.
        peer: NodeName,
        /// Where.
        structure: StructureName,
        /// Who wrote them.
        actor: Actor,
        /// By how much.
        by: Duration,
    },
    /// A node has taken gauges below zero: somebody takes back what was never added. For limits they count as zero.
    BelowZero {
        /// Where.
        structure: StructureName,
        /// Whose gauges.
        actor: Actor,
        /// How many times within a second.
        times: u64,
    },
    /// Additions on this node were refused, because a total was at its bound.
    TotalFull {
        /// Where.
        structure: StructureName,
        /// This run.
        actor: Actor,
        /// How many within a second.
        times: u64,
    },
    /// A node's life changed.
    Life {
        /// The node.
        node: NodeName,
        /// What it is now.
        life: Life,
    },
    /// A newer run of a node has taken the place of an older one.
    Superseded {
        /// The older run.
        actor: Actor,
    },
    /// A node was forgotten, here or elsewhere.
    Forgotten {
        /// The node.
        node: NodeName,
    },
    /// What had been saved and had to wait cannot be taken back.
    NotRestored(RestoreError),
    /// Events that were only counted, because a first one of them was reported before.
    Repeated {
        /// Who caused them; `None` for those of more nodes and kinds than are told apart.
        node: Option<NodeName>,
        /// What they were.
        kind: Option<EventKind>,
        /// Where.
        structure: Option<StructureName>,
        /// How many.
        times: u64,
        /// The time in which they happened.
        within: Duration,
    },
}

/// Kinds of events that a node can cause over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// [`Event::Diverged`].
    Diverged,
    /// [`Event::Replaced`].
    Replaced,
    /// [`Event::Unasked`].
    Unasked,
    /// [`Event::KindMismatch`].
    KindMismatch,
    /// [`Event::ClockOff`].
    ClockOff,
    /// [`Event::ClockRight`].
    ClockRight,
    /// [`Event::Ahead`].
    Ahead,
    /// [`Event::BelowZero`].
    BelowZero,
    /// [`Event::TotalFull`].
    TotalFull,
    /// [`Event::Life`].
    Life,
    /// [`Event::Superseded`].
    Superseded,
    /// [`Event::Forgotten`].
    Forgotten,
}

impl EventKind {
    /// What happened, as logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Diverged => "rows differ from their owner's",
            Self::Replaced => "a snapshot was taken",
            Self::Unasked => "a peer sent rows that this node did not ask for",
            Self::KindMismatch => "a peer has another kind for a structure",
            Self::ClockOff => "a peer's clock is off",
            Self::ClockRight => "a peer's clock is right again",
            Self::Ahead => "a peer sent writes that are ahead of this node's clock",
            Self::BelowZero => "a node took gauges below zero",
            Self::TotalFull => "additions were refused because a total was at its bound",
            Self::Life => "a node's life changed",
            Self::Superseded => "a run was superseded or forgotten",
            Self::Forgotten => "a node was forgotten",
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Event {
    /// The node that causes it and its kind; `None` for an event that is always reported, because this node itself limits
    /// how often it happens.
    pub(super) fn cause(&self) -> Option<(&NodeName, EventKind)> {
        match self {
            Self::Diverged { actor, .. } => Some((&actor.node, EventKind::Diverged)),
            Self::Replaced { actor, .. } => Some((&actor.node, EventKind::Replaced)),
            Self::Unasked { peer, .. } => Some((peer, EventKind::Unasked)),
            Self::KindMismatch { peer, .. } => Some((peer, EventKind::KindMismatch)),
            Self::ClockOff { peer, .. } => Some((peer, EventKind::ClockOff)),
            Self::ClockRight { peer } => Some((peer, EventKind::ClockRight)),
            Self::Ahead { peer, .. } => Some((peer, EventKind::Ahead)),
            Self::BelowZero { actor, .. } => Some((&actor.node, EventKind::BelowZero)),
            Self::TotalFull { actor, .. } => Some((&actor.node, EventKind::TotalFull)),
            Self::Life { node, .. } => Some((node, EventKind::Life)),
            Self::Superseded { actor } => Some((&actor.node, EventKind::Superseded)),
            Self::Forgotten { node } => Some((node, EventKind::Forgotten)),
            Self::Conflict { .. }
            | Self::ClockStepped { .. }
            | Self::ConflictWaits { .. }
            | Self::ClaimRefused { .. }
            | Self::LastRun
            | Self::NotRestored(_)
            | Self::Repeated { .. } => None,
        }
    }

    /// Where it happened.
    pub(super) fn structure(&self) -> Option<&StructureName> {
        match self {
            Self::Diverged { structure, .. }
            | Self::Replaced { structure, .. }
            | Self::KindMismatch { structure, .. }
            | Self::Ahead { structure, .. }
            | Self::BelowZero { structure, .. }
            | Self::TotalFull { structure, .. } => Some(structure),
            _ => None,
        }
    }
}

/// What a replica has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Deltas that were sent.
    pub deltas_out: u64,
    /// Deltas that were taken in.
    pub deltas_in: u64,
    /// Bytes of rows that were sent.
    pub row_bytes_out: u64,
    /// Bytes of rows that were taken in.
    pub row_bytes_in: u64,
    /// Deltas that did not follow on what we have.
    pub gaps: u64,
    /// Requests for rows that were sent.
    pub wants_out: u64,
    /// Requests for rows to come that were sent, where none were missing.
    pub grafts_out: u64,
    /// Digests that were sent.
    pub digests_out: u64,
    /// Divergences found.
    pub divergences: u64,
    /// Snapshots that replaced what we had.
    pub replaced: u64,
    /// Identity conflicts.
    pub conflicts: u64,
    /// Claims that our name is another process's that came during the pause behind a change of the run.
    pub claims_delayed: u64,
    /// Claims that our name is another process's that were not believed.
    pub claims_refused: u64,
    /// Messages that were refused.
    pub refused: u64,
    /// Deltas that nobody had asked for.
    pub unasked: u64,
    /// Deltas of caches that were written too far ahead of our clock.
    pub ahead: u64,
    /// How often a node has taken a gauge below zero.
    pub below_zero: u64,
    /// Additions on this node that were refused because a total was at its bound.
    pub totals_full: u64,
    /// Steps of more than a minute that this node's wall clock has made.
    pub clock_steps: u64,
    /// Digests of peers whose clocks were off by more than the bound, the first of each such time not included.
    pub clocks_off: u64,
}
