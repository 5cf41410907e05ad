//! The file of a Unix socket: how a node creates and removes it.
//!
//! The node creates the socket in a folder that only its owner can enter, sets the mode there, and then moves the socket into
//! place. So the socket never has a wider mode than 0600 where other users could reach it. A node removes a file only if it
//! created that file, or if it is a socket on which no process listens.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tallymesh_schemas::bounds::SOCKET_PATH_BYTES;

use crate::seed::random_seed;
use crate::socket_error::SocketError;

/// How often a node retries when another process changes the path at the same moment.
const ATTEMPTS: usize = 4;

/// Identifies a file independently of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

/// The socket's file in its place. Dropping this removes the file, unless another file has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    id: FileId,
}

impl SocketFile {
    /// The path of the file.
    #[cfg(feature = "http")]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let path = self.path.display();
        match fs::symlink_metadata(&self.path) {
            Ok(found) if FileId::of(&found) == self.id => {
                if let Err(error) = fs::remove_file(&self.path) {
                    tracing::warn!(%path, %error, "the socket is not removed");
                }
            }
            Ok(_) => tracing::warn!(%path, "another file has taken the socket's place; it is left there"),
            Err(error) => tracing::warn!(%path, %error, "the socket is gone already"),
        }
    }
}

/// Opens a socket at a path on which no process listens.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > SOCKET_PATH_BYTES {
        return Err(SocketError::TooLong { path: path.to_owned(), bytes });
    }
    // Check before anything is created: a path in use is the most common error.
    look(path)?;
    let io = |error| SocketError::Io { path: path.to_owned(), source: error };
    let draft = Draft::new(path).map_err(io)?;
    let listener = draft.bind().map_err(io)?;
    let made = draft.socket();
    fs::set_permissions(&made, Permissions::from_mode(0o600)).map_err(io)?;
    let id = FileId::of(&fs::symlink_metadata(&made).map_err(io)?);
    for _ in 0..ATTEMPTS {
        let placed = match look(path)? {
            None => rename(&made, path, RenameFlags::NOREPLACE).map(|()| true),
            Some(stale) => replace(&made, path, stale),
        };
        match placed {
            Ok(true) => return Ok((listener, SocketFile { path: path.to_owned(), id })),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io(error)),
        }
    }
    Err(SocketError::InUse(path.to_owned()))
}

/// What the path holds: nothing, or a socket on which no process listens.
fn look(path: &Path) -> Result<Option<FileId>, SocketError> {
    let io = |error| SocketError::Io { path: path.to_owned(), source: error };
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match knock(path) {
        // A full queue refuses this connection for now: a process listens, and is slow.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse(path.to_owned())),
        Err(Errno::CONNREFUSED) => Ok(Some(FileId::of(&found))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(io(error.into())),
    }
}

/// Tries to connect, without blocking.
fn knock(path: &Path) -> Result<(), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&client, &SocketAddrUnix::new(path)?)
}

/// Replaces a stale socket by the new one. Returns `false` when the path held another file by then; that file is put back.
fn replace(made: &Path, path: &Path, stale: FileId) -> io::Result<bool> {
    match rename(made, path, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // The stale socket was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    // On a file system without exchange, the rename has removed the stale socket.
    let swapped = fs::symlink_metadata(made).map(|found| FileId::of(&found));
    if swapped.is_err() || swapped.is_ok_and(|id| id == stale) {
        return Ok(true);
    }
    rename(made, path, RenameFlags::EXCHANGE)?;
    Ok(false)
}

/// Renames a file with flags. Renames without them on a file system that does not support them.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, flags) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// A folder beside the path, accessible only to its owner. Dropping this removes the folder with its content.
#[derive(Debug)]
struct Draft(PathBuf);

impl Draft {
    fn new(path: &Path) -> io::Result<Self> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let dir = parent.join(format!(".tally-{:08x}", random_seed() >> 32));
        DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    /// Binds a socket in the folder. The operating system accepts only short paths, so the folder is named through an open file
    /// descriptor where possible.
    fn bind(&self) -> io::Result<UnixListener> {
        let dir = File::open(&self.0)?;
        let short = format!("/proc/self/fd/{}/s", dir.as_raw_fd());
        UnixListener::bind(short).or_else(|_| UnixListener::bind(self.socket()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // The folder still holds either the new socket, if it was not moved, or the stale one that it replaced.
        let _ = fs::remove_file(self.socket());
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(path = %self.0.display(), %error, "a folder of the socket is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_socket_is_for_its_owner_only_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        let (listener, file) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["n.sock"]);
        assert!(matches!(bind(&path), Err(SocketError::InUse(_))));
        drop(file);
        drop(listener);
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[test]
    fn a_stale_socket_gives_way_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        drop(UnixListener::bind(&path).unwrap());
        let bound = bind(&path).unwrap();
        assert_eq!(names(dir.path()), ["n.sock"]);
        drop(bound);
        for (name, text) in [("n.sock", "mine"), ("n.sock.new", "mine too")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        drop(bind(&path).unwrap());
        assert_eq!(names(dir.path()), ["n.sock.new"]);
    }

    #[test]
    fn a_socket_that_took_the_place_is_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n.sock");
        let (_listener, file) = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = bind(&path).unwrap();
        drop(file);
        assert_eq!(names(dir.path()), ["n.sock"]);
        drop(other);
    }

    #[test]
    fn a_path_may_be_as_long_as_the_system_allows() {
        let dir = tempfile::tempdir().unwrap();
        let of_length = |bytes: usize| {
            let name = "n".repeat(bytes - dir.path().as_os_str().len() - 1);
            dir.path().join(name)
        };
        let longest = of_length(SOCKET_PATH_BYTES);
        let _bound = bind(&longest).unwrap();
        std::os::unix::net::UnixStream::connect(&longest).unwrap();
        assert!(
            matches!(bind(&of_length(SOCKET_PATH_BYTES + 1)), Err(SocketError::TooLong { bytes, .. }) if bytes == SOCKET_PATH_BYTES + 1)
        );
    }
}
