//! `tally hold`, and the hidden command that starts its command.

use std::ffi::OsString;

use clap::{Args, ValueEnum};
use tallymesh_schemas::HoldLimit;

/// `tally hold`.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// The object
    pub(crate) object: String,
    /// The key: an address, a domain, or BINDING/DOMAIN
    pub(crate) key: String,
    /// Run the command only if the cluster then counts at most N for the key, or in the block around an address
    #[arg(long = "limit", value_name = "[/MASK=]N", allow_hyphen_values = true)]
    pub(crate) limits: Vec<HoldLimit>,
    /// What to do with the command when the node stops and the hold is lost
    #[arg(long, value_name = "WHAT", value_enum, default_value_t)]
    pub(crate) on_lost: OnLost,
    /// The exit code when there is no room [default: 1]
    #[arg(short = 'E', long, value_name = "N")]
    pub(crate) conflict_exit_code: Option<u8>,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// What to do with a command whose hold is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OnLost {
    /// It continues, and is counted again when the node is back
    #[default]
    Continue,
    /// End it
    Kill,
}

/// `tally guarded`: the command of `tally hold` before it becomes the command.
#[derive(Debug, Args)]
pub(crate) struct Guarded {
    /// The process of `tally hold`
    #[arg(long)]
    pub(crate) parent: u32,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}
