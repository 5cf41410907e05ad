//! The links to peers: digests, the feeds that answer wants, and the clocks of the peers.

pub(crate) mod clock;
mod clocks;
pub(crate) mod digest;
pub(crate) mod encode;
mod feed;
pub(crate) mod link;
