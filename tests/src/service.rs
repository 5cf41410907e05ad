//! The service logic on simulated nodes, which is what users test.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Decision, LimitError, Limiter, Throttle};
use tallymesh_engine::{CacheError, CacheValue, Count, HoldError, Now, Replica, Series, Stamp, Structure, Time};
use tallymesh_schemas::{MaskLimit, NodeName, StructureName, ThrottleSpec, Window, key};

use crate::admissions::{Admissions, References, SimPermit};
use crate::caches::{Moment, SimCache};
use crate::clock::EPOCH_MS;
use crate::gauges::{Look, SimGauge};
use crate::hold::SimHold;
use crate::limits::Limits;
use crate::random::Random;
use crate::truth::{RunId, Truth};

/// The logic of a service, one value for each process. It is created again when its node restarts, and called in virtual time.
pub trait Service {
    /// Called every [`Service::interval`]; for work without a request, such as expiry or synthetic load.
    fn tick(&mut self, context: &mut Context<'_>);

    /// Time between two ticks on the node's own clock.
    fn interval(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// Lets a test reach the service: return `self`.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// A service's view of its node. The ground truth records everything that is counted through it.
#[derive(Debug)]
pub struct Context<'a> {
    pub(crate) now: Now,
    pub(crate) name: &'a NodeName,
    pub(crate) structures: &'a BTreeMap<StructureName, Arc<Structure>>,
    pub(crate) replica: &'a Replica,
    pub(crate) limiters: &'a BTreeMap<StructureName, Arc<Limiter>>,
    pub(crate) references: &'a References,
    pub(crate) limits: Option<&'a Limits>,
    /// Throttles that have admitted something.
    pub(crate) took: &'a mut BTreeSet<(StructureName, String)>,
    pub(crate) caches: &'a BTreeMap<StructureName, SimCache>,
    pub(crate) gauges: &'a BTreeMap<StructureName, SimGauge>,
    pub(crate) unsettled: bool,
    pub(crate) admissions: &'a Rc<RefCell<Admissions>>,
    pub(crate) failures: &'a mut Vec<String>,
    pub(crate) at: Time,
    pub(crate) truth: &'a Rc<RefCell<Truth>>,
    pub(crate) run: RunId,
    pub(crate) random: &'a mut Random,
}

fn find<'a>(
    structures: &'a BTreeMap<StructureName, Arc<Structure>>,
    name: &str,
) -> (&'a StructureName, &'a Arc<Structure>) {
    let found = structures.iter().find(|(structure, _)| structure.as_str() == name);
    found.unwrap_or_else(|| panic!("the cluster has no structure \"{name}\""))
}

impl Context<'_> {
    /// The node's clocks.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The node's name.
    pub fn name(&self) -> &NodeName {
        self.name
    }

    /// The simulation's randomness: the same for the same seed.
    pub fn random(&mut self) -> &mut Random {
        self.random
    }

    /// A structure, for reading.
    ///
    /// # Panics
    /// When the cluster has no structure of that name.
    pub fn structure(&self, name: &str) -> &Arc<Structure> {
        self.find(name).1
    }

    fn find(&self, name: &str) -> (&StructureName, &Arc<Structure>) {
        find(self.structures, name)
    }

    /// Adds to this node's own row; a negative `n` removes.
    ///
    /// # Panics
    /// When there is no such structure, or the key is invalid for it.
    pub fn add(&mut self, structure: &str, key: &[u8], n: i64) {
        let (name, structure) = self.find(structure);
        structure.add(key, n).unwrap_or_else(|error| panic!("{name}: {error}"));
        self.truth.borrow_mut().record(self.run, name, key, n);
    }

    /// Adds `n` if the cluster-wide count in this node's view is at most `limit` afterwards. Returns whether it did.
    ///
    /// # Panics
    /// As [`Context::add`].
    pub fn add_within(&mut self, structure: &str, key: &[u8], n: i64, limit: i64) -> bool {
        let (name, structure) = self.find(structure);
        let counter = structure.counter(key).unwrap_or_else(|error| panic!("{name}: {error}"));
        let added = counter.add_within(n, limit);
        if added {
            self.truth.borrow_mut().record(self.run, name, key, n);
        }
        added
    }

    /// Counts one until the guard is dropped, if the cluster-wide count in this node's view is at most `limit` afterwards.
    ///
    /// # Panics
    /// As [`Context::add`].
    pub fn try_hold(&mut self, structure: &str, key: &[u8], limit: i64) -> Option<SimHold> {
        let (name, structure) = self.find(structure);
        let counter = structure.counter(key).unwrap_or_else(|error| panic!("{name}: {error}"));
        let hold = counter.try_hold(limit)?;
        self.truth.borrow_mut().record(self.run, name, key, 1);
        Some(SimHold {
            hold: Some(hold),
            truth: Rc::clone(self.truth),
            run: self.run,
            structure: name.clone(),
            key: key.to_vec(),
        })
    }

