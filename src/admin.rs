//! The admin socket: a Unix socket of mode 0600 on which the `tally` command is served.

mod caches;
mod holds;
mod limits;
mod series;
mod session;
mod wire;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::command::Command;
use crate::shared::Shared;
use session::Session;

/// Connections that are served at a time; further ones wait. One that holds or watches gives its place back.
const CONNECTIONS: usize = 64;

/// Connections that hold or watch, which they may do for long; further ones are refused.
const LONG: usize = 4096;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Somebody listens there.
    #[error("{0} is in use: another node runs with this admin socket, stop it or name another path")]
    InUse(PathBuf),
    /// Something that is no socket is there.
    #[error("{0} is there and is no socket: name another path, or remove it")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot open the admin socket {path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A socket that is bound and not served yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: UnixListener,
    path: PathBuf,
}

/// A socket that is served.
#[derive(Debug)]
pub(crate) struct Serving {
    path: PathBuf,
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Admin {
    /// Opens the socket. It never exists with a mode that lets others in: it is made under another name and moved.
    pub(crate) fn bind(path: &Path) -> Result<Self, AdminError> {
        use std::os::unix::fs::FileTypeExt;
        let io = |error| AdminError::Io { path: path.to_owned(), error };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(AdminError::NotASocket(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(AdminError::InUse(path.to_owned()));
            }
        }
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        if fs::symlink_metadata(&draft).is_ok() {
            fs::remove_file(&draft).map_err(io)?;
        }
        let listener = StdListener::bind(&draft).map_err(io)?;
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).map_err(io)?;
        fs::rename(&draft, path).map_err(io)?;
        listener.set_nonblocking(true).map_err(io)?;
        let listener = UnixListener::from_std(listener).map_err(io)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    pub(crate) fn serve(self, shared: Arc<Shared>, commands: mpsc::WeakSender<Command>) -> Serving {
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(accept(self.listener, shared, commands, stopped));
        Serving { path: self.path, stop, task }
    }
}

impl Serving {
    /// Ends all connections and removes the socket.
    pub(crate) async fn close(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the admin socket ended badly");
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "admin socket not removed");
        }
    }
}

async fn accept(
    listener: UnixListener,
    shared: Arc<Shared>,
    commands: mpsc::WeakSender<Command>,
    mut stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let long = Arc::new(Semaphore::new(LONG));
    let mut sessions = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = sessions.join_next() => {}
            (connection, place) = next => match connection {
                Ok((stream, _)) => {
                    let session = Session::new(Arc::clone(&shared), commands.clone(), place.ok(), Arc::clone(&long));
                    sessions.spawn(session.run(stream));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others need a moment to close theirs.
                    tracing::warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            },
        }
    }
    sessions.shutdown().await;
}
