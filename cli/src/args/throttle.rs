//! `tally throttle`.

use clap::{Args, Subcommand};

/// `tally throttle`.
#[derive(Debug, Subcommand)]
pub(crate) enum Throttle {
    /// List the throttles that are declared or in use
    #[command(after_help = "Example:\n  tally throttle list")]
    List,
    /// Show how a throttle stands on the asked node
    #[command(after_help = "Example:\n  tally throttle show campaign")]
    Show {
        /// The throttle.
        #[command(flatten)]
        name: ThrottleName,
    },
    /// Take tokens, and say whether they were there
    ///
    /// Ends with exit code 1 when they were not. With --for it goes on taking, and says how often they were.
    #[command(after_help = "Examples:
  tally throttle take campaign 10
  tally throttle take campaign --for 10 --rate 500")]
    Take(ThrottleTake),
    /// Say whether tokens are there, and take none
    #[command(after_help = "Example:\n  tally throttle check campaign 10")]
    Check {
        /// The throttle.
        #[command(flatten)]
        name: ThrottleName,
        /// How many tokens
        #[arg(default_value_t = 1)]
        n: u64,
    },
    /// Explain in words what a throttle is, who holds what of it, and how wrong it can be
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
    /// Go on for so many seconds
    #[arg(long = "for", value_name = "SECONDS")]
    pub(crate) seconds: Option<u32>,
    /// Ask so many times a second
    #[arg(long, value_name = "PER_SECOND", default_value_t = 10, requires = "seconds", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
}
