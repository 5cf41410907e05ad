//! Every bound of the protocol, in one place. Sender and receiver check a bound before the allocation that it guards.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::version::Version;

/// Version of the protocol that this build speaks. It is part of the ALPN name and of every frame.
pub const PROTOCOL_VERSION: u8 = 2;

/// Oldest protocol version that this build still understands.
pub const PROTOCOL_VERSION_MIN: u8 = 1;

/// Bytes of a node name.
pub const NODE_NAME_BYTES: usize = 64;

/// Bytes of a structure name.
pub const STRUCTURE_NAME_BYTES: usize = 64;

/// Bytes of the name of a series. The names of its windows derive from it.
pub const SERIES_NAME_BYTES: usize = 40;

/// Bytes of the name of a gauge cache. The name of its structure derives from it.
pub const GAUGE_CACHE_NAME_BYTES: usize = 48;

/// Structures that one node replicates, not counting the windows of its series.
pub const STRUCTURES: usize = 256;

/// Windows that one node keeps, over all its series.
pub const WINDOWS: usize = 4096;

/// Actors of which one structure holds rows. An actor is one run of one node. A node drops superseded runs.
pub const ACTORS: usize = 4096;

/// Above this number of actors in a structure, a node with many runs gets no further place. This reserves places for other
/// nodes.
pub const ACTORS_CONTENDED: usize = ACTORS / 2;

/// Runs of one node in a structure that get a place above [`ACTORS_CONTENDED`].
pub const RUNS_CONTENDED: usize = 16;

/// Nodes that one node knows, dead ones included.
pub const NODES: usize = 4096;

/// Nodes that a node knows only from gossip. The remaining places are for nodes to which it has a link.
pub const NODES_HEARD_OF: usize = NODES / 2;

/// Nodes that a node knows only from the gossip of one other node.
pub const NODES_TOLD: usize = NODES / 4;

/// Up to this number of members, every node has a link to every other node. In a larger cluster each node has a bounded number
/// of links, and nodes relay rows of other nodes.
pub const MESH: usize = 64;

/// Rings on which the members of a larger cluster lie. A node has two links on each ring.
pub const RINGS: u8 = 5;

/// Bytes of a key, on the wire and in the engine.
pub const KEY_BYTES: usize = 512;

/// Bytes of a domain in its ASCII form, without a dot at the end (RFC 1035).
pub const DOMAIN_BYTES: usize = 253;

/// Bytes of a label of a domain in its ASCII form (RFC 1035).
pub const DOMAIN_LABEL_BYTES: usize = 63;

/// Bytes of a row's key: a key, or a reset (a note that an actor's count of a key was cleared).
pub const ROW_KEY_BYTES: usize = KEY_BYTES + NODE_NAME_BYTES + 16;

/// Rows, live and vacant, of one actor in one structure.
pub const ROWS_PER_ACTOR: u32 = 1 << 26;

/// The first invalid incarnation: [`Incarnation::checked`](crate::Incarnation::checked) refuses it and all higher numbers.
/// Milliseconds since 1970 stay below it for 280,000 years.
pub const INCARNATION: u64 = 1 << 53;

/// The highest incarnation that a node believes of another node, unless that node states it itself. Milliseconds since 1970
/// stay below it for two thousand years. What other nodes report about a node's own name, it believes up to this number plus
/// the wall clock: see [`Incarnation::is_credible`](crate::Incarnation::is_credible).
pub const INCARNATION_REPORTED: u64 = 1 << 46;

/// Highest version of a row. An actor that makes a million changes a second reaches it after nine years.
pub const VERSION: Version = Version((1 << 48) - 1);

/// Bytes of a frame's payload.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of rows in a delta. This leaves room for the delta's header in a frame.
pub const DELTA_BYTES: usize = FRAME_BYTES - 4096;

/// Entries of a digest message. The sender splits a longer digest into several messages.
pub const DIGEST_ENTRIES: usize = 1024;

/// Tombstones in one message and in one node's memory.
pub const TOMBSTONES: usize = 4096;

/// Largest step of one `add`.
pub const STEP: i64 = 1 << 40;

/// The total that one node adds to one key, or removes from it. An operation that would exceed it fails. It leaves room for the
/// greatest number of threads that add at the same time, so that a total never wraps.
pub const TOTAL: u64 = 1 << 62;

/// The greatest count of one actor for one key, positive or negative, whatever its totals are. The sum over all actors
/// therefore fits into 64 bits.
pub const COUNT: i64 = 1 << 50;

/// Limits that one hold may name.
pub const HOLD_LIMITS: usize = 64;

/// Bytes of a configuration file. The HCL parser takes time quadratic in the keys of one object. At this size it takes seconds.
pub const CONFIG_BYTES: usize = 256 << 10;

/// Bytes of the path of a Unix socket: the size of the system's address field without the terminating zero.
pub const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Nested brackets of a configuration file. The parser's time doubles with each level.
pub const CONFIG_NESTING: usize = 8;

/// Errors of one configuration file that are shown. The rest are only counted.
pub const CONFIG_ERRORS: usize = 100;

/// Seeds in the configuration of one node.
pub const SEEDS: usize = 256;

/// Range of the configured delay of a change, in seconds.
pub const MAX_DELAY_SECONDS: RangeInclusive<f64> = 0.001..=60.0;

