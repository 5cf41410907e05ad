//! The admin protocol: the messages between `tally` and a node over the node's Unix socket.
//!
//! The client sends [`Request`]s and the node sends [`Answer`]s, each in a [`frame`](crate::frame) and encoded with postcard.
//! One connection serves one request at a time. An answer is a sequence of frames that ends with [`Answer::Done`] or
//! [`Answer::Error`]. Listings come in pages of a bounded size. When the connection closes, its request ends: the node releases
//! a [`Request::Hold`] and stops a [`Request::Watch`]. The node closes a connection after it has answered one of these two, a
//! [`Request::Verify`], a [`Request::Flush`] or a [`Request::Reach`].

mod info;

use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::actor::{Actor, NodeName};
use crate::bounds;
use crate::inspect::{ActorView, EntryView, KeyView, LimitView, LinkView, LogView, Subject, SubjectRef, View};
use crate::mask::HoldLimit;
use crate::message::MessageError;

pub use crate::admin::info::{
    BoundInfo, BudgetInfo, CacheInfo, CacheItem, CertificateInfo, ClockInfo, ConfigChange, ConvergenceInfo, Count,
    Fault, Finding, GaugeInfo, Info, Member, Object, Outcome, PeerClock, PermitsInfo, RolledBack, SeriesInfo,
    StateInfo, ThrottleInfo, Unheld, Verified, Windows,
};

/// Lines of a [`Request::Load`] in one frame.
pub const LOAD_LINES: usize = 1024;

/// Items of a listing in one frame.
pub const PAGE_ITEMS: usize = 512;

/// Bytes of a listing in one frame. The node splits a larger page.
pub const PAGE_BYTES: usize = 256 << 10;

/// Bytes of a value that a listing shows.
pub const SHOWN_BYTES: usize = 256;

