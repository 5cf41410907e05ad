//! The links to peers: digests, the feeds that answer wants, and the clocks of the peers.

pub(super) mod clocks;
pub(super) mod digest;
pub(super) mod encode;
mod feed;
pub(super) mod link;