    /// Counts one for an address until the guard is dropped, if the address and all blocks of `limits` have room for it in this
    /// node's view.
    ///
    /// # Errors
    /// [`HoldError`] says which limit is reached.
    ///
    /// # Panics
    /// When there is no such structure, or when a block counts more than its limit afterwards.
    pub fn try_hold_within(
        &mut self,
        structure: &str,
        addr: IpAddr,
        limits: &[MaskLimit],
    ) -> Result<SimHold, HoldError> {
        let now = self.now.mono;
        let (name, structure) = self.find(structure);
        let hold = structure.try_hold_within(addr, limits.iter().copied())?;
        for limit in limits {
            let Some(block) = limit.block(addr)? else { continue };
            let count = structure.count_net(block, now).total;
            assert!(count <= limit.limit, "{name}: {count} in {block} after a hold within {}", limit.limit);
        }
        let (key, n) = key::from_net(addr.into());
        let key = key[..n].to_vec();
        self.truth.borrow_mut().record(self.run, name, &key, 1);
        let (hold, truth) = (Some(hold), Rc::clone(self.truth));
        Ok(SimHold { hold, truth, run: self.run, structure: name.clone(), key })
    }

    /// Counts one until the guard is dropped.
    ///
    /// # Panics
    /// As [`Context::add`].
    pub fn hold(&mut self, structure: &str, key: &[u8]) -> SimHold {
        self.try_hold(structure, key, i64::MAX).unwrap_or_else(|| panic!("{structure}: there is always room for one"))
    }

    fn moment(&self) -> Moment {
        Moment { unix_ms: self.now.unix_ms, true_ms: EPOCH_MS + self.at.0 / 1000 }
    }

    fn cache(&self, name: &str) -> &SimCache {
        let found = self.caches.iter().find(|(cache, _)| cache.as_str() == name);
        found.map(|(_, cache)| cache).unwrap_or_else(|| panic!("the cluster has no cache \"{name}\""))
    }

    /// Writes a value into a cache. Values should differ, so that the checker can distinguish writes.
    ///
    /// # Errors
    /// [`CacheError`]; then nothing was written.
    ///
    /// # Panics
    /// When there is no such cache.
    pub fn set(&mut self, cache: &str, key: &[u8], value: &[u8], ttl: Duration) -> Result<Stamp, CacheError> {
        self.cache(cache).set(self.run, key, value, ttl, self.moment())
    }

    /// Removes a key from a cache. Returns whether there was an entry.
    ///
    /// # Errors
    /// As [`Context::set`].
    ///
    /// # Panics
    /// When there is no such cache.
    pub fn remove(&mut self, cache: &str, key: &[u8]) -> Result<bool, CacheError> {
        self.cache(cache).remove(self.run, key, self.moment())
    }

    /// Reads a key of a cache.
    ///
    /// # Panics
    /// When there is no such cache.
    pub fn get(&self, cache: &str, key: &[u8]) -> Option<CacheValue> {
        self.cache(cache).cache.get(key, self.now.unix_ms)
    }

    fn gauge(&self, name: &str) -> &SimGauge {
        let found = self.gauges.iter().find(|(gauge, _)| gauge.as_str() == name);
        found.map(|(_, gauge)| gauge).unwrap_or_else(|| panic!("the cluster has no gauge cache \"{name}\""))
    }

