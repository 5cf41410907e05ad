//! `tally throttle`.

use clap::{Args, Subcommand};

/// `tally throttle`.
#[derive(Debug, Subcommand)]
pub(crate) enum Throttle {
    /// List the throttles that are declared or in use
    #[command(after_help = "Example:\n  tally throttle list")]
    List,
    /// Show the state of a throttle on the asked node
    #[command(after_help = "Example:\n  tally throttle show campaign")]
    Show {
        /// The throttle.
        #[command(flatten)]
        name: ThrottleName,
    },
    /// Take tokens, and report whether they were admitted
    ///
    /// Ends with exit code 1 if they were refused. With --for it takes again and again, and reports how often it was admitted.
    #[command(after_help = "Examples:
  tally throttle take campaign 10
  tally throttle take campaign --for 10 --rate 500")]
    Take(ThrottleTake),
    /// Report whether tokens would be admitted, without taking them
    #[command(after_help = "Example:\n  tally throttle check campaign 10")]
    Check {
        /// The throttle.
        #[command(flatten)]
        name: ThrottleName,
        /// How many tokens
        #[arg(default_value_t = 1)]
        n: u64,
    },
    /// Explain a throttle: its rate, the shares of the nodes, and its largest overshoot
    #[command(after_help = "Example:\n  tally throttle explain campaign")]
    Explain {
        /// The throttle.
        #[command(flatten)]
        name: ThrottleName,
    },
}

/// The name of a throttle.
#[derive(Debug, Args)]
pub(crate) struct ThrottleName {
    /// The throttle
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `tally throttle take`.
#[derive(Debug, Args)]
pub(crate) struct ThrottleTake {
    /// The throttle.
    #[command(flatten)]
    pub(crate) name: ThrottleName,
    /// How many tokens
    #[arg(default_value_t = 1)]
    pub(crate) n: u64,
    /// Take again and again for this many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    pub(crate) seconds: Option<u32>,
    /// Requests per second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 10, requires = "seconds", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
}
