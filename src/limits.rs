//! Limits for outbound and inbound traffic: rates and maxima, checked together for all scopes that apply.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tallymesh_engine::limiter::{Decision, LimitError, Throttle};
use tallymesh_engine::{Hold, HoldError, Structure};
use tallymesh_schemas::config::{LimitsConfig, OutboundScope};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Class, MaskError, MaskLimit, StructureId};

use crate::clock::Clock;
use crate::decision::{self, Reason};
use crate::objects::{Current, Objects};
use crate::scope::Scope;
use crate::scopes::throttle_of;

/// The limit that refused.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::{Refusal, Scope};
///
/// match node.limits().try_open(&Scope::default().domain("example.com")) {
///     Ok(open) => drop(open),
///     Err(Refusal::Maximum { scope, open, maximum }) => println!("{scope} has {open} of {maximum}"),
///     Err(Refusal::Rate { after: Some(after), .. }) => println!("try again in {after:?}"),
///     Err(refusal) => println!("{refusal}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Refusal {
    /// The maximum number of open connections is reached.
    #[error("{scope}: {open} are open and {maximum} are allowed")]
    Maximum {
        /// The limited scope.
        scope: String,
        /// Open connections in the cluster, as far as this node knows.
        open: i64,
        /// The allowed maximum.
        maximum: u64,
    },
    /// A rate is used up.
    #[error("{scope}: {reason}")]
    Rate {
        /// The limited scope.
        scope: String,
        /// The reason of the refusal.
        reason: Reason,
        /// The time after which one more would fit; `None` when the node cannot compute it.
        after: Option<Duration>,
    },
    /// A name is not valid, or there is no room for another one.
    #[error(transparent)]
    Name(
        #[from]
        #[serde(serialize_with = "as_text")]
        KeyError,
    ),
    /// A mask of the inbound limits is longer than an address.
    #[error(transparent)]
    Mask(
        #[from]
        #[serde(serialize_with = "as_text")]
        MaskError,
    ),
}

fn as_text<T: ToString, S: serde::Serializer>(error: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&error.to_string())
}

impl From<HoldError> for Refusal {
    fn from(error: HoldError) -> Self {
        match error {
            HoldError::Full { block, count, limit } => {
                let maximum = u64::try_from(limit).unwrap_or(0);
                Self::Maximum { scope: format!("inbound {block}"), open: count, maximum }
            }
            HoldError::Mask(error) => Self::Mask(error),
            HoldError::Key(error) => Self::Name(error),
            // Happens only when the given limits do not concern the address.
            HoldError::NoLimit { addr } => Self::Name(KeyError::Address(addr.to_string())),
        }
    }
}

/// An open connection. It counts in all structures concerned until it is dropped.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Scope;
///
/// let limits = node.limits();
/// let open = limits.try_open(&Scope::default().host("mx.example.com"))?;
/// // … use the connection …
/// drop(open); // makes room for another one
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Open {
    _holds: Vec<Hold>,
}

/// The configured limits of a node. Cheap to clone; usable from any thread.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Scope;
///
/// let limits = node.limits();
/// let scope = Scope::default().binding("b1").domain("example.com");
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
    current: Arc<Current>,
    clock: Clock,
}

impl Limits {
    pub(crate) fn new(current: Arc<Current>, clock: Clock) -> Self {
        Self(Arc::new(Inner { current, clock }))
    }

    /// The configured limits as they are now. A reload may change them.
    pub fn config(&self) -> Arc<LimitsConfig> {
        Arc::clone(self.0.current.get().scopes.config())
    }

    /// The maximum number of open connections of a scope in canonical form.
    #[cfg(feature = "admin")]
    pub(crate) fn maximum_of(&self, scope: &OutboundScope) -> Option<u64> {
        self.0.current.get().scopes.of(scope)?.maximum
    }

    /// Opens an outbound connection if every maximum and every connection rate that applies has room. Returns a guard that
    /// counts until it is dropped. A refused connection counts nowhere.
    ///
    /// # Errors
    /// [`Refusal`] names the limit that refused.
    pub fn try_open(&self, scope: &Scope<'_>) -> Result<Open, Refusal> {
        let inner = At { objects: &self.0.current.get(), clock: self.0.clock };
        let scopes = scopes(scope)?;
        let mut holds = Vec::new();
        for at in &scopes {
            let maximum = inner.objects.scopes.of(at).and_then(|limits| limits.maximum);
            holds.extend(inner.hold(at, maximum)?);
        }
        if let (Some(address), Some(structure)) = (scope.address, inner.structure(Class::OutboundCidr)) {
            let (key, n) = key::from_net(address.into());
            holds.push(structure.counter(&key[..n])?.hold());
        }
        inner.take(&scopes, Class::OutboundConnections, 1)?;
        Ok(Open { _holds: holds })
    }

    /// Takes `n` messages from every message rate that applies. If one rate refuses, takes from none.
    ///
    /// # Errors
    /// [`Refusal`] names the limit that refused.
    pub fn try_send(&self, scope: &Scope<'_>, n: u64) -> Result<(), Refusal> {
        let inner = At { objects: &self.0.current.get(), clock: self.0.clock };
        inner.take(&scopes(scope)?, Class::OutboundMessages, n)
    }

