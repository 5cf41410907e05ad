//! `tally cache` and `tally gauge`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::args::counts::Wait;

/// `tally cache`.
#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// List the caches
    #[command(after_help = "Example:\n  tally cache list")]
    List,
    /// Print the value of a key, as its bytes
    ///
    /// Ends with exit code 1 if there is none.
    #[command(after_help = "Example:\n  tally cache get sessions user:7")]
    Get(CacheKey),
    /// Write a value, on all nodes
    #[command(after_help = "Examples:
  tally cache set sessions user:7 Ada
  tally cache set sessions user:7 Ada --ttl 5M
  tally cache set sessions page - < page.html")]
    Set(CacheSet),
    /// Remove a key, on all nodes
    ///
    /// Ends with exit code 1 if there is none.
    #[command(visible_alias = "remove", after_help = "Example:\n  tally cache del sessions user:7")]
    Del(CacheKey),
    /// Show the entries
    #[command(after_help = "Example:\n  tally cache show sessions")]
    Show {
        /// The cache
        #[arg(value_name = "CACHE")]
        cache: String,
    },
}

/// A key of a cache.
#[derive(Debug, Args)]
pub(crate) struct CacheKey {
    /// The cache
    #[arg(value_name = "CACHE")]
    pub(crate) cache: String,
    /// The key
    pub(crate) key: String,
}

/// `tally cache set`.
#[derive(Debug, Args)]
pub(crate) struct CacheSet {
    /// The cache and the key.
    #[command(flatten)]
    pub(crate) at: CacheKey,
    /// The value; - reads it from stdin
    pub(crate) value: String,
    /// When it expires: seconds, or minutes or hours as in 5M and 2H; 0 means never
    #[arg(long, default_value = "0", value_parser = tallymesh_schemas::ttl::parse)]
    pub(crate) ttl: Duration,
    /// Whether to wait for other nodes.
    #[command(flatten)]
    pub(crate) wait: Wait,
}

/// `tally gauge`.
#[derive(Debug, Subcommand)]
pub(crate) enum Gauge {
    /// List the gauge caches
    #[command(after_help = "Example:\n  tally gauge list")]
    List,
    /// Show the entries
    #[command(after_help = "Example:\n  tally gauge show retries")]
    Show {
        /// The gauge cache
        #[arg(value_name = "GAUGE")]
        gauge: String,
    },
    /// Print the count of a key
    ///
    /// Ends with exit code 1 if there is no such entry.
    #[command(after_help = "Example:\n  tally gauge get retries alice")]
    Get(GaugeKey),
    /// Add to a key, and print its count
    #[command(after_help = "Example:\n  tally gauge inc retries alice 3")]
    Inc {
        /// The gauge cache and the key.
        #[command(flatten)]
        at: GaugeKey,
        /// How much
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
        n: i64,
    },
    /// Subtract from a key, and print its count
    #[command(after_help = "Example:\n  tally gauge dec retries alice")]
    Dec {
        /// The gauge cache and the key.
        #[command(flatten)]
        at: GaugeKey,
        /// How much
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(i64).range(0..))]
        n: i64,
    },
    /// Remove a key, on all nodes
    ///
    /// Ends with exit code 1 if there is none.
    #[command(visible_alias = "remove", after_help = "Example:\n  tally gauge del retries alice")]
    Del(GaugeKey),
}

/// A key of a gauge cache.
#[derive(Debug, Args)]
pub(crate) struct GaugeKey {
    /// The gauge cache
    #[arg(value_name = "GAUGE")]
    pub(crate) gauge: String,
    /// The key
    pub(crate) key: String,
}
