//! Limits of what goes out and comes in: rates and maxima, of all scopes that apply at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use parking_lot::Mutex;
use tallymesh_engine::limits::{Decision, Limiter, Throttle};
use tallymesh_engine::{Hold, Structure};
use tallymesh_schemas::config::{LimitsConfig, OutboundLimits, OutboundScope};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Class, StructureId, ThrottleSpec};

use crate::clock::Clock;

/// What something that goes out belongs to. What is not said is not limited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Scope<'a> {
    /// The binding.
    pub binding: Option<&'a str>,
    /// The group of bindings that it is of.
    pub binding_group: Option<&'a str>,
    /// The destination domain.
    pub domain: Option<&'a str>,
    /// The host that is connected to.
    pub host: Option<&'a str>,
    /// Its address.
    pub address: Option<IpAddr>,
}

/// Which limit was in the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A maximum of open connections is reached.
    #[error("{scope}: {open} are open and {maximum} are allowed")]
    Maximum {
        /// Of what.
        scope: String,
        /// What is open, cluster-wide, as far as this node knows.
        open: i64,
        /// What is allowed.
        maximum: u64,
    },
    /// A rate is used up.
    #[error("{scope}: the rate is used up")]
    Rate {
        /// Of what.
        scope: String,
        /// When one more would fit; `None` when that cannot be said.
        after: Option<Duration>,
    },
    /// A name cannot be one.
    #[error(transparent)]
    Name(#[from] KeyError),
}

/// An open connection: it counts in all structures concerned until it is dropped.
#[derive(Debug)]
pub struct Open {
    _holds: Vec<Hold>,
}

/// The limits of a node, as its configuration has them. Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Scope;
///
/// let limits = node.limits();
/// let scope = Scope { binding: Some("b1"), domain: Some("example.com"), ..Scope::default() };
/// match limits.try_open(&scope) {
///     Ok(open) => drop(open), // counts until it is dropped
///     Err(refusal) => println!("{refusal}"),
/// }
/// limits.try_send(&scope, 1)?;
/// let _inbound = limits.try_accept("192.0.2.7".parse()?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: LimitsConfig,
    by_scope: BTreeMap<OutboundScope, usize>,
    structures: BTreeMap<StructureId, Arc<Structure>>,
    limiters: BTreeMap<StructureId, Arc<Limiter>>,
    /// Held while blocks of inbound addresses are counted and one more is added.
    accepting: Mutex<()>,
    clock: Clock,
}

impl Limits {
    pub(crate) fn new(
        config: LimitsConfig,
        structures: BTreeMap<StructureId, Arc<Structure>>,
        limiters: BTreeMap<StructureId, Arc<Limiter>>,
        clock: Clock,
    ) -> Self {
        let by_scope = config.outbound.iter().enumerate().map(|(at, limits)| (limits.scope.clone(), at)).collect();
        Self(Arc::new(Inner { config, by_scope, structures, limiters, accepting: Mutex::default(), clock }))
    }

    /// What the limits are.
    pub fn config(&self) -> &LimitsConfig {
        &self.0.config
    }

    /// Opens an outbound connection if every maximum and every connection rate that applies has room: a guard that counts
    /// until it is dropped. Nothing is counted when it is refused.
    ///
    /// # Errors
    /// [`Refusal`] names the limit that was in the way.
    pub fn try_open(&self, scope: &Scope<'_>) -> Result<Open, Refusal> {
        let inner = &self.0;
        let scopes = scopes(scope)?;
        let mut holds = Vec::new();
        for at in &scopes {
            let maximum = inner.of(at).and_then(|limits| limits.maximum);
            holds.extend(inner.hold(at, maximum)?);
        }
        if let (Some(address), Some(structure)) = (scope.address, inner.structure(Class::OutboundCidr)) {
            let (key, n) = key::from_net(address.into());
            holds.push(structure.counter(&key[..n])?.hold());
        }
        inner.take(&scopes, Class::OutboundConnections, 1)?;
        Ok(Open { _holds: holds })
    }

    /// Takes `n` messages from every message rate that applies, or from none.
    ///
    /// # Errors
    /// [`Refusal`] names the limit that was in the way.
    pub fn try_send(&self, scope: &Scope<'_>, n: u64) -> Result<(), Refusal> {
        self.0.take(&scopes(scope)?, Class::OutboundMessages, n)
    }

