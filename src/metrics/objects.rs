//! The figures of structures, series and caches.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Figures as StructureFigures, Series, Structure, Time};
use tallymesh_schemas::NodeName;

use crate::cache::Cache;
use crate::metrics::definition::Metric;
use crate::metrics::figures::Figures;
use crate::shared::Shared;

/// How far this node is behind a peer, over all objects.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Behind {
    pub(super) versions: u64,
    pub(super) stale: Option<Duration>,
}

/// The figures of one object: of a structure, or of all windows of a series.
#[derive(Debug, Default)]
struct Object {
    keys: usize,
    rows: usize,
    nodes: u32,
    bytes: usize,
    pending: usize,
    behind: u64,
    stale: Option<Duration>,
}

/// Adds the figures of all objects. Returns how far this node is behind each peer.
pub(super) fn gather(figures: &mut Figures, shared: &Shared) -> BTreeMap<NodeName, Behind> {
    let now = shared.clock.time();
    let mut peers = BTreeMap::new();
    let current = shared.current.get();
    for structure in current.structures.values() {
        let mut object = Object::default();
        let (changes, commits) = object.add(structure, now, &mut peers);
        let name = structure.spec().name.as_str();
        object.write(figures, name);
        maximum(figures, name, structure.usage().max);
        figures.whole(Metric::ObjectChanges, &[name], changes);
        figures.whole(Metric::ObjectCommits, &[name], commits);
    }
    for series in &current.series {
        let mut object = Object::default();
        for window in series.windows() {
            // A window goes with its counters, and the sum over windows would fall then.
            let _ = object.add(&window, now, &mut peers);
        }
        object.write(figures, &name_of(series));
        maximum(figures, &name_of(series), series.usage().max);
    }
    current.caches.iter().for_each(|cache| of_cache(figures, cache));
    peers
}

/// The name of a series among the objects, as logs and `cluster info` show it.
fn name_of(series: &Arc<Series>) -> String {
    let window = series.spec().structure(0).name;
    window.as_str().split_once('@').map_or(window.as_str(), |(name, _)| name).to_owned()
}

impl Object {
    /// Adds a structure, and how far it is behind to the totals of the peers. Returns its changes and commits.
    fn add(&mut self, structure: &Structure, now: Time, peers: &mut BTreeMap<NodeName, Behind>) -> (u64, u64) {
        let StructureFigures { rows, changes, commits, copies, .. } = structure.figures(now);
        self.keys += structure.keys();
        self.rows += rows;
        self.bytes += structure.bytes();
        self.pending += structure.pending();
        let counted = 1 + copies.iter().filter(|copy| copy.counts).count();
        self.nodes = self.nodes.max(u32::try_from(counted).unwrap_or(u32::MAX));
        for copy in copies {
            let stale = copy.stale.filter(|_| copy.counts);
            self.behind += copy.behind;
            self.stale = self.stale.max(stale);
            let peer = peers.entry(copy.node).or_default();
            peer.versions += copy.behind;
            peer.stale = peer.stale.max(stale);
        }
        (changes, commits)
    }

    fn write(&self, figures: &mut Figures, name: &str) {
        let of = [name];
        figures.count(Metric::ObjectKeys, &of, self.keys);
        figures.count(Metric::ObjectRows, &of, self.rows);
        figures.whole(Metric::ObjectNodes, &of, self.nodes.into());
        figures.count(Metric::ObjectMemory, &of, self.bytes);
        figures.count(Metric::ObjectPending, &of, self.pending);
        figures.whole(Metric::ObjectLag, &of, self.behind);
        if let Some(stale) = self.stale {
            figures.time(Metric::ObjectStaleness, &of, stale);
        }
    }
}

/// The most keys of an object, if there is a bound.
fn maximum(figures: &mut Figures, name: &str, max: Option<u64>) {
    max.into_iter().for_each(|max| figures.whole(Metric::ObjectKeysMaximum, &[name], max));
}

fn of_cache(figures: &mut Figures, cache: &Cache) {
    let engine = cache.engine();
    let of = [engine.spec().name.as_str()];
    let (held, entries) = (engine.held(), cache.len());
    figures.count(Metric::ObjectKeys, &of, held);
    maximum(figures, of[0], engine.bounds().elements.map(NonZeroU64::get));
    figures.count(Metric::ObjectMemory, &of, engine.bytes());
    figures.count(Metric::ObjectPending, &of, engine.pending());
    figures.count(Metric::CacheEntries, &of, entries);
    figures.count(Metric::CacheRemovals, &of, held.saturating_sub(entries));
    figures.whole(Metric::CacheContent, &of, cache.value_bytes());
    figures.count(Metric::CacheRuns, &of, engine.context_len());
    figures.whole(Metric::CacheEvictions, &of, engine.evicted());
}
