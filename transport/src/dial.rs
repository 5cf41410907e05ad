//! Dialing: the tasks that connect to an address and exchange hellos.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::Bound;
use tallymesh_schemas::actor::NodeName;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bounds::SEED_ADDRESSES;
use crate::closing::code::Code;
use crate::closing::ending::{Failure, Unproven};
use crate::closing::proven::Proven;
use crate::counters::count;
use crate::greet::greet;
use crate::identity::Identity;
use crate::identity::SERVER_NAME;
use crate::mesh::input::Input;
use crate::mesh::plan::Origin;
use crate::shared::Shared;
use crate::tls;

/// A handshake that takes longer is repeated once: see [`Dialer::connect`].
const LATE: Duration = Duration::from_millis(500);

/// The context of a dial.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) identity: Identity,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) transport: Arc<quinn::TransportConfig>,
    pub(crate) mesh: mpsc::Sender<Input>,
}

impl Dialer {
    /// Resolves the addresses of a seed.
    pub(crate) async fn resolve(self, seed: usize, host: String) {
        let looked_up = tokio::time::timeout(self.shared.timings.handshake, tokio::net::lookup_host(&host)).await;
        let addrs = match looked_up {
            Ok(Ok(addrs)) => {
                let mut addrs: Vec<_> = addrs.map(canonical).take(SEED_ADDRESSES + 1).collect();
                if addrs.len() > SEED_ADDRESSES {
                    addrs.truncate(SEED_ADDRESSES);
                    self.shared.tally.bounds.reached(Bound::SeedAddresses);
                }
                Ok(addrs)
            }
            Err(_) => Err("its addresses cannot be looked up: the name service does not answer".to_owned()),
            Ok(Err(error)) => Err(format!("its addresses cannot be looked up: {error}")),
        };
        // An error means that the mesh has stopped.
        let _ = self.mesh.send(Input::Resolved { seed, addrs }).await;
    }

    /// Dials an address and says hello.
    pub(crate) async fn dial(self, addr: SocketAddr, expected: Option<NodeName>, origin: Origin) {
        count(&self.shared.tally.dials, 1);
        let greeted = match self.connect(addr).await {
            Ok(conn) => greet(&self.shared, conn, expected.as_ref()).await,
            Err(unproven) => Err(Failure::Unproven(unproven)),
        };
        // An error means that the mesh has stopped.
        let _ = match greeted {
            Ok(greeted) => self.mesh.send(Input::Greeted { greeted: Box::new(greeted), origin }).await,
            Err(failure) => self.mesh.send(Input::Failed { origin, addr, failure }).await,
        };
    }

    /// Connects; a second time if the answer comes late. If the other process was stopped, the first packets waited there. QUIC
    /// counts such a wait as round trip time of the path, and then sends slowly for seconds. The second answer does not wait.
    async fn connect(&self, addr: SocketAddr) -> Result<Proven, Unproven> {
        let begun = Instant::now();
        let late = self.handshake(addr).await?;
        if begun.elapsed() < LATE {
            return Ok(late);
        }
        let Ok(conn) = self.handshake(addr).await else { return Ok(late) };
        late.conn().close(Code::Replaced.var(), b"answered late");
        Ok(conn)
    }

    async fn handshake(&self, addr: SocketAddr) -> Result<Proven, Unproven> {
        let tls = tls::client(&self.identity).map_err(|error| Unproven::local(error.to_string()))?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&self.transport));
        let connecting = self
            .endpoint
            .connect_with(config, addr, SERVER_NAME)
            .map_err(|error| Unproven::local(format!("cannot dial {addr}: {error}")))?;
        match tokio::time::timeout(self.shared.timings.handshake, connecting).await {
            Ok(Ok(conn)) => Proven::of(conn),
            Ok(Err(error)) => Err(Unproven::of(&error)),
            Err(_) => Err(Unproven::local("no answer in time")),
        }
    }
}

/// Unwraps an IPv4 address that a dual-stack resolver mapped into IPv6, because addresses are compared.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}
