//! `tally completions`: scripts with which a shell completes the command line.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::Out;

/// Writes the completion script of a shell.
pub(crate) fn run(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tally", &mut script);
    let mut out = Out::open();
    out.text(String::from_utf8_lossy(&script))?;
    out.flush()
}
