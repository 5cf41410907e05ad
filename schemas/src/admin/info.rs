//! The data of an [`Answer`](crate::admin::Answer): members, structures and their contents.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Incarnation, NodeName};
use crate::structure::Kind;
use crate::version::Version;

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// Its name.
    pub name: String,
    /// Whether a joining node receives entries that were written before.
    pub snapshot: bool,
    /// Entries that it holds.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Maximum number of entries.
    pub max_size: Option<u64>,
    /// Maximum number of bytes.
    pub max_bytes: Option<u64>,
}

/// An entry of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheItem {
    /// Its key, in readable form.
    pub key: String,
    /// Its value, or the start of it.
    pub value: Vec<u8>,
    /// Bytes of its value.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// The actor that owns the row.
    pub actor: Actor,
}

/// A gauge cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaugeInfo {
    /// Its name.
    pub name: String,
    /// Entries that it holds.
    pub entries: u64,
    /// Maximum number of entries.
    pub max_size: Option<u64>,
    /// Time to live of an entry after its last change; zero means that it never expires.
    pub ttl: Duration,
    /// Whether the cluster replicates it.
    pub replicate: bool,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// Its name.
    pub name: String,
    /// Whether it is a series of the audit.
    pub metric: bool,
    /// Its kind.
    pub kind: Kind,
    /// Seconds of a window.
    pub interval: u32,
    /// Windows that are kept.
    pub windows: u32,
    /// Whether the cluster replicates it.
    pub replicate: bool,
    /// Keys of all windows.
    pub keys: u64,
    /// Bytes of memory that it uses on this node.
    pub bytes: u64,
}

/// The windows of a series at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// The series.
    pub series: SeriesInfo,
    /// When the current window began, in seconds since 1970.
    pub began: u64,
    /// Milliseconds since then.
    pub into_ms: u64,
    /// The counts, the current window first.
    pub counts: Vec<i64>,
}

/// The state of a throttle on the answering node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleInfo {
    /// Its name.
    pub name: String,
    /// The number of tokens and the period.
    pub rate: String,
    /// The number of tokens that can be taken at once.
    pub burst: u64,
    /// `soft` or `hard`.
    pub strength: String,
    /// What happens in a partition.
    pub on_partition: String,
    /// Tokens available on this node.
    pub tokens: i64,
    /// This node's share, in millionths.
    pub share_ppm: u64,
    /// Admissions of all nodes since the throttle was last idle.
    pub admitted: i64,
    /// This node's part of those admissions.
    pub local: i64,
}

/// The state of a pool of permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitsInfo {
    /// Their name.
    pub name: String,
    /// The maximum for the whole cluster.
    pub maximum: u64,
    /// How many are open in the whole cluster, as far as the node knows.
    pub open: i64,
    /// How many the answering node holds.
    pub here: u64,
    /// How many of the held ones are in use.
    pub in_use: u64,
}

/// A replicated structure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its kind.
    pub kind: Kind,
    /// Whether a joining node receives counts from before.
    pub snapshot: bool,
    /// Keys known on this node.
    pub keys: u64,
    /// Bytes of memory that it uses on this node.
    pub bytes: u64,
}

/// A member of the cluster as a node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub node: NodeName,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its build; empty when unknown.
    pub version: String,
    /// The address at which other nodes reach it; `None` when unknown.
    pub addr: Option<SocketAddr>,
    /// `self`, `alive`, `suspect`, `dead` or `left`.
    pub state: String,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Round trip time of the link, in microseconds.
    pub rtt_us: Option<u64>,
}

/// The status of the saved state on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// Everything written before this time is saved, in milliseconds since 1970.
    pub saved_ms: u64,
    /// How long ago that is.
    pub age: Duration,
    /// The current error, if there is one.
    pub trouble: Option<String>,
    /// The node started with an earlier commit than its last one.
    pub rolled_back: Option<RolledBack>,
}

/// A restored state that is older than the last commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// When the restored commit was made, in milliseconds since 1970.
    pub restored_ms: u64,
    /// When the last commit was made, in milliseconds since 1970.
    pub last_ms: u64,
    /// Commits between them.
    pub commits: u64,
}

/// A node's report about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub node: NodeName,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its build.
    pub version: String,
    /// The protocol version that it uses.
    pub protocol: u8,
    /// The address on which it listens.
    pub listen: SocketAddr,
    /// The address at which other nodes reach it.
    pub advertised: SocketAddr,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Members that are alive, itself included.
    pub alive: u32,
    /// Links that are up.
    pub links: u32,
    /// The status of the saved state; `None` where the node saves nothing.
    pub state: Option<StateInfo>,
    /// Its certificate.
    pub certificate: CertificateInfo,
    /// The bounds that this node has reached.
    pub bounds: Vec<BoundInfo>,
    /// How its clock compares with its peers' clocks.
    pub clocks: ClockInfo,
    /// What the verifications of the node have found: those in the background, and those that somebody has asked for.
    pub convergence: ConvergenceInfo,
    /// Named figures of replication and transport since the start.
    pub counters: Vec<(String, u64)>,
    /// What the node and its objects hold, and what they may hold: first the total of the node.
    pub budgets: Vec<BudgetInfo>,
}

/// What the verifications of the node have found: those in the background, and those that somebody has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConvergenceInfo {
    /// How long ago all members held what every owner had; `None` before the first time.
    pub converged: Option<Duration>,
    /// How long ago the last verification ended, and its result; `None` before the first one.
    pub ended: Option<(Duration, Outcome)>,
    /// Copies that it found to differ or to lag, or that it could not compare.
    pub findings: u32,
}

