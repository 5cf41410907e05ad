//! Restoring the caches.

use tallymesh_schemas::UnixMs;
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::{CacheContexts, Head, SavedEntry, Shape};

use crate::cache::handle::Cache;
use crate::hlc::Stamp;
use crate::replica::Replica;
use crate::replica::persist::error::RestoreError;
use crate::replica::persist::stored::SavedRows;

/// Call these methods before any input, after the facts.
impl Replica {
    /// Restores an entry of a cache. Entries of caches that are not configured stay saved.
    ///
    /// # Errors
    /// The structure has another class now.
    pub fn restore_entry(&mut self, shape: &Shape, entry: &SavedEntry) -> Result<(), RestoreError> {
        match self.saved_cache(shape)? {
            Some(cache) => {
                cache.shared.map.write().restore(entry);
            }
            None => self.note_unclaimed(shape.id()),
        }
        Ok(())
    }

    /// Restores what the entries of a cache account for. Call it after the entries.
    ///
    /// # Errors
    /// The structure has another class now.
    pub fn restore_contexts(&mut self, shape: &Shape, contexts: &CacheContexts) -> Result<(), RestoreError> {
        let id = shape.id();
        let Some(cache) = self.saved_cache(shape)? else {
            self.note_unclaimed(id);
            return Ok(());
        };
        cache.shared.map.write().restore_contexts(contexts);
        if let Some(held) = self.caches.get_mut(id) {
            held.saved.restored(contexts.seen.clone());
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
