//! Caches: replicated maps in which the last write of a key wins.

pub(crate) mod collect;
pub(crate) mod compare;
mod configure;
pub(crate) mod context;
mod derived;
mod ended;
mod ending;
mod entry;
pub(crate) mod examine;
pub(crate) mod exchange;
mod fingerprint;
pub(crate) mod handle;
mod install;
mod link;
mod log;
pub(crate) mod map;
pub(crate) mod mark;
mod order;
mod received;
pub(crate) mod receiver;
mod room;
mod run;
mod runs;
pub(crate) mod saving;
pub(crate) mod sender;
mod slots;
#[cfg(test)]
mod walk;
pub(crate) mod writers;
