//! What an [`Answer`](super::Answer) tells of: members, structures and what is in them.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actor::{Actor, Incarnation, NodeName, Version};
use crate::structure::Kind;

/// A cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheInfo {
    /// Its name.
    pub name: String,
    /// Whether a joiner gets what was written before.
    pub snapshot: bool,
    /// Entries that it holds.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Entries that it may hold.
    pub max_size: Option<u64>,
    /// Bytes that it may hold.
    pub max_bytes: Option<u64>,
}

/// An entry of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheItem {
    /// Its key, as people read it.
    pub key: String,
    /// Its value, or the beginning of it.
    pub value: Vec<u8>,
    /// Bytes of its value.
    pub bytes: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
    /// When it expires, in milliseconds since 1970; 0 for never.
    pub expires_ms: u64,
    /// Who tells of it.
    pub actor: Actor,
}

/// A gauge cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GaugeInfo {
    /// Its name.
    pub name: String,
    /// Entries that it holds.
    pub entries: u64,
    /// Entries that it may hold.
    pub max_size: Option<u64>,
    /// How long an entry stays after its last change; zero for good.
    pub ttl: Duration,
    /// Whether the cluster shares it.
    pub replicate: bool,
}

/// A series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// Its name.
    pub name: String,
    /// Whether it is one of the audit.
    pub metric: bool,
    /// Its kind.
    pub kind: Kind,
    /// Seconds of a window.
    pub interval: u32,
    /// Windows that are kept.
    pub windows: u32,
    /// Whether the cluster shares it.
    pub replicate: bool,
    /// Keys of all windows.
    pub keys: u64,
    /// Bytes that it takes here.
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

/// How a throttle stands on the node that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThrottleInfo {
    /// Its name.
    pub name: String,
    /// How many in how long.
    pub rate: String,
    /// How many at once.
    pub burst: u64,
    /// `soft` or `hard`.
    pub strength: String,
    /// What happens in a partition.
    pub on_partition: String,
    /// Tokens that are there on this node.
    pub tokens: i64,
    /// This node's share, in millionths.
    pub share_ppm: u64,
    /// What all have admitted since it was idle.
    pub admitted: i64,
    /// What this node has admitted of it.
    pub local: i64,
}

/// How permits stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitsInfo {
    /// Their name.
    pub name: String,
    /// How many there are in the whole cluster.
    pub maximum: u64,
    /// How many are open in the whole cluster, as far as the node knows.
    pub open: i64,
    /// How many the node that answers has.
    pub here: u64,
    /// How many of those are in use.
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
    /// Whether a joiner gets what was counted before.
    pub snapshot: bool,
    /// Keys known here.
    pub keys: u64,
    /// Bytes that it takes here.
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
    /// Where the others reach it; `None` when unknown.
    pub addr: Option<SocketAddr>,
    /// `self`, `alive`, `suspect`, `dead` or `left`.
    pub state: String,
    /// Whether there is a link to it.
    pub linked: bool,
    /// Round trip time of the link, in microseconds.
    pub rtt_us: Option<u64>,
}

/// How the saving of what outlives a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateInfo {
    /// What was written up to then is saved, in milliseconds since 1970.
    pub saved_ms: u64,
    /// How long ago that is.
    pub age: Duration,
    /// What is in the way, if anything is.
    pub trouble: Option<String>,
    /// The node has started with an earlier commit than the last one that was done.
    pub rolled_back: Option<RolledBack>,
}

/// A state that is older than the last commit that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// When the commit was done that the node has started with, in milliseconds since 1970.
    pub restored_ms: u64,
    /// When the last commit was done, in milliseconds since 1970.
    pub last_ms: u64,
    /// Commits between them.
    pub commits: u64,
}

/// A node about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Its name.
    pub node: NodeName,
    /// Its run.
    pub incarnation: Incarnation,
    /// Its build.
    pub version: String,
    /// Protocol version that it speaks.
    pub protocol: u8,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where the others reach it.
    pub advertised: SocketAddr,
    /// Seconds that it has run.
    pub uptime_s: u64,
    /// Members that are alive, itself included.
    pub alive: u32,
    /// Links that are up.
    pub links: u32,
    /// How the saving of what outlives a run stands; `None` where nothing is saved.
    pub state: Option<StateInfo>,
    /// The bounds that this node has reached.
    pub bounds: Vec<BoundInfo>,
    /// How its clock compares with its peers' clocks.
    pub clocks: ClockInfo,
    /// Named figures: what replication and transport have done so far.
    pub counters: Vec<(String, u64)>,
}

