//! What `tally state` takes.

use std::path::PathBuf;

use clap::Subcommand;

/// `tally state`.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Show what is in a state: whose it is, and how much of what
    #[command(after_help = "\
Examples:
  tally state inspect mesh/relay-0-1.state
  tally --output json state inspect mesh/relay-0-1.state")]
    Inspect {
        /// The node's data_dir
        dir: PathBuf,
    },
    /// Write a state to stdout, a line of JSON for each thing in it
    #[command(after_help = "Example:\n  tally state export mesh/relay-0-1.state > relay-0-1.jsonl")]
    Export {
        /// The node's data_dir
        dir: PathBuf,
    },
    /// Make a state of what `tally state export` has written, from stdin
    ///
    /// Nothing is written over a state that is there. A bad line is told with its number, and then there is no state.
    #[command(after_help = "Example:\n  tally state import restored < relay-0-1.jsonl")]
    Import {
        /// The node's data_dir; made if it is not there
        dir: PathBuf,
    },
}
