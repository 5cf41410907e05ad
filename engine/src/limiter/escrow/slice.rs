//! The names that one turn of escrow works through: some at a time, so that a turn takes a bounded time.

use std::ops::Bound;
use std::sync::Arc;

/// Names in order: those behind the first one, up to the second one. All names if both are missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slice {
    pub(super) after: Option<Arc<str>>,
    pub(super) upto: Option<Arc<str>>,
}

impl Slice {
    /// All names.
    pub(crate) fn all() -> Self {
        Self::default()
    }

    pub(crate) fn is_all(&self) -> bool {
        self.after.is_none() && self.upto.is_none()
    }

    pub(crate) fn range(&self) -> (Bound<&str>, Bound<&str>) {
        let after = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        (after, self.upto.as_deref().map_or(Bound::Unbounded, Bound::Included))
    }

    /// Whether names follow.
    pub(super) fn leaves_some(&self) -> bool {
        self.upto.is_some()
    }
}
