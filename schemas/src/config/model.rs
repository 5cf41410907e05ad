//! The types of a configuration that passed every check.

use std::net::SocketAddr;
use std::num::NonZeroU64;
#[cfg(feature = "config")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::actor::NodeName;
use crate::budget::Budget;
use crate::config::http::HttpAddress;
use crate::config::metric::Metric;
use crate::config::outbound_scope::OutboundScope;
#[cfg(feature = "config")]
use crate::config::report::ConfigErrors;
#[cfg(feature = "config")]
use crate::gauge::GaugeCacheSpec;
#[cfg(feature = "config")]
use crate::series::SeriesSpec;
use crate::structure::{Bounds, Class, StructureName, StructureSpec};
use crate::throttle::ThrottleSpec;

/// A configuration that passed every check.
#[cfg(feature = "config")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The node. A file with only cluster stanzas has none; [`Config::require_node`] turns that into an error.
    pub node: Option<NodeConfig>,
    /// The structures that this version supports, in the order of the file.
    pub structures: Vec<StructureSpec>,
    /// Replicated caches.
    pub caches: Vec<CacheConfig>,
    /// What `Replicate "metrics"` enables.
    pub metrics: Option<MetricsConfig>,
    /// Throttles that the cluster shares.
    pub throttles: Vec<ThrottleConfig>,
    /// The `limits` block, if there is one.
    pub limits: Option<LimitsConfig>,
    /// The windows that the inbound audit keeps.
    pub monitors: Vec<Monitor>,
    /// The series: those of the audit, metric by metric, and then the named ones.
    pub series: Vec<SeriesSpec>,
    /// Gauge caches.
    pub gauge_caches: Vec<GaugeCacheSpec>,
    /// The name of the file, for errors.
    pub(super) file: String,
}

/// Default for how long a seat holder keeps its share without a message from another one.
pub(super) const RECLAIM_AFTER: Duration = Duration::from_secs(30);

/// The `limits` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// The seats: the nodes among which hard limits are divided.
    pub founders: Vec<NodeName>,
    /// How long a seat holder keeps its share without a message from another one.
    pub reclaim_after: Duration,
    /// Whether the other seat holders take over the share of one that is gone.
    pub stand_in: bool,
    /// Throttles by name.
    pub throttles: Vec<NamedThrottle>,
    /// Pools of permits by name.
    pub permits: Vec<NamedPermits>,
    /// Outbound limits, scope by scope.
    pub outbound: Vec<OutboundLimits>,
    /// Inbound limits.
    pub inbound: Vec<InboundMaximum>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            founders: Vec::new(),
            reclaim_after: RECLAIM_AFTER,
            stand_in: true,
            throttles: Vec::new(),
            permits: Vec::new(),
            outbound: Vec::new(),
            inbound: Vec::new(),
        }
    }
}

/// A throttle with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedThrottle {
    /// Its name.
    pub name: String,
    /// Its specification.
    pub spec: ThrottleSpec,
}

/// A pool of permits with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPermits {
    /// Its name.
    pub name: String,
    /// The maximum for the whole cluster.
    pub maximum: u64,
}

/// The limits of one scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundLimits {
    /// The scope.
    pub scope: OutboundScope,
    /// Messages: OBTM.
    pub messages: Option<ThrottleSpec>,
    /// New connections: OBTC.
    pub connections: Option<ThrottleSpec>,
    /// Open connections.
    pub maximum: Option<u64>,
}

/// The maximum number of open inbound connections from each block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundMaximum {
    /// Bits of a block's prefix.
    pub prefix_len: u8,
    /// Whether it limits IPv6 addresses.
    pub v6: bool,
    /// The maximum.
    pub maximum: u64,
}

/// The `node` block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name, the same as in its certificate.
    pub name: NodeName,
    /// The UDP address on which it listens.
    pub listen: SocketAddr,
    /// The address at which other nodes reach it, if that is not `listen`.
    pub advertise: Option<SocketAddr>,
    /// Nodes to join by, each `host:port`.
    pub seeds: Vec<String>,
    /// Its certificate.
    pub tls: Tls,
    /// The Unix socket of its console.
    pub admin: Option<PathBuf>,
    /// Where it serves HTTP: metrics and health.
    pub http: Option<HttpAddress>,
    /// The folder of the saved state.
    pub data_dir: Option<PathBuf>,
    /// What to do when the disk has no room for it at the start.
    pub on_full_disk: OnFullDisk,
    /// What its objects may hold together.
    pub budget: Budget,
    /// What it logs, unless the command line says otherwise.
    pub log: Option<LogLevel>,
}

