//! Creates the limiters of a starting node, one for each structure that counts throttles.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_engine::Structure;
use tallymesh_engine::limiter::{Founding, LimitError, Limiter};
use tallymesh_schemas::config::LimitsConfig;
use tallymesh_schemas::{Class, NodeName, Strength, StructureId};
use tokio::sync::Notify;

use crate::builder::StartError;
use crate::clock::Clock;
use crate::limits::throttle_of;
use crate::seed::random_seed;

/// Creates the limiters of `node`. They notify `changed` when they have written.
pub(crate) fn create(
    config: &LimitsConfig,
    structures: &BTreeMap<StructureId, Arc<Structure>>,
    node: &NodeName,
    changed: &Arc<Notify>,
    clock: Clock,
) -> Result<BTreeMap<StructureId, Arc<Limiter>>, StartError> {
    let founding = founding(config)?;
    let mut limiters = BTreeMap::new();
    for class in Class::THROTTLES {
        let id = StructureId::of(class.name());
        let Some(structure) = structures.get(&id).filter(|structure| structure.spec().class == class) else { continue };
        let (changed, now) = (Arc::clone(changed), clock.time());
        let wake = Arc::new(move || changed.notify_one());
        let founding = founding.clone().filter(|_| may_be_hard(config, class));
        let limiter = Limiter::new(Arc::clone(structure), founding, node.clone(), random_seed(), now, wake);
        declare(&limiter, config, class, clock)?;
        limiters.insert(id, Arc::new(limiter));
    }
    Ok(limiters)
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
