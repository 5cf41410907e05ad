//! `tally inbound_audit` and `tally series`.

use clap::{Args, Subcommand};

use crate::args::counts::Wait;
use crate::args::from_node::FromNode;
use crate::failure::Failure;

/// `tally inbound_audit`.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub(crate) enum InboundAudit {
    /// Show the counts of the audit
    #[command(subcommand, after_help = "Example:\n  tally inbound_audit show ip 192.0.2.7 from relay-0-1")]
    Show(ShowAudit),
    /// Add to a metric of an address, in the current window
    #[command(
        override_usage = "tally [--at SOCKET] inbound_audit add IP[/MASK] SERIES INTERVAL,WINDOWS [N]",
        after_help = "Example:\n  tally inbound_audit add 192.0.2.7 reception 300,6 12"
    )]
    Add(AuditAdd),
    /// Subtract from a metric of an address, in the current window
    #[command(
        override_usage = "tally [--at SOCKET] inbound_audit subtract IP[/MASK] SERIES INTERVAL,WINDOWS [N]",
        after_help = "Example:\n  tally inbound_audit subtract 192.0.2.7 reception 300,6 2"
    )]
    Subtract(AuditAdd),
    /// Show the sum of a metric over windows, for an address or block
    ///
    /// START is the youngest window, 0 for the current one, and END the oldest.
    #[command(
        override_usage = "tally [--at SOCKET] inbound_audit count_cidr IP[/MASK] SERIES INTERVAL,WINDOWS START END [from NODE]",
        after_help = "Example:\n  tally inbound_audit count_cidr 192.0.2.0/24 connect 300,6 0 2"
    )]
    CountCidr(AuditCount),
    /// Remove an address from all windows of a metric, on all nodes
    ///
    /// Removes the counts of all nodes that the asked node knows. Counts that are added at the same time or later stay.
    #[command(after_help = "Example:\n  tally inbound_audit delete_ip 192.0.2.7 connect 300,6")]
    DeleteIp(AuditKey),
}

/// `tally inbound_audit show`.
#[derive(Debug, Subcommand)]
pub(crate) enum ShowAudit {
    /// Every metric and window of an address or block, one per line
    #[command(
        override_usage = "tally [--at SOCKET] inbound_audit show ip IP[/MASK] [from NODE]",
        after_help = "Example:\n  tally inbound_audit show ip 192.0.2.0/24"
    )]
    Ip {
        /// The address or block
        #[arg(value_name = "IP[/MASK]")]
        net: String,
        /// The view.
        #[command(flatten)]
        from: FromNode,
    },
    /// Every address with a count, in every metric and window, as CSV
    #[command(
        override_usage = "tally [--at SOCKET] inbound_audit show all [from NODE]",
        after_help = "Example:\n  tally inbound_audit show all > audit.csv"
    )]
    All {
        /// The view.
        #[command(flatten)]
        from: FromNode,
    },
}

/// `tally inbound_audit add`, `subtract`: also in Momentum's order, the address behind series and monitor.
#[derive(Debug, Args)]
pub(crate) struct AuditAdd {
    /// The address or block
    #[arg(value_name = "IP[/MASK]")]
    first: String,
    /// The metric: connect, reception, rejection, delivery, transfail or permfail
    #[arg(value_name = "SERIES")]
    second: String,
    /// The monitor, as configured; Momentum's order, SERIES INTERVAL,WINDOWS IP, is accepted too
    #[arg(value_name = "INTERVAL,WINDOWS")]
    third: String,
    /// The number to add
    #[arg(default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) n: i64,
}

impl AuditAdd {
    /// The address or block, the metric, and the monitor.
    pub(crate) fn parts(&self) -> Result<(&str, &str, (u32, u32)), Failure> {
        let Self { first, second, third, .. } = self;
        // Only a monitor is two numbers with a comma between them.
        match (monitor(third), monitor(second)) {
            (Ok(windows), _) => Ok((first, second, windows)),
            (_, Ok(windows)) => Ok((third, first, windows)),
            (Err(error), _) => Err(Failure::Input(format!("\"{third}\" is not a monitor: {error}"))),
        }
    }
}

