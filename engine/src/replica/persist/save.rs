//! The commands that save.

use tallymesh_schemas::saved::Facts;

use crate::replica::Replica;
use crate::replica::persist::Batch;

impl Replica {
    /// Turns on saving: the replica hands out caches, gauge caches, and the windows of persistent series.
    pub fn keep_state(&mut self) {
        self.persistence.get_or_insert_default();
        self.caches.keep_state();
    }

    /// The next changes to save; `None` when there are none, or the outcome of the last batch was not reported: see
    /// [`Replica::handle_saved`] and [`Replica::handle_not_saved`]. A
    /// batch that completes a unit describes the state of this node at one moment. Nothing in it is later than the state when
    /// the first batch of that unit was handed out. O(actors of the structures) plus O(rows).
    pub fn poll_save(&mut self) -> Option<Batch> {
        let persistence = self.persistence.as_mut()?;
        persistence.next_batch(&self.structures, &mut self.caches, || self.runs.facts(), self.config.delta_bytes)
    }

    /// The last batch was saved; if it completes a unit, with the whole unit.
    pub fn handle_saved(&mut self) {
        if let Some(persistence) = &mut self.persistence {
            persistence.note_saved(&mut self.caches);
        }
    }

    /// The last batch was not saved. The replica hands it out again, with everything before it in its unit.
    pub fn handle_not_saved(&mut self) {
        if let Some(persistence) = &mut self.persistence {
            persistence.note_failed(&mut self.caches);
        }
    }

    /// Saved facts that are not rows: this run, the known nodes, and the tombstones.
    pub fn facts(&self) -> Facts {
        self.runs.facts()
    }
}