/// Range of the configured number of pending changes.
pub const MAX_PENDING: RangeInclusive<u64> = 1..=1 << 20;

/// Range of the configured maximum number of keys of an object, or of a node.
pub const MAX_KEYS: RangeInclusive<u64> = 1..=1 << 32;

/// Range of the configured maximum number of elements of a cache.
pub const CACHE_ELEMENTS: RangeInclusive<u64> = 1..=1 << 32;

/// Range of the configured time to live of an entry of a gauge cache, in seconds. 0 means that the entry never expires.
pub const GAUGE_CACHE_TTL: RangeInclusive<u64> = 0..=366 * 24 * 60 * 60;

/// Range of the configured maximum size of a cache, and of all caches of a node: bytes of keys and values.
pub const CACHE_BYTES: RangeInclusive<u64> = 1..=1 << 40;

/// Highest number of a write of a cache, in one run.
pub const CACHE_WRITES: u64 = (1 << 48) - 1;

/// Parts into which two nodes divide the key space of a cache to find where their copies differ.
pub const CACHE_PARTS: usize = 1024;

/// Bytes of a cache's value. A message of the usual size still holds several values.
pub const VALUE_BYTES: usize = 64 << 10;

/// Bytes of a [`Position`](crate::Position), which has two digits of text for each. It names every object and window of a node.
pub const POSITION_BYTES: usize = 128 << 10;

/// Callers that a node serves at a time while they wait for changes to reach other nodes, or this one.
pub const WAITS: usize = 1024;

/// How far ahead of a node's wall clock a stamp may be that the node issues or accepts. A clock that is further ahead decides
/// nothing.
pub const MAX_DRIFT: Duration = Duration::from_secs(60);

/// The latest expiry of an entry, in milliseconds since 1970; also the latest stamp.
pub const UNIX_MS: u64 = (1 << 48) - 1;

/// Actors in one `Seen` message. It says nothing about further actors, so no row is retired because of them.
pub const SEEN_ENTRIES: usize = ACTORS;

/// The longest configurable time for which a dead node's counts still count. `hold` keeps them for good.
pub const DROP_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Monitors of the inbound audit.
pub const MONITORS: usize = 16;

/// Seconds of one window of a monitor.
pub const MONITOR_INTERVAL: RangeInclusive<u32> = 1..=7 * 24 * 60 * 60;

/// Windows of a monitor or series: a day of five minutes each.
pub const MONITOR_WINDOWS: RangeInclusive<u32> = 1..=288;

/// Seats: the nodes among which a cluster's limits are divided at first.
pub const FOUNDERS: usize = 64;

/// Range of the configured time for which a seat holder keeps its share without a message from another one.
pub const RECLAIM_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Permits of one pool.
pub const PERMITS: RangeInclusive<u64> = 1..=1 << 32;

/// Names of limits that one node requests from other nodes, or lends to another one, at a time.
pub const SHARED_NAMES: usize = 1 << 16;

/// Settings that a node announces to the others, and that it reads of another one.
pub const SETTINGS: usize = 4096;

/// Bytes of the name of a throttle: the space that a key has left beside two identities.
pub const THROTTLE_NAME_BYTES: usize = 253;

/// Events of the replication that wait for the reader. If the reader is too slow, the oldest ones are dropped.
pub const EVENTS: usize = 1024;

/// Requests for rows that wait to be sent to one peer. A request that finds no room is made again later.
pub const WANTS: usize = 1 << 14;

/// How often, within a digest interval, a node asks a peer about a run of the peer's name that other nodes reported.
pub const RUN_QUESTIONS: u32 = 8;

/// Runs that a node does not hold and whose names it keeps, so that a verification can name them.
pub const UNHELD: usize = 1024;

/// Changes that wait for one watcher. If the watcher does not read, the oldest ones are dropped.
pub const WATCHED_CHANGES: usize = 1 << 16;

/// Connections to the admin socket that are served at a time. Further ones wait. A connection that holds or watches gives its
/// place back.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Connections to the admin socket that hold or watch; further ones are refused.
pub const ADMIN_STAYS: usize = 4096;

/// Connections that the HTTP listener serves at one time. A new one takes the place of the one whose client has been silent
/// for the longest time.
pub const HTTP_CONNECTIONS: usize = 64;

/// Bytes of the head of an HTTP request.
pub const HTTP_HEAD_BYTES: usize = 8 << 10;

/// Header fields of an HTTP request.
pub const HTTP_HEADERS: usize = 64;

/// How long the client of an HTTP connection may take to send the head of its request.
pub const HTTP_HEAD_TIME: Duration = Duration::from_secs(5);

/// How long an HTTP connection lasts, with its one request.
pub const HTTP_TIME: Duration = Duration::from_secs(10);

/// Places for which reached bounds are counted separately.
pub const BOUND_PLACES: usize = 1024;

/// Sources of events that a [reporter](crate::reporter) distinguishes. Events of further sources are only counted.
pub const REPORT_SOURCES: usize = 1024;

/// Kinds of events of one source that a reporter distinguishes.
pub const REPORT_KINDS: usize = 32;

/// Lines that a reporter writes at once before it spaces them by [`REPORT_EVERY`].
pub const REPORT_BURST: u32 = 256;

/// Time between two lines of a reporter after a burst.
pub const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Time after which the reporter reports a repeated event with its count. It doubles with each such report.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The longest time between two reports of an event that continues.
pub const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
