//! What an endpoint is told at its start.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tallymesh_schemas::actor::Incarnation;

use crate::Gate;

/// Where an endpoint listens, whom it seeks, and which run it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// The UDP address to listen on; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address under which others reach this node. Needed when `listen` names no address (`0.0.0.0`); otherwise the
    /// address listened on.
    pub advertise: Option<SocketAddr>,
    /// `host:port` of nodes to join. A name is resolved at each dial and may stand for several nodes; this node's own
    /// address among them does no harm.
    pub seeds: Vec<String>,
    /// Which run of the node this is.
    pub incarnation: Incarnation,
    /// The switch that cuts this endpoint from the network.
    pub gate: Gate,
    /// How long things may take.
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

/// How long things may take. The defaults suit a cluster whose round trips are below 100 ms.
#[derive(Debug, Clone)]
pub struct Timings {
    /// Silence after which an end sends a sign of life: 1.5 s. Three may be lost before the link is given up.
    pub keep_alive: Duration,
    /// Silence after which a link is given up: 6 s.
    pub idle: Duration,
    /// From a connection's first packet to the end of its TLS handshake: 3 s. A dial takes two of them at most.
    pub handshake: Duration,
    /// From the end of the TLS handshake to the peer's hello: 3 s.
    pub hello: Duration,
    /// The first pause between two dials: 100 ms. Each further one is twice as long, minus up to half of it by chance.
    pub backoff_min: Duration,
    /// The longest pause between two dials: 5 s. A cluster that was cut is whole again about this long after.
    pub backoff_max: Duration,
    /// The longest pause between two dials to a member that has been dead for an hour, or at whose address another node
    /// answers: 60 s.
    pub backoff_dead: Duration,
    /// The head start that the dial of the smaller name gets: 300 ms.
    pub head_start: Duration,
    /// How often the addresses behind the seeds are looked up again while all of them are linked: 10 s.
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
