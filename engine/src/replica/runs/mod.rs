//! The runs of all nodes: which are alive, which have ended or are forgotten, and which run this node is.

mod identity;
pub(crate) mod life;
mod liveness;
pub(crate) mod node;
mod retire;
pub(crate) mod round;
pub(crate) mod succession;
pub(crate) mod tombstone;
mod word;
