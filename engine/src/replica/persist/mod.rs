//! Saved state: what a node writes while it runs, and what it restores at its start.

pub(super) mod restore;
pub(super) mod save;
pub(super) mod stored;