/// A client's request. It names objects by their name or by a prefix that only one object has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The objects: [`Answer::Objects`].
    List,
    /// The view of an object, of the whole cluster or of one node: [`Answer::View`], then [`Answer::Blocks`] or
    /// [`Answer::Entries`].
    Show {
        /// The object.
        object: String,
        /// The node.
        from: Option<NodeName>,
    },
    /// The members of the cluster: [`Answer::Members`].
    Members,
    /// This node: [`Answer::Info`].
    Info,
    /// Forgets a node: [`Answer::Done`], or [`ErrorKind::No`] when this node knows nothing of it.
    Forget {
        /// The node.
        node: NodeName,
    },
    /// Adds to this node's own row.
    Add {
        /// The object.
        object: String,
        /// The key, in its readable form.
        key: String,
        /// The number to add; negative to subtract.
        n: i64,
    },
    /// A count, of the whole cluster or of one node: [`Answer::Count`].
    Count {
        /// The object.
        object: String,
        /// A key, or an address block.
        key: String,
        /// The node.
        from: Option<NodeName>,
    },
    /// Adds many, at most [`LOAD_LINES`]: [`Answer::Loaded`].
    Load {
        /// The object.
        object: String,
        /// Keys in their readable form, and the amount to add.
        lines: Vec<(String, i64)>,
        /// Skips invalid keys. Otherwise the first invalid key ends the load.
        skip_bad: bool,
    },
    /// Adds one to a count as long as the connection is open: [`Answer::Held`], or [`ErrorKind::No`] when a limit is reached.
    Hold {
        /// The object.
        object: String,
        /// The key; in an object of addresses an address, not a block.
        key: String,
        /// The limits that the cluster-wide counts must keep: at most [`HOLD_LIMITS`](crate::bounds::HOLD_LIMITS).
        limits: Vec<HoldLimit>,
    },
    /// Compares all members: [`Answer::Verified`] without findings, then pages of [`Answer::Findings`].
    Verify {
        /// How long to wait for members that lag and for members that do not answer.
        patience: Duration,
    },
    /// Reports every changed key until the connection closes: [`Answer::Changed`].
    Watch {
        /// The object.
        object: String,
    },
    /// The series: [`Answer::SeriesList`].
    SeriesList,
    /// Adds to this node's count of the current window.
    SeriesAdd {
        /// The series.
        series: SeriesRef,
        /// The key, in its readable form.
        key: String,
        /// The amount to add; negative to subtract.
        n: i64,
    },
    /// Removes a key from all windows, on all nodes.
    SeriesRemove {
        /// The series.
        series: SeriesRef,
        /// The key.
        key: String,
    },
    /// The sum over windows, of the whole cluster or of one node: [`Answer::Count`].
    SeriesCount {
        /// The series.
        series: SeriesRef,
        /// A key, or an address block.
        key: String,
        /// Age of the youngest window, 0 for the current one.
        start: u32,
        /// Age of the oldest window.
        end: u32,
        /// The node.
        from: Option<NodeName>,
    },
    /// The count of each window, of the whole cluster or of one node: [`Answer::Windows`].
    SeriesWindows {
        /// The series.
        series: SeriesRef,
        /// A key, or an address block.
        key: String,
        /// The node.
        from: Option<NodeName>,
    },
    /// All keys with their counts in each window: [`Answer::Windows`] with no counts, then [`Answer::SeriesRows`].
    SeriesShow {
        /// The series.
        series: SeriesRef,
        /// The node.
        from: Option<NodeName>,
    },
    /// The throttles: pages of [`Answer::Throttles`].
    ThrottleList,
    /// One throttle: [`Answer::Throttles`].
    ThrottleShow {
        /// The throttle.
        name: String,
    },
    /// Takes tokens: [`Answer::Taken`].
    ThrottleTake {
        /// The throttle.
        name: String,
        /// The number of tokens.
        n: u64,
    },
    /// Checks whether tokens are available, without taking them: [`Answer::Taken`].
    ThrottleCheck {
        /// The throttle.
        name: String,
        /// The number of tokens.
        n: u64,
    },
    /// An explanation of a throttle as text: pages of [`Answer::Lines`].
    ThrottleExplain {
        /// The throttle.
        name: String,
    },
    /// The configured limits as text: pages of [`Answer::Lines`].
    Limits,
    /// The caches: [`Answer::CacheList`].
    CacheList,
    /// An entry of a cache: [`Answer::CacheItems`], or [`ErrorKind::No`] when there is none.
    CacheGet {
        /// The cache.
        cache: String,
        /// The key.
        key: String,
    },
    /// Writes an entry of a cache.
    CacheSet {
        /// The cache.
        cache: String,
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
        /// The time to live; zero means that the entry never expires.
        ttl: Duration,
    },
    /// Removes an entry of a cache; [`ErrorKind::No`] when there is none.
    CacheRemove {
        /// The cache.
        cache: String,
        /// The key.
        key: String,
    },
    /// The entries of a cache: [`Answer::CacheItems`].
    CacheShow {
        /// The cache.
        cache: String,
    },
    /// The gauge caches: [`Answer::GaugeList`].
    GaugeList,
    /// The count of a key in a gauge cache: [`Answer::Entries`], or [`ErrorKind::No`] when there is no such entry.
    GaugeGet {
        /// The gauge cache.
        gauge: String,
        /// The key.
        key: String,
    },
    /// Adds to a key of a gauge cache: [`Answer::Entries`].
    GaugeAdd {
        /// The gauge cache.
        gauge: String,
        /// The key.
        key: String,
        /// The amount to add; negative to subtract.
        n: i64,
    },
    /// Removes an entry of a gauge cache; [`ErrorKind::No`] when there is none.
    GaugeRemove {
        /// The gauge cache.
        gauge: String,
        /// The key.
        key: String,
    },
    /// The entries of a gauge cache: [`Answer::Entries`].
    GaugeShow {
        /// The gauge cache.
        gauge: String,
    },
    /// The permits that are declared or in use: [`Answer::Permits`].
    PermitsList,
    /// The permits of one name: [`Answer::Permits`].
    PermitsShow {
        /// The name.
        name: String,
    },
    /// The differences between the limits of other nodes and of this node, as text: pages of [`Answer::Lines`].
    Differences,
    /// A view of replicated state: [`Answer::Subject`], then pages of the view. [`ErrorKind::No`] when the node has nothing to
    /// show of the key or of the node.
    Inspect {
        /// What to inspect.
        subject: SubjectRef,
        /// Which view of it.
        view: View,
    },
    /// Waits until other nodes hold all changes of this node so far: [`Answer::Flushed`].
    Flush {
        /// How many other nodes.
        nodes: u32,
        /// How long to wait.
        patience: Duration,
    },
    /// Waits until this node holds the changes of a position; [`ErrorKind::No`] when it does not in time.
    Reach {
        /// The position, in its text form.
        position: String,
        /// How long to wait.
        patience: Duration,
    },
    /// Reads the configuration file of the node again: pages of [`Answer::Changes`].
    Reload {
        /// Changes nothing, and says what would change.
        dry_run: bool,
    },
}

