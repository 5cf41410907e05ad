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
    /// Show the asked node, and what it has done so far
    #[command(after_help = "Example:\n  tally --output json cluster info")]
    Info,
    /// Show the asked node's name
    #[command(after_help = "Example:\n  tally cluster nodename")]
    Nodename,
    /// Show the address that the others reach the asked node by
    #[command(after_help = "Example:\n  tally cluster nodeaddr")]
    Nodeaddr,
    /// Forget a node that does not come back
    ///
    /// What it has counted so far counts no more, on all nodes. If it does come back, it begins anew.
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
    /// Show what an object counts, in the whole cluster or on one node
    ///
    /// Trees of addresses show every host that counts, and above it every block at which addresses part, each with its sum.
    #[command(
        override_usage = "tally [--at SOCKET] [cluster] shared show OBJECT [from NODE]",
        after_help = "\
Examples:
  tally cluster shared show inbound_cidr
  tally cluster shared show outbound_domain from relay-0-1"
    )]
    Show {
        /// The object; a beginning of its name that no other object shares is enough
        object: String,
        /// Whose view.
        #[command(flatten)]
        from: FromNode,
    },
}
