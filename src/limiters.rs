//! Creates the limiters of a node, one for each structure that counts throttles, and changes what they have to limit.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_engine::limiter::{Founding, LimitError, Limiter};
use tallymesh_engine::{Structure, Time};
use tallymesh_schemas::config::LimitsConfig;
use tallymesh_schemas::{Class, NodeName, Strength, StructureId, ThrottleSpec};
use tokio::sync::Notify;

use crate::builder::StartError;
use crate::clock::Clock;
use crate::scopes::throttle_of;
use crate::seed::random_seed;

/// What a limiter is made with.
pub(crate) struct Making<'a> {
    pub(crate) config: &'a LimitsConfig,
    pub(crate) node: &'a NodeName,
    /// Notified when a limiter has written.
    pub(crate) changed: &'a Arc<Notify>,
    pub(crate) clock: Clock,
}

impl Making<'_> {
    /// The limiters of the structures that count throttles.
    pub(crate) fn all(
        &self,
        structures: &BTreeMap<StructureId, Arc<Structure>>,
    ) -> Result<BTreeMap<StructureId, Arc<Limiter>>, StartError> {
        let mut limiters = BTreeMap::new();
        for (id, structure) in structures {
            limiters.extend(self.limiter(structure)?.map(|limiter| (*id, Arc::new(limiter))));
        }
        Ok(limiters)
    }

    /// The limiter of a structure, if it counts throttles.
    pub(crate) fn limiter(&self, structure: &Arc<Structure>) -> Result<Option<Limiter>, StartError> {
        let class = structure.spec().class;
        if !Class::THROTTLES.contains(&class) || structure.id() != StructureId::of(class.name()) {
            return Ok(None);
        }
        let founding = founding(self.config)?.filter(|_| may_be_hard(self.config, class));
        let (changed, now) = (Arc::clone(self.changed), self.clock.time());
        let wake = Arc::new(move || changed.notify_one());
        let limiter = Limiter::new(Arc::clone(structure), founding, self.node.clone(), random_seed(), now, wake);
        declare(&limiter, self.config, class, self.clock)?;
        Ok(Some(limiter))
    }
}

/// Makes the throttles that a configuration names and that are missing, so that there is room for each when it is declared.
pub(crate) fn make_room(limiter: &Limiter, config: &LimitsConfig, now: Time) -> Result<(), LimitError> {
    let all = named(config, limiter.structure().spec().class);
    let mut missing = all.into_iter().filter(|(name, _)| limiter.find(name).is_none());
    missing.try_for_each(|(name, spec)| limiter.throttle(&name, spec, now).map(drop))
}

/// Changes the declared throttles of a limiter from those of one configuration to those of another. A throttle with another rate
/// keeps the tokens that were counted.
pub(crate) fn redeclare(limiter: &Limiter, was: &LimitsConfig, config: &LimitsConfig, now: Time) {
    let class = limiter.structure().spec().class;
    let (before, after) = (named(was, class), named(config, class));
    before.keys().filter(|name| !after.contains_key(*name)).for_each(|name| limiter.undeclare(name));
    for (name, spec) in after.iter().filter(|(name, spec)| before.get(*name) != Some(spec)) {
        if let Err(error) = limiter.declare(name, *spec, now) {
            // There was room for it a moment ago.
            tracing::error!(name, %error, "a throttle of the new configuration is not there yet");
        }
    }
}

/// The throttles of a class that a configuration names.
fn named(config: &LimitsConfig, class: Class) -> BTreeMap<String, ThrottleSpec> {
    if class == Class::SharedNamedThrottles {
        return config.throttles.iter().map(|named| (named.name.clone(), named.spec)).collect();
    }
    let scopes = config.outbound.iter().filter(|limits| !limits.scope.is_pattern());
    scopes.filter_map(|limits| Some((limits.scope.to_string(), throttle_of(limits, class)?))).collect()
}

fn founding(config: &LimitsConfig) -> Result<Option<Founding>, StartError> {
    if config.founders.is_empty() {
        return Ok(None);
    }
    let founding = Founding::new(config.founders.iter().cloned(), config.reclaim_after)?;
    Ok(Some(if config.stand_in { founding } else { founding.without_stand_ins() }))
}

/// Whether a limit of this class is hard, or can become one.
fn may_be_hard(config: &LimitsConfig, class: Class) -> bool {
    // A program may create throttles and pools of this structure at any time.
    class == Class::SharedNamedThrottles
        || config
            .outbound
            .iter()
            .any(|limits| throttle_of(limits, class).is_some_and(|spec| spec.strength == Strength::Hard))
}

/// Declares the configured limits of a class.
fn declare(limiter: &Limiter, config: &LimitsConfig, class: Class, clock: Clock) -> Result<(), LimitError> {
    let now = clock.time();
    if class == Class::SharedNamedThrottles {
        config.throttles.iter().try_for_each(|named| limiter.declare(&named.name, named.spec, now))?;
        config.permits.iter().try_for_each(|named| limiter.pool(&named.name, named.maximum, now).map(drop))?;
    }
    let scopes = config.outbound.iter().filter_map(|limits| Some((&limits.scope, throttle_of(limits, class)?)));
    let (patterns, names): (Vec<_>, Vec<_>) = scopes.partition(|(scope, _)| scope.is_pattern());
    names.into_iter().try_for_each(|(scope, spec)| limiter.declare(&scope.to_string(), spec, now))?;
    let patterns: Vec<_> = patterns.into_iter().map(|(scope, spec)| (scope.to_string(), spec)).collect();
    limiter.seal(&patterns);
    Ok(())
}