/// A bound that a node has reached: it has dropped or refused something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundInfo {
    /// Its name, as docs/bounds.md has it.
    pub name: String,
    /// The object in which it was reached; `None` where it is one of the whole node.
    pub object: Option<String>,
    /// Its value.
    pub limit: u64,
    /// How often it was reached.
    pub times: u64,
    /// How long ago that was first noticed.
    pub first: Duration,
    /// How long ago that was last noticed.
    pub last: Duration,
    /// What is lost.
    pub effect: String,
}

/// How a node's clock compares with those of the peers that it has links to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockInfo {
    /// By how much clocks may differ before that has consequences on this node; `None` where nothing goes by them.
    pub bound: Option<Duration>,
    /// By how much this node's clock for windows is ahead of its wall clock, because that was set back a little.
    pub windows_ahead: Duration,
    /// The peers' clocks.
    pub peers: Vec<PeerClock>,
}

/// A peer's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClock {
    /// The peer.
    pub node: NodeName,
    /// By how many milliseconds it is ahead of the clock of the node that answers; negative where it is behind.
    pub ahead_ms: i64,
    /// Whether that is more than the bound.
    pub beyond: bool,
}

/// A count with its freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Everything that counts.
    pub total: i64,
    /// What was counted on the node that answers.
    pub local: i64,
    /// Actors that count.
    pub actors: u32,
    /// How long ago the stalest of them was last known to be up to date, in milliseconds.
    pub stalest_ms: u64,
    /// The node that answers has others to join and a link to none of them: what they count is missing here, or old.
    pub alone: bool,
}

/// What a verification comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every member answered, and holds what every owner has.
    Converged,
    /// A copy differs or lags, or a member is away, or something is not held.
    NotConverged,
    /// Nothing is known to be wrong, and not everything could be compared in the time that there was.
    NotCompared,
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// What it comes to.
    pub outcome: Outcome,
    /// The asking node has others to join and a link to none of them, so nothing was compared.
    pub alone: bool,
    /// Who answered, the asking node included.
    pub members: Vec<NodeName>,
    /// Members that have a link to the asking node and said nothing.
    pub silent: Vec<NodeName>,
    /// Members that had not given their whole answer in time.
    pub late: Vec<NodeName>,
    /// Members that are dead.
    pub dead: Vec<NodeName>,
    /// Members that live and have no link to the asking node, though they should.
    pub unlinked: Vec<NodeName>,
    /// Members that are alive and have no link to the asking node: they are reached through others, and were not asked.
    pub beyond: Vec<NodeName>,
    /// Members that have another kind for an object, which is not exchanged with them.
    pub mismatched: Vec<(NodeName, String)>,
    /// What is not held because a bound was reached.
    pub unheld: Vec<Unheld>,
    /// There is more of that than is named.
    pub more_unheld: bool,
    /// Structures that were compared.
    pub structures: u32,
    /// Actors whose rows were compared.
    pub actors: u32,
    /// Copies that were compared.
    pub copies: u32,
    /// Copies that are not as they should be.
    pub findings: Vec<Finding>,
    /// Peers whose clocks differ from that of the asking node by more than the bound.
    pub clocks: Vec<PeerClock>,
}

/// Something that is not held because a bound was reached.
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
    /// The others do not get all that the asking node counts in an object.
    Untold {
        /// The object.
        object: String,
    },
}

/// What is wrong with a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It has less than its owner had when it was first asked.
    Lags,
    /// It changes too fast to be compared at one version.
    Changes,
    /// It has other rows at the same version.
    Differs,
}

/// A copy that is not what its owner has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The object.
    pub object: String,
    /// Whose rows.
    pub actor: Actor,
    /// Who holds the copy.
    pub member: NodeName,
    /// The version that it has.
    pub have: Version,
    /// The version that the owner has.
    pub head: Version,
    /// What is wrong with it.
    pub fault: Fault,
}
