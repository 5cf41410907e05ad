//! `tally demo` and `tally bench`, which run nodes of their own.

use clap::Args;

/// `tally demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,
    /// Approximate duration in seconds
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(8..=3600))]
    pub(crate) seconds: u16,
    /// Write lines only and redraw nothing: for logs
    #[arg(long)]
    pub(crate) plain: bool,
}

/// `tally bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Measure Redis as well, and compare
    #[arg(long)]
    pub(crate) against_redis: bool,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Rows that the joining node receives; a million need a gigabyte of memory
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    pub(crate) rows: u32,
}
