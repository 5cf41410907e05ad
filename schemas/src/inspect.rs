//! Replicated state as a node holds it, for people who ask why it says what it says: actors, rows, links, logs and entries.
//!
//! The engine makes these views of a running node and of a simulated one, and `tally` makes them of a saved state. They travel in
//! the answers of the [admin protocol](crate::admin). No view is larger than a frame: long lists come in pages.

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::bounds;
use crate::structure::OnDead;
use crate::version::Version;

/// The most actors in one page.
pub const ACTORS_PAGE: usize = 128;

/// The most rows in one page. A key with more rows than this is a page of its own.
pub const ROWS_PAGE: usize = 512;

/// The most changes in one page of a log.
pub const LOG_PAGE: usize = 512;

/// The most streams of a link in one page.
pub const STREAMS_PAGE: usize = 128;

/// The most resets that a view of a key names.
pub const RESETS: usize = 256;

/// The state of a run, as the inspected node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RunState {
    /// The inspected node is in this run.
    Own,
    /// The node is in this run and answers probes.
    Alive,
    /// The node is in this run and has not answered lately.
    Suspect,
    /// The node is in this run and was declared dead, or was never seen alive.
    Dead,
    /// The node is in this run and has said goodbye.
    Left,
    /// The node is in a later run.
    Ended,
    /// The inspected node knows nothing of the node.
    Unknown,
    /// The node is in this run, and a saved state does not say whether it lives.
    Saved,
}

impl RunState {
    /// Its word in programs' output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
            Self::Saved => "saved",
        }
    }
}

/// The state of a run, and for how long its node has been in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state.
    pub state: RunState,
    /// For how long, in milliseconds; `None` when that is not known.
    pub for_ms: Option<u64>,
}

impl Standing {
    /// A state of which the inspected node does not know how long it has lasted.
    pub fn of(state: RunState) -> Self {
        Self { state, for_ms: None }
    }
}

/// Names what to inspect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectRef {
    /// The object or the series: its name, or a prefix of the name that nothing else has.
    pub name: String,
    /// Whether it is a series of the audit.
    pub audit: bool,
    /// Of a series: the seconds of a window, needed where several series of that name have different intervals.
    pub interval: Option<u32>,
    /// Of a series: the age of the window, 0 for the current one.
    pub window: u32,
}

/// Which view of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// The actors.
    Actors,
    /// The rows, or the entry, of one key, and the limits of which the key is a part.
    Key(String),
    /// The rows, or the entries, of all keys behind a key, in order of key.
    Keys(Option<String>),
    /// The links.
    Links,
    /// The log behind a version: of a node's rows, by default the asked node's. A cache has one log for all.
    Log {
        /// The node.
        of: Option<NodeName>,
        /// The version; of a cache a position.
        after: Version,
    },
}

/// What is inspected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The object, or the series.
    pub object: String,
    /// The class of the object, or of the windows of the series.
    pub class: String,
    /// The run whose copy is inspected.
    pub viewer: Actor,
    /// Of a series: the age of the window and its number.
    pub window: Option<(u32, u64)>,
    /// What happens to the rows of a dead node; `None` for what stays when its run ends: events and entries.
    pub on_dead: Option<OnDead>,
    /// Keys that the node holds.
    pub keys: u64,
    /// Of a cache: the sum of the hashes of the live entries.
    pub fingerprint: Option<u64>,
    /// Whether it is a cache: its actors number writes instead of changes of rows.
    pub is_cache: bool,
}

/// What a node holds of one actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorView {
    /// The actor.
    pub actor: Actor,
    /// Whether its rows count in the views.
    pub counts: bool,
    /// The state of the run.
    pub standing: Standing,
    /// The copy begins at this version (exclusive). Of a cache: the writes up to this one were skipped.
    pub since: Version,
    /// The applied version. Of a cache: the number of the last write that was taken in.
    pub applied: Version,
    /// The low-water mark. Of a cache: removals up to this write were collected.
    pub low_water: Version,
    /// Live rows. Of a cache: entries whose last write is one of this run.
    pub rows: u64,
    /// The sum of the hashes of the live rows; `None` for a cache, where only all entries together have one.
    pub fingerprint: Option<u64>,
    /// The head that the owner last stated over a link.
    pub head: Option<Version>,
    /// How long ago the copy was last confirmed as current, in milliseconds; `None` when it never was.
    pub heard_ms: Option<u64>,
    /// Whether everything that the owner had at one moment is here.
    pub complete: bool,
    /// Whether a snapshot is being received that will replace the rows.
    pub replacing: bool,
    /// What the linked peers have reported of their copies.
    pub peers: Vec<PeerPosition>,
}

