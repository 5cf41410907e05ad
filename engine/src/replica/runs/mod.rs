//! The runs of all nodes: which are alive, which have ended or are forgotten, and which run this node is.

mod identity;
pub(crate) mod liveness;
pub(super) mod retire;
pub(super) mod succession;
pub(super) mod word;
