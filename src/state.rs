//! The saved state: a file in the node's `data_dir` that keeps data over restarts, and the code that reads and writes it.
//!
//! `opening` opens the state when a node starts, and `restore` applies it to the replica. `file` opens and creates the file,
//! `shrink` compacts it. `tables` defines its content, `read` and `write` access it. `writer` writes batches while the file is in
//! its place. `seal` records the last commit. `keeper` is the writing thread, `saving` the driver's side of it. `archive` is for
//! tools that read the state of a node that does not run.

mod archive;
mod error;
mod file;
mod keeper;
mod opening;
mod read;
mod restore;
mod saving;
mod seal;
mod shrink;
mod tables;
mod write;
mod writer;

#[cfg(test)]
mod tests;

pub use archive::{Archive, Filling, PartInfo};
pub use error::StateError;
pub use file::Header;
pub(crate) use restore::Earlier;
pub use saving::StateStanding;
pub(crate) use saving::{Outcome, Saving, SharedStanding};
pub use seal::RolledBack;
pub use tables::FORMAT;
