//! The admin socket: a Unix socket with mode 0600 on which the node serves the `tally` command.

mod budgets;
mod caches;
mod cluster;
mod feeds;
mod holds;
mod inspect;
mod limits;
mod lookup;
mod reload;
mod series;
mod session;
mod verdicts;
mod watch;
mod wire;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bounds::{ADMIN_CONNECTIONS, ADMIN_STAYS};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch as signal};
use tokio::task::{JoinHandle, JoinSet};

use crate::admin::feeds::Feeds;
use crate::admin::session::Session;
use crate::command::Command;
use crate::places::{Place, Places};
use crate::shared::Shared;
use crate::socket::{self, SocketFile};
use crate::socket_error::SocketError;
use crate::unaccepted::Unaccepted;

/// How long a client may be silent before its connection may be closed for another one.
const GRACE: Duration = Duration::from_millis(500);

/// A bound socket that is not served yet. Dropping it removes its file.
#[derive(Debug)]
pub(crate) struct Admin {
    // The order matters: the file is removed while the socket still listens, so that no other node takes the path meanwhile.
    _file: SocketFile,
    listener: UnixListener,
}

/// A socket that is being served.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: signal::Sender<()>,
    task: JoinHandle<()>,
}

impl Admin {
    /// Opens the socket.
    pub(crate) fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, file) = socket::bind(path)?;
        let listen = || {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(|error| SocketError::Io { path: path.to_owned(), source: error })?;
        Ok(Self { _file: file, listener })
    }

    pub(crate) fn serve(self, shared: Arc<Shared>, commands: mpsc::WeakSender<Command>) -> Serving {
        let (stop, stopped) = signal::channel(());
        let server = Server {
            shared,
            commands,
            places: Places::new(ADMIN_CONNECTIONS, GRACE),
            long: Arc::new(Semaphore::new(ADMIN_STAYS)),
            feeds: Arc::default(),
            sessions: JoinSet::new(),
            unaccepted: Unaccepted::new("admin"),
        };
        let task = tokio::spawn(server.run(self, stopped));
        Serving { stop, task }
    }
}

impl Serving {
    /// Removes the socket's file and closes all connections.
    pub(crate) async fn close(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the admin socket ended badly");
        }
    }
}

/// Accepts connections.
struct Server {
    shared: Arc<Shared>,
    commands: mpsc::WeakSender<Command>,
    places: Arc<Places>,
    long: Arc<Semaphore>,
    feeds: Arc<Feeds>,
    sessions: JoinSet<()>,
    unaccepted: Unaccepted,
}

impl Server {
    async fn run(mut self, admin: Admin, mut stopped: signal::Receiver<()>) {
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                () = self.next(&admin.listener) => {}
            }
        }
        drop(admin);
        self.sessions.shutdown().await;
    }

    async fn next(&mut self, listener: &UnixListener) {
        match listener.accept().await {
            Ok((stream, _)) => self.begin(stream).await,
            Err(error) => self.unaccepted.pause(&error, &self.places).await,
        }
        while self.sessions.try_join_next().is_some() {}
    }

    async fn begin(&mut self, stream: UnixStream) {
        let place = self.places.take().await;
        let id = place.id();
        let (shared, feeds, long) = (Arc::clone(&self.shared), Arc::clone(&self.feeds), Arc::clone(&self.long));
        let session = Session::new(shared, self.commands.clone(), long, feeds);
        let task = self.sessions.spawn(session.run(stream, place));
        Place::served_by(&self.places, id, task);
    }
}
