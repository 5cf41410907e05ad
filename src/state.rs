//! What outlives a run: a file in the node's `data_dir`, and who writes it.
//!
//! `opening` is how a node begins with it, `file` opens and makes it, `shrink` makes it smaller, `read` and `write` know what is
//! in it, `writer` writes as long as it is in its place, `seal` notes the last commit, `keeper` is the thread that does that,
//! `saving` what the driver has to do with it. `archive` is for whoever looks at the state of a node that does not run.

mod archive;
mod file;
mod keeper;
mod opening;
mod read;
mod saving;
mod seal;
mod shrink;
#[cfg(test)]
mod tests;
mod write;
mod writer;

use std::io;
use std::path::PathBuf;

use tallymesh_engine::replica::RestoreError;

pub use archive::{Archive, PartInfo};
pub use file::{FORMAT, Header};
pub(crate) use opening::Opened;
pub(crate) use read::NotTaken;
pub use saving::StateStanding;
pub(crate) use saving::{Outcome, Saving, SharedStanding};
pub use seal::RolledBack;
pub use tallymesh_schemas::saved::{Extent, Facts, Known, Part, Row, Shape};

/// Why a state cannot be used. Nothing of it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refuses.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// There is no room to write.
    #[error(
        "{path} cannot be written ({error}): make room and start again, or set on_full_disk = \"serve\" in the node block: the node then serves, and saves when there is room"
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is none.
    #[error("{0} is not there: name the data_dir of a node that has run with it")]
    Missing(PathBuf),
    /// There is one.
    #[error("{0} is there already, and nothing is written over a state: move it away, or name another folder")]
    Exists(PathBuf),
    /// Another process has it.
    #[error("{0} is in use: another process runs with this data_dir; stop that one, or give each node its own")]
    InUse(PathBuf),
    /// Another program's file, or no state at all.
    #[error("{path} is no state of a node ({what}): name another data_dir, or move the file away")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
    /// Another node's.
    #[error("{path} is the state of node {found} and not of {node}: give each node its own data_dir")]
    Node {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        node: String,
    },
    /// A later version has written it.
    #[error(
        "{path} was written by a later version (format {format}, this one reads up to {known}): run that version again"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// The latest that is known here.
        known: u32,
    },
    /// It is damaged.
    #[error(
        "{path} is damaged: {what}. Put a backup in its place, or move it away: the node then takes from the others what they have"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// What is in it does not fit the configuration, or is not what was saved.
    #[error("{path}: {error}")]
    Restore {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        error: Box<RestoreError>,
    },
}

impl StateError {
    /// Whether it is that there is no room to write.
    fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        let kinds = [FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
        matches!(self, Self::Io { error, .. } if kinds.contains(&error.kind()))
    }

    /// With what to do, if there is no room to write.
    fn of_full_disk(self) -> Self {
        match self {
            full @ Self::Io { .. } if full.is_full() => match full {
                Self::Io { path, error, .. } => Self::Full { path, error },
                other => other,
            },
            other => other,
        }
    }
}
