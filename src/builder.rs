//! Builds and starts a node from its configuration.

use std::net::SocketAddr;
use std::num::NonZeroU64;
#[cfg(any(feature = "admin", feature = "state"))]
use std::path::Path;
#[cfg(any(feature = "admin", feature = "config", feature = "state"))]
use std::path::PathBuf;
use std::time::Duration;

use tallymesh_engine::Config as EngineConfig;
use tallymesh_engine::limiter::{FoundingError, LimitError};
use tallymesh_engine::replica::StructureError;
#[cfg(feature = "config")]
use tallymesh_schemas::config::ConfigErrors;
#[cfg(feature = "http")]
use tallymesh_schemas::config::HttpAddress;
#[cfg(feature = "state")]
use tallymesh_schemas::config::OnFullDisk;
use tallymesh_schemas::config::{
    CacheConfig, InboundMaximum, LimitsConfig, LogLevel, Metric, Monitor, NamedPermits, NamedThrottle, OutboundLimits,
    OutboundScope, Tls,
};
use tallymesh_schemas::{
    Class, Family, GaugeCacheSpec, Incarnation, Kind, NoSuchRun, NodeName, SeriesSpec, StructureName, StructureSpec,
    ThrottleSpec,
};
use tallymesh_transport::{Config as TransportConfig, Gate, Identity, IdentityError, Timings};

use crate::certificates::Files;
use crate::clock;
use crate::declared::DeclaredError;
#[cfg(feature = "http")]
use crate::http::HttpError;
use crate::seed::random_seed;
use crate::set_log::SetLog;
#[cfg(feature = "admin")]
use crate::socket_error::SocketError;
#[cfg(feature = "state")]
use crate::state::StateError;
use crate::topology::Bound;

