//! The configuration settings that a node publishes, so that nodes can report differences.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::Settings;
use tallymesh_schemas::config::{LimitsConfig, OutboundScope};
use tallymesh_schemas::{Bounds, NodeName, OnDead, Strength, StructureSpec, ThrottleSpec};

use crate::configuration::Declared;

/// Publishes what a configuration states now. It was another one before, or none.
pub(crate) fn publish(settings: &Settings, was: &BTreeMap<String, String>, now: &BTreeMap<String, String>) {
    was.keys().filter(|name| !now.contains_key(*name)).for_each(|name| settings.unset(name));
    now.iter().for_each(|(name, value)| settings.set(name, value));
}

/// The settings that all nodes have alike, by name.
pub(crate) fn stated(declared: &Declared) -> BTreeMap<String, String> {
    let mut stated = BTreeMap::new();
    state_objects(&mut stated, declared);
    state_limits(&mut stated, &declared.limits);
    stated
}

/// A structure or a cache.
pub(crate) fn object(spec: &StructureSpec) -> String {
    let Bounds { elements, bytes } = spec.bounds;
    let on_dead = match spec.on_dead {
        OnDead::Drop(after) => format!("drop:{}", time(after)),
        OnDead::Hold => "hold".to_owned(),
    };
    let mut value = format!("{},on_dead={on_dead},snapshot={}", spec.class.name(), spec.snapshot);
    for (name, bound) in [("elements", elements), ("bytes", bytes)] {
        value.extend(bound.map(|bound| format!(",max_{name}={bound}")));
    }
    value
}

fn state_objects(stated: &mut BTreeMap<String, String>, declared: &Declared) {
    for spec in &declared.structures {
        stated.insert(format!("object {}", spec.name), object(spec));
    }
    for spec in declared.series.iter().filter(|spec| spec.replicate) {
        let name = format!("series {} of {} s", spec.name, spec.interval);
        stated.insert(name, format!("{},windows={}", spec.class().name(), spec.windows));
    }
    for spec in declared.gauge_caches.iter().filter(|spec| spec.replicate) {
        let max = spec.max_elements.map_or_else(|| "none".to_owned(), |max| max.to_string());
        stated.insert(format!("gauge cache {}", spec.name), format!("ttl={},max_elements={max}", time(spec.ttl)));
    }
}

fn state_limits(stated: &mut BTreeMap<String, String>, limits: &LimitsConfig) {
    let mut set = |name: String, value: String| drop(stated.insert(name, value));
    if !limits.founders.is_empty() {
        let mut names: Vec<_> = limits.founders.iter().map(NodeName::as_str).collect();
        names.sort_unstable();
        set("founders".to_owned(), names.join(","));
        set("reclaim_after".to_owned(), time(limits.reclaim_after));
        set("stand_in".to_owned(), limits.stand_in.to_string());
    }
    for named in &limits.throttles {
        set(format!("throttle {}", named.name), throttle(named.spec));
    }
    for named in &limits.permits {
        set(format!("permits {}", named.name), named.maximum.to_string());
    }
    for outbound in &limits.outbound {
        let scope: &OutboundScope = &outbound.scope;
        let rates = [("messages", outbound.messages), ("connections", outbound.connections)];
        for (what, spec) in rates.into_iter().filter_map(|(what, spec)| Some((what, spec?))) {
            set(format!("throttle of {what} {scope}"), throttle(spec));
        }
        outbound.maximum.into_iter().for_each(|max| set(format!("maximum {scope}"), max.to_string()));
    }
    for inbound in &limits.inbound {
        let version = if inbound.v6 { "IPv6" } else { "IPv4" };
        set(format!("inbound /{} {version}", inbound.prefix_len), inbound.maximum.to_string());
    }
}

/// Publishes a throttle that a program created.
pub(crate) fn state_throttle(settings: &Settings, name: &str, spec: ThrottleSpec) {
    settings.set(&format!("throttle {name}"), &throttle(spec));
}

/// Publishes a pool of permits that a program created.
pub(crate) fn state_permits(settings: &Settings, name: &str, maximum: u64) {
    settings.set(&format!("permits {name}"), &maximum.to_string());
}

/// A throttle in the form that hard limits publish.
pub(crate) fn throttle(spec: ThrottleSpec) -> String {
    let rate = spec.rate;
    let value = format!(
        "{}/{}ms,burst={},{}",
        rate.tokens(),
        rate.period().as_millis(),
        rate.burst(),
        spec.on_partition.name()
    );
    if spec.strength == Strength::Hard { value } else { format!("{value},soft") }
}

fn time(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
