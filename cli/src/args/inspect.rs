//! `tally inspect`, `tally explain` and `tally diff`.

use std::time::Duration;

use clap::Args;
use tallymesh_schemas::inspect::SubjectRef;

use crate::args::seconds;

/// `tally inspect`.
#[derive(Debug, Args)]
#[command(override_usage = "tally [--at SOCKET] inspect OBJECT [KEY|BLOCK] [OPTIONS]")]
pub(crate) struct Inspect {
    /// The object, the series or the gauge cache, or a unique prefix of its name
    pub(crate) object: String,
    /// The key, or an address block; shows every actor's row of it
    pub(crate) key: Option<String>,
    /// Show each key with every actor's row, or with its entry: all keys, or those behind the key AFTER
    #[arg(long, value_name = "AFTER", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["key", "links", "log"])]
    pub(crate) rows: Option<String>,
    /// Show each link: what was sent, what the peer has reported, and which questions are open
    #[arg(long, conflicts_with_all = ["key", "log"])]
    pub(crate) links: bool,
    /// Show the version log: all changes, or those above the version FROM
    #[arg(long, value_name = "FROM", num_args = 0..=1, default_missing_value = "0", conflicts_with = "key")]
    pub(crate) log: Option<u64>,
    /// Whose log to show, instead of the asked node's
    #[arg(long, value_name = "NODE", requires = "log")]
    pub(crate) of: Option<String>,
    /// End after about so many keys or changes; stderr says how to continue
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Compare nodes side by side: names of nodes whose sockets are beside the asked node's, paths of sockets, or all
    #[arg(long, value_name = "NODE,…|all", value_delimiter = ',', conflicts_with_all = ["rows", "links", "log"])]
    pub(crate) on: Vec<String>,
    /// Repeat every so many seconds, and print what has changed, until Ctrl-C
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds, conflicts_with = "rows")]
    pub(crate) watch: Option<Duration>,
    /// Which series and window.
    #[command(flatten)]
    pub(crate) which: Which,
}

/// The choice of a series and of one of its windows.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Choose the series of an audit metric
    #[arg(long)]
    pub(crate) audit: bool,
    /// Seconds of a window, if several series have the name
    #[arg(long, value_name = "SECONDS")]
    pub(crate) interval: Option<u32>,
    /// Of a series: which window, 0 for the current one
    #[arg(long, value_name = "AGE", default_value_t = 0)]
    pub(crate) window: u32,
}

impl Which {
    /// The object or the window of a series.
    pub(crate) fn of(&self, name: &str) -> SubjectRef {
        let Self { audit, interval, window } = *self;
        SubjectRef { name: name.to_owned(), audit, interval, window }
    }
}

/// `tally explain`.
#[derive(Debug, Args)]
#[command(override_usage = "tally [--at SOCKET] explain OBJECT KEY|BLOCK [OPTIONS]")]
pub(crate) struct Explain {
    /// The object, the series or the gauge cache, or a unique prefix of its name
    pub(crate) object: String,
    /// The key, or an address block
    pub(crate) key: String,
    /// Which series and window.
    #[command(flatten)]
    pub(crate) which: Which,
}

/// `tally diff`.
#[derive(Debug, Args)]
#[command(override_usage = "tally [--at SOCKET] diff OBJECT NODE NODE [OPTIONS]")]
pub(crate) struct Diff {
    /// The object, the series or the gauge cache, or a unique prefix of its name
    pub(crate) object: String,
    /// A node whose socket is beside the asked node's, or the path of a socket
    #[arg(value_name = "NODE")]
    pub(crate) one: String,
    /// The other node
    #[arg(value_name = "NODE")]
    pub(crate) other: String,
    /// Which series and window.
    #[command(flatten)]
    pub(crate) which: Which,
}