/// The least important events that a node logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// No events.
    Off,
    /// Errors.
    Error,
    /// Also warnings.
    Warn,
    /// Also what happens in the cluster.
    Info,
    /// Also what helps to find faults.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What a node does when the disk has no room for its state at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFullDisk {
    /// It does not start, and says what to do.
    #[default]
    Refuse,
    /// It serves, and saves when there is room.
    Serve,
}

impl OnFullDisk {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Serve => "serve",
        }
    }
}

/// The files of a node's identity, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The cluster's certificate authority.
    pub ca: PathBuf,
    /// The node's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How changes of a structure are batched; see [`StructureSpec::max_delay`] and [`StructureSpec::max_pending`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Longest time that a change waits so that several are sent together.
    pub max_delay: Duration,
    /// Maximum number of changes that wait.
    pub max_pending: usize,
}

/// A replicated cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Its name.
    pub name: StructureName,
    /// Whether a joining node receives entries that were stored before.
    pub snapshot: bool,
    /// Its maximum size.
    pub bounds: Bounds,
    /// How its changes are sent.
    pub pace: Pace,
}

impl CacheConfig {
    /// Its structure.
    pub fn structure(&self) -> StructureSpec {
        let Pace { max_delay, max_pending } = self.pace;
        let spec = StructureSpec::new(self.name.clone(), Class::Cache);
        StructureSpec { snapshot: self.snapshot, max_delay, max_pending, bounds: self.bounds, ..spec }
    }
}

/// What `Replicate "metrics"` enables; at least one of the three.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// The audit metrics by address, each once, in the order of [`Metric`].
    pub metrics: Vec<Metric>,
    /// Whether named audit series are replicated.
    pub audit_series: bool,
    /// Whether gauge caches are replicated.
    pub gauge_cache: bool,
    /// How their changes are sent.
    pub pace: Pace,
}

/// Throttles of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// The class.
    pub class: ThrottleClass,
    /// How their changes are sent.
    pub pace: Pace,
    /// The most names that the node holds.
    pub max_keys: Option<NonZeroU64>,
}

/// The classes of throttles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThrottleClass {
    /// `shared_named_throttles`.
    SharedNamed,
    /// `OBTM`: outbound messages.
    OutboundMessages,
    /// `OBTC`: outbound connections.
    OutboundConnections,
}

/// One series of windows of the inbound audit: `"300,6"` is six windows of 300 seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monitor {
    /// Seconds of one window.
    pub interval: u32,
    /// How many windows are kept.
    pub windows: u32,
}

#[cfg(feature = "config")]
impl Config {
    /// The node block, for callers that run the node.
    ///
    /// # Errors
    /// The file has none.
    pub fn require_node(&self) -> Result<&NodeConfig, ConfigErrors> {
        self.node.as_ref().ok_or_else(|| {
            let help = "add one: node { … } with name, listen, seeds and tls; `tally init` writes whole files";
            ConfigErrors::of_file(&self.file, "there is no node block, so there is nothing to run", help)
        })
    }

    /// Makes relative paths relative to `base`: the folder of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Some(NodeConfig { tls, admin, data_dir, http, .. }) = &mut self.node {
            let paths = [&mut tls.ca, &mut tls.cert, &mut tls.key];
            for path in paths.into_iter().chain(admin).chain(data_dir).chain(http.as_mut().and_then(HttpAddress::path))
            {
                *path = base.join(&*path);
            }
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { max_delay: StructureSpec::MAX_DELAY, max_pending: StructureSpec::MAX_PENDING }
    }
}

impl ThrottleClass {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::SharedNamed, Self::OutboundMessages, Self::OutboundConnections];

    /// The class of its structure.
    pub fn class(self) -> Class {
        match self {
            Self::SharedNamed => Class::SharedNamedThrottles,
            Self::OutboundMessages => Class::OutboundMessages,
            Self::OutboundConnections => Class::OutboundConnections,
        }
    }

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::SharedNamed => "shared_named_throttles",
            Self::OutboundMessages => "OBTM",
            Self::OutboundConnections => "OBTC",
        }
    }
}
