//! How the driver changes to another configuration: in one step, between two events. So no message and no command sees a part of
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_engine::limiter::Limiter;
use tallymesh_engine::{Cache as EngineCache, GaugeCache, Series, Structure, Wake};
use tallymesh_schemas::config::LogLevel;
use tallymesh_schemas::{Class, StructureId, StructureSpec};

use crate::builder::StartError;
use crate::cache::Cache;
use crate::configuration::Declared;
use crate::declared;
use crate::driver::{Driver, wake};
use crate::limiters::{self, Making};
use crate::objects::Objects;
use crate::plan::{Abilities, ConfigChange, Plan, ReloadMode};
use crate::scopes::Scopes;
use crate::settings;

/// The objects of the next configuration.
#[derive(Default)]
struct Made {
    structures: BTreeMap<StructureId, Arc<Structure>>,
    caches: Vec<EngineCache>,
    series: Vec<Arc<Series>>,
    gauge_caches: Vec<Arc<GaugeCache>>,
    limiters: BTreeMap<StructureId, Arc<Limiter>>,
    /// Some of them are new in this run.
    any_new: bool,
}

impl Driver {
    fn wake(&self) -> Wake {
        wake(&self.changed)
    }

    /// Changes to another configuration, or only says what would change.
    pub(super) fn reload(&mut self, mut wanted: Declared, mode: ReloadMode) -> Result<Vec<ConfigChange>, StartError> {
        wanted.limits = declared::checked(wanted.limits, &wanted.structures)?;
        let abilities = Abilities { replica: &self.replica, sets_log: self.set_log.is_some() };
        let Plan { changes, mut next } = Plan::between(&self.running, &wanted, abilities);
        next.limits = declared::checked(next.limits, &next.structures)?;
        self.check_windows(&next)?;
        if mode == ReloadMode::DryRun || changes.is_empty() {
            return Ok(changes);
        }
        let http = self.listen_anew(&next)?;
        let made = self.make(&next)?;
        // Nothing fails from here on.
        self.tune(&made, &next);
        self.switch(made, &next);
        self.serve_anew(http);
        self.running = next;
        Ok(changes)
    }

    fn check_windows(&self, next: &Declared) -> Result<(), StartError> {
        let more = next.series.iter().map(|spec| {
            let held = self.replica.series_named(&spec.name, spec.interval).map_or(0, |held| held.kept());
            u64::from(spec.windows.saturating_sub(held))
        });
        Ok(self.replica.check_windows(more.sum())?)
    }

    /// Makes the objects that this run has not had yet, and finds the others. What an error leaves behind has no name, and so
    /// counts nothing.
    fn make(&mut self, next: &Declared) -> Result<Made, StartError> {
        let mut made = Made::default();
        for spec in &next.structures {
            if spec.class == Class::Cache {
                let held = self.replica.caches().into_iter().find(|held| held.spec().name == spec.name);
                made.any_new |= held.is_none();
                let (spec, wake) = (spec.clone(), self.wake());
                made.caches.push(held.map_or_else(|| self.replica.replicate_cache(spec, wake), Ok)?);
                continue;
            }
            let held = self.replica.structure(spec.name.as_str()).cloned();
            made.any_new |= held.is_none();
            let (spec, wake) = (spec.clone(), self.wake());
            let structure = held.map_or_else(|| self.replica.replicate(spec, wake), Ok)?;
            made.structures.insert(structure.id(), structure);
        }
        for spec in &next.series {
            let held = self.replica.series_named(&spec.name, spec.interval).cloned();
            made.any_new |= held.is_none();
            let (now, spec, wake) = (self.clock.now(), spec.clone(), self.wake());
            made.series.push(held.map_or_else(|| self.replica.replicate_series(now, spec, wake), Ok)?);
        }
        for spec in &next.gauge_caches {
            let held = self.replica.gauge_caches().iter().find(|held| held.spec().name == spec.name).cloned();
            made.any_new |= held.is_none();
            let (spec, wake) = (spec.clone(), self.wake());
            let gauge_cache = held.map_or_else(|| self.replica.replicate_gauge_cache(spec, wake), Ok)?;
            made.structures.insert(gauge_cache.structure().id(), Arc::clone(gauge_cache.structure()));
            made.gauge_caches.push(gauge_cache);
        }
        made.limiters = self.make_limiters(&made.structures, next)?;
        Ok(made)
    }

