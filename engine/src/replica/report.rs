//! A replica's reports about itself: errors, events for the operator, and counters.

use std::fmt;
use std::time::Duration;

use tallymesh_schemas::message::MessageError;
use tallymesh_schemas::{Actor, Incarnation, NodeName, SeriesName, StructureName, bounds};

use crate::counter::join::ApplyError;
use crate::replica::persist::error::RestoreError;
use crate::replica::runs::life::Life;

/// Why a structure was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StructureError {
    /// The name is in use.
    #[error("there is a structure \"{0}\" already: give each its own name")]
    Duplicate(StructureName),
    /// Two names have the same id.
    #[error("the names \"{0}\" and \"{1}\" have the same id on the wire: rename one of them")]
    Collision(StructureName, StructureName),
    /// A series with this name and interval exists.
    #[error("there is a series \"{0}\" of {1} seconds already: give each its own name or interval")]
    DuplicateSeries(SeriesName, u32),
    /// There are too many windows.
    #[error("a node keeps at most {max} windows of all its series together: keep fewer of each", max = bounds::WINDOWS)]
    TooManyWindows,
    /// The structure is a cache.
    #[error("\"{0}\" is a cache: replicate it as a cache")]
    Cache(StructureName),
    /// There are too many structures.
    #[error("a node replicates at most {max} structures", max = bounds::STRUCTURES)]
    TooMany,
}

/// Why this node refused a peer's message. Rows before the fault may have been applied; each of them is a valid state by
/// itself. The caller should close the link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Not a message, or it exceeds a bound.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A delta that no node of this protocol sends.
    #[error("delta of {actor}: {error}")]
    Delta {
        /// The actor whose rows it claims to hold.
        actor: Actor,
        /// The fault.
        error: ApplyError,
    },
    /// Entries of a cache that no node of this protocol sends.
    #[error("entries of a cache: {0}")]
    Entries(tallymesh_schemas::rows::RowsError),
    /// A message on a link that is not up.
    #[error("no link to {0}")]
    NoLink(NodeName),
}

/// An event that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Another process wrote, or writes, under this node's name. This node renews as a new run (I1).
    Conflict {
        /// The run before.
        was: Actor,
        /// The run now.
        now: Actor,
        /// The peer that reported it.
        peer: NodeName,
    },
    /// Peers report again that another process runs under this node's name. This node renews as a new run when the pause is
    /// over. Until then the peers do not count its rows. Reported once a minute at most.
    ConflictWaits {
        /// The run that they report.
        by: Incarnation,
        /// The peer that reported it.
        peer: NodeName,
        /// The rest of the pause.
        pause: Duration,
    },
    /// A peer reports a run of this node's name that no node can have begun. This node does not believe it. Reported once a
    /// minute at most.
    ClaimRefused {
        /// That run.
        by: Incarnation,
        /// The peer that reported it.
        peer: NodeName,
    },
    /// This node had to renew as a new run, and there is none left. Reported once.
    LastRun,
    /// This node's copy of an actor's rows diverged from its owner's. A snapshot is on its way.
    Diverged {
        /// The structure.
        structure: StructureName,
        /// The actor that owns the rows.
        actor: Actor,
    },
    /// A snapshot has replaced this node's copy of an actor's rows.
    Replaced {
        /// The structure.
        structure: StructureName,
        /// The actor that owns the rows.
        actor: Actor,
    },
    /// A peer sent rows that it may not send. This node ignored them.
    Unasked {
        /// The peer.
        peer: NodeName,
        /// The actor that owns the rows.
        actor: Actor,
    },
    /// A peer has another kind for a structure. The two nodes do not exchange it.
    KindMismatch {
        /// The peer.
        peer: NodeName,
        /// The structure.
        structure: StructureName,
        /// The structure on this node.
        here: String,
        /// The structure on the peer.
        there: String,
    },
    /// This node's wall clock made a step of more than a minute: it was set, or the machine was suspended.
    ClockStepped {
        /// The size of the step.
        by: Duration,
        /// Whether the clock went ahead.
        ahead: bool,
    },
    /// A peer's clock differs from this node's clock by more than [`Replica::clock_bound`](crate::replica::Replica::clock_bound) allows.
    ClockOff {
        /// The peer.
        peer: NodeName,
        /// The clock offset.
        by: Duration,
        /// Whether the peer's clock is ahead of this node's clock.
        ahead: bool,
    },
    /// A peer's clock that was off is within the bound again.
    ClockRight {
        /// The peer.
        peer: NodeName,
    },
    /// A peer sent cache writes whose stamps are too far ahead of this node's clock. One of the two clocks is wrong. This node
    /// accepts the writes when its clock has reached their stamps, or when their owner writes them again.
    Ahead {
        /// The peer.
        peer: NodeName,
        /// The structure.
        structure: StructureName,
        /// The actor that wrote them.
        actor: Actor,
        /// How far they are ahead.
        by: Duration,
    },
    /// A node has taken gauges below zero: a caller removed more than was added. Limits count them as zero.
    BelowZero {
        /// The structure.
        structure: StructureName,
        /// The actor that owns the gauges.
        actor: Actor,
        /// How many times within a second.
        times: u64,
    },
    /// This node refused additions, because a total was at its bound.
    TotalFull {
        /// The structure.
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
        /// Its new state.
        life: Life,
    },
    /// A newer run of a node has superseded an older one.
    Superseded {
        /// The older run.
        actor: Actor,
    },
    /// A node was forgotten, by an operator of this node or of another one.
    Forgotten {
        /// The node.
        node: NodeName,
    },
    /// Saved rows that had to wait cannot be restored.
    NotRestored(RestoreError),
    /// Events that were only counted, because the first of them was reported before.
    Repeated {
        /// The node that caused them; `None` for those beyond the number of nodes and kinds that are listed separately.
        node: Option<NodeName>,
        /// Their kind.
        kind: Option<EventKind>,
        /// The structure.
        structure: Option<StructureName>,
        /// How many.
        times: u64,
        /// The time span in which they happened.
        within: Duration,
    },
}