/// How far a peer's copy of an actor's rows reaches, as the peer has reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPosition {
    /// The peer.
    pub peer: NodeName,
    /// As in [`ActorView`].
    pub since: Version,
    /// As in [`ActorView`].
    pub applied: Version,
    /// As in [`ActorView`].
    pub low_water: Version,
    /// As in [`ActorView`].
    pub fingerprint: Option<u64>,
}

/// One actor's row of a key, or the sum of its rows under an address block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowView {
    /// The actor.
    pub actor: Actor,
    /// The total of additions.
    pub added: u64,
    /// The total of removals.
    pub removed: u64,
    /// The version of the last change.
    pub version: Version,
    /// The totals up to which the row was reset: added and removed.
    pub reset: (u64, u64),
    /// What the row counts: its totals beyond those that were reset, added minus removed.
    pub value: i64,
    /// Whether the row counts in the views.
    pub counts: bool,
    /// The state of the run.
    pub standing: Standing,
    /// How long ago the copy was last confirmed as current, in milliseconds; `None` when it never was.
    pub heard_ms: Option<u64>,
    /// The number of rows: 1, or the rows under the block.
    pub rows: u64,
}

/// A row that states up to which totals another row was reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetView {
    /// The actor whose row was reset.
    pub of: Actor,
    /// The actor that states the reset.
    pub by: Actor,
    /// The total of additions up to which it was reset.
    pub added: u64,
    /// The total of removals up to which it was reset.
    pub removed: u64,
    /// The version at which the actor stated it.
    pub version: Version,
}

/// A key: every actor's row, and what they add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyView {
    /// The key, in readable form.
    pub key: String,
    /// Its bytes, by which keys are ordered; empty for an address block.
    pub raw: Vec<u8>,
    /// The rows, in order of actor.
    pub rows: Vec<RowView>,
    /// The resets, at most [`RESETS`].
    pub resets: Vec<ResetView>,
    /// There are more resets than `resets` names.
    pub more_resets: bool,
    /// What the inspected node has counted and not written into a row yet.
    pub pending: i64,
    /// The sum of the rows that count, and of `pending`.
    pub total: i64,
    /// Whether a read finds no entry: the counter of a gauge cache has expired.
    pub expired: bool,
}

impl RowView {
    /// What totals count beyond those that were reset, clamped to [`bounds::COUNT`] as in a view.
    pub fn value_of((added, removed): (u64, u64), reset: (u64, u64)) -> i64 {
        let (added, removed) = (added.saturating_sub(reset.0), removed.saturating_sub(reset.1));
        let by = i64::try_from(added.abs_diff(removed)).unwrap_or(i64::MAX).min(bounds::COUNT);
        if added < removed { -by } else { by }
    }
}

impl KeyView {
    /// The sum of the rows that count, and of what is not in a row yet.
    #[must_use]
    pub fn summed(mut self) -> Self {
        let counted = self.rows.iter().filter(|row| row.counts).map(|row| i128::from(row.value));
        let sum = counted.sum::<i128>() + i128::from(self.pending);
        self.total = i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX });
        self
    }
}

/// The entry of a key in a cache: the winner of all its writes that the node knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// The key, in readable form.
    pub key: String,
    /// Its bytes, by which keys are ordered.
    pub raw: Vec<u8>,
    /// The dot: the run that wrote it,
    pub actor: Actor,
    /// and the number of the write in that run.
    pub number: u64,
    /// The stamp: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
    pub stamp: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// Whether the write removed the key.
    pub removed: bool,
    /// Whether a read finds it: it is not removed and has not expired.
    pub readable: bool,
    /// Its value, or the start of it.
    pub value: Vec<u8>,
    /// Bytes of its value.
    pub bytes: u64,
    /// The hash of key, stamp and content, a part of the fingerprint of the cache; `None` in a saved state.
    pub hash: Option<u64>,
    /// Its position in the log of the inspected node; 0 in a saved state, which has no log.
    pub position: u64,
    /// Whether the causal context covers the write: a later read of this node never misses it.
    pub taken_in: bool,
}

