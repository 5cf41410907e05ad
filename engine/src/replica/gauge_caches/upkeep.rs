//! Makes gauge caches, and keeps them up in bounded steps.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::GaugeCacheSpec;

use crate::counter::gauge_cache::{GaugeCache, STEP};
use crate::replica::Replica;
use crate::replica::report::StructureError;
use crate::replica::timers::Timer;
use crate::time::Now;
use crate::wake::Wake;

/// Time between two steps of the upkeep.
const PAUSE: Duration = Duration::from_millis(1);

impl Replica {
    /// Makes a gauge cache. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn replicate_gauge_cache(
        &mut self,
        spec: GaugeCacheSpec,
        wake: Wake,
    ) -> Result<Arc<GaugeCache>, StructureError> {
        let made = spec.structure();
        let structure = if spec.replicate { self.replicate(made, wake)? } else { self.keep(made, wake)? };
        let gauge_cache = Arc::new(GaugeCache::new(spec, structure));
        self.gauge_caches.list.push(Arc::clone(&gauge_cache));
        Ok(gauge_cache)
    }

    /// The gauge caches in the order of their creation.
    pub fn gauge_caches(&self) -> &[Arc<GaugeCache>] {
        &self.gauge_caches.list
    }

    /// Begins the upkeep of the gauge caches, once per interval.
    pub(crate) fn keep_gauge_caches(&mut self, now: Now) {
        self.gauge_caches.list.iter().for_each(|gauge_cache| gauge_cache.begin_upkeep());
        self.work_on_gauge_caches(now);
        if let Some(cluster_ms) = self.peers.clocks.certain_ms(now) {
            self.gauge_caches.list.iter().for_each(|gauge_cache| gauge_cache.mark(now.mono, cluster_ms));
        }
    }

    /// Works on with the upkeep: one step for all gauge caches together. If work is left, comes back for it soon.
    pub(crate) fn work_on_gauge_caches(&mut self, now: Now) {
        let cluster_ms = self.peers.clocks.certain_ms(now);
        let mut left = STEP;
        let mut next = 0;
        for (place, gauge_cache) in self.gauge_caches.in_turn() {
            if left == 0 {
                next = place;
                break;
            }
            left = left.saturating_sub(gauge_cache.work(now, cluster_ms, left));
        }
        self.gauge_caches.next = next;
        if self.gauge_caches.list.iter().any(|gauge_cache| gauge_cache.has_work()) {
            self.timers.set(Timer::GaugeCaches, now.mono.after(PAUSE));
        } else {
            self.timers.stop(&Timer::GaugeCaches);
        }
    }

    /// Comes back soon if many changes wait for a gauge cache.
    pub(crate) fn hurry_gauge_caches(&mut self, now: Now) {
        if self.gauge_caches.list.iter().any(|gauge_cache| gauge_cache.is_behind()) {
            self.timers.hurry(Timer::GaugeCaches, now.mono.after(PAUSE));
        }
    }
}
