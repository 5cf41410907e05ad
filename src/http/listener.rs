//! Opens the listener: a TCP port, or a Unix socket with mode 0600.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;

use tallymesh_schemas::config::HttpAddress;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::socket::{self, SocketFile};
use crate::socket_error::SocketError;

/// Why the HTTP listener cannot be opened.
///
/// ```no_run
/// # async fn example(builder: tallymesh::Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use std::net::SocketAddr;
/// use tallymesh::{HttpError, StartError};
///
/// match builder.http(SocketAddr::from(([127, 0, 0, 1], 9180))).start().await {
///     Err(StartError::Http(HttpError::Listen { address, .. })) => println!("{address} is in use"),
///     other => drop(other?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The operating system refuses to listen on the address.
    #[error("cannot listen on {address} for HTTP: {source}; name another port")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error.
        source: io::Error,
    },
    /// The Unix socket cannot be opened.
    #[error("no HTTP: {0}")]
    Socket(#[from] SocketError),
}

/// A listener. Dropping it frees the port, or removes the socket's file.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener, SocketAddr),
    // The order matters: the file is removed while the socket still listens, so that no other node takes the path meanwhile.
    Unix(SocketFile, UnixListener),
}

/// A connection.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(super) fn bind(address: &HttpAddress) -> Result<Self, HttpError> {
        match address {
            HttpAddress::Tcp(address) => {
                tcp(*address).map_err(|source| HttpError::Listen { address: *address, source })
            }
            HttpAddress::Unix(path) => {
                let (listener, file) = socket::bind(path)?;
                let listener = unix(listener).map_err(|source| SocketError::Io { path: path.clone(), source })?;
                Ok(Self::Unix(file, listener))
            }
        }
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(..) => None,
        }
    }

    /// Logs where it listens, and warns when other machines can reach it.
    pub(super) fn announce(&self) {
        match self {
            Self::Tcp(_, address) if address.ip().is_loopback() => tracing::info!(%address, "serving HTTP"),
            Self::Tcp(_, address) => tracing::warn!(
                %address,
                "serving HTTP without authentication on an address that other machines may reach"
            ),
            Self::Unix(file, _) => tracing::info!(path = %file.path().display(), "serving HTTP"),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, _) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
            Self::Unix(_, listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<Listener> {
    let listener = StdTcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Listener::Tcp(TcpListener::from_std(listener)?, address))
}

fn unix(listener: StdUnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}