/// A change in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// The version. Of a cache: the position in the log of the inspected node.
    pub version: Version,
    /// The owner's number of the row. Of a cache: the number of the write in its run.
    pub slot: u64,
    /// The actor.
    pub actor: Actor,
    /// The key, in readable form; empty for a row that was retired.
    pub key: String,
    /// The actor whose row of the key is reset by this row.
    pub resets: Option<Actor>,
    /// The total of additions; of a reset the total up to which it reaches; 0 in a cache.
    pub added: u64,
    /// The total of removals; 0 in a cache.
    pub removed: u64,
    /// Whether the row was retired, or the entry removed.
    pub gone: bool,
    /// Whether it is a write of a cache.
    pub is_write: bool,
}

/// The state of a link for one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// The peer.
    pub peer: NodeName,
    /// The run that the peer states on the link.
    pub incarnation: Option<Incarnation>,
    /// How long ago the peer last sent a digest, in milliseconds; `None` when it has sent none.
    pub heard_ms: Option<u64>,
    /// Whether the nodes exchange the object: they do not if its kind differs, or if the peer's build is too old.
    pub exchanged: bool,
    /// Open questions for rows, of all objects, that wait to be sent.
    pub wants: u64,
    /// Streams of all objects that may have rows to send.
    pub queued: u64,
    /// The exchange of a cache; `None` for other objects.
    pub cache: Option<CacheLinkView>,
    /// The streams of the object, in order of actor. A page may have a part of them.
    pub streams: Vec<StreamView>,
}

/// The exchange of a cache over a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheLinkView {
    /// The session in which this node sends, as the peer has numbered it; 0 before the first report of the peer.
    pub sends_session: u64,
    /// Everything up to this position of the log was sent.
    pub cursor: u64,
    /// The end of the log.
    pub log_end: u64,
    /// Whether the full walk at the beginning of the session is over.
    pub caught_up: bool,
    /// The session in which this node receives.
    pub receives_session: u64,
    /// Messages of that session that have arrived.
    pub arrived: u64,
    /// Whether the session has to begin again.
    pub broken: bool,
    /// Whether the peer has not sent all that this node lacks.
    pub awaited: bool,
    /// Whether this node compares keys with the peer.
    pub comparing: bool,
}

/// One actor's rows on a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamView {
    /// The actor.
    pub actor: Actor,
    /// What the peer has reported of its copy.
    pub reported: Option<PeerPosition>,
    /// The version up to which this node has sent rows to the peer; `None` where it sends none.
    pub cursor: Option<Version>,
    /// Whether the peer receives a snapshot.
    pub snapshot: bool,
    /// Whether rows may wait to be sent.
    pub due: bool,
    /// A request for rows that waits to be sent: this node has everything up to this version.
    pub want: Option<Version>,
    /// Whether this node has asked the peer for the rows of an actor to which it has no link.
    pub relayed: bool,
    /// Whether this node has asked the peer to stop sending them.
    pub pruned: bool,
    /// This node's copy is behind the peer's.
    pub behind: Option<BehindView>,
}

/// A copy that is behind a peer's copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BehindView {
    /// The peer's version.
    pub target: Version,
    /// Since when, in milliseconds ago.
    pub for_ms: u64,
    /// How often this node has asked without progress.
    pub tries: u32,
}

/// A limit of which a key is a part, as the inspected node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitView {
    /// What is limited, such as `campaign` or `inbound 192.0.2.0/24`.
    pub name: String,
    /// The limit in words.
    pub limit: String,
    /// Whether one more would be admitted now.
    pub admits: bool,
    /// Why, in words.
    pub why: String,
    /// The part of a hard limit that this node has; `None` for a limit that is not divided.
    pub share: Option<ShareView>,
}

/// The part of a hard limit that a node has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareView {
    /// Whether the units are parts of a rate, and not permits.
    pub is_rate: bool,
    /// The units of the whole limit. Of permits: how many there are.
    pub whole: u64,
    /// This node's units.
    pub units: u64,
    /// The units that it could use.
    pub demand: u64,
    /// Of permits: those that are open here.
    pub in_use: u64,
    /// The founders whose initial share this node holds, and for how many milliseconds if it receives no further answer; `None`
    /// for good.
    pub holds: Vec<(NodeName, Option<u64>)>,
    /// What this node has lent, by borrower.
    pub lent: Vec<(NodeName, u64)>,
    /// What this node has borrowed, by lender.
    pub borrowed: Vec<(NodeName, u64)>,
    /// All founders.
    pub founders: Vec<NodeName>,
    /// The founders for which this node waits before it has a share of its own.
    pub missing: Vec<NodeName>,
    /// How long a founder keeps its share without news from another founder, in milliseconds.
    pub reclaim_after_ms: u64,
}