    /// The limiters of the structures that count throttles. Each has room for the throttles that the configuration names.
    fn make_limiters(
        &mut self,
        structures: &BTreeMap<StructureId, Arc<Structure>>,
        next: &Declared,
    ) -> Result<BTreeMap<StructureId, Arc<Limiter>>, StartError> {
        let now = self.clock.now();
        let endpoint = self.endpoint.clone();
        let changed = Arc::clone(&self.changed);
        let making = Making { config: &next.limits, node: endpoint.name(), changed: &changed, clock: self.clock };
        let mut all = BTreeMap::new();
        for (id, structure) in structures.iter().filter(|(_, of)| Class::THROTTLES.contains(&of.spec().class)) {
            if let Some(known) = self.limiters.get(id) {
                limiters::make_room(known, &next.limits, now.mono)?;
                all.insert(*id, Arc::clone(known));
                continue;
            }
            let Some(limiter) = making.limiter(structure)? else { continue };
            if self.saving.is_some() {
                let levels = StructureSpec::levels(&structure.spec().name);
                let kept = self.replica.caches().into_iter().find(|held| held.spec().name == levels.name);
                let wake = self.wake();
                limiter.keep(kept.map_or_else(|| self.replica.keep_cache(levels, wake), Ok)?, now);
            }
            all.insert(*id, Arc::new(limiter));
        }
        Ok(all)
    }

    /// Gives objects their budgets and bounds.
    fn tune(&mut self, made: &Made, next: &Declared) {
        let now = self.clock.now();
        self.replica.budget().configure(next.budget);
        for spec in &next.structures {
            if let Some(structure) = made.structures.get(&spec.name.id()) {
                structure.attach();
                structure.limit_keys(spec.max_keys);
            }
        }
        for (cache, spec) in pairs(&made.caches, next.structures.iter().filter(|spec| spec.class == Class::Cache)) {
            cache.attach();
            if cache.bounds() != spec.bounds {
                cache.set_bounds(spec.bounds);
            }
        }
        for (gauge_cache, spec) in pairs(&made.gauge_caches, &next.gauge_caches) {
            gauge_cache.structure().attach();
            gauge_cache.structure().limit_keys(spec.max_keys);
        }
        for (series, spec) in pairs(&made.series, &next.series) {
            series.attach();
            series.limit_keys(spec.max_keys);
            if series.kept() != spec.windows {
                self.replica.keep_windows(now, series, spec.windows);
            }
        }
        for limiter in made.limiters.values() {
            limiters::redeclare(limiter, &self.running.limits, &next.limits, now.mono);
        }
    }

    /// Lets handles find the objects of the next configuration, and no others.
    fn switch(&mut self, made: Made, next: &Declared) {
        let before = self.shared.current.get();
        for (id, structure) in before.structures.iter().filter(|(id, _)| !made.structures.contains_key(*id)) {
            if !self.limiters.contains_key(id) {
                structure.detach();
            }
        }
        let gone = |cache: &&Cache| !made.caches.iter().any(|made| made.id() == cache.engine().id());
        before.caches.iter().filter(gone).for_each(|cache| cache.engine().detach());
        let gone = |series: &&Arc<Series>| !made.series.iter().any(|made| Arc::ptr_eq(made, series));
        before.series.iter().filter(gone).for_each(|series| series.detach());
        self.limiters.extend(made.limiters.iter().map(|(id, limiter)| (*id, Arc::clone(limiter))));
        // A handle also knows which loads of values run.
        let known = |cache: &EngineCache| before.caches.iter().find(|known| known.engine().id() == cache.id()).cloned();
        let mut caches: Vec<_> =
            made.caches.into_iter().map(|cache| known(&cache).unwrap_or_else(|| Cache::new(cache))).collect();
        caches.sort_by(|a, b| a.engine().spec().name.cmp(&b.engine().spec().name));
        self.shared.current.set(Objects {
            structures: made.structures,
            caches,
            series: made.series,
            gauge_caches: made.gauge_caches,
            limiters: made.limiters,
            scopes: Arc::new(Scopes::new(next.limits.clone())),
        });
        settings::publish(&self.settings, &settings::stated(&self.running), &settings::stated(next));
        if made.any_new {
            // Peers say again what they have: so far, this node did not ask for rows of its new objects.
            self.replica.probe(self.clock.now());
        }
        if next.seeds != self.running.seeds {
            self.endpoint.set_seeds(next.seeds.clone());
            self.shared.seeds.lock().clone_from(&next.seeds);
        }
        if let Some(set_log) = self.set_log.as_ref().filter(|_| next.log != self.running.log) {
            (set_log.0)(next.log.unwrap_or(LogLevel::Info));
        }
    }
}

/// Objects with their specifications, which are in the same order.
fn pairs<'a, T, S: 'a>(made: &'a [T], specs: impl IntoIterator<Item = &'a S>) -> impl Iterator<Item = (&'a T, &'a S)> {
    made.iter().zip(specs)
}