/// Why a node did not start.
///
/// ```no_run
/// # async fn example(builder: tallymesh::Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::StartError;
///
/// match builder.start().await {
///     Ok(node) => node.shutdown().await,
///     Err(StartError::Bind(error)) => println!("another listen address, please: {error}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration has no node block.
    #[cfg(feature = "config")]
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The configuration has a setting of a feature that this build does not have.
    #[error(
        "the node block has \"{setting}\": build tallymesh with the feature \"{feature}\", or leave the setting out"
    )]
    NotBuilt {
        /// The setting.
        setting: &'static str,
        /// The feature that it needs.
        feature: &'static str,
    },
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No certificate was given.
    #[error("node {0} has no certificate: give it one with `identity`")]
    NoIdentity(String),
    /// The certificate is for another node.
    #[error("the certificate is for node {certified} and not for {name}: give each node its own")]
    Name {
        /// The name of the node.
        name: String,
        /// The name in the certificate.
        certified: String,
    },
    /// The incarnation is not a valid one.
    #[error("the incarnation cannot be used: {0}; leave it out to take the wall clock's milliseconds")]
    Incarnation(#[from] NoSuchRun),
    /// The saved incarnation is the highest possible one, so no run can follow it.
    #[error("the data_dir was last used by the last run that a node can be in, {0}: move it away")]
    LastRun(Incarnation),
    /// A structure cannot be replicated.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// The list of founders of hard limits is not valid.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A limit cannot be enforced.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The declared limits are not valid.
    #[error(transparent)]
    Declared(#[from] DeclaredError),
    /// The node cannot listen on the address.
    #[error(transparent)]
    Bind(#[from] tallymesh_transport::BindError),
    /// The saved state cannot be read or written.
    #[cfg(feature = "state")]
    #[error(transparent)]
    State(#[from] StateError),
    /// The admin socket cannot be opened.
    #[cfg(feature = "admin")]
    #[error(transparent)]
    Admin(#[from] SocketError),
    /// The HTTP listener cannot be opened.
    #[cfg(feature = "http")]
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// The configuration of a node that has not started yet.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use tallymesh::{Class, Family, Identity, Node, NodeName, OutboundScope, Rate, Strength, ThrottleSpec};
///
/// let rate: Rate = "300/5m".parse()?;
/// let founders = ["relay-0-1", "relay-0-2"].map(NodeName::new).into_iter().collect::<Result<Vec<_>, _>>()?;
/// let node = Node::builder("relay-0-1")
///     .identity(Identity::from_dir("mesh", "relay-0-1")?)
///     .listen("192.0.2.1:4801".parse()?)
///     .seed("192.0.2.2:4801")
///     .replicate(Class::InboundCidr.into())
///     .replicate(Class::SharedNamedThrottles.into())
///     .replicate(Class::OutboundMessages.into())
///     .replicate(Class::OutboundConnections.into())
///     .founders(founders, Duration::from_secs(30))
///     .throttle("campaign", ThrottleSpec::new(rate, Strength::Soft))
///     .permits("uploads", 20)
///     .inbound_maximum(24, 30) // of an IPv4 block
///     .inbound_maximum_of(Family::V6, 32, 1000)
///     .outbound_maximum(OutboundScope::Domain("example.com".to_owned()), 20)
///     .outbound_messages(OutboundScope::Global, ThrottleSpec::new(rate, Strength::Hard))
///     .start()
///     .await?;
/// # node.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) identity: Option<Identity>,
    /// Where the identity was read from, if it is to be watched.
    pub(crate) files: Option<Files>,
    pub(crate) transport: TransportConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) bound: Bound,
    pub(crate) log: Option<LogLevel>,
    pub(crate) set_log: Option<SetLog>,
    #[cfg(feature = "config")]
    pub(crate) source: Option<PathBuf>,
    pub(crate) structures: Vec<StructureSpec>,
    pub(crate) series: Vec<SeriesSpec>,
    pub(crate) gauge_caches: Vec<GaugeCacheSpec>,
    pub(crate) limits: LimitsConfig,
    #[cfg(feature = "admin")]
    pub(crate) admin: Option<PathBuf>,
    #[cfg(feature = "state")]
    pub(crate) data_dir: Option<PathBuf>,
    #[cfg(feature = "state")]
    pub(crate) on_full_disk: OnFullDisk,
    #[cfg(feature = "http")]
    pub(crate) http: Option<HttpAddress>,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            identity: None,
            files: None,
            transport: TransportConfig::loopback(clock::first_run()),
            engine: EngineConfig { seed: random_seed(), ..EngineConfig::default() },
            bound: Bound::default(),
            log: None,
            set_log: None,
            #[cfg(feature = "config")]
            source: None,
            structures: Vec::new(),
            series: Vec::new(),
            gauge_caches: Vec::new(),
            limits: LimitsConfig::default(),
            #[cfg(feature = "admin")]
            admin: None,
            #[cfg(feature = "state")]
            data_dir: None,
            #[cfg(feature = "state")]
            on_full_disk: OnFullDisk::default(),
            #[cfg(feature = "http")]
            http: None,
        }
    }

    /// Sets the node's certificate and key, and the cluster CA that the node trusts. Required.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        (self.identity, self.files) = (Some(identity), None);
        self
    }

    /// As [`Builder::identity`], from files in PEM. The node watches them and uses what they hold, also after an orchestrator
    /// has replaced the folder behind a symbolic link. While they hold nothing usable, the node keeps what it has.
    ///
    /// # Errors
    /// As [`Identity::from_files`].
    pub fn identity_files(mut self, files: &Tls) -> Result<Self, IdentityError> {
        let (identity, files) = Files::load(files)?;
        (self.identity, self.files) = (Some(identity), Some(files));
        Ok(self)
    }

    /// Sets the UDP address to listen on. Default: a free port on the loopback address.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.transport.listen = addr;
        self
    }

    /// Sets the address at which other nodes reach this one, if it differs from the listen address.
    #[must_use]
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.transport.advertise = Some(addr);
        self
    }

    /// Adds a seed: a node to join by, as `host:port`. One running seed is enough; the node learns all other members from it.
    #[must_use]
    pub fn seed(mut self, addr: impl Into<String>) -> Self {
        self.transport.seeds.push(addr.into());
        self
    }

    /// Replicates a structure. A plain [`Class`] becomes a structure with the name and defaults of the class.
    #[must_use]
    pub fn replicate(mut self, spec: StructureSpec) -> Self {
        self.structures.push(spec);
        self
    }

    /// Replicates a cache without bounds. A joining node receives all its entries.
    #[must_use]
    pub fn cache(self, name: StructureName) -> Self {
        self.replicate(StructureSpec::new(name, Class::Cache))
    }

    /// Replicates a cache. `spec` states its bounds and which entries a joining node receives.
    #[must_use]
    pub fn cache_with(self, config: &CacheConfig) -> Self {
        self.replicate(config.structure())
    }

    /// Adds a gauge cache.
    #[must_use]
    pub fn gauge_cache(mut self, spec: GaugeCacheSpec) -> Self {
        self.gauge_caches.push(spec);
        self
    }

    /// Adds a series. For the series of the audit see [`Builder::audit`].
    #[must_use]
    pub fn series(mut self, spec: SeriesSpec) -> Self {
        self.series.push(spec);
        self
    }

    /// Audits metrics by address, in the windows of a monitor, and shares the counts with the cluster.
    #[must_use]
    pub fn audit(mut self, metrics: &[Metric], monitor: Monitor) -> Self {
        let Monitor { interval, windows } = monitor;
        let specs = metrics.iter().map(|metric| SeriesSpec::new(metric.series(), Kind::CidrTree, interval, windows));
        self.series.extend(specs);
        self
    }

    /// Sets the founders, the nodes that hard limits are divided among. The duration states how long a founder keeps its share
    /// without news from another founder: one second to one day. All nodes must have the same values.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = NodeName>, reclaim_after: Duration) -> Self {
        (self.limits.founders, self.limits.reclaim_after) = (founders.into_iter().collect(), reclaim_after);
        self
    }

    /// Founders do not take over the share of a founder that is gone: `stand_in = false` in a configuration.
    #[must_use]
    pub fn without_stand_ins(mut self) -> Self {
        self.limits.stand_in = false;
        self
    }

    /// Limits the open inbound connections to `maximum` for each address block with this prefix length, checked by
    /// [`Limits::try_accept`](crate::Limits::try_accept). Lengths up to 32 bits mean IPv4 blocks, greater ones IPv6 blocks.
    /// Requires that `inbound_cidr` is replicated.
    #[must_use]
    pub fn inbound_maximum(self, prefix_len: u8, maximum: u64) -> Self {
        self.inbound_maximum_of(Family::of_mask(prefix_len), prefix_len, maximum)
    }

    /// As [`Builder::inbound_maximum`], for the given address family: for short IPv6 prefixes.
    #[must_use]
    pub fn inbound_maximum_of(mut self, family: Family, prefix_len: u8, maximum: u64) -> Self {
        self.limits.inbound.push(InboundMaximum { prefix_len, v6: family == Family::V6, maximum });
        self
    }

    /// Limits the open outbound connections of a scope to `maximum`. Requires that `OBTC` is replicated.
    #[must_use]
    pub fn outbound_maximum(self, scope: OutboundScope, maximum: u64) -> Self {
        self.outbound(scope, |limits| limits.maximum = Some(maximum))
    }

    /// Limits the rate of new outbound connections of a scope. Requires that `OBTC` is replicated.
    #[must_use]
    pub fn outbound_connections(self, scope: OutboundScope, spec: ThrottleSpec) -> Self {
        self.outbound(scope, |limits| limits.connections = Some(spec))
    }

    /// Limits the rate of outbound messages of a scope. Requires that `OBTM` is replicated.
    #[must_use]
    pub fn outbound_messages(self, scope: OutboundScope, spec: ThrottleSpec) -> Self {
        self.outbound(scope, |limits| limits.messages = Some(spec))
    }

    /// Changes the limits of a scope. Creates them if the scope has none.
    fn outbound(mut self, scope: OutboundScope, set: impl FnOnce(&mut OutboundLimits)) -> Self {
        let all = &mut self.limits.outbound;
        match all.iter_mut().find(|limits| limits.scope == scope) {
            Some(limits) => set(limits),
            None => {
                let mut limits = OutboundLimits { scope, messages: None, connections: None, maximum: None };
                set(&mut limits);
                all.push(limits);
            }
        }
        self
    }

    /// Declares a named throttle. Requires that `shared_named_throttles` is replicated.
    #[must_use]
    pub fn throttle(mut self, name: &str, spec: ThrottleSpec) -> Self {
        self.limits.throttles.push(NamedThrottle { name: name.to_owned(), spec });
        self
    }

    /// Declares `maximum` permits under a name, which the cluster shares. Requires that `shared_named_throttles` is replicated
    /// and that there are founders.
    #[must_use]
    pub fn permits(mut self, name: &str, maximum: u64) -> Self {
        self.limits.permits.push(NamedPermits { name: name.to_owned(), maximum });
        self
    }

    /// Sets all limits at once, and replaces those set before.
    #[must_use]
    pub fn limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the Unix socket on which the node serves the `tally` command.
    #[cfg(feature = "admin")]
    #[must_use]
    pub fn admin(mut self, path: impl AsRef<Path>) -> Self {
        self.admin = Some(path.as_ref().to_owned());
        self
    }

    /// Sets where the node serves HTTP: metrics at `/metrics`, health at `/healthz`, readiness at `/readyz`. A TCP address, or
    /// the path of a Unix socket. Default: nowhere. The listener has no authentication, so listen on a loopback address or on a
    /// Unix socket.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(mut self, address: impl Into<HttpAddress>) -> Self {
        self.http = Some(address.into());
        self
    }

    /// Sets the folder of the saved state: caches, gauge caches, persistent series, forgotten nodes, and the node's
    /// incarnation. The node creates the file if there is none. Only one node at a time may use the folder.
    #[cfg(feature = "state")]
    #[must_use]
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Sets what the node does when it starts and the disk has no room for its state. Default: it refuses to start.
    #[cfg(feature = "state")]
    #[must_use]
    pub fn on_full_disk(mut self, on_full_disk: OnFullDisk) -> Self {
        self.on_full_disk = on_full_disk;
        self
    }

    /// Sets the most keys that all objects may hold together, with the live entries of caches. Default: no bound. A change that
    /// needs a further key fails, and rows of other nodes wait until there is room.
    #[must_use]
    pub fn max_keys(mut self, max: NonZeroU64) -> Self {
        self.engine.budget.keys = Some(max);
        self
    }

    /// Sets the most bytes that the keys and values of all caches may have together. Default: no bound.
    #[must_use]
    pub fn max_bytes(mut self, max: NonZeroU64) -> Self {
        self.engine.budget.bytes = Some(max);
        self
    }

    /// Sets the incarnation, the number of this run. Default: the wall clock's milliseconds. It must be higher than that of any
    /// earlier run; with a [`Builder::data_dir`], the node raises it above the last saved one if necessary.
    #[must_use]
    pub fn incarnation(mut self, incarnation: Incarnation) -> Self {
        self.transport.incarnation = incarnation;
        self
    }

    /// Sets a switch that cuts the node from the network: for demonstrations and tests of partitions.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.transport.gate = gate;
        self
    }

    /// Sets the intervals and timeouts of the transport.
    #[must_use]
    pub fn timings(mut self, timings: Timings) -> Self {
        self.transport.timings = timings;
        self
    }

    /// Sets the parameters of the engine, except for its budget: see [`Builder::max_keys`] and [`Builder::max_bytes`].
    #[must_use]
    pub fn engine(mut self, config: EngineConfig) -> Self {
        self.engine = EngineConfig { budget: self.engine.budget, ..config };
        self
    }

    /// Takes the identity, and checks that it exists and is for this node.
    pub(crate) fn take_identity(&mut self) -> Result<Identity, StartError> {
        let name = self.name.clone();
        let identity = self.identity.take().ok_or(StartError::NoIdentity(name))?;
        if identity.name().as_str() != self.name {
            return Err(StartError::Name { name: self.name.clone(), certified: identity.name().to_string() });
        }
        Ok(identity)
    }
}
