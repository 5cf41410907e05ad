//! Every bound of the protocol, in one place. A bound is checked before the allocation that it guards, on send and on
//! receive.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Version of the protocol that this build speaks. It is part of the ALPN name and of every frame.
pub const PROTOCOL_VERSION: u8 = 1;

/// Oldest protocol version that this build still understands.
pub const PROTOCOL_VERSION_MIN: u8 = 1;

/// Bytes of a node name.
pub const NODE_NAME_BYTES: usize = 64;

/// Bytes of a structure name.
pub const STRUCTURE_NAME_BYTES: usize = 64;

/// Bytes of the name of a series: those of its windows derive from it.
pub const SERIES_NAME_BYTES: usize = 40;

/// Bytes of the name of a gauge cache: that of its structure derives from it.
pub const GAUGE_CACHE_NAME_BYTES: usize = 48;

/// Structures that one node replicates, beside the windows of its series.
pub const STRUCTURES: usize = 256;

/// Windows that one node keeps, of all its series together.
pub const WINDOWS: usize = 4096;

/// Actors that one structure holds rows of. An actor is one run of one node; superseded runs are dropped.
pub const ACTORS: usize = 4096;

/// Actors of one structure above which a node with many runs gets no further place, so that there is one for the others.
pub const ACTORS_CONTENDED: usize = ACTORS / 2;

/// Runs of one node in a structure that get a place above [`ACTORS_CONTENDED`].
pub const RUNS_CONTENDED: usize = 16;

/// Nodes that one node knows, dead ones included.
pub const NODES: usize = 4096;

/// Nodes of which a node knows from others alone: so many more have a place that have a link to it.
pub const NODES_HEARD_OF: usize = NODES / 2;

/// Nodes that a node knows from one other node alone.
pub const NODES_TOLD: usize = NODES / 4;

/// Members up to which every node has a link to every other one. A larger cluster's nodes have a bounded number of links, and
/// pass on what others count.
pub const MESH: usize = 64;

/// Rings on which the members of a larger cluster lie: a node has two links on each.
pub const RINGS: u8 = 5;

/// Bytes of a key as it travels and as the engine stores it.
pub const KEY_BYTES: usize = 512;

/// Bytes of a domain in its ASCII form, without a dot at the end (RFC 1035).
pub const DOMAIN_BYTES: usize = 253;

/// Bytes of a label of a domain in its ASCII form (RFC 1035).
pub const DOMAIN_LABEL_BYTES: usize = 63;

/// Bytes of a row's key: a key, or the note that an actor's count of a key was cleared.
pub const ROW_KEY_BYTES: usize = KEY_BYTES + NODE_NAME_BYTES + 16;

/// Rows, live and vacant, of one actor in one structure.
pub const ROWS_PER_ACTOR: u32 = 1 << 26;

/// The first number that is no run: [`Incarnation::checked`](crate::Incarnation::checked) refuses it and all that follow.
/// Milliseconds since 1970 stay below it for 280,000 years.
pub const INCARNATION: u64 = 1 << 53;

/// A node takes another one to be in a run of this number at most, unless that node says so itself. Milliseconds since 1970
/// stay below it for two thousand years. What others say about a node's own name, it believes up to this number plus the
/// wall clock: see [`Incarnation::is_credible`](crate::Incarnation::is_credible).
pub const INCARNATION_REPORTED: u64 = 1 << 46;

/// Highest version of a row: an actor that changes a million rows a second takes nine years to get there.
pub const VERSION: u64 = (1 << 48) - 1;

/// Bytes of a frame's payload.
pub const FRAME_BYTES: usize = 1 << 20;

/// Bytes of rows that a delta may carry; leaves room for its header in a frame.
pub const DELTA_BYTES: usize = FRAME_BYTES - 4096;

/// Entries of a digest message; a longer digest is cut into several.
pub const DIGEST_ENTRIES: usize = 1024;

/// Tombstones in one message and in one node's memory.
pub const TOMBSTONES: usize = 4096;

/// Largest step of one `add`.
pub const STEP: i64 = 1 << 40;

/// What one node adds to one key, or takes off it, in all: an operation that would go beyond fails. It leaves room for as many
/// threads as there can be that add at the same time, so that a total never wraps.
pub const TOTAL: u64 = 1 << 62;

/// The most that one actor counts for one key, either way, whatever its totals say. So the sum of all actors fits into 64 bits.
pub const COUNT: i64 = 1 << 50;

/// Limits that one hold may name.
pub const HOLD_LIMITS: usize = 64;

/// Bytes of a configuration file. The HCL parser takes time quadratic in the keys of one object: at this size that stays within seconds.
pub const CONFIG_BYTES: usize = 256 << 10;