    /// Counts an inbound connection if every block that its address lies in has room: checked and counted in one step among
    /// all threads of this node. Blocks are those of the `inbound` limits.
    ///
    /// # Errors
    /// [`Refusal`] names the block that is full.
    pub fn try_accept(&self, address: IpAddr) -> Result<Open, Refusal> {
        let inner = &self.0;
        let Some(structure) = inner.structure(Class::InboundCidr) else { return Ok(Open { _holds: Vec::new() }) };
        let address = key::canonical(address.into()).addr();
        let _accepting = inner.accepting.lock();
        for limit in inner.config.inbound.iter().filter(|limit| limit.v6 == address.is_ipv6()) {
            let Ok(block) = IpNet::new(address, limit.prefix_len).map(|block| block.trunc()) else { continue };
            let open = structure.count_net(block, inner.clock.time()).total;
            if u64::try_from(open).unwrap_or(0) >= limit.maximum {
                return Err(Refusal::Maximum { scope: format!("inbound {block}"), open, maximum: limit.maximum });
            }
        }
        let (key, n) = key::from_net(address.into());
        Ok(Open { _holds: vec![structure.counter(&key[..n])?.hold()] })
    }
}

/// The scopes that apply, the widest first.
fn scopes(scope: &Scope<'_>) -> Result<Vec<OutboundScope>, KeyError> {
    let own = |name: &str| name.to_owned();
    let mut scopes = vec![OutboundScope::Global];
    scopes.extend(scope.binding_group.map(|name| OutboundScope::BindingGroup(own(name))));
    scopes.extend(scope.binding.map(|name| OutboundScope::Binding(own(name))));
    scopes.extend(scope.domain.map(|name| OutboundScope::Domain(own(name))));
    let both = scope.binding.zip(scope.domain);
    scopes.extend(both.map(|(binding, domain)| OutboundScope::BindingDomain(own(binding), own(domain))));
    scopes.extend(scope.host.map(|name| OutboundScope::Host(own(name))));
    scopes.into_iter().map(OutboundScope::canonical).collect()
}

/// The same scope for each one alike, from the narrower to the wider.
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

impl Inner {
    fn structure(&self, class: Class) -> Option<&Arc<Structure>> {
        self.structures.get(&StructureId::of(class.name()))
    }

    /// The limits of a scope: its own, or those of each one alike.
    fn of(&self, scope: &OutboundScope) -> Option<&OutboundLimits> {
        let candidates = [scope.clone()].into_iter().chain(alike(scope));
        candidates.filter_map(|scope| self.by_scope.get(&scope)).next().and_then(|at| self.config.outbound.get(*at))
    }

    /// Counts an open connection where the scope is counted, if there is room for it.
    fn hold(&self, scope: &OutboundScope, maximum: Option<u64>) -> Result<Option<Hold>, Refusal> {
        let (class, key) = match scope {
            OutboundScope::Domain(domain) => (Class::OutboundDomains, domain.clone()),
            OutboundScope::BindingDomain(binding, domain) => {
                (Class::OutboundBindingDomains, key::binding_domain(binding, domain)?)
            }
            other => (Class::OutboundConnections, format!("open {other}")),
        };
        let counts_anyway = class != Class::OutboundConnections;
        let structure = self.structure(class).map(|structure| (structure, key));
        let aside = || Some((self.structure(Class::OutboundConnections)?, format!("open {scope}")));
        let found = if maximum.is_some() { structure.or_else(aside) } else { structure.filter(|_| counts_anyway) };
        let Some((structure, key)) = found else { return Ok(None) };
        let counter = structure.counter(key.as_bytes())?;
        let Some(maximum) = maximum else { return Ok(Some(counter.hold())) };
        let limit = i64::try_from(maximum).unwrap_or(i64::MAX);
        let hold = counter.try_hold(limit);
        let full =
            || Refusal::Maximum { scope: scope.to_string(), open: counter.count(self.clock.time()).total, maximum };
        hold.map(Some).ok_or_else(full)
    }

    /// Takes from all throttles that apply, or from none.
    fn take(&self, scopes: &[OutboundScope], class: Class, n: u64) -> Result<(), Refusal> {
        let Some(limiter) = self.limiters.get(&StructureId::of(class.name())) else { return Ok(()) };
        let now = self.clock.time();
        let mut taken = Vec::new();
        for scope in scopes {
            let Some(spec) = self.of(scope).and_then(|limits| throttle_of(limits, class)) else { continue };
            let name = scope.to_string();
            // Hard ones have their founders: the configuration was checked.
            let Ok(throttle) = limiter.throttle(&name, spec, now) else { continue };
            if let Decision::Refused { after } = throttle.take(now, n) {
                taken.iter().for_each(|throttle: &Arc<Throttle>| throttle.give_back(now, n));
                return Err(Refusal::Rate { scope: name, after });
            }
            taken.push(throttle);
        }
        Ok(())
    }
}

fn throttle_of(limits: &OutboundLimits, class: Class) -> Option<ThrottleSpec> {
    if class == Class::OutboundMessages { limits.messages } else { limits.connections }
}