/// Names a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesRef {
    /// Its name, or a prefix that only one series has.
    pub name: String,
    /// Whether it is a series of the audit and not a named one.
    pub metric: bool,
    /// Seconds of a window, needed where several series of that name have different intervals.
    pub interval: Option<u32>,
    /// The number of windows that the client expects it to have.
    pub windows: Option<u32>,
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The end of the answer.
    Done,
    /// The end of the answer: the node cannot serve the request.
    Error {
        /// The kind of the error.
        kind: ErrorKind,
        /// What is wrong, and what to do.
        message: String,
    },
    /// The objects, in order of name.
    Objects(Vec<Object>),
    /// Says what the following listing shows.
    View {
        /// The object.
        object: Object,
        /// The actor of the view; `None` for the view of the whole cluster.
        actor: Option<Actor>,
    },
    /// A page of an address tree.
    Blocks(Vec<(IpNet, i64)>),
    /// A page of a table.
    Entries(Vec<(String, i64)>),
    /// The members, this node included, in order of name.
    Members(Vec<Member>),
    /// This node.
    Info(Box<Info>),
    /// A count.
    Count(Count),
    /// The result of a load.
    Loaded {
        /// Lines that were counted.
        lines: u64,
        /// Lines that were not counted: their number within the request, from 0, and the reason.
        bad: Vec<(u32, String)>,
    },
    /// The hold is in effect.
    Held,
    /// The summary of a verification.
    Verified(Verified),
    /// Changed keys with their current counts, and how many earlier changes were lost.
    Changed {
        /// The keys.
        keys: Vec<(String, i64)>,
        /// Changes that came too fast to be reported.
        lost: u64,
    },
    /// The series, those of the audit first.
    SeriesList(Vec<SeriesInfo>),
    /// The counts of a series' windows.
    Windows(Windows),
    /// A page of a series: keys, each with its counts; the current window comes first.
    SeriesRows(Vec<(String, Vec<i64>)>),
    /// Throttles, in order of structure and name.
    Throttles(Vec<ThrottleInfo>),
    /// The result of a request for tokens.
    Taken {
        /// Whether the tokens were available.
        admitted: bool,
        /// When they become available, if the node can tell.
        after: Option<Duration>,
        /// The reason for the refusal, as text; `None` when the tokens were available.
        reason: Option<String>,
    },
    /// Text for people.
    Lines(Vec<String>),
    /// The caches, in order of name.
    CacheList(Vec<CacheInfo>),
    /// Entries of a cache. A listing cuts their values to [`SHOWN_BYTES`].
    CacheItems(Vec<CacheItem>),
    /// The gauge caches.
    GaugeList(Vec<GaugeInfo>),
    /// Findings of a verification.
    Findings(Vec<Finding>),
    /// Permits, in order of name.
    Permits(Vec<PermitsInfo>),
    /// Says what the following views show.
    Subject(Box<Subject>),
    /// A page of actors.
    ActorViews(Vec<ActorView>),
    /// A page of keys with their rows.
    KeyViews(Vec<KeyView>),
    /// A page of entries of a cache.
    EntryViews(Vec<EntryView>),
    /// A page of links. A link with many streams comes in several pages, one after the other.
    LinkViews(Vec<LinkView>),
    /// A page of a log.
    LogViews(Vec<LogView>),
    /// The limits of which a key is a part.
    LimitViews(Vec<LimitView>),
    /// Which other nodes hold the changes of this node.
    Flushed {
        /// The changes, in the text form of their position.
        position: String,
        /// The nodes, in order of name.
        holders: Vec<NodeName>,
    },
    /// Changes of the configuration.
    Changes(Vec<ConfigChange>),
}

/// Kinds of errors. They determine the command's exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The answer is no.
    No,
    /// The node cannot answer the request, because a name or key is wrong.
    BadInput,
    /// The node could not do it.
    Failed,
}

/// Encodes a request or an answer.
///
/// # Errors
/// [`MessageError`] when it does not fit a frame.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    let bytes = postcard::to_stdvec(message).map_err(MessageError::Malformed)?;
    if bytes.len() > bounds::FRAME_BYTES {
        let (value, max) = (bytes.len() as u64, bounds::FRAME_BYTES as u64);
        return Err(MessageError::Bound { what: "frame", value, max });
    }
    Ok(bytes)
}

/// The encoded size of an item of an answer, in bytes.
///
/// # Errors
/// [`MessageError`] when it cannot be encoded.
pub fn encoded_len<T: Serialize>(item: &T) -> Result<usize, MessageError> {
    let size = postcard::ser_flavors::Size::default();
    postcard::serialize_with_flavor(item, size).map_err(MessageError::Malformed)
}

/// Decodes a request or an answer.
///
/// # Errors
/// [`MessageError`] when the bytes are not exactly one request or answer.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(MessageError::Malformed)?;
    if rest.is_empty() { Ok(message) } else { Err(MessageError::Trailing(rest.len())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Answer>(&bytes);
        }

        #[test]
        fn a_load_comes_back(lines in prop::collection::vec((".{0,20}", any::<i64>()), 0..50)) {
            for skip_bad in [false, true] {
                let load = Request::Load { object: "inbound_cidr".to_owned(), lines: lines.clone(), skip_bad };
                prop_assert_eq!(decode::<Request>(&encode(&load).unwrap()).unwrap(), load);
            }
        }
    }
}
