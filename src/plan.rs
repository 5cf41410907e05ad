//! What changes when a running node gets another configuration, and which changes wait for a restart.

use std::fmt;

use serde::Serialize;
use tallymesh_engine::Replica;
use tallymesh_schemas::config::{
    InboundMaximum, LimitsConfig, NamedPermits, NamedThrottle, OutboundLimits, OutboundScope,
};
use tallymesh_schemas::{Class, GaugeCacheSpec, SeriesSpec, Strength, StructureSpec, ThrottleSpec};

use crate::configuration::Declared;
use crate::settings;

/// What to do with another configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// Use it.
    Apply,
    /// Only check it, and tell what would change.
    DryRun,
}

/// When a change of the configuration has an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The running node makes it.
    Now,
    /// The node keeps what it has until it is restarted.
    Restart,
}

/// A difference between the configuration that a node runs with and another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigChange {
    /// The object, the limit or the setting.
    pub what: String,
    /// What it is now; `None` if it is new.
    pub before: Option<String>,
    /// What it is to be; `None` if it goes.
    pub after: Option<String>,
    /// When that has an effect.
    pub effect: Effect,
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, before, after, effect } = self;
        match (before, after) {
            (None, Some(after)) => write!(f, "{what}: added: {after}")?,
            (Some(before), None) => write!(f, "{what}: removed: {before}")?,
            (Some(before), Some(after)) => write!(f, "{what}: {before} becomes {after}")?,
            (None, None) => write!(f, "{what}: has other contents")?,
        }
        match effect {
            Effect::Now => Ok(()),
            Effect::Restart => f.write_str("; needs a restart"),
        }
    }
}

/// The way from the configuration of a running node to another one.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<ConfigChange>,
    /// What the node runs with after the changes that need no restart.
    pub(crate) next: Declared,
}

/// What a running node can change.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Abilities<'a> {
    pub(crate) replica: &'a Replica,
    /// The program changes the level of the log.
    pub(crate) sets_log: bool,
}

impl Plan {
    pub(crate) fn between(running: &Declared, wanted: &Declared, abilities: Abilities<'_>) -> Self {
        let mut found = Found(Vec::new());
        let fixed = found.fixed(running, wanted);
        let next = Declared {
            structures: found.structures(running, wanted, abilities.replica),
            series: found.series(running, wanted, abilities.replica),
            gauge_caches: found.gauge_caches(running, wanted, abilities.replica),
            limits: found.limits(&running.limits, &wanted.limits),
            budget: wanted.budget,
            seeds: wanted.seeds.clone(),
            log: if abilities.sets_log { wanted.log } else { running.log },
            #[cfg(feature = "http")]
            http: wanted.http.clone(),
            fixed,
        };
        found.node(running, wanted, abilities);
        Self { changes: found.0, next }
    }
}

/// How to compare a list of named items.
struct Kind<'a, T> {
    name: fn(&T) -> String,
    show: fn(&T) -> String,
    /// The effect of a change from one item to another, of which one may be missing.
    effect: &'a dyn Fn(Option<&T>, Option<&T>) -> Effect,
}

fn now_if(can: bool) -> Effect {
    if can { Effect::Now } else { Effect::Restart }
}

/// The changes found so far.
struct Found(Vec<ConfigChange>);

impl Found {
    fn note(&mut self, what: impl Into<String>, before: Option<String>, after: Option<String>, effect: Effect) {
        if before != after {
            self.0.push(ConfigChange { what: what.into(), before, after, effect });
        }
    }

