//! `tally add`, `tally count`, `tally load` and `tally watch`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::args::from_node::FromNode;
use crate::commands::load::entries::LoadFormat;

/// `tally add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The object
    pub(crate) object: String,
    /// The key: an address or block, a domain, or BINDING/DOMAIN
    pub(crate) key: String,
    /// The number to add; negative to subtract
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) n: i64,
    /// Whether to wait for other nodes.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// The wait for other nodes after a change.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Wait until so many other nodes hold the change, at most as long as --timeout says; otherwise end with 1
    #[arg(long = "wait", value_name = "NODES")]
    pub(crate) nodes: Option<u32>,
}

/// `tally flush`.
#[derive(Debug, Args)]
pub(crate) struct Flush {
    /// How many other nodes must hold the changes
    #[arg(default_value_t = 1)]
    pub(crate) nodes: u32,
}

/// `tally count`.
#[derive(Debug, Args)]
#[command(override_usage = "tally [--at SOCKET] count OBJECT KEY|BLOCK [from NODE]")]
pub(crate) struct Count {
    /// The object
    pub(crate) object: String,
    /// The key, or an address block
    pub(crate) key: String,
    /// The view.
    #[command(flatten)]
    pub(crate) from: FromNode,
    /// Wait first until the asked node holds the changes of a position, as `tally flush` prints it
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<String>,
    /// End with 1 if a part of the count was confirmed as current longer ago
    #[arg(long, value_name = "SECONDS", value_parser = crate::args::seconds)]
    pub(crate) fresh: Option<Duration>,
}

/// `tally load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The object
    pub(crate) object: String,
    /// The file; stdin if it is - or left out
    pub(crate) file: Option<PathBuf>,
    /// Skip bad lines: report the first 20 with the reason, and count all
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// The format of the lines; by default KEY N, or a table if the first line is the heading of one
    #[arg(long, value_enum)]
    pub(crate) format: Option<LoadFormat>,
    /// Which counter of HAProxy to load, such as conn_cnt; by default conn_cur, or else the first of conn_cnt, sess_cnt,
    /// http_req_cnt, gpc0
    #[arg(long, value_name = "NAME")]
    pub(crate) counter: Option<String>,
    /// Whether to wait for other nodes.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// `tally watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The object
    pub(crate) object: String,
}
