//! The HTTP listener: metrics and health of the node. It has no authentication and changes nothing.
//!
//! `listener` opens it, `connection` serves one connection, `answer` answers one request of `requests`, and `observer` reads the
//! node for the answers.

mod accept;
mod answer;
mod connection;
mod listener;
mod observer;
mod ready;
mod requests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::Bound;
use tallymesh_schemas::bounds::HTTP_CONNECTIONS;
use tallymesh_schemas::config::HttpAddress;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch as signal};
use tokio::task::{JoinHandle, JoinSet};

use crate::command::Command;
use crate::http::answer::Answerer;
use crate::http::connection::serve;
pub use crate::http::listener::HttpError;
use crate::http::listener::{Accepted, Listener};
pub(crate) use crate::http::observer::Facts;
use crate::http::observer::{Observer, Own};
use crate::http::requests::Requests;
use crate::places::{Place, Places};
use crate::shared::Shared;
use crate::unaccepted::Unaccepted;

/// How long a client may be silent before its connection may be closed for another one. A client that works sends its request
/// at once.
const GRACE: Duration = Duration::from_millis(250);

/// A bound listener that is not served yet.
#[derive(Debug)]
pub(crate) struct Http {
    listener: Listener,
    facts: Facts,
}

/// A listener that is being served.
#[derive(Debug)]
pub(crate) struct Serving {
    stop: signal::Sender<()>,
    task: JoinHandle<()>,
}

impl Http {
    /// Opens the listener.
    pub(crate) fn bind(address: &HttpAddress, facts: Facts) -> Result<Self, HttpError> {
        Ok(Self { listener: Listener::bind(address)?, facts })
    }

    /// The address; `None` for a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) fn serve(self, shared: Arc<Shared>, commands: mpsc::WeakSender<Command>) -> Serving {
        let (stop, stopped) = signal::channel(());
        self.listener.announce();
        let places = Places::new(HTTP_CONNECTIONS, GRACE);
        let requests = Arc::<Requests>::default();
        let own = Own { requests: Arc::clone(&requests), places: Arc::clone(&places) };
        let observer = Observer::new(Arc::clone(&shared), commands, self.facts, own);
        let server = Server {
            answerer: Arc::new(Answerer { observer, requests }),
            shared,
            places,
            connections: JoinSet::new(),
            reported: 0,
            unaccepted: Unaccepted::new("HTTP"),
        };
        let task = tokio::spawn(server.run(self.listener, stopped));
        Serving { stop, task }
    }
}

impl Serving {
    /// Frees the port, or removes the socket's file, and closes all connections.
    pub(crate) async fn close(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the HTTP listener ended badly");
        }
    }
}

/// Accepts connections.
struct Server {
    shared: Arc<Shared>,
    answerer: Arc<Answerer>,
    places: Arc<Places>,
    connections: JoinSet<()>,
    /// Connections that were ended for others, as far as that is reported.
    reported: u64,
    unaccepted: Unaccepted,
}

impl Server {
    async fn run(mut self, listener: Listener, mut stopped: signal::Receiver<()>) {
        loop {
            tokio::select! {
                _ = stopped.changed() => break,
                () = self.next(&listener) => {}
            }
        }
        drop(listener);
        self.connections.shutdown().await;
    }

    async fn next(&mut self, listener: &Listener) {
        match listener.accept().await {
            Ok(Accepted::Tcp(stream)) => self.begin(stream).await,
            Ok(Accepted::Unix(stream)) => self.begin(stream).await,
            Err(error) => self.unaccepted.pause(&error, &self.places).await,
        }
        while self.connections.try_join_next().is_some() {}
        let ended = self.places.ended();
        self.shared.tally.reached_times(Bound::HttpConnections, ended - self.reported);
        self.reported = ended;
    }

    async fn begin(&mut self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let place = self.places.take().await;
        let id = place.id();
        let answerer = Arc::clone(&self.answerer);
        let answer = move |request| {
            let answerer = Arc::clone(&answerer);
            async move { answerer.answer(request).await }
        };
        let task = self.connections.spawn(serve(stream, place, answer));
        Place::served_by(&self.places, id, task);
    }
}
