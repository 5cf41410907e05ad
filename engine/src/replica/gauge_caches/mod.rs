//! The gauge caches of a replica.

mod upkeep;

use std::sync::Arc;

use crate::counter::gauge_cache::GaugeCache;

/// The gauge caches of a replica.
#[derive(Debug, Default)]
pub(crate) struct GaugeCaches {
    /// In the order of their creation.
    pub(crate) list: Vec<Arc<GaugeCache>>,
    /// The place of the one with which the next step begins.
    pub(crate) next: usize,
}

impl GaugeCaches {
    /// All of them, beginning with the one whose turn it is.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = (usize, &Arc<GaugeCache>)> {
        let places = (self.next..self.list.len()).chain(0..self.next);
        places.filter_map(|place| Some((place, self.list.get(place)?)))
    }
}
