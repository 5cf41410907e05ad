//! Limits on simulated nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::limiter::{Founding, Limiter, UNITS};
use tallymesh_engine::{Structure, Time, Wake};
use tallymesh_schemas::{Class, NodeName, Rate, Strength, StructureName, ThrottleSpec};

/// The limits of every node of a cluster.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The seats among which hard limits are divided.
    pub founding: Founding,
    /// The throttles: structure, name, and specification.
    pub throttles: Vec<(String, String, ThrottleSpec)>,
    /// The pools of permits: structure, name, and number of permits.
    pub pools: Vec<(String, String, u64)>,
    /// Throttles that a node does not know before a service uses them, and that no handle keeps in between.
    pub late: BTreeSet<String>,
    /// The specification of a throttle on a node with a different configuration: by node and throttle.
    pub elsewhere: BTreeMap<(String, String), ThrottleSpec>,
    /// The limit of every other name, as a scope of a configuration gives it: by structure.
    pub scopes: BTreeMap<String, ThrottleSpec>,
    /// Throttles of other names that a node has used: structure, name, and specification.
    met: Vec<(String, String, ThrottleSpec)>,
}

impl Limits {
    /// Limits that these seats share, with no limit yet.
    ///
    /// # Panics
    /// When these cannot be seats.
    pub fn founded(founders: &[&str], reclaim_after: Duration) -> Self {
        let names = founders.iter().map(|name| NodeName::new(name).unwrap_or_else(|error| panic!("{name}: {error}")));
        let founding = Founding::new(names, reclaim_after).unwrap_or_else(|error| panic!("{error}"));
        Self {
            founding,
            throttles: Vec::new(),
            pools: Vec::new(),
            late: BTreeSet::new(),
            elsewhere: BTreeMap::new(),
            scopes: BTreeMap::new(),
            met: Vec::new(),
        }
    }

    /// Gives one node a different configuration of a throttle. The checker demands the smallest one.
    #[must_use]
    pub fn but_on(mut self, node: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.elsewhere.insert((node.to_owned(), name.to_owned()), spec);
        self
    }

    /// The specification of a throttle on a node.
    fn spec_on(&self, node: &NodeName, name: &str, spec: ThrottleSpec) -> ThrottleSpec {
        self.elsewhere.get(&(node.as_str().to_owned(), name.to_owned())).copied().unwrap_or(spec)
    }

    /// The smallest rate that any node has for a throttle.
    pub(crate) fn smallest(&self, name: &str, rate: Rate) -> Rate {
        let others = self.elsewhere.iter().filter(|((_, throttle), _)| throttle == name).map(|(_, spec)| spec.rate);
        let speed = |rate: &Rate| u128::from(rate.tokens()) * 1_000_000_000 / u128::from(rate.period_us());
        others.chain([rate]).min_by_key(speed).unwrap_or(rate)
    }

    /// Adds a throttle.
    #[must_use]
    pub fn throttle(mut self, structure: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.throttles.push((structure.to_owned(), name.to_owned(), spec));
        self
    }

    /// Adds a throttle that each node creates when its service first uses it, as a program does, and releases when it is idle.
    #[must_use]
    pub fn late_throttle(mut self, structure: &str, name: &str, spec: ThrottleSpec) -> Self {
        self.late.insert(name.to_owned());
        self.throttle(structure, name, spec)
    }

    /// Gives a limit to every name of a structure that is not declared, as a scope of a configuration does.
    #[must_use]
    pub fn scope(mut self, structure: &str, spec: ThrottleSpec) -> Self {
        self.scopes.insert(structure.to_owned(), spec);
        self
    }

    /// A node has used a throttle that is not declared.
    pub(crate) fn meet(&mut self, structure: &StructureName, name: String, spec: ThrottleSpec) {
        self.met.push((structure.as_str().to_owned(), name, spec));
    }

    /// The declared throttles and those that a node has used.
    pub(crate) fn all_throttles(&self) -> impl Iterator<Item = (&str, &str, &ThrottleSpec)> {
        let all = self.throttles.iter().chain(&self.met);
        all.map(|(structure, name, spec)| (structure.as_str(), name.as_str(), spec))
    }

    /// The specification of a late throttle.
    pub(crate) fn late_spec(&self, name: &str) -> Option<ThrottleSpec> {
        let of_name = |(_, throttle, _): &&(String, String, ThrottleSpec)| throttle == name;
        self.throttles.iter().find(of_name).filter(|_| self.late.contains(name)).map(|(.., spec)| *spec)
    }

    /// Adds a pool of permits.
    #[must_use]
    pub fn pool(mut self, structure: &str, name: &str, permits: u64) -> Self {
        self.pools.push((structure.to_owned(), name.to_owned(), permits));
        self
    }

    /// The divided limits: structure, name, and total.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let throttles = self.all_throttles().filter(|(.., spec)| spec.strength == Strength::Hard);
        let wholes = throttles.map(|(structure, name, _)| (structure, name, UNITS));
        wholes.chain(self.pools.iter().map(|(structure, name, permits)| (structure.as_str(), name.as_str(), *permits)))
    }

    /// Whether limits are counted in a structure.
    pub(crate) fn limited(structure: &Structure) -> bool {
        structure.spec().class == Class::SharedNamedThrottles
    }

    /// The limiters of a process.
    pub(crate) fn start(
        &self,
        structures: &BTreeMap<StructureName, Arc<Structure>>,
        node: &NodeName,
        nonce: u64,
        now: Time,
        wake: &Wake,
    ) -> BTreeMap<StructureName, Arc<Limiter>> {
        let mut limiters = BTreeMap::new();
        for (name, structure) in structures.iter().filter(|(_, structure)| Self::limited(structure)) {
            let founding = Some(self.founding.clone());
            let limiter = Limiter::new(Arc::clone(structure), founding, node.clone(), nonce, now, Arc::clone(wake));
            let declared = |(of, throttle, _): &&(String, String, ThrottleSpec)| {
                of == name.as_str() && !self.late.contains(throttle)
            };
            for (_, throttle, spec) in self.throttles.iter().filter(declared) {
                limiter
                    .declare(throttle, self.spec_on(node, throttle, *spec), now)
                    .unwrap_or_else(|error| panic!("{error}"));
            }
            for (_, pool, permits) in self.pools.iter().filter(|(of, ..)| of == name.as_str()) {
                limiter.pool(pool, *permits, now).unwrap_or_else(|error| panic!("{error}"));
            }
            if let Some(spec) = self.scopes.get(name.as_str()).copied() {
                limiter.scopes(Box::new(move |_| Some(spec)));
            }
            limiter.seal(&[]);
            limiters.insert(name.clone(), Arc::new(limiter));
        }
        limiters
    }
}