    /// Counts an inbound connection if every block that contains its address has room. The check and the count are one atomic
    /// step among all threads of this node. The blocks are those of the `inbound` limits.
    ///
    /// # Errors
    /// [`Refusal`] names the block that is full.
    pub fn try_accept(&self, address: IpAddr) -> Result<Open, Refusal> {
        let inner = At { objects: &self.0.current.get(), clock: self.0.clock };
        let Some(structure) = inner.structure(Class::InboundCidr) else { return Ok(Open { _holds: Vec::new() }) };
        let limits = inner.objects.scopes.config().inbound.iter().map(|inbound| MaskLimit::from(*inbound));
        let hold = match structure.try_hold_within(address, limits) {
            // The node counts addresses of a family without limits, and does not limit them.
            Err(HoldError::NoLimit { .. }) => structure.try_hold_within(address, []),
            other => other,
        };
        Ok(Open { _holds: vec![hold?] })
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

/// The objects and limits at one moment.
struct At<'a> {
    objects: &'a Objects,
    clock: Clock,
}

impl At<'_> {
    fn structure(&self, class: Class) -> Option<&Arc<Structure>> {
        self.objects.structures.get(&StructureId::of(class.name()))
    }

    /// Counts an open connection of this scope, if the maximum has room for it.
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
        let Some(limiter) = self.objects.limiters.get(&StructureId::of(class.name())) else { return Ok(()) };
        let now = self.clock.time();
        let mut taken = Vec::new();
        for scope in scopes {
            let Some(spec) = self.objects.scopes.of(scope).and_then(|limits| throttle_of(limits, class)) else {
                continue;
            };
            let name = scope.to_string();
            let throttle = match limiter.throttle(&name, spec, now) {
                Ok(throttle) => throttle,
                // There is no room for another throttle: nothing is admitted without its limits.
                Err(LimitError::Name(error)) => {
                    taken.iter().for_each(|throttle: &Arc<Throttle>| throttle.give_back(now, n));
                    return Err(Refusal::Name(error));
                }
                // Hard limits have founders here: the builder has checked the configuration.
                Err(_) => continue,
            };
            if let Decision::Refused { after } = throttle.take(now, n) {
                taken.iter().for_each(|throttle: &Arc<Throttle>| throttle.give_back(now, n));
                let reason = decision::refused(&throttle, limiter, now, n);
                return Err(Refusal::Rate { scope: name, reason, after });
            }
            taken.push(throttle);
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "config"))]
mod tests {
    use std::collections::BTreeMap;

    use tallymesh_engine::Replica;
    use tallymesh_engine::limiter::Limiter;
    use tallymesh_schemas::config::Config;
    use tallymesh_schemas::{Incarnation, NodeName};

    use super::*;
    use crate::scopes::Scopes;

    const FILE: &str = r#"
cluster {
  Replicate "inbound_cidr" {}
  Replicate "outbound_cidr" {}
  Replicate "outbound_domains" {}
  Replicate "outbound_binding_domains" {}
  Replicate "OBTM" {}
  Replicate "OBTC" {}
}
limits {
  global {
    cluster_server_max_outbound_connections = 5
    cluster_outbound_throttle_messages = "10/1h"
  }
  domain "*" { cluster_max_outbound_connections = 2 }
  domain "big.example" { cluster_outbound_throttle_messages = "4/1h" }
  binding_group "bulk" { cluster_outbound_throttle_connections = "3/1h" }
  binding "b1/one.example" { cluster_scope_max_outbound_connections = 1 }
  inbound "/32" { max_connections = 2 }
  inbound "/24" { max_connections = 3 }
  inbound "/64" { max_connections = 1 }
}
"#;

    fn limits() -> Limits {
        let config = Config::parse(FILE, "mesh.hcl").unwrap_or_else(|errors| panic!("{errors}"));
        let clock = Clock::start();
        let node = NodeName::new("a").unwrap();
        let mut replica = Replica::new(tallymesh_engine::Config::default(), node.clone(), Incarnation(1));
        let (mut structures, mut limiters) = (BTreeMap::new(), BTreeMap::new());
        for spec in &config.structures {
            let structure = replica.replicate(spec.clone(), Arc::new(|| ())).unwrap();
            structures.insert(structure.id(), structure);
        }
        for class in Class::THROTTLES {
            let id = StructureId::of(class.name());
            let Some(structure) = structures.get(&id) else { continue };
            let limiter = Limiter::new(Arc::clone(structure), None, node.clone(), 1, clock.time(), Arc::new(|| ()));
            limiters.insert(id, Arc::new(limiter));
        }
        let scopes = Arc::new(Scopes::new(config.limits.unwrap_or_default()));
        let (caches, series, gauge_caches) = (Vec::new(), Vec::new(), Vec::new());
        let objects = Objects { structures, caches, series, gauge_caches, limiters, scopes };
        Limits::new(Current::new(objects), clock)
    }

