//! The commands, one file each.

pub(crate) mod add;
pub(crate) mod audit;
pub(crate) mod caches;
mod certificates;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod count;
pub(crate) mod forget;
pub(crate) mod gauges;
pub(crate) mod hold;
pub(crate) mod info;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod membership;
pub(crate) mod node;
pub(crate) mod permits;
pub(crate) mod reload;
pub(crate) mod series;
pub(crate) mod show;
pub(crate) mod state;
pub(crate) mod throttle;
pub(crate) mod verify;
pub(crate) mod watch;
