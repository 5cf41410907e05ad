//! The public handle of the transport.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::Runtime;
use tallymesh_schemas::NoSuchRun;
use tallymesh_schemas::actor::{Incarnation, NodeName};
use tallymesh_schemas::bound;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::Instrument;

use crate::bounds::{self, MESH_INPUTS};
use crate::config::Config;
use crate::counters::Counters;
use crate::dial::Dialer;
use crate::gate::GatedSocket;
use crate::hello::can_be_dialed;
use crate::identity::Identity;
use crate::inbox::{Events, inbox};
use crate::member::{Joining, Member};
use crate::membership::protocol::Peer;
use crate::membership::swim::Swim;
use crate::mesh::plan::Plan;
use crate::mesh::{Command, Mesh, State};
use crate::quic;
use crate::shared::Shared;
use crate::socket;
use crate::tls;
use crate::tls::TlsError;

/// The handle to a node's links. Cheap to clone. When the last clone is dropped, everything ends without a goodbye.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    mesh: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Why an endpoint could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There is no tokio runtime.
    #[error("an endpoint needs a tokio runtime: bind it from within one")]
    Runtime,
    /// The system refuses to listen on the address.
    #[error("cannot listen on {listen} (UDP): {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Other nodes could not reach this node at the address.
    #[error("{0} is no address under which others reach this node: set advertise to one that is")]
    Advertise(SocketAddr),
    /// The incarnation is invalid.
    #[error(transparent)]
    Incarnation(#[from] NoSuchRun),
    /// TLS refuses the identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a running endpoint keeps its identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UseIdentityError {
    /// The certificate is for another node.
    #[error("the certificate is for node {certified} and not for {name}: give each node its own")]
    Name {
        /// The name of the node.
        name: NodeName,
        /// The name in the certificate.
        certified: NodeName,
    },
    /// TLS refuses the identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The endpoint is closed.
    #[error("the node is shutting down")]
    Closed,
}

impl Endpoint {
    /// Starts listening and dialing. Call it from within a tokio runtime.
    ///
    /// # Errors
    /// [`BindError`] when the address cannot be listened on or advertised, or TLS refuses the identity.
    pub fn bind(identity: Identity, config: Config) -> Result<(Self, Events), BindError> {
        tokio::runtime::Handle::try_current().map_err(|_| BindError::Runtime)?;
        config.incarnation.checked()?;
        let Config { listen, advertise, seeds, incarnation, gate, timings } = config;
        let refused = |source| BindError::Listen { listen, source };
        let runtime = Arc::new(quinn::TokioRuntime);
        let inner = runtime.wrap_udp_socket(socket::bind(listen).map_err(refused)?).map_err(refused)?;
        let local = inner.local_addr().map_err(refused)?;
        let advertised = advertise.unwrap_or(local);
        if !can_be_dialed(advertised) {
            return Err(BindError::Advertise(advertised));
        }
        let transport = Arc::new(quic::transport(&timings));
        let server = quic::server(tls::server(&identity)?, Arc::clone(&transport));
        // An error must appear here and not at the first dial.
        tls::client(&identity)?;
        let socket = Arc::new(GatedSocket { inner, gate });
        let endpoint = quinn::Endpoint::new_with_abstract_socket(quic::endpoint(), Some(server), socket, runtime)
            .map_err(refused)?;

        let name = identity.name().clone();
        let span = tracing::info_span!("transport", node = %name);
        let us = Peer { name: name.clone(), addr: advertised, incarnation };
        let plan = Plan::new(name.clone(), seeds, timings.clone(), rand::random());
        let shared = Arc::new(Shared::new(name, incarnation, local, advertised, timings));
        let (inbox, events) = inbox(Arc::clone(&shared));
        let (input, inputs) = mpsc::channel(MESH_INPUTS);
        let (command, commands) = mpsc::unbounded_channel();
        let mesh = Mesh {
            dialer: Dialer { shared: Arc::clone(&shared), identity, endpoint, transport, mesh: input },
            shared: Arc::clone(&shared),
            inputs,
            commands,
            inbox,
            membership: Box::new(Swim::new(&us, rand::random())),
            plan,
            start: Instant::now(),
            state: State::default(),
        };
        span.in_scope(|| tracing::info!(%local, %advertised, %incarnation, "listening"));
        let mesh = Arc::new(Mutex::new(Some(tokio::spawn(mesh.run().instrument(span)))));
        Ok((Self { shared, commands: command, mesh }, events))
    }

    /// This node's name.
    pub fn name(&self) -> &NodeName {
        &self.shared.name
    }

    /// The current run of this node.
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation()
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// The address that this node advertises to others.
    pub fn advertised(&self) -> SocketAddr {
        self.shared.advertised
    }

    /// The known members, by name, without this node: O(members).
    pub fn members(&self) -> Vec<Member> {
        self.shared.members()
    }

    /// Whether this node has found other nodes, as a value that can be watched.
    pub fn joining(&self) -> watch::Receiver<Joining> {
        self.shared.joining.subscribe()
    }

    /// The counters since the start.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }

    /// The bounds of the transport that were reached since the start.
    pub fn bounds(&self) -> Vec<bound::Report> {
        self.shared.tally.bounds.reports(bounds::value)
    }

    /// Continues as a new run with a higher incarnation. The node closes its links, and they come up again for the new run. An
    /// incarnation that is not higher is ignored and logged.
    pub fn renew(&self, incarnation: Incarnation) {
        // An error means that the endpoint is closed.
        let _ = self.commands.send(Command::Renew(incarnation));
    }

    /// Dials these seeds from now on, each `host:port`, and no others. Links stay.
    pub fn set_seeds(&self, seeds: Vec<String>) {
        // An error means that the endpoint is closed.
        let _ = self.commands.send(Command::SetSeeds(seeds));
    }

    /// Uses another certificate, key and authorities from now on. Links stay, except those whose peer has shown a certificate
    /// that the new authorities do not accept: they end, and the nodes connect again.
    ///
    /// # Errors
    /// [`UseIdentityError`] when the certificate is for another node, or when TLS refuses it. Then nothing has changed.
    pub async fn use_identity(&self, identity: Identity) -> Result<(), UseIdentityError> {
        if identity.name() != self.name() {
            let (name, certified) = (self.name().clone(), identity.name().clone());
            return Err(UseIdentityError::Name { name, certified });
        }
        let (done, used) = oneshot::channel();
        let command = Command::UseIdentity { identity: Box::new(identity), done };
        self.commands.send(command).map_err(|_| UseIdentityError::Closed)?;
        Ok(used.await.map_err(|_| UseIdentityError::Closed)??)
    }

    /// Stops dialing a member and drops it from the membership. Use it for a dead member that will not return. A member that is
    /// alive returns by itself, and so does a member at an address that is configured as a seed.
    pub fn forget(&self, name: &NodeName) {
        // An error means that the endpoint is closed.
        let _ = self.commands.send(Command::Forget(name.clone()));
    }

    /// Leaves the cluster and ends everything. The node announces to the others that it leaves, and delivers what is queued as
    /// far as the timeout allows. Afterwards [`Events::recv`] returns the events received so far, and then `None`.
    pub async fn close(self, timeout: Duration) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { within: timeout, done }).is_ok() {
            // An error means that another clone has closed the endpoint.
            let _ = closed.await;
        }
        let mesh = self.mesh.lock().take();
        if let Some(mesh) = mesh
            && let Err(error) = mesh.await
        {
            tracing::error!(%error, "the transport ended badly");
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.shared.name)
            .field("local", &self.shared.local)
            .finish_non_exhaustive()
    }
}
