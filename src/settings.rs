//! The configuration settings that a node publishes, so that nodes can report differences.

use std::time::Duration;

use tallymesh_engine::Settings;
use tallymesh_schemas::config::{LimitsConfig, OutboundScope};
use tallymesh_schemas::{Bounds, GaugeCacheSpec, NodeName, OnDead, SeriesSpec, Strength, StructureSpec, ThrottleSpec};

/// Publishes the replicated objects.
pub(crate) fn state_objects(
    settings: &Settings,
    structures: &[StructureSpec],
    series: &[SeriesSpec],
    gauge_caches: &[GaugeCacheSpec],
) {
    for spec in structures {
        let Bounds { elements, bytes } = spec.bounds;
        let on_dead = match spec.on_dead {
            OnDead::Drop(after) => format!("drop:{}", time(after)),
            OnDead::Hold => "hold".to_owned(),
        };
        let mut value = format!("{},on_dead={on_dead},snapshot={}", spec.class.name(), spec.snapshot);
        for (name, bound) in [("elements", elements), ("bytes", bytes)] {
            value.extend(bound.map(|bound| format!(",max_{name}={bound}")));
        }
        settings.set(&format!("object {}", spec.name), &value);
    }
    for spec in series.iter().filter(|spec| spec.replicate) {
        let kind = spec.class().name();
        let name = format!("series {} of {} s", spec.name, spec.interval);
        settings.set(&name, &format!("{kind},windows={}", spec.windows));
    }
    for spec in gauge_caches.iter().filter(|spec| spec.replicate) {
        let max = spec.max_elements.map_or_else(|| "none".to_owned(), |max| max.to_string());
        settings.set(&format!("gauge cache {}", spec.name), &format!("ttl={},max_elements={max}", time(spec.ttl)));
    }
}

/// Publishes the limits.
pub(crate) fn state_limits(settings: &Settings, limits: &LimitsConfig) {
    if !limits.founders.is_empty() {
        let mut names: Vec<_> = limits.founders.iter().map(NodeName::as_str).collect();
        names.sort_unstable();
        settings.set("founders", &names.join(","));
        settings.set("reclaim_after", &time(limits.reclaim_after));
        settings.set("stand_in", &limits.stand_in.to_string());
    }
    for named in &limits.throttles {
        state_throttle(settings, &named.name, named.spec);
    }
    for named in &limits.permits {
        state_permits(settings, &named.name, named.maximum);
    }
    for outbound in &limits.outbound {
        let scope: &OutboundScope = &outbound.scope;
        let rates = [("messages", outbound.messages), ("connections", outbound.connections)];
        for (what, spec) in rates.into_iter().filter_map(|(what, spec)| Some((what, spec?))) {
            settings.set(&format!("throttle of {what} {scope}"), &throttle(spec));
        }
        outbound.maximum.into_iter().for_each(|max| settings.set(&format!("maximum {scope}"), &max.to_string()));
    }
    for inbound in &limits.inbound {
        let version = if inbound.v6 { "IPv6" } else { "IPv4" };
        settings.set(&format!("inbound /{} {version}", inbound.prefix_len), &inbound.maximum.to_string());
    }
}

/// Publishes a throttle that the configuration declares or a program created.
pub(crate) fn state_throttle(settings: &Settings, name: &str, spec: ThrottleSpec) {
    settings.set(&format!("throttle {name}"), &throttle(spec));
}

/// Publishes a pool of permits that the configuration declares or a program created.
pub(crate) fn state_permits(settings: &Settings, name: &str, maximum: u64) {
    settings.set(&format!("permits {name}"), &maximum.to_string());
}

/// A throttle in the form that hard limits publish.
fn throttle(spec: ThrottleSpec) -> String {
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
