//! Why a Unix socket cannot be opened.

use std::io;
use std::path::PathBuf;

use tallymesh_schemas::bounds::SOCKET_PATH_BYTES;

/// Why a Unix socket cannot be opened: the admin socket, or the one for HTTP.
///
/// ```no_run
/// # async fn example(builder: tallymesh::Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::{SocketError, StartError};
///
/// match builder.admin("relay-0-1.sock").start().await {
///     Err(StartError::Admin(SocketError::InUse(path))) => println!("{} is of another node", path.display()),
///     other => drop(other?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process listens on the path.
    #[error("{0} is in use: another process listens on this socket, stop it or name another path")]
    InUse(PathBuf),
    /// The path exists and is not a socket.
    #[error("{0} is there and is no socket: name another path, or remove it")]
    NotASocket(PathBuf),
    /// The path is longer than the operating system allows.
    #[error(
        "the path of the socket has {bytes} bytes, and the system takes {SOCKET_PATH_BYTES}: name a shorter one \
         than {path}"
    )]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The operating system reported an error.
    #[error("cannot open the socket {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
}
