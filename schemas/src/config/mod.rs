//! The configuration of a node and its cluster, in HCL with Momentum's stanzas.
//!
//! [`Config::parse`] reads a text and returns a [`Config`] that passed every check, or [`ConfigErrors`]: all errors, each with
//! its place and what to do. (If the text is not HCL, only the first such place.) This module reads no file and resolves no
//! name. The reference for users is `docs/configuration.md`.
//!
//! Processing order: `syntax` → `scope` and `value` (one block, one setting) → `node`, `replicate`, `caches`, `audit`, `series`
//! (one kind of block each) → `whole` (rules that span several blocks).

#[cfg(feature = "config")]
mod audit;
#[cfg(feature = "config")]
mod caches;
#[cfg(feature = "config")]
mod gauge;
#[cfg(feature = "config")]
mod limits;
#[cfg(feature = "config")]
mod nesting;
#[cfg(feature = "config")]
mod node;
#[cfg(feature = "config")]
mod on_dead;
#[cfg(feature = "config")]
mod render;
#[cfg(feature = "config")]
mod replicate;
#[cfg(feature = "config")]
mod report;
#[cfg(feature = "config")]
mod scope;
#[cfg(feature = "config")]
mod series;
#[cfg(feature = "config")]
mod suggest;
#[cfg(feature = "config")]
mod syntax;
#[cfg(feature = "config")]
mod value;
#[cfg(feature = "config")]
mod whole;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "config")]
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Bounds, Class, NodeName, SeriesName, StructureName, StructureSpec, ThrottleSpec, key};
#[cfg(feature = "config")]
use crate::{GaugeCacheSpec, SeriesSpec};

#[cfg(feature = "config")]
pub use node::dials;
#[cfg(feature = "config")]
pub use render::{SAMPLES, render_node_file};
#[cfg(feature = "config")]
pub use report::{ConfigError, ConfigErrors};

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
    file: String,
}

/// The default of [`LimitsConfig::reclaim_after`].
const RECLAIM_AFTER: Duration = Duration::from_secs(30);

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

/// The scope of an outbound limit. The name `*` stands for each name that has no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutboundScope {
    /// The whole cluster.
    Global,
    /// A destination domain.
    Domain(String),
    /// A group of bindings.
    BindingGroup(String),
    /// A binding.
    Binding(String),
    /// A binding and a domain.
    BindingDomain(String, String),
    /// A destination host, by name.
    Host(String),
}

impl OutboundScope {
    /// The scope with its names in canonical form. A binding with a slash is a binding and a domain.
    ///
    /// # Errors
    /// [`key::KeyError`] when a name is invalid.
    pub fn canonical(self) -> Result<Self, key::KeyError> {
        let domain = |name: String| if name == "*" { Ok(name) } else { key::domain(&name).map(Cow::into_owned) };
        let other = |name: String| key::throttle(&name).map(str::to_owned);
        Ok(match self {
            Self::Global => Self::Global,
            Self::Domain(name) => Self::Domain(domain(name)?),
            Self::BindingGroup(name) => Self::BindingGroup(other(name)?),
            Self::Binding(name) => match name.split_once('/') {
                Some((binding, name)) => Self::BindingDomain(other(binding.to_owned())?, domain(name.to_owned())?),
                None => Self::Binding(other(name)?),
            },
            Self::BindingDomain(binding, name) => Self::BindingDomain(other(binding)?, domain(name)?),
            Self::Host(name) => Self::Host(domain(name)?),
        })
    }
}

impl OutboundScope {
    /// Parses a scope in the form that [`Display`](fmt::Display) writes; `None` when there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((kind, name)) = text.split_once(' ') else { return (text == "global").then_some(Self::Global) };
        let name = name.to_owned();
        match kind {
            "domain" => Some(Self::Domain(name)),
            "binding_group" => Some(Self::BindingGroup(name)),
            "binding" => Some(match name.split_once('/') {
                Some((binding, domain)) => Self::BindingDomain(binding.to_owned(), domain.to_owned()),
                None => Self::Binding(name),
            }),
            "host" => Some(Self::Host(name)),
            _ => None,
        }
    }

    /// Whether it has the name `*`, which stands for each name without a limit of its own.
    pub fn is_pattern(&self) -> bool {
        match self {
            Self::Global => false,
            Self::Domain(name) | Self::BindingGroup(name) | Self::Binding(name) | Self::Host(name) => name == "*",
            Self::BindingDomain(binding, domain) => binding == "*" || domain == "*",
        }
    }
}

impl fmt::Display for OutboundScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Domain(name) => write!(f, "domain {name}"),
            Self::BindingGroup(name) => write!(f, "binding_group {name}"),
            Self::Binding(name) => write!(f, "binding {name}"),
            Self::BindingDomain(binding, name) => write!(f, "binding {binding}/{name}"),
            Self::Host(name) => write!(f, "host {name}"),
        }
    }
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
    /// The folder of the saved state.
    pub data_dir: Option<PathBuf>,
    /// What to do when the disk has no room for it at the start.
    pub on_full_disk: OnFullDisk,
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

/// An event that the audit counts by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// A connection came in.
    Connect,
    /// A message was received.
    Reception,
    /// A message was rejected.
    Rejection,
    /// A message was delivered.
    Delivery,
    /// A delivery failed for now.
    Transfail,
    /// A delivery failed for good.
    Permfail,
}

/// Throttles of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThrottleConfig {
    /// The class.
    pub class: ThrottleClass,
    /// How their changes are sent.
    pub pace: Pace,
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
    /// Parses a configuration. Errors use `file` as the file's name; this function opens no file.
    ///
    /// # Errors
    /// All errors of the text, in its order.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        whole::read(&syntax::parse(text, file)?, text, file)
    }

    /// The node block, for callers that run the node.
    ///
    /// # Errors
    /// The file has none.
    pub fn require_node(&self) -> Result<&NodeConfig, ConfigErrors> {
        self.node.as_ref().ok_or_else(|| {
            let help = "add one: node { … } with name, listen, seeds and tls; `tally init` writes whole files";
            ConfigErrors::whole(&self.file, "there is no node block, so there is nothing to run", help)
        })
    }

    /// Makes relative paths relative to `base`: the folder of the configuration file.
    pub fn resolve_paths(&mut self, base: &Path) {
        if let Some(NodeConfig { tls, admin, data_dir, .. }) = &mut self.node {
            let paths = [&mut tls.ca, &mut tls.cert, &mut tls.key];
            for path in paths.into_iter().chain(admin).chain(data_dir) {
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

impl Metric {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Reception, Self::Rejection, Self::Delivery, Self::Transfail, Self::Permfail];

    /// The name of its series.
    pub fn series(self) -> SeriesName {
        SeriesName::of_metric(self)
    }

    /// The metric of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }

    /// The name of the parameter that enables it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reception => "reception",
            Self::Rejection => "rejection",
            Self::Delivery => "delivery",
            Self::Transfail => "transfail",
            Self::Permfail => "permfail",
        }
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