    /// Compares two lists. Returns the list after the changes that need no restart.
    fn list<T: Clone + PartialEq>(&mut self, running: &[T], wanted: &[T], kind: &Kind<'_, T>) -> Vec<T> {
        let named = |list: &[T], name: &str| list.iter().find(|item| (kind.name)(item) == name).cloned();
        let mut next = Vec::new();
        for after in wanted {
            let name = (kind.name)(after);
            let before = named(running, &name);
            if before.as_ref() == Some(after) {
                next.push(after.clone());
                continue;
            }
            let effect = (kind.effect)(before.as_ref(), Some(after));
            self.note(name, before.as_ref().map(kind.show), Some((kind.show)(after)), effect);
            next.extend(if effect == Effect::Now { Some(after.clone()) } else { before });
        }
        for before in running {
            let name = (kind.name)(before);
            if named(wanted, &name).is_none() {
                let effect = (kind.effect)(Some(before), None);
                self.note(name, Some((kind.show)(before)), None, effect);
                next.extend((effect == Effect::Restart).then(|| before.clone()));
            }
        }
        next
    }

    fn structures(&mut self, running: &Declared, wanted: &Declared, replica: &Replica) -> Vec<StructureSpec> {
        let caches = replica.caches();
        // The replica still has objects that were removed since its start.
        let held = |spec: &StructureSpec| {
            let cache = caches.iter().map(|cache| cache.spec()).find(|held| held.name == spec.name);
            cache.cloned().or_else(|| replica.structure(spec.name.as_str()).map(|held| held.spec().clone()))
        };
        let effect = |before: Option<&StructureSpec>, after: Option<&StructureSpec>| match (before, after) {
            (Some(before), Some(after)) => now_if(is_tuned(before, after)),
            (None, Some(after)) => match held(after) {
                Some(held) => now_if(is_tuned(&held, after)),
                // Only a start joins saved state.
                None => now_if(!replica.has_unclaimed(after.name.id())),
            },
            // Its limiter may hold shares of hard limits.
            (Some(before), None) => now_if(!Class::THROTTLES.contains(&before.class)),
            (None, None) => Effect::Now,
        };
        let kind = Kind { name: |spec: &StructureSpec| format!("object {}", spec.name), show: object, effect: &effect };
        self.list(&running.structures, &wanted.structures, &kind)
    }

    fn series(&mut self, running: &Declared, wanted: &Declared, replica: &Replica) -> Vec<SeriesSpec> {
        let effect = |before: Option<&SeriesSpec>, after: Option<&SeriesSpec>| match (before, after) {
            (_, None) => Effect::Now,
            (before, Some(after)) => {
                let held = replica.series_named(&after.name, after.interval).map(|held| held.spec());
                now_if(before.or(held).is_none_or(|before| {
                    let mut same = before.clone();
                    (same.windows, same.max_keys) = (after.windows, after.max_keys);
                    same == *after
                }))
            }
        };
        let name = |spec: &SeriesSpec| format!("series {} of {} s", spec.name, spec.interval);
        self.list(&running.series, &wanted.series, &Kind { name, show: series, effect: &effect })
    }

    fn gauge_caches(&mut self, running: &Declared, wanted: &Declared, replica: &Replica) -> Vec<GaugeCacheSpec> {
        let effect = |before: Option<&GaugeCacheSpec>, after: Option<&GaugeCacheSpec>| match (before, after) {
            (_, None) => Effect::Now,
            (before, Some(after)) => {
                let held = replica.gauge_caches().iter().map(|held| held.spec()).find(|held| held.name == after.name);
                let before = before.or(held);
                let is_tuned = before.is_some_and(|before| {
                    let mut same = before.clone();
                    same.max_keys = after.max_keys;
                    same == *after
                });
                let is_new = before.is_none() && !replica.has_unclaimed(after.structure().name.id());
                now_if(is_tuned || is_new)
            }
        };
        let name = |spec: &GaugeCacheSpec| format!("gauge cache {}", spec.name);
        self.list(&running.gauge_caches, &wanted.gauge_caches, &Kind { name, show: gauge_cache, effect: &effect })
    }

