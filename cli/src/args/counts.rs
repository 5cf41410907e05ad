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
    /// How much; negative to remove
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
    /// Whose view.
    #[command(flatten)]
    pub(crate) from: FromNode,
}

/// `tally load`.
#[derive(Debug, Args)]
pub(crate) struct Load {
    /// The object
    pub(crate) object: String,
    /// The file; - or none is stdin
    pub(crate) file: Option<PathBuf>,
    /// Pass over bad lines: the first 20 are named with the reason, all are counted
    #[arg(long)]
    pub(crate) skip_bad: bool,
    /// How the lines are written; without it KEY N, or a table if the first line is the heading of one
    #[arg(long, value_enum)]
    pub(crate) format: Option<LoadFormat>,
    /// Which counter of HAProxy to take, such as conn_cnt; without it conn_cur, or else the first of conn_cnt, sess_cnt,
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
