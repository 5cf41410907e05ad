//! `tally cluster` and `tally shared`.

use clap::Subcommand;

use crate::args::from_node::FromNode;

/// `tally cluster`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cluster {
    /// List and show the replicated objects
    #[command(subcommand, after_help = "Example:\n  tally cluster shared list")]
    Shared(Shared),
    /// Show the members of the cluster, a block each
    #[command(after_help = "Example:\n  tally cluster membership")]
    Membership,
    /// Show the asked node and its counters
    #[command(after_help = "Example:\n  tally --output json cluster info")]
    Info,
    /// Show the asked node's name
    #[command(after_help = "Example:\n  tally cluster nodename")]
    Nodename,
    /// Show the address at which other nodes reach the asked node
    #[command(after_help = "Example:\n  tally cluster nodeaddr")]
    Nodeaddr,
    /// Forget a node that does not come back
    ///
    /// Removes the node's counts on all nodes. If the node comes back, it joins as a new run.
    #[command(after_help = "Example:\n  tally cluster forget relay-0-3")]
    Forget {
        /// The node
        node: String,
    },
}

/// `tally cluster shared`, `tally shared`.
#[derive(Debug, Subcommand)]
pub(crate) enum Shared {
    /// List the replicated objects
    #[command(after_help = "Example:\n  tally cluster shared list")]
    List,
    /// Show the counts of an object, of the cluster or of one node
    ///
    /// An object of addresses shows every host with a count, and every block at which addresses branch, with its sum.
    #[command(
        override_usage = "tally [--at SOCKET] [cluster] shared show OBJECT [from NODE]",
        after_help = "\
Examples:
  tally cluster shared show inbound_cidr
  tally cluster shared show outbound_domain from relay-0-1"
    )]
    Show {
        /// The object, or a unique prefix of its name
        object: String,
        /// The view.
        #[command(flatten)]
        from: FromNode,
    },
}
