//! The configured limits, by the scope that they apply to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::config::{LimitsConfig, OutboundLimits, OutboundScope};
use tallymesh_schemas::{Class, ThrottleSpec};

/// The configured limits of each scope.
#[derive(Debug)]
pub(crate) struct Scopes {
    config: Arc<LimitsConfig>,
    by_scope: BTreeMap<OutboundScope, usize>,
}

impl Scopes {
    pub(crate) fn new(config: LimitsConfig) -> Self {
        let by_scope = config.outbound.iter().enumerate().map(|(at, limits)| (limits.scope.clone(), at)).collect();
        Self { config: Arc::new(config), by_scope }
    }

    /// The configured limits.
    pub(crate) fn config(&self) -> &Arc<LimitsConfig> {
        &self.config
    }

    /// The limits of a scope: its own, or else those of the wildcard (`*`) scope.
    pub(crate) fn of(&self, scope: &OutboundScope) -> Option<&OutboundLimits> {
        let candidates = [scope.clone()].into_iter().chain(alike(scope));
        candidates.filter_map(|scope| self.by_scope.get(&scope)).next().and_then(|at| self.config.outbound.get(*at))
    }

    /// The throttle of a scope, by the scope's canonical name.
    pub(crate) fn throttle(&self, name: &str, class: Class) -> Option<ThrottleSpec> {
        let scope = OutboundScope::parse(name).filter(|scope| !scope.is_pattern())?;
        let canonical = scope.canonical().ok().filter(|scope| scope.to_string() == name)?;
        throttle_of(self.of(&canonical)?, class)
    }
}

/// The wildcard scopes that cover this scope, from the narrower to the wider.
fn alike(scope: &OutboundScope) -> Vec<OutboundScope> {
    let star = || "*".to_owned();
    match scope {
        OutboundScope::Global => Vec::new(),
        OutboundScope::Domain(_) => vec![OutboundScope::Domain(star())],
        OutboundScope::BindingGroup(_) => vec![OutboundScope::BindingGroup(star())],
        OutboundScope::Binding(_) => vec![OutboundScope::Binding(star())],
        OutboundScope::BindingDomain(binding, domain) => vec![
            OutboundScope::BindingDomain(binding.clone(), star()),
            OutboundScope::BindingDomain(star(), domain.clone()),
            OutboundScope::BindingDomain(star(), star()),
        ],
        OutboundScope::Host(_) => vec![OutboundScope::Host(star())],
    }
}

/// The rate of a scope that the structure of a class counts.
pub(crate) fn throttle_of(limits: &OutboundLimits, class: Class) -> Option<ThrottleSpec> {
    match class {
        Class::OutboundMessages => limits.messages,
        Class::OutboundConnections => limits.connections,
        _ => None,
    }
}
