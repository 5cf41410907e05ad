//! `tally permits`.

use clap::Subcommand;

/// `tally permits`.
#[derive(Debug, Subcommand)]
pub(crate) enum Permits {
    /// List the permits that are declared or in use
    #[command(after_help = "Example:\n  tally permits list")]
    List,
    /// Show the state of permits, in the cluster and on the asked node
    #[command(after_help = "Example:\n  tally permits show uploads")]
    Show {
        /// The permits
        #[arg(value_name = "NAME")]
        name: String,
    },
}
