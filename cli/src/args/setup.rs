//! `tally init`, `tally node` and `tally config`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `tally init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The folder to write to; created if it does not exist
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Names of the nodes of a new cluster, separated by commas
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', required_unless_present_any = ["add", "renew"])]
    pub(crate) nodes: Vec<String>,
    /// Names of further nodes for the cluster in DIR
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', conflicts_with = "nodes")]
    pub(crate) add: Vec<String>,
    /// Names of nodes in DIR that get a new certificate and key; their configurations stay
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', num_args = 0.., conflicts_with_all = ["nodes", "add"])]
    pub(crate) renew: Option<Vec<String>>,
    /// With --renew: all nodes in DIR
    #[arg(long, requires = "renew")]
    pub(crate) all: bool,
    /// UDP port of the first node [default: 4801; with --add the one after the highest in use]
    #[arg(long, value_name = "PORT")]
    pub(crate) base_port: Option<u16>,
    /// The address that the nodes listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: IpAddr,
}

/// `tally node`.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Which events to log: a level, or targets with levels [default: info]
    #[arg(long, value_name = "FILTER", env = "TALLY_LOG")]
    pub(crate) log: Option<String>,
    /// The incarnation of this run; it has to be higher than that of any earlier run of this node
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) incarnation: Option<u64>,
}

/// `tally config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Report the mistakes of a configuration, without starting anything
    #[command(after_help = "Example:\n  tally config check mesh/relay-0-1.hcl")]
    Check {
        /// The file
        file: PathBuf,
    },
    /// Let a running node use its configuration file as it is now
    ///
    /// The node makes all changes at once, or none: a file with a mistake changes nothing. Rows stay. Lists each change, and says
    /// which ones need a restart; these are not made. The same as SIGHUP.
    #[command(after_help = "\
Examples:
  tally --at mesh/relay-0-1.sock config reload --dry-run
  tally --at mesh/relay-0-1.sock config reload")]
    Reload {
        /// Change nothing, and say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Show how a running node differs from its configuration file
    ///
    /// Ends with 1 if there is a difference, as diff does.
    #[command(after_help = "Example:\n  tally --at mesh/relay-0-1.sock config diff")]
    Diff,
}
