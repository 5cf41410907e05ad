//! `tally state`.

use std::path::PathBuf;

use clap::Subcommand;

/// `tally state`.
#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Show the contents of a saved state
    ///
    /// With OBJECT: the actors whose rows or writes are saved, as `tally inspect OBJECT` shows them of a running node. With KEY:
    /// every actor's row of the key and how the total follows, or the write that won.
    #[command(
        override_usage = "tally state inspect DIR [OBJECT [KEY]]",
        after_help = "\
Examples:
  tally state inspect mesh/relay-0-1.state
  tally state inspect mesh/relay-0-1.state sessions user:7
  tally --output json state inspect mesh/relay-0-1.state"
    )]
    Inspect {
        /// The node's data_dir
        dir: PathBuf,
        /// The object: a structure of the table that is shown without it, or a unique prefix of its name
        object: Option<String>,
        /// The key
        key: Option<String>,
    },
    /// Write a saved state to stdout, as lines of JSON
    #[command(after_help = "Example:\n  tally state export mesh/relay-0-1.state > relay-0-1.jsonl")]
    Export {
        /// The node's data_dir
        dir: PathBuf,
    },
    /// Make a saved state from the output of `tally state export`, from stdin
    ///
    /// An existing state is never overwritten. A bad line is reported with its number, and then no state is made.
    #[command(after_help = "Example:\n  tally state import restored < relay-0-1.jsonl")]
    Import {
        /// The node's data_dir; created if it does not exist
        dir: PathBuf,
    },
}
