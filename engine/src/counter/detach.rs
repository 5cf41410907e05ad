//! Structures that the configuration of a running node does not name any more, and budgets that change.
//!
//! Rows stay: what this node has counted remains true, and other nodes may still have the structure. So the replica goes on to
//! exchange it until the run ends. A structure that is configured again continues with its rows, and no version is used twice.

use std::num::NonZeroU64;

use tallymesh_schemas::key::KeyError;

use crate::counter::structure::Structure;
use crate::primitive::Ordering;

impl Structure {
    /// The configuration does not name the structure any more: from now on, [`Structure::check`] refuses additions. What is open
    /// stays counted until it is closed.
    pub fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    /// The configuration names the structure again.
    pub fn attach(&self) {
        self.detached.store(false, Ordering::Relaxed);
    }

    /// Whether a program may add `n`. Counts of a structure that is not configured any more only go down.
    ///
    /// # Errors
    /// [`KeyError::Detached`] when it may not.
    #[inline]
    pub fn check(&self, n: i64) -> Result<(), KeyError> {
        if n > 0 && self.detached.load(Ordering::Relaxed) { Err(KeyError::Detached) } else { Ok(()) }
    }

    /// Changes the most keys that this node holds. Keys that are there stay.
    pub fn limit_keys(&self, max: Option<NonZeroU64>) {
        self.keys.quota().object().set_max(max);
    }
}