/// `tally inbound_audit count_cidr`.
#[derive(Debug, Args)]
pub(crate) struct AuditCount {
    /// The address or block
    #[arg(value_name = "IP[/MASK]")]
    pub(crate) net: String,
    /// The metric
    #[arg(value_name = "SERIES")]
    pub(crate) metric: String,
    /// The monitor, as configured
    #[arg(value_name = "INTERVAL,WINDOWS", value_parser = monitor)]
    pub(crate) monitor: (u32, u32),
    /// The youngest window
    pub(crate) start: u32,
    /// The oldest window
    pub(crate) end: u32,
    /// The view.
    #[command(flatten)]
    pub(crate) from: FromNode,
}

/// `tally inbound_audit delete_ip`.
#[derive(Debug, Args)]
pub(crate) struct AuditKey {
    /// The address or block
    pub(crate) ip: String,
    /// The metric
    #[arg(value_name = "SERIES")]
    pub(crate) metric: String,
    /// The monitor, as configured
    #[arg(value_name = "INTERVAL,WINDOWS", value_parser = monitor)]
    pub(crate) monitor: (u32, u32),
}

/// `tally series`.
#[derive(Debug, Subcommand)]
pub(crate) enum Series {
    /// List the series, those of the audit first
    #[command(after_help = "Example:\n  tally series list")]
    List,
    /// Show the windows of a key, or of all keys
    #[command(
        override_usage = "tally [--at SOCKET] series show NAME [KEY|BLOCK] [from NODE]",
        after_help = "\
Examples:
  tally series show logins
  tally series show logins alice from relay-0-1"
    )]
    Show {
        /// Which series.
        #[command(flatten)]
        series: SeriesName,
        /// The key, or an address block; all keys by default
        key: Option<String>,
        /// The view.
        #[command(flatten)]
        from: FromNode,
    },
    /// Plot the windows of a key, the oldest first
    #[command(
        override_usage = "tally [--at SOCKET] series plot NAME KEY|BLOCK [from NODE]",
        after_help = "Example:\n  tally series plot --audit connect 192.0.2.0/24"
    )]
    Plot {
        /// Which series.
        #[command(flatten)]
        series: SeriesName,
        /// The key, or an address block
        key: String,
        /// The view.
        #[command(flatten)]
        from: FromNode,
    },
    /// Show the sum over windows
    #[command(
        override_usage = "tally [--at SOCKET] series count NAME KEY|BLOCK [--windows START-END] [from NODE]",
        after_help = "Example:\n  tally series count logins alice --windows 0-5"
    )]
    Count(SeriesCount),
    /// Add to a key, in the current window
    #[command(after_help = "Example:\n  tally series add logins alice 3")]
    Add {
        /// Which series.
        #[command(flatten)]
        series: SeriesName,
        /// The key
        key: String,
        /// The number to add; negative to subtract
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        n: i64,
        /// Whether to wait for other nodes.
        #[command(flatten)]
        wait: Wait,
    },
    /// Remove a key from all windows, on all nodes
    #[command(visible_alias = "del", after_help = "Example:\n  tally series remove logins alice")]
    Remove {
        /// Which series.
        #[command(flatten)]
        series: SeriesName,
        /// The key
        key: String,
    },
}

/// The choice of a series.
#[derive(Debug, Args)]
pub(crate) struct SeriesName {
    /// The series, or a unique prefix of its name
    pub(crate) name: String,
    /// Choose the series of an audit metric
    #[arg(long)]
    pub(crate) audit: bool,
    /// Seconds of a window, if several series have the name
    #[arg(long, value_name = "SECONDS")]
    pub(crate) interval: Option<u32>,
}

/// `tally series count`.
#[derive(Debug, Args)]
pub(crate) struct SeriesCount {
    /// Which series.
    #[command(flatten)]
    pub(crate) series: SeriesName,
    /// The key, or an address block
    pub(crate) key: String,
    /// The youngest and the oldest window, 0 for the current one
    #[arg(long, value_name = "START-END", value_parser = ages, default_value = "0-0")]
    pub(crate) windows: (u32, u32),
    /// The view.
    #[command(flatten)]
    pub(crate) from: FromNode,
}

fn monitor(text: &str) -> Result<(u32, u32), String> {
    pair(text, ',').ok_or_else(|| "write seconds and windows as they are configured, such as 300,6".to_owned())
}

fn ages(text: &str) -> Result<(u32, u32), String> {
    let one = || text.parse().ok().map(|age| (age, age));
    pair(text, '-').or_else(one).ok_or_else(|| "write windows as 0-5, or one as 0".to_owned())
}

fn pair(text: &str, separator: char) -> Option<(u32, u32)> {
    let (first, second) = text.split_once(separator)?;
    Some((first.trim().parse().ok()?, second.trim().parse().ok()?))
}
