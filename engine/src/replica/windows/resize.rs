//! A series that keeps more or fewer windows from now on.

use std::sync::Arc;

use tallymesh_schemas::bounds;

use crate::counter::series::Series;
use crate::replica::Replica;
use crate::replica::report::StructureError;
use crate::time::Now;

impl Replica {
    /// Checks that all series together would not keep too many windows, if they kept `more` of them.
    ///
    /// # Errors
    /// [`StructureError::TooManyWindows`].
    pub fn check_windows(&self, more: u64) -> Result<(), StructureError> {
        if self.windows.kept().saturating_add(more) > bounds::WINDOWS as u64 {
            return Err(StructureError::TooManyWindows);
        }
        Ok(())
    }

    /// Keeps this number of windows of a series. Windows that are too old then are dropped. Windows that were dropped do not come
    /// back: this node has no counts of them, and does not share those in which it has counted.
    pub fn keep_windows(&mut self, now: Now, series: &Arc<Series>, windows: u32) {
        series.keep(windows);
        self.turn_windows(now);
    }
}