    fn limits(&mut self, running: &LimitsConfig, wanted: &LimitsConfig) -> LimitsConfig {
        // All facts of a process about hard limits depend on the hard limits that it began with.
        for (name, before, after) in [
            ("founders", names(running), names(wanted)),
            ("reclaim_after", seconds(running), seconds(wanted)),
            ("stand_in", running.stand_in.to_string(), wanted.stand_in.to_string()),
        ] {
            self.note(name, Some(before), Some(after), Effect::Restart);
        }
        let is_soft = |spec: Option<&ThrottleSpec>| spec.is_none_or(|spec| spec.strength == Strength::Soft);
        let taken = |name: &str| running.permits.iter().any(|permits| permits.name == name);
        let throttle = |before: Option<&NamedThrottle>, after: Option<&NamedThrottle>| {
            let soft = [before, after].into_iter().all(|named| is_soft(named.map(|named| &named.spec)));
            now_if(soft && after.is_none_or(|after| !taken(&after.name)))
        };
        let permits = |_: Option<&NamedPermits>, _: Option<&NamedPermits>| Effect::Restart;
        let outbound = |before: Option<&Part>, after: Option<&Part>| {
            now_if([before, after].into_iter().all(|part| is_soft(part.and_then(Part::rate))))
        };
        let inbound = |_: Option<&InboundMaximum>, _: Option<&InboundMaximum>| Effect::Now;
        let throttles = Kind {
            name: |named: &NamedThrottle| format!("throttle {}", named.name),
            show: |named| settings::throttle(named.spec),
            effect: &throttle,
        };
        let permits = Kind {
            name: |named: &NamedPermits| format!("permits {}", named.name),
            show: |named| named.maximum.to_string(),
            effect: &permits,
        };
        let parts = Kind { name: Part::name, show: Part::show, effect: &outbound };
        let blocks = Kind {
            name: |inbound: &InboundMaximum| {
                format!("inbound /{} {}", inbound.prefix_len, if inbound.v6 { "IPv6" } else { "IPv4" })
            },
            show: |inbound| inbound.maximum.to_string(),
            effect: &inbound,
        };
        LimitsConfig {
            founders: running.founders.clone(),
            reclaim_after: running.reclaim_after,
            stand_in: running.stand_in,
            throttles: self.list(&running.throttles, &wanted.throttles, &throttles),
            permits: self.list(&running.permits, &wanted.permits, &permits),
            outbound: joined(self.list(&Part::all(running), &Part::all(wanted), &parts)),
            inbound: self.list(&running.inbound, &wanted.inbound, &blocks),
        }
    }

    fn fixed(&mut self, running: &Declared, wanted: &Declared) -> std::collections::BTreeMap<&'static str, String> {
        for name in running.fixed.keys().chain(wanted.fixed.keys().filter(|name| !running.fixed.contains_key(*name))) {
            let of = |declared: &Declared| declared.fixed.get(name).cloned();
            self.note(*name, of(running), of(wanted), Effect::Restart);
        }
        running.fixed.clone()
    }

    fn node(&mut self, running: &Declared, wanted: &Declared, abilities: Abilities<'_>) {
        let bound = |bound: Option<std::num::NonZeroU64>| bound.map(|bound| bound.to_string());
        let seeds = |declared: &Declared| Some(declared.seeds.join(", "));
        let log = |declared: &Declared| declared.log.map(|level| level.name().to_owned());
        self.note("max_keys", bound(running.budget.keys), bound(wanted.budget.keys), Effect::Now);
        self.note("max_bytes", bound(running.budget.bytes), bound(wanted.budget.bytes), Effect::Now);
        self.note("seeds", seeds(running), seeds(wanted), Effect::Now);
        self.note("log", log(running), log(wanted), now_if(abilities.sets_log));
        #[cfg(feature = "http")]
        {
            let http = |declared: &Declared| declared.http.as_ref().map(ToString::to_string);
            self.note("http", http(running), http(wanted), Effect::Now);
        }
    }
}