/// A change of the configuration of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigChange {
    /// The object, the limit or the setting.
    pub what: String,
    /// What it is now; `None` if it is new.
    pub before: Option<String>,
    /// What it is to be; `None` if it goes.
    pub after: Option<String>,
    /// Whether the change needs a restart, and is not made.
    pub needs_restart: bool,
}

/// The certificate of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateInfo {
    /// Until when peers accept it, in milliseconds since 1970; `None` when they do not accept it.
    pub valid_until_ms: Option<u64>,
    /// How long that is from now on.
    pub left: Duration,
    /// Why the certificate that is in the files now is not used.
    pub trouble: Option<String>,
}

/// What an object, or the node, holds, and what it may hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetInfo {
    /// The object; `None` for the total of the node.
    pub object: Option<String>,
    /// Keys, of a cache with the removed ones.
    pub keys: u64,
    /// The most keys, of a cache the most entries; `None` where there is no bound.
    pub max_keys: Option<u64>,
    /// Bytes of the keys and values of caches; `None` for an object that is no cache.
    pub bytes: Option<u64>,
    /// The most bytes; `None` where there is no bound.
    pub max_bytes: Option<u64>,
}

/// A bound that a node has reached: it has dropped or refused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundInfo {
    /// Its name, as in docs/bounds.md.
    pub name: String,
    /// The object in which it was reached; `None` for a bound of the whole node.
    pub object: Option<String>,
    /// Its value.
    pub limit: u64,
    /// How often it was reached.
    pub times: u64,
    /// How long ago the node first noticed it.
    pub first: Duration,
    /// How long ago the node last noticed it.
    pub last: Duration,
    /// The effect of reaching it.
    pub effect: String,
}

/// How a node's clock differs from the clocks of the peers to which it has links.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockInfo {
    /// The clock difference beyond which this node is affected; `None` where no feature of the node uses the clock.
    pub bound: Option<Duration>,
    /// How far this node's clock for windows is ahead of its wall clock, because the wall clock was set back a little.
    pub windows_ahead: Duration,
    /// The peers' clocks.
    pub peers: Vec<PeerClock>,
}

/// A peer's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClock {
    /// The peer.
    pub node: NodeName,
    /// How many milliseconds it is ahead of the answering node's clock; negative where it is behind.
    pub ahead_ms: i64,
    /// Whether the difference exceeds the bound.
    pub beyond: bool,
}

/// A count with its freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The count of all actors that count.
    pub total: i64,
    /// The count of the answering node.
    pub local: i64,
    /// Actors that count.
    pub actors: u32,
    /// How long ago the stalest of them was last confirmed as current, in milliseconds.
    pub stalest_ms: u64,
    /// The answering node has other nodes to join but no link. Their counts are missing here, or old.
    pub alone: bool,
}

/// The result of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every member answered, and holds all rows of every owner.
    Converged,
    /// A copy differs or lags, a member is absent, or a node does not hold something.
    NotConverged,
    /// No error was found, but the time was too short to compare everything.
    NotCompared,
}

impl Outcome {
    /// The words for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::NotConverged => "not converged",
            Self::NotCompared => "not compared",
        }
    }
}

/// The details of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The result.
    pub outcome: Outcome,
    /// The asking node has other nodes to join but no link, so nothing was compared.
    pub alone: bool,
    /// The members that answered, the asking node included.
    pub members: Vec<NodeName>,
    /// Members that have a link to the asking node and did not answer.
    pub silent: Vec<NodeName>,
    /// Members whose answer was not complete in time.
    pub late: Vec<NodeName>,
    /// Members that are dead.
    pub dead: Vec<NodeName>,
    /// Members that are alive and should have a link to the asking node, but have none.
    pub unlinked: Vec<NodeName>,
    /// Members that are alive and need no link to the asking node. It reaches them through other nodes and did not ask them.
    pub beyond: Vec<NodeName>,
    /// Members that have a different kind for an object, or a build that is too old for it. The nodes do not exchange this object
    /// with them.
    pub mismatched: Vec<(NodeName, String)>,
    /// What the asking node does not hold because it reached a bound.
    pub unheld: Vec<Unheld>,
    /// There is more of it than this list names.
    pub more_unheld: bool,
    /// Structures that were compared.
    pub structures: u32,
    /// Actors whose rows were compared.
    pub actors: u32,
    /// Copies that were compared.
    pub copies: u32,
    /// Copies with an error.
    pub findings: Vec<Finding>,
    /// Peers whose clocks differ from the asking node's clock by more than the bound.
    pub clocks: Vec<PeerClock>,
}

/// Something that the asking node does not hold because it reached a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unheld {
    /// The asking node has no place for a run's rows in an object.
    Run {
        /// The object.
        object: String,
        /// The run.
        actor: Actor,
    },
    /// The asking node has no place for a node.
    Node {
        /// The node.
        node: NodeName,
    },
    /// The other nodes do not receive everything that the asking node counts in an object.
    Unsent {
        /// The object.
        object: String,
    },
    /// The asking node has no room for all keys of an object: its budget is used up.
    NoRoom {
        /// The object.
        object: String,
    },
}

/// The error of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It has less than its owner had when the owner was first asked.
    Lags,
    /// It changes too fast to be compared at one version.
    Changes,
    /// It has other rows at the same version.
    Differs,
}

/// A copy that differs from its owner's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// The owner of the rows.
    pub actor: Actor,
    /// The member that holds the copy.
    pub member: NodeName,
    /// The copy's version.
    pub applied: Version,
    /// The owner's version.
    pub head: Version,
    /// The error.
    pub fault: Fault,
}