    fn to(domain: &str) -> Scope<'_> {
        Scope::default().binding("b1").domain(domain)
    }

    fn count(limits: &Limits, class: Class, key: &[u8]) -> i64 {
        limits.0.current.get().structures[&StructureId::of(class.name())].count(key, limits.0.clock.time()).total
    }

    #[test]
    fn the_narrowest_decides_and_all_kinds_must_admit() {
        let limits = limits();
        let refused = |scope: &Scope<'_>| limits.try_open(scope).unwrap_err().to_string();
        let mut open = vec![limits.try_open(&to("a.example")).unwrap(), limits.try_open(&to("A.example")).unwrap()];
        assert_eq!(refused(&to("a.example")), "domain a.example: 2 are open and 2 are allowed");
        open.push(limits.try_open(&to("one.example")).unwrap());
        assert_eq!(refused(&to("one.example")), "binding b1/one.example: 1 are open and 1 are allowed");
        // A block for one domain replaces the wildcard block: only the global maximum applies.
        open.extend((0..2).map(|_| limits.try_open(&to("big.example")).unwrap()));
        assert_eq!(refused(&to("big.example")), "global: 5 are open and 5 are allowed");
        // A refused connection counts nowhere, and a closed one makes room.
        assert_eq!(count(&limits, Class::OutboundDomains, b"one.example"), 1);
        assert_eq!(count(&limits, Class::OutboundBindingDomains, b"b1/a.example"), 2);
        open.clear();
        assert_eq!(count(&limits, Class::OutboundConnections, b"open global"), 0);
        assert_eq!(count(&limits, Class::OutboundDomains, b"big.example"), 0);
        limits.try_open(&to("one.example")).unwrap();
    }

    #[test]
    fn a_rate_that_refuses_leaves_all_others_as_they_were() {
        let limits = limits();
        let big = to("big.example");
        for _ in 0..4 {
            limits.try_send(&big, 1).unwrap();
        }
        for _ in 0..20 {
            let refusal = limits.try_send(&big, 1).unwrap_err();
            assert!(
                matches!(&refusal, Refusal::Rate { scope, reason: Reason::Empty, after: Some(_) } if scope == "domain big.example"),
                "{refusal}"
            );
        }
        limits.try_send(&to("a.example"), 6).unwrap();
        assert!(matches!(limits.try_send(&to("a.example"), 1), Err(Refusal::Rate { scope, .. }) if scope == "global"));
        let bulk = Scope::default().binding_group("bulk");
        let open: Vec<_> = (0..3).map(|_| limits.try_open(&bulk).unwrap()).collect();
        assert!(matches!(limits.try_open(&bulk), Err(Refusal::Rate { scope, .. }) if scope == "binding_group bulk"));
        assert_eq!(count(&limits, Class::OutboundConnections, b"open global"), open.len() as i64);
    }

    #[test]
    fn inbound_blocks_are_checked_and_counted_in_one_step() {
        let limits = limits();
        let accept = |text: &str| limits.try_accept(text.parse().unwrap());
        let _open = [accept("192.0.2.1").unwrap(), accept("::ffff:192.0.2.1").unwrap()];
        assert_eq!(accept("192.0.2.1").unwrap_err().to_string(), "inbound 192.0.2.1/32: 2 are open and 2 are allowed");
        let _more = accept("192.0.2.2").unwrap();
        assert_eq!(accept("192.0.2.3").unwrap_err().to_string(), "inbound 192.0.2.0/24: 3 are open and 3 are allowed");
        let _other = [accept("192.0.3.1").unwrap(), accept("2001:db8::1").unwrap()];
        assert_eq!(
            accept("2001:db8::2").unwrap_err().to_string(),
            "inbound 2001:db8::/64: 1 are open and 1 are allowed"
        );

        // Of the connections that many threads open, exactly the maximum is admitted.
        let limits = self::limits();
        let open = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for host in 0..8_u8 {
                let (limits, open) = (&limits, &open);
                scope.spawn(move || {
                    for _ in 0..50 {
                        open.lock().unwrap().extend(limits.try_accept([198, 51, 100, host].into()));
                    }
                });
            }
        });
        assert_eq!(open.into_inner().unwrap().len(), 3);
    }

    /// The throttle of a scope exists before any caller on this node uses it.
    #[test]
    fn a_scope_says_what_the_throttle_of_its_name_is() {
        let limits = limits();
        let limiter = &limits.0.current.get().limiters[&StructureId::of(Class::OutboundMessages.name())];
        let of =
            |name: &str| limiter.resolve(name, limits.0.clock.time()).map(|throttle| throttle.spec().rate.tokens());
        assert_eq!((of("domain big.example"), of("global")), (Some(4), Some(10)));
        for none in ["domain a.example", "domain BIG.example", "domain *", "binding_group bulk", "open global", "other"]
        {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn names_that_are_none_are_refused() {
        let limits = limits();
        assert!(matches!(limits.try_open(&to("a b")), Err(Refusal::Name(_))));
        let group = Scope::default().binding_group("!");
        assert!(matches!(limits.try_send(&group, 1), Err(Refusal::Name(_))));
    }
}