/// Bytes of the path of a Unix socket: what the system's address holds, without the zero at its end.
pub const SOCKET_PATH_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Brackets within brackets of a configuration file. The parser's time doubles with each.
pub const CONFIG_NESTING: usize = 8;

/// Errors of one configuration file that are shown; the rest are counted.
pub const CONFIG_ERRORS: usize = 100;

/// Seeds that one node is given.
pub const SEEDS: usize = 256;

/// Seconds that a change may be configured to wait.
pub const MAX_DELAY_SECONDS: RangeInclusive<f64> = 0.001..=60.0;

/// Changes that may be configured to wait.
pub const MAX_PENDING: RangeInclusive<u64> = 1..=1 << 20;

/// Elements that a cache may be bounded to.
pub const CACHE_ELEMENTS: RangeInclusive<u64> = 1..=1 << 32;

/// Seconds that an entry of a gauge cache may be configured to stay; 0 is for good.
pub const GAUGE_CACHE_TTL: RangeInclusive<u64> = 0..=366 * 24 * 60 * 60;

/// Bytes of keys and values that a cache may be bounded to.
pub const CACHE_BYTES: RangeInclusive<u64> = 1..=1 << 40;

/// Bytes of a cache's value: a delta of the usual size then still holds several.
pub const VALUE_BYTES: usize = 64 << 10;

/// How far ahead of a node's wall clock a stamp may lie that it gives or takes: a clock that is further ahead than that
/// decides nothing.
pub const MAX_DRIFT: Duration = Duration::from_secs(60);

/// The latest moment that an entry may be said to expire at, in milliseconds since 1970; also that of a stamp.
pub const UNIX_MS: u64 = (1 << 48) - 1;

/// Actors that one statement of what was seen names; of more nothing is said, and nothing is retired on its account.
pub const SEEN_ENTRIES: usize = ACTORS;

/// Longest time that a dead node's counts may be configured to go on counting; `hold` keeps them for good.
pub const DROP_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Monitors of the inbound audit.
pub const MONITORS: usize = 16;

/// Seconds of one window of a monitor.
pub const MONITOR_INTERVAL: RangeInclusive<u32> = 1..=7 * 24 * 60 * 60;

/// Windows of a monitor or series: a day of five minutes each.
pub const MONITOR_WINDOWS: RangeInclusive<u32> = 1..=288;

/// Nodes among which a cluster's limits are divided at first.
pub const FOUNDERS: usize = 64;

/// How long a founder may be configured to keep its share without hearing from another one.
pub const RECLAIM_AFTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Permits of one pool.
pub const PERMITS: RangeInclusive<u64> = 1..=1 << 32;

/// Names of limits that one node may ask others for, or lend another one of, at a time.
pub const SHARED_NAMES: usize = 1 << 16;

/// Settings that a node states to the others, and reads of another one.
pub const SETTINGS: usize = 4096;

/// Bytes of the name of a throttle: what a key still holds beside two identities.
pub const THROTTLE_NAME_BYTES: usize = 253;

/// Events of the replication that wait to be read. When nobody reads them, older ones give way.
pub const EVENTS: usize = 1024;

/// Requests for rows that wait to be sent to one peer. What finds no room is asked for again later.
pub const WANTS: usize = 1 << 14;

/// Times within a digest interval that a node asks a peer about a run of the peer's name that others name.
pub const RUN_QUESTIONS: u32 = 8;

/// Runs that a node does not hold and remembers the names of, so that a verification can name them.
pub const UNHELD: usize = 1024;

/// Changes that wait for one watcher. When it does not read, older ones give way.
pub const WATCHED_CHANGES: usize = 1 << 16;

/// Connections to the admin socket that are served at a time; further ones wait. One that holds or watches gives its place
/// back.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Connections to the admin socket that hold or watch; further ones are refused.
pub const ADMIN_STAYS: usize = 4096;

/// Places in which reached bounds are told apart.
pub const BOUND_PLACES: usize = 1024;

/// Sources of events that a [reporter](crate::reporter) tells apart; events of more sources are only counted.
pub const REPORT_SOURCES: usize = 1024;

/// Kinds of events of one source that a reporter tells apart.
pub const REPORT_KINDS: usize = 32;

/// Lines that a reporter writes at once, before [`REPORT_EVERY`] spaces them.
pub const REPORT_BURST: u32 = 256;

/// Time between two lines of a reporter that has written many.
pub const REPORT_EVERY: Duration = Duration::from_millis(250);

/// Time after which an event that has been repeated is reported with its count. It doubles with each such report.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The longest time between two reports of an event that goes on.
pub const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
