//! What a node knows about the saved state of a cache.

use tallymesh_schemas::message::CacheContext;

use crate::cache::map::CacheMap;
use crate::cache::saving::{Changes, Unit};

/// The saved state of a cache, and the unit of changes that is being handed out.
#[derive(Debug, Default)]
pub(crate) struct SavedCache {
    /// What the saved entries account for.
    seen: CacheContext,
    unit: Option<Unit>,
    /// What the saved entries will account for when the unit is saved.
    next: Option<CacheContext>,
}

impl SavedCache {
    /// The entries were restored, and account for this.
    pub(super) fn restored(&mut self, seen: CacheContext) {
        self.seen = seen;
    }

    /// Begins a unit, if there are changes. Returns whether there are any.
    pub(super) fn begin(&mut self, map: &mut CacheMap) -> bool {
        if self.unit.is_some() || !map.has_unsaved(&self.seen) {
            return false;
        }
        self.unit = Some(map.begin_unit());
        self.next = None;
        true
    }

    /// The next changes of the unit, about `most` bytes; `None` when all were handed out.
    pub(super) fn next_changes(&mut self, map: &mut CacheMap, most: usize) -> Option<Changes> {
        let unit = self.unit.as_mut().filter(|_| self.next.is_none())?;
        let changes = map.next_changes(unit, most);
        self.next = changes.contexts.as_ref().map(|contexts| contexts.seen.clone());
        Some(changes)
    }

    /// The unit was saved.
    pub(super) fn note_saved(&mut self) {
        if self.unit.take().is_some()
            && let Some(seen) = self.next.take()
        {
            self.seen = seen;
        }
    }

    /// The unit was not saved.
    pub(super) fn note_failed(&mut self, map: &mut CacheMap) {
        self.next = None;
        if let Some(unit) = self.unit.take() {
            map.take_back(unit);
        }
    }
}
