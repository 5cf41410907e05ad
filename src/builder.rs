//! From a configuration to a running node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tallymesh_engine::Config as EngineConfig;
use tallymesh_engine::limits::{FoundingError, LimitError};
use tallymesh_engine::replica::StructureError;
use tallymesh_schemas::config::{
    CacheConfig, Config, ConfigErrors, InboundMaximum, LimitsConfig, Metric, Monitor, NamedPermits, NamedThrottle,
    OnFullDisk, OutboundLimits, OutboundScope,
};
use tallymesh_schemas::{
    Class, Family, GaugeCacheSpec, Incarnation, Kind, NoSuchRun, NodeName, SeriesSpec, StructureName, StructureSpec,
    ThrottleSpec,
};
use tallymesh_transport::{Config as TransportConfig, Gate, Identity, IdentityError, Timings};

use crate::admin::AdminError;
use crate::clock;
use crate::declared::DeclaredError;
use crate::node::Node;
use crate::state::StateError;
use crate::topology::Bound;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration has no node block.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The certificate or key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no certificate.
    #[error("node {0} has no certificate: give it one with `identity`")]
    NoIdentity(String),
    /// The certificate is another node's.
    #[error("the certificate is for node {certified} and not for {name}: give each node its own")]
    Name {
        /// The name of the node.
        name: String,
        /// The name in the certificate.
        certified: String,
    },
    /// The number of the run cannot be.
    #[error("the incarnation cannot be used: {0}; leave it out to take the wall clock's milliseconds")]
    Incarnation(#[from] NoSuchRun),
    /// There is no run behind the one that is saved.
    #[error("the data_dir was last used by the last run that a node can be in, {0}: move it away")]
    LastRun(Incarnation),
    /// A structure cannot be replicated.
    #[error(transparent)]
    Structure(#[from] StructureError),
    /// The founders of hard limits cannot be those.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// A limit cannot be kept.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The limits that were declared cannot be kept.
    #[error(transparent)]
    Declared(#[from] DeclaredError),
    /// The address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] tallymesh_transport::BindError),
    /// What outlives a run cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// What a node is to be.
#[derive(Debug)]
pub struct Builder {
    pub(crate) name: String,
    pub(crate) identity: Option<Identity>,
    pub(crate) transport: TransportConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) bound: Bound,
    pub(crate) structures: Vec<StructureSpec>,
    pub(crate) series: Vec<SeriesSpec>,
    pub(crate) gauge_caches: Vec<GaugeCacheSpec>,
    pub(crate) limits: LimitsConfig,
    pub(crate) admin: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) on_full_disk: OnFullDisk,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            identity: None,
            transport: TransportConfig::loopback(clock::first_run()),
            engine: EngineConfig { seed: rand_seed(), ..EngineConfig::default() },
            bound: Bound::default(),
            structures: Vec::new(),
            series: Vec::new(),
            gauge_caches: Vec::new(),
            limits: LimitsConfig::default(),
            admin: None,
            data_dir: None,
            on_full_disk: OnFullDisk::default(),
        }
    }

    /// What a configuration says, its certificate files read.
    ///
    /// # Errors
    /// [`StartError`] when the configuration has no node block, or the certificate cannot be used or is another node's.
    pub fn from_config(config: &Config) -> Result<Self, StartError> {
        let node = config.require_node()?;
        let identity = Identity::from_files(&node.tls.ca, &node.tls.cert, &node.tls.key)?;
        let mut builder = Self::new(node.name.as_str()).identity(identity).listen(node.listen);
        builder.transport.advertise = node.advertise;
        builder.transport.seeds.clone_from(&node.seeds);
        builder.structures.clone_from(&config.structures);
        builder.structures.extend(config.caches.iter().map(CacheConfig::structure));
        builder.series.clone_from(&config.series);
        builder.gauge_caches.clone_from(&config.gauge_caches);
        builder.limits = config.limits.clone().unwrap_or_default();
        builder.admin.clone_from(&node.admin);
        builder.data_dir.clone_from(&node.data_dir);
        builder.on_full_disk = node.on_full_disk;
        Ok(builder)
    }

    /// The node's certificate and key, and the authority that the cluster trusts. Required.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// The UDP address to listen on; a free loopback port unless it is said.
    #[must_use]
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.transport.listen = addr;
        self
    }

    /// The address under which the others reach this node, if it is not the one listened on.
    #[must_use]
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.transport.advertise = Some(addr);
        self
    }

    /// A node to join by, as `host:port`. One that is up is enough; all that the cluster knows are found from there.
    #[must_use]
    pub fn seed(mut self, addr: impl Into<String>) -> Self {
        self.transport.seeds.push(addr.into());
        self
    }

    /// A structure to replicate. A plain [`Class`] turns into one with the class's name and defaults.
    #[must_use]
    pub fn replicate(mut self, spec: StructureSpec) -> Self {
        self.structures.push(spec);
        self
    }

    /// A cache to replicate, without a bound and with all that it holds for nodes that join.
    #[must_use]
    pub fn cache(self, name: StructureName) -> Self {
        self.replicate(StructureSpec::new(name, Class::Cache))
    }

    /// A cache to replicate, with its bounds and what a node that joins gets of it.
    #[must_use]
    pub fn cache_with(self, config: &CacheConfig) -> Self {
        self.replicate(config.structure())
    }

    /// A gauge cache to keep.
    #[must_use]
    pub fn gauge_cache(mut self, spec: GaugeCacheSpec) -> Self {
        self.gauge_caches.push(spec);
        self
    }

    /// A series to count in. See [`Builder::audit`] for those of the audit.
    #[must_use]
    pub fn series(mut self, spec: SeriesSpec) -> Self {
        self.series.push(spec);
        self
    }

    /// Audits metrics by address, in the windows of a monitor, and shares them with the cluster.
    #[must_use]
    pub fn audit(mut self, metrics: &[Metric], monitor: Monitor) -> Self {
        let Monitor { interval, windows } = monitor;
        let specs = metrics.iter().map(|metric| SeriesSpec::new(metric.series(), Kind::CidrTree, interval, windows));
        self.series.extend(specs);
        self
    }

    /// The nodes that hard limits are divided among, and how long one of them keeps its share without hearing from another
    /// one, one second to a day. The same on all nodes.
    #[must_use]
    pub fn founders(mut self, founders: impl IntoIterator<Item = NodeName>, reclaim_after: Duration) -> Self {
        (self.limits.founders, self.limits.reclaim_after) = (founders.into_iter().collect(), reclaim_after);
        self
    }

    /// Founders do not take up the share of one that is gone: `stand_in = false` of a configuration.
    #[must_use]
    pub fn without_stand_ins(mut self) -> Self {
        self.limits.stand_in = false;
        self
    }

    /// At most `maximum` open inbound connections from each block of addresses whose prefix has so many bits, checked by
    /// [`Limits::try_accept`](crate::Limits::try_accept). Up to 32 bits it is of IPv4 addresses, else of IPv6. `inbound_cidr`
    /// has to be replicated.
    #[must_use]
    pub fn inbound_maximum(self, prefix_len: u8, maximum: u64) -> Self {
        self.inbound_maximum_of(Family::of_mask(prefix_len), prefix_len, maximum)
    }

    /// As [`Builder::inbound_maximum`], of addresses of a family: for short IPv6 prefixes.
    #[must_use]
    pub fn inbound_maximum_of(mut self, family: Family, prefix_len: u8, maximum: u64) -> Self {
        self.limits.inbound.push(InboundMaximum { prefix_len, v6: family == Family::V6, maximum });
        self
    }

    /// At most `maximum` open outbound connections of a scope. `OBTC` has to be replicated.
    #[must_use]
    pub fn outbound_maximum(self, scope: OutboundScope, maximum: u64) -> Self {
        self.outbound(scope, |limits| limits.maximum = Some(maximum))
    }

    /// A rate of new outbound connections of a scope. `OBTC` has to be replicated.
    #[must_use]
    pub fn outbound_connections(self, scope: OutboundScope, spec: ThrottleSpec) -> Self {
        self.outbound(scope, |limits| limits.connections = Some(spec))
    }

    /// A rate of outbound messages of a scope. `OBTM` has to be replicated.
    #[must_use]
    pub fn outbound_messages(self, scope: OutboundScope, spec: ThrottleSpec) -> Self {
        self.outbound(scope, |limits| limits.messages = Some(spec))
    }

    /// Changes the limits of a scope, which are made if there are none.
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

    /// A named throttle. `shared_named_throttles` has to be replicated.
    #[must_use]
    pub fn throttle(mut self, name: &str, spec: ThrottleSpec) -> Self {
        self.limits.throttles.push(NamedThrottle { name: name.to_owned(), spec });
        self
    }

    /// So many permits under a name, that the cluster shares. `shared_named_throttles` has to be replicated, and there have to
    /// be founders.
    #[must_use]
    pub fn permits(mut self, name: &str, maximum: u64) -> Self {
        self.limits.permits.push(NamedPermits { name: name.to_owned(), maximum });
        self
    }

    /// All limits at once, in place of what was said before.
    #[must_use]
    pub fn limits(mut self, limits: LimitsConfig) -> Self {
        self.limits = limits;
        self
    }

    /// The Unix socket on which the `tally` command is served.
    #[must_use]
    pub fn admin(mut self, path: impl AsRef<Path>) -> Self {
        self.admin = Some(path.as_ref().to_owned());
        self
    }

    /// The folder in which the node saves what outlives a run: caches, gauge caches, series that persist, which nodes are
    /// forgotten, and in which run it is. A file is made there if there is none; one node at a time uses it.
    #[must_use]
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Self {
        self.data_dir = Some(path.as_ref().to_owned());
        self
    }

    /// What the node does when there is no room for its state as it starts: it refuses to start unless this says otherwise.
    #[must_use]
    pub fn on_full_disk(mut self, on_full_disk: OnFullDisk) -> Self {
        self.on_full_disk = on_full_disk;
        self
    }

    /// Which run of the node this is; the wall clock's milliseconds unless it is said. It has to be higher than that of
    /// any earlier run; where a [`Builder::data_dir`] says which one was the last, it is made so.
    #[must_use]
    pub fn incarnation(mut self, incarnation: Incarnation) -> Self {
        self.transport.incarnation = incarnation;
        self
    }

    /// A switch that cuts the node from the network: for demonstrations and tests of partitions.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.transport.gate = gate;
        self
    }

    /// How the transport behaves in time.
    #[must_use]
    pub fn timings(mut self, timings: Timings) -> Self {
        self.transport.timings = timings;
        self
    }

    /// How the engine behaves.
    #[must_use]
    pub fn engine(mut self, config: EngineConfig) -> Self {
        self.engine = config;
        self
    }

    /// Starts the node. To be called from within a tokio runtime; the node's tasks run on it.
    ///
    /// # Errors
    /// [`StartError`] says what is in the way; nothing runs then.
    pub async fn start(self) -> Result<Node, StartError> {
        Node::start(self).await
    }

    /// The identity, which has to be there and to be this node's.
    pub(crate) fn take_identity(&mut self) -> Result<Identity, StartError> {
        let name = self.name.clone();
        let identity = self.identity.take().ok_or(StartError::NoIdentity(name))?;
        if identity.name().as_str() != self.name {
            return Err(StartError::Name { name: self.name.clone(), certified: identity.name().to_string() });
        }
        Ok(identity)
    }
}

/// A seed that differs from process to process, so that nobody outside knows which keys collide in the tables.
pub(crate) fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}