/// Kinds of events that a node can cause repeatedly.
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
    /// The text of the kind in logs.
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
    /// The node that causes the event, and its kind; `None` for an event that is always reported, because this node itself
    /// limits how often it happens.
    pub(crate) fn cause(&self) -> Option<(&NodeName, EventKind)> {
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

    /// The structure of the event.
    pub(crate) fn structure(&self) -> Option<&StructureName> {
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

/// Counters of a replica's work so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counters {
    /// Deltas sent.
    pub deltas_out: u64,
    /// Deltas applied.
    pub deltas_in: u64,
    /// Bytes of rows sent.
    pub row_bytes_out: u64,
    /// Bytes of rows applied.
    pub row_bytes_in: u64,
    /// Deltas with a gap: they began after the applied version.
    pub gaps: u64,
    /// Requests for rows sent.
    pub wants_out: u64,
    /// Grafts sent: requests for future rows, where no rows were missing.
    pub grafts_out: u64,
    /// Digests sent.
    pub digests_out: u64,
    /// Divergences found.
    pub divergences: u64,
    /// Snapshots that replaced a copy.
    pub replaced: u64,
    /// Identity conflicts.
    pub conflicts: u64,
    /// Claims of another process under this node's name that came during the pause after a change of the run.
    pub claims_delayed: u64,
    /// Claims of another process under this node's name that this node did not believe.
    pub claims_refused: u64,
    /// Messages refused.
    pub refused: u64,
    /// Deltas that this node had not asked for.
    pub unasked: u64,
    /// Deltas of caches that were written too far ahead of this node's clock.
    pub ahead: u64,
    /// How often a node has taken a gauge below zero.
    pub below_zero: u64,
    /// Additions that this node refused because a total was at its bound.
    pub totals_full: u64,
    /// Changes that this node refused because their keys do not fit within a budget.
    pub keys_refused: u64,
    /// Deltas of other nodes that this node refused because their keys do not fit within a budget.
    pub deltas_without_room: u64,
    /// Steps of more than a minute of this node's wall clock.
    pub clock_steps: u64,
    /// Digests from peers whose clocks were off by more than the bound, not counting the first digest of each such period.
    pub clocks_off: u64,
    /// Flushes: how often changes of a structure were released to be sent.
    pub flushes: u64,
}