/// Whether the two differ only in what a running node changes.
fn is_tuned(before: &StructureSpec, after: &StructureSpec) -> bool {
    let mut same = before.clone();
    (same.bounds, same.max_keys) = (after.bounds, after.max_keys);
    same == *after
}

fn object(spec: &StructureSpec) -> String {
    let mut text = settings::object(spec);
    text.extend(spec.max_keys.map(|max| format!(",max_keys={max}")));
    format!("{text},max_delay={}ms,max_pending={}", spec.max_delay.as_millis(), spec.max_pending)
}

fn series(spec: &SeriesSpec) -> String {
    let mut text = format!("{},windows={}", spec.class().name(), spec.windows);
    text.extend(spec.max_keys.map(|max| format!(",max_keys={max}")));
    let (delay, pending) = (spec.max_delay.as_millis(), spec.max_pending);
    format!("{text},replicate={},persist={},max_delay={delay}ms,max_pending={pending}", spec.replicate, spec.persist)
}

fn gauge_cache(spec: &GaugeCacheSpec) -> String {
    let mut text = format!("ttl={}ms,replicate={}", spec.ttl.as_millis(), spec.replicate);
    text.extend(spec.max_elements.map(|max| format!(",max_elements={max}")));
    text.extend(spec.max_keys.map(|max| format!(",max_keys={max}")));
    format!("{text},max_delay={}ms,max_pending={}", spec.max_delay.as_millis(), spec.max_pending)
}

fn names(limits: &LimitsConfig) -> String {
    limits.founders.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn seconds(limits: &LimitsConfig) -> String {
    format!("{} s", limits.reclaim_after.as_secs_f64())
}

/// One limit of an outbound scope.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Messages(OutboundScope, ThrottleSpec),
    Connections(OutboundScope, ThrottleSpec),
    Maximum(OutboundScope, u64),
}

impl Part {
    fn all(limits: &LimitsConfig) -> Vec<Self> {
        let of = |limits: &OutboundLimits| {
            let scope = || limits.scope.clone();
            let rates = limits.messages.map(|spec| Self::Messages(scope(), spec)).into_iter();
            let rates = rates.chain(limits.connections.map(|spec| Self::Connections(scope(), spec)));
            rates.chain(limits.maximum.map(|maximum| Self::Maximum(scope(), maximum))).collect::<Vec<_>>()
        };
        limits.outbound.iter().flat_map(of).collect()
    }

    fn scope(&self) -> &OutboundScope {
        match self {
            Self::Messages(scope, _) | Self::Connections(scope, _) | Self::Maximum(scope, _) => scope,
        }
    }

    fn rate(&self) -> Option<&ThrottleSpec> {
        match self {
            Self::Messages(_, spec) | Self::Connections(_, spec) => Some(spec),
            Self::Maximum(..) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Messages(scope, _) => format!("throttle of messages {scope}"),
            Self::Connections(scope, _) => format!("throttle of connections {scope}"),
            Self::Maximum(scope, _) => format!("maximum {scope}"),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Messages(_, spec) | Self::Connections(_, spec) => settings::throttle(*spec),
            Self::Maximum(_, maximum) => maximum.to_string(),
        }
    }
}

/// The limits of each scope, in the order in which the scopes come first.
fn joined(parts: Vec<Part>) -> Vec<OutboundLimits> {
    let mut all: Vec<OutboundLimits> = Vec::new();
    for part in parts {
        let at = all.iter().position(|limits| limits.scope == *part.scope()).unwrap_or_else(|| {
            all.push(OutboundLimits { scope: part.scope().clone(), messages: None, connections: None, maximum: None });
            all.len() - 1
        });
        let Some(limits) = all.get_mut(at) else { continue };
        match part {
            Part::Messages(_, spec) => limits.messages = Some(spec),
            Part::Connections(_, spec) => limits.connections = Some(spec),
            Part::Maximum(_, maximum) => limits.maximum = Some(maximum),
        }
    }
    all
}
