//! `tally man`: the manual pages.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::failure::Failure;

/// Writes a page for each command into a folder: `tally.1`, `tally-add.1` and so on.
pub(crate) fn run(folder: &Path) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::Input(format!("cannot write into {}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(cannot)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(cannot)
}
