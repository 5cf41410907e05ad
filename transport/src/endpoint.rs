//! The handle to everything.

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

use crate::dial::Dialer;
use crate::gate::GatedSocket;
use crate::hello::can_be_dialed;
use crate::inbox::{Events, inbox};
use crate::limits::{self, MESH_INPUTS};
use crate::membership::{Peer, Swim};
use crate::mesh::plan::Plan;
use crate::mesh::{Command, Mesh, State};
use crate::shared::Shared;
use crate::tls::TlsError;
use crate::{Config, Counters, Identity, Joining, Member, quic, socket, tls};

/// The handle to a node's links. Cheap to clone; when the last clone is dropped, everything ends without a goodbye.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedSender<Command>,
    mesh: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Why an endpoint could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// There is no runtime to run in.
    #[error("an endpoint needs a tokio runtime: bind it from within one")]
    Runtime,
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} (UDP): {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Others would not know where to reach this node.
    #[error("{0} is no address under which others reach this node: set advertise to one that is")]
    Advertise(SocketAddr),
    /// The run cannot be.
    #[error(transparent)]
    Incarnation(#[from] NoSuchRun),
    /// TLS refuses the identity.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Endpoint {
    /// Starts listening and dialing. To be called from within a tokio runtime.
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
        // Fails here, if it ever does, and not at the first dial.
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

    /// Which run of the node this is now.
    pub fn incarnation(&self) -> Incarnation {
        self.shared.incarnation()
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// The address that others are told.
    pub fn advertised(&self) -> SocketAddr {
        self.shared.advertised
    }

    /// The members known, by name, without this node: O(members).
    pub fn members(&self) -> Vec<Member> {
        self.shared.members()
    }

    /// Whether this node has found others, now and as it changes.
    pub fn joining(&self) -> watch::Receiver<Joining> {
        self.shared.joining.subscribe()
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }

    /// The bounds of the transport that were reached since the start.
    pub fn bounds(&self) -> Vec<bound::Report> {
        self.shared.tally.bounds.reports(limits::value)
    }

    /// This node continues as a new run, higher than the one before: its links close and come up again as the new run's.
    /// An incarnation that is not higher is ignored and logged.
    pub fn renew(&self, incarnation: Incarnation) {
        // An error says that the endpoint is closed.
        let _ = self.commands.send(Command::Renew(incarnation));
    }

    /// Stops dialing a member and drops it from the membership: for one that is dead and will not come back. One that is
    /// alive comes back by itself; so does one behind an address that is configured as a seed.
    pub fn forget(&self, name: &NodeName) {
        // An error says that the endpoint is closed.
        let _ = self.commands.send(Command::Forget(name.clone()));
    }

    /// Leaves the cluster and ends everything: the others are told, and what is queued is delivered as far as the time
    /// given allows. Afterwards [`Events::recv`] returns what had been received, and then `None`.
    pub async fn close(self, timeout: Duration) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close { within: timeout, done }).is_ok() {
            // An error says that another clone has closed the endpoint.
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
