//! What outlives a run: a file in the node's `data_dir`, and who writes it.
//!
//! `file` opens and makes it, `read` and `write` know what is in it, `keeper` is the thread that writes, `saving` what the
//! driver has to do with it. `archive` is for whoever looks at the state of a node that does not run.

mod archive;
mod file;
mod keeper;
mod read;
mod saving;
#[cfg(test)]
mod tests;
mod write;

use std::io;
use std::path::PathBuf;

use tallymesh_engine::replica::RestoreError;

pub use archive::{Archive, PartInfo};
pub(crate) use file::StateFile;
pub use file::{FORMAT, Header};
pub(crate) use read::NotTaken;
pub use saving::StateStanding;
pub(crate) use saving::{Outcome, Saving, SharedStanding};
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
        error: RestoreError,
    },
}