    fn look(&self) -> Look<'_> {
        Look {
            actor: self.replica.actor(),
            run: self.run,
            truth: self.truth,
            now: self.now.mono,
            at: self.at,
            unsettled: self.unsettled,
        }
    }

    /// Adds to an entry of a gauge cache; a negative `n` subtracts.
    ///
    /// # Panics
    /// When there is no such gauge cache, or the key is invalid.
    pub fn gauge_add(&mut self, gauge: &str, key: &[u8], n: i64) {
        let added = self.gauge(gauge).add(key, n, &self.look());
        self.failures.extend(added.err());
    }

    /// Removes an entry of a gauge cache, on all nodes. Returns whether there was one.
    ///
    /// # Panics
    /// As [`Context::gauge_add`].
    pub fn gauge_remove(&mut self, gauge: &str, key: &[u8]) -> bool {
        let removed = self.gauge(gauge).remove(key, &self.look());
        let there = *removed.as_ref().unwrap_or(&false);
        self.failures.extend(removed.err());
        there
    }

    /// The limits of a structure.
    ///
    /// # Panics
    /// When the structure has none.
    pub fn limiter(&self, structure: &str) -> &Arc<Limiter> {
        let found = self.limiters.iter().find(|(name, _)| name.as_str() == structure);
        found.map(|(_, limiter)| limiter).unwrap_or_else(|| panic!("the cluster has no limits in \"{structure}\""))
    }

    /// Takes `n` tokens of a throttle, if they are available. The checker records it. The throttle is declared
    /// ([`Limits::throttle`], [`Limits::late_throttle`]), has a scope ([`Limits::scope`]), or exists on this node.
    ///
    /// # Panics
    /// When there is no such throttle.
    pub fn take(&mut self, structure: &str, name: &str, n: u64) -> Decision {
        let (limiter, now) = (self.limiter(structure), self.now.mono);
        let late = self.limits.and_then(|limits| limits.late_spec(name));
        let throttle = match late {
            Some(spec) => limiter.throttle(name, spec, now).ok(),
            None => limiter.resolve(name, now),
        };
        let throttle = throttle.unwrap_or_else(|| panic!("there is no throttle \"{name}\" on {}", self.name));
        self.take_of(structure, &throttle, n)
    }

    /// Takes `n` tokens of a throttle that this node creates if it does not exist, as a program does. The checker records it,
    /// and demands the limit with which a node has created the throttle first.
    ///
    /// # Errors
    /// [`LimitError`] when the name is not valid, or when the throttle is hard and there are no founders.
    ///
    /// # Panics
    /// When the structure has no limits.
    pub fn take_as(&mut self, structure: &str, name: &str, spec: ThrottleSpec, n: u64) -> Result<Decision, LimitError> {
        let throttle = self.limiter(structure).throttle(name, spec, self.now.mono)?;
        Ok(self.take_of(structure, &throttle, n))
    }

    fn take_of(&mut self, structure: &str, throttle: &Arc<Throttle>, n: u64) -> Decision {
        let (name, now, admissions) = (throttle.name(), self.now.mono, self.admissions);
        let (table, structure) = find(self.structures, structure);
        let mut admissions = admissions.borrow_mut();
        admissions.meet(table, name, throttle.spec(), self.at);
        self.references.learn(self.structures, now);
        let decision = throttle.take(now, n);
        if decision.admitted() {
            let count = structure.count(name.as_bytes(), now).local;
            admissions.note_request(self.run, name, self.at, (n, count));
            self.failures.extend(self.references.admitted(name, now, n).err());
            self.failures.extend(admissions.admit(name, self.at, n).err());
            self.took.insert((table.clone(), name.to_string()));
        } else {
            admissions.refuse(name);
        }
        decision
    }

    /// Reports `n` admissions to the checker, under the name of a throttle. Something else decided on them: another limiter,
    /// which is to be compared.
    pub fn admit(&mut self, name: &str, n: u64) {
        self.failures.extend(self.admissions.borrow_mut().admit(name, self.at, n).err());
    }

    /// Opens a permit, if this node has one. The checker records it.
    ///
    /// # Panics
    /// When there is no such pool.
    pub fn open(&mut self, structure: &str, name: &str) -> Option<SimPermit> {
        let pool = self.limiter(structure).find_pool(name);
        let pool = pool.unwrap_or_else(|| panic!("there is no pool \"{name}\""));
        let permit = pool.try_open(self.now.mono)?;
        self.failures.extend(self.admissions.borrow_mut().open(name).err());
        Some(SimPermit { permit: Some(permit), name: name.to_owned(), admissions: Rc::clone(self.admissions) })
    }

    /// The count of a key in this node's view.
    ///
    /// # Panics
    /// As [`Context::add`].
    pub fn count(&self, structure: &str, key: &[u8]) -> Count {
        self.structure(structure).count(key, self.now.mono)
    }

    /// A series, for reading: the first of that name.
    ///
    /// # Panics
    /// When the cluster has no series of that name.
    pub fn series(&self, name: &str) -> &Arc<Series> {
        let found = self.replica.series().find(|series| series.spec().name.as_str() == name);
        found.unwrap_or_else(|| panic!("the cluster has no series \"{name}\""))
    }

    /// Counts events in the current window of a series, and returns the window; a negative `n` subtracts.
    ///
    /// # Panics
    /// When there is no such series, or the key is invalid for it.
    pub fn count_events(&mut self, series: &str, key: &[u8], n: i64) -> Window {
        let series = self.series(series);
        let (spec, current) = (series.spec(), series.current());
        series.add(key, n).unwrap_or_else(|error| panic!("{}: {error}", spec.name));
        self.truth.borrow_mut().record_events(self.run, &spec.structure(current).name, key, n);
        current
    }

    /// Removes a key from all windows of a series, on all nodes. The ground truth records what this node knew of each actor.
    ///
    /// # Panics
    /// As [`Context::count_events`].
    pub fn remove_events(&mut self, series: &str, key: &[u8]) {
        let series = self.series(series);
        series.remove(key).unwrap_or_else(|error| panic!("{}: {error}", series.spec().name));
        let kept = u64::from(series.spec().windows);
        for window in (series.current() + 1).saturating_sub(kept)..=series.current() + 1 {
            let name = series.spec().structure(window).name;
            let Some(structure) = self.replica.structure(name.as_str()) else { continue };
            for actor in structure.held().into_iter().map(|held| held.actor) {
                let row = structure.rows_of(&actor).into_iter().find(|(of, _)| of == key);
                if let Some((_, row)) = row {
                    let seen = (row.added, row.removed);
                    self.truth.borrow_mut().record_removal(self.run, &name, key, &actor, seen);
                }
            }
        }
    }
}
