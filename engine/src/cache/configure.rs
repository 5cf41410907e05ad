//! What a running node changes about a cache when its configuration changes.

use tallymesh_schemas::Bounds;

use crate::cache::derived::Derived;
use crate::cache::handle::Cache;
use crate::cache::map::CacheMap;
use crate::primitive::Ordering;

impl Cache {
    /// The configuration does not name the cache any more: writes are refused. The replica goes on to exchange its entries until
    /// the run ends, and a cache that is configured again continues with them.
    pub fn detach(&self) {
        self.shared.detached.store(true, Ordering::Relaxed);
    }

    /// The configuration names the cache again.
    pub fn attach(&self) {
        self.shared.detached.store(false, Ordering::Relaxed);
    }

    pub(crate) fn is_detached(&self) -> bool {
        self.shared.detached.load(Ordering::Relaxed)
    }

    /// Changes the maximum size. A cache that is larger then shrinks with its next writes. O(entries).
    pub fn set_bounds(&self, bounds: Bounds) {
        self.shared.map.write().set_bounds(bounds);
    }

    /// The maximum size.
    pub fn bounds(&self) -> Bounds {
        self.shared.map.read().derived().bounds
    }
}

impl CacheMap {
    fn set_bounds(&mut self, bounds: Bounds) {
        let mut derived = Derived::new(bounds);
        self.slots.iter().for_each(|(slot, entry)| derived.add(slot, entry));
        self.derived = derived;
    }
}
