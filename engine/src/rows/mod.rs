//! The rows of one actor, whatever they mean: slots, the log of changes, fingerprints, and the writer of this node's own rows.

pub(crate) mod actor_rows;
mod change_log;
pub(crate) mod heartbeat;
pub(crate) mod row;
pub(crate) mod slots;
pub(crate) mod span;
pub(crate) mod writer;
