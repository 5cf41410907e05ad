//! The configuration of an endpoint.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tallymesh_schemas::actor::Incarnation;

use crate::gate::Gate;

/// Where an endpoint listens, which seeds it dials, and its run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address at which other nodes reach this node. Required when `listen` is a wildcard (`0.0.0.0`); otherwise the
    /// default is the address listened on.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes to join. The endpoint resolves a name at each dial, and the name may stand for several nodes. This
    /// node's own address among them does no harm.
    pub seeds: Vec<String>,
    /// The run of this node.
    pub incarnation: Incarnation,
    /// The switch that cuts this endpoint from the network.
    pub gate: Gate,
    /// Time limits and pauses.
    pub timings: Timings,
}

impl Config {
    /// A configuration without seeds and with everything else at its default.
    pub fn new(listen: SocketAddr, incarnation: Incarnation) -> Self {
        Self {
            listen,
            advertise: None,
            seeds: Vec::new(),
            incarnation,
            gate: Gate::default(),
            timings: Timings::default(),
        }
    }

    /// As [`Config::new`] on a free port of the loopback address, for tests and demonstrations.
    pub fn loopback(incarnation: Incarnation) -> Self {
        Self::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), incarnation)
    }
}

/// Time limits and pauses. The defaults suit a cluster whose round trips are below 100 ms.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Silence after which an end sends a keep-alive: 1.5 s. Three may be lost before the end gives up the link.
    pub keep_alive: Duration,
    /// Silence after which an end gives up a link: 6 s.
    pub idle: Duration,
    /// From a connection's first packet to the end of its TLS handshake: 3 s. A dial makes at most two of them.
    pub handshake: Duration,
    /// From the end of the TLS handshake to the peer's hello: 3 s.
    pub hello: Duration,
    /// The first pause between two dials: 100 ms. Each further pause doubles, minus a random part of up to half.
    pub backoff_min: Duration,
    /// The longest pause between two dials: 5 s. After a partition heals, the cluster is connected again after about this time.
    pub backoff_max: Duration,
    /// The longest pause between two dials to a member that has been dead for an hour, or at whose address another node
    /// answers: 60 s.
    pub backoff_dead: Duration,
    /// How much earlier the node with the smaller name dials: 300 ms.
    pub head_start: Duration,
    /// How often the node resolves the seeds' addresses again while all of them are linked: 10 s.
    pub seed_check: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_millis(1500),
            idle: Duration::from_secs(6),
            handshake: Duration::from_secs(3),
            hello: Duration::from_secs(3),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            backoff_dead: Duration::from_secs(60),
            head_start: Duration::from_millis(300),
            seed_check: Duration::from_secs(10),
        }
    }
}
