//! The reference for users says what the code does.

use tallymesh_schemas::config::{Config, Metric, ThrottleClass};
use tallymesh_schemas::{Class, StructureSpec, bounds};

const PAGE: &str = include_str!("../../docs/configuration.md");

#[test]
fn every_example_is_a_right_file() {
    let examples: Vec<_> = PAGE.split("```hcl\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 6);
    for example in examples {
        Config::parse(example, "docs/configuration.md").unwrap_or_else(|errors| panic!("{errors}\nin\n{example}"));
    }
}

#[test]
fn every_key_class_and_parameter_is_there() {
    let keys = ["name", "listen", "advertise", "seeds", "admin", "data_dir", "ca", "cert", "key", "type", "class"];
    let more = [
        "parameters",
        "max_delay",
        "max_pending",
        "max_size",
        "max_keys",
        "max_bytes",
        "on_dead",
        "uri",
        "serialized",
        "monitors",
        "interval",
        "windows",
        "replicate",
        "on_full_disk",
        "http",
        "log",
        "persist",
    ];
    let parameters = ["snapshot", "audit_series", "gauge_cache", "metrics"];
    let named = Class::ALL.map(Class::name).into_iter().chain(Metric::ALL.map(Metric::name));
    let named = named.chain(ThrottleClass::ALL.map(ThrottleClass::name));
    for word in named.chain(keys).chain(more).chain(parameters) {
        assert!(PAGE.contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn every_bound_and_default_is_the_one_in_force() {
    let grouped = |number: u64| {
        let digits = number.to_string();
        let groups: Vec<_> =
            digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let (delay, pending) = (bounds::MAX_DELAY_SECONDS, bounds::MAX_PENDING);
    let said = [
        format!(
            "seconds, {} to {}, fractions allowed | {} |",
            delay.start(),
            delay.end(),
            StructureSpec::MAX_DELAY.as_secs_f64()
        ),
        format!("whole number, {} to {} | {} |", pending.start(), grouped(*pending.end()), StructureSpec::MAX_PENDING),
        format!(
            "whole number, {} to {}, or -1",
            bounds::CACHE_ELEMENTS.start(),
            grouped(*bounds::CACHE_ELEMENTS.end())
        ),
        format!("{} hours at most", bounds::DROP_AFTER.as_secs() / 3600),
        format!(
            "{} to {}\nseconds (a week)",
            bounds::MONITOR_INTERVAL.start(),
            grouped((*bounds::MONITOR_INTERVAL.end()).into())
        ),
        format!("how many are kept, {} to {}", bounds::MONITOR_WINDOWS.start(), bounds::MONITOR_WINDOWS.end()),
        format!(
            "seconds, {} to {} | required",
            bounds::MONITOR_INTERVAL.start(),
            grouped((*bounds::MONITOR_INTERVAL.end()).into())
        ),
        format!("whole number, {} to {} | required", bounds::MONITOR_WINDOWS.start(), bounds::MONITOR_WINDOWS.end()),
        format!("1 to {} letters, digits", bounds::SERIES_NAME_BYTES),
        format!("keeps {} windows at most", grouped(bounds::WINDOWS as u64)),
        format!("a list of {} such strings at most", bounds::MONITORS),
        format!("{} at most. One that is up", bounds::SEEDS),
        format!("{} stanzas in a file", bounds::STRUCTURES),
        format!("{} bytes (256 KiB) at most", grouped(bounds::CONFIG_BYTES as u64)),
        format!("{} at most; the rest\nare counted", bounds::CONFIG_ERRORS),
        format!("1 to {} lower-case letters", bounds::NODE_NAME_BYTES),
        format!("1 to {} letters, digits", bounds::STRUCTURE_NAME_BYTES),
    ];
    for words in said {
        assert!(PAGE.contains(&words), "the page does not say: {words}");
    }
}
