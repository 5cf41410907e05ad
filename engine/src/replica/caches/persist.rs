//! The saved state of the caches.

use tallymesh_schemas::UnixMs;
use tallymesh_schemas::message::CacheContext;
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::{CacheContexts, Change, Head, SavedEntry, Shape};

use crate::cache::handle::Cache;
use crate::cache::saving::Unit;
use crate::hlc::Stamp;
use crate::replica::Replica;
use crate::replica::caches::{Caches, HeldCache};
use crate::replica::persist::error::RestoreError;
use crate::replica::persist::stored::SavedRows;

/// What a node knows about the saved state of a cache.
#[derive(Debug, Default)]
pub(crate) struct SavedCache {
    /// What the saved entries account for.
    seen: CacheContext,
    /// The unit that is being handed out.
    unit: Option<Unit>,
    /// What the saved entries will account for when the unit is saved.
    next: Option<CacheContext>,
}

impl HeldCache {
    pub(crate) fn shape(&self) -> Shape {
        let spec = self.cache.spec();
        Shape { name: spec.name.as_str().to_owned(), class: spec.class }
    }
}

impl Caches {
    /// Keeps track of what has to be saved.
    pub(crate) fn keep_state(&mut self) {
        self.iter_mut().for_each(|(_, held)| held.cache.shared.map.write().keep_unsaved());
        self.are_saved = true;
    }

    /// Begins a unit of changes. Returns whether there are any.
    pub(crate) fn begin_unit(&mut self) -> bool {
        let mut any = false;
        for (_, held) in self.iter_mut() {
            let map = &mut held.cache.shared.map.write();
            if held.saved.unit.is_none() && map.has_unsaved(&held.saved.seen) {
                held.saved.unit = Some(map.begin_unit());
                held.saved.next = None;
                any = true;
            }
        }
        any
    }

    /// The next changes of the unit, about `most` bytes; `None` when all were handed out. Returns their bytes, too.
    pub(crate) fn next_changes(&mut self, most: usize) -> Option<(Change, usize)> {
        let (_, held) = self.iter_mut().find(|(_, held)| held.saved.unit.is_some() && held.saved.next.is_none())?;
        let shape = held.shape();
        let unit = held.saved.unit.as_mut()?;
        let changes = held.cache.shared.map.write().next_changes(unit, most);
        held.saved.next = changes.contexts.as_ref().map(|contexts| contexts.seen.clone());
        let (anew, entries, contexts) = (changes.anew, changes.entries, changes.contexts);
        Some((Change::Entries { shape, anew, entries, contexts }, changes.bytes))
    }

    /// The unit was saved.
    pub(crate) fn note_saved(&mut self) {
        for (_, held) in self.iter_mut() {
            if held.saved.unit.take().is_some()
                && let Some(seen) = held.saved.next.take()
            {
                held.saved.seen = seen;
            }
        }
    }

    /// The unit was not saved.
    pub(crate) fn note_failed(&mut self) {
        for (_, held) in self.iter_mut() {
            held.saved.next = None;
            if let Some(unit) = held.saved.unit.take() {
                held.cache.shared.map.write().take_back(unit);
            }
        }
    }
}

/// Restoring. Call these methods before any input, after the facts.
impl Replica {
    /// Restores an entry of a cache. Entries of caches that are not configured stay saved.
    ///
    /// # Errors
    /// The structure has another class now.
    pub fn restore_entry(&mut self, shape: &Shape, entry: &SavedEntry) -> Result<(), RestoreError> {
        if let Some(cache) = self.saved_cache(shape)? {
            cache.shared.map.write().restore(entry);
        }
        Ok(())
    }

    /// Restores what the entries of a cache account for. Call it after the entries.
    ///
    /// # Errors
    /// The structure has another class now.
    pub fn restore_contexts(&mut self, shape: &Shape, contexts: &CacheContexts) -> Result<(), RestoreError> {
        let Some(cache) = self.saved_cache(shape)? else { return Ok(()) };
        cache.shared.map.write().restore_contexts(contexts);
        let id = shape.id();
        if let Some(held) = self.caches.get_mut(id) {
            held.saved.seen = contexts.seen.clone();
        }
        Ok(())
    }

    /// The cache of a saved part.
    fn saved_cache(&self, shape: &Shape) -> Result<Option<Cache>, RestoreError> {
        let cache = self.caches.get(shape.id()).map(|held| held.cache.clone());
        let structure = self.structures.get(&shape.id()).map(|held| held.structure.spec());
        let Some(spec) = cache.as_ref().map(Cache::spec).or(structure) else { return Ok(None) };
        if spec.name.as_str() != shape.name || spec.class != shape.class {
            let (saved, configured) = (shape.class.name(), spec.class.name());
            return Err(RestoreError::Class { name: shape.name.clone(), saved, configured });
        }
        Ok(cache)
    }

    /// Restores the rows of a run in a cache, as builds of protocol version 1 saved them. They are saved again in the present
    /// form.
    pub(crate) fn restore_rows_of_cache<R: SavedRows>(&mut self, head: &Head, rows: &R) -> Result<(), R::Error> {
        let Some(cache) = self.saved_cache(&head.shape)? else { return Ok(()) };
        let map = &mut cache.shared.map.write();
        rows.each_row(&mut |_, version, bytes| {
            let mut reader = RowReader::new(bytes, version.previous());
            let Ok(Some(row)) = reader.next_row() else { return };
            match row.state {
                RowState::Content { key: Some(key), stamp, expires_ms, value } => {
                    map.take_in(key, Stamp(stamp), (&head.actor, version.0), (UnixMs(expires_ms), Some(value)));
                }
                // A row without value is a removal, or a write that another row superseded.
                RowState::Live { key: Some(key), added, removed: 0 } => {
                    map.take_in(key, Stamp(added), (&head.actor, version.0), (UnixMs::ZERO, None));
                }
                _ => {}
            }
        })?;
        map.account_for(&head.actor, head.extent.applied.0);
        Ok(())
    }
}
