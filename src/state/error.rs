//! Why a state cannot be used.

use std::io;
use std::path::PathBuf;

/// Why a state cannot be used. The state was not changed.
///
/// ```no_run
/// # async fn example(builder: tallymesh::Builder) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::{StartError, StateError};
///
/// match builder.data_dir("/var/lib/tallymesh").start().await {
///     Err(StartError::State(StateError::Full { path, .. })) => println!("make room for {}", path.display()),
///     other => drop(other?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The operating system reported an error.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// The operation that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no space to write.
    #[error(
        "{path} cannot be written ({source}): make room and start again, or set on_full_disk = \"serve\" in the node block: the node then serves, and saves when there is room"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// There is no state.
    #[error("{0} is not there: name the data_dir of a node that has run with it")]
    Missing(PathBuf),
    /// There is already a state.
    #[error("{0} is there already, and nothing is written over a state: move it away, or name another folder")]
    Exists(PathBuf),
    /// Another process uses the state.
    #[error("{0} is in use: another process runs with this data_dir; stop that one, or give each node its own")]
    InUse(PathBuf),
    /// The file belongs to another program, or is not a state.
    #[error("{path} is no state of a node ({what}): name another data_dir, or move the file away")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What the file is.
        what: String,
    },
    /// The state belongs to another node.
    #[error("{path} is the state of node {found} and not of {node}: give each node its own data_dir")]
    Node {
        /// The file.
        path: PathBuf,
        /// The node that the state belongs to.
        found: String,
        /// The node that tried to open it.
        node: String,
    },
    /// A later version of the software wrote the state.
    #[error(
        "{path} was written by a later version (format {format}, this one reads up to {known}): run that version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The file's format.
        format: u32,
        /// The latest format that this version knows.
        known: u32,
    },
    /// The file is damaged.
    #[error(
        "{path} is damaged: {what}. Put a backup in its place, or move it away: the node then takes from the others what they have"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        what: String,
    },
    /// The content does not fit the configuration, or differs from what was saved.
    #[error("{path}: {source}")]
    Restore {
        /// The file.
        path: PathBuf,
        /// The mismatch.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StateError {
    /// Whether the cause is a full disk.
    pub(super) fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let kinds = [FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Adds what the operator can do, if the disk is full.
    pub(super) fn of_full_disk(self) -> Self {
        match self {
            full @ Self::Io { .. } if full.is_full() => match full {
                Self::Io { path, source, .. } => Self::Full { path, source },
                other => other,
            },
            other => other,
        }
    }
}
