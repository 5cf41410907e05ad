//! `tally add`, `tally count`, `tally load` and `tally watch`.

use std::path::PathBuf;

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
}

/// `tally watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The object
    pub(crate) object: String,
}
