//! Settings of nodes that differ: each node names the difference once, with both values.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::sync::Arc;

use tallymesh_engine::{Life, Settings};
use tallymesh_schemas::bounds;
use wire::Wire;

fn nodes(names: &[&str]) -> (Wire, Vec<Settings>) {
    let mut wire = Wire::new(names);
    for a in 0..names.len() {
        (a + 1..names.len()).for_each(|b| wire.up(a, b));
    }
    let settings = wire.replicas.iter_mut().map(|replica| Settings::replicate(replica, Arc::new(|| ())).unwrap());
    let settings = settings.collect();
    (wire, settings)
}

/// What a node reports now.
fn reported(wire: &mut Wire, settings: &[Settings], at: usize) -> Vec<String> {
    wire.run(3);
    settings[at].poll(wire.now.mono).iter().map(ToString::to_string).collect()
}

/// Both nodes report the difference once, with both values; what only one node has is no difference.
#[test]
fn a_difference_is_reported_once_by_each_node() {
    let (mut wire, settings) = nodes(&["a", "b", "c"]);
    settings[0].set("throttle soft one", "10/1000ms");
    settings[1].set("throttle soft one", "50/1000ms");
    settings[2].set("throttle soft one", "10/1000ms");
    settings[2].set("series of c", "6");
    settings.iter().for_each(|of| of.set("object x", "hold"));
    let found = "throttle soft one is 10/1000ms here and 50/1000ms on b";
    assert_eq!(reported(&mut wire, &settings, 0), [found]);
    assert_eq!(reported(&mut wire, &settings, 2), [found]);
    let there = |node| format!("throttle soft one is 50/1000ms here and 10/1000ms on {node}");
    assert_eq!(reported(&mut wire, &settings, 1), [there("a"), there("c")]);
    assert_eq!(reported(&mut wire, &settings, 0), [""; 0]);
    assert_eq!(settings[0].differences().len(), 1, "it is still so");
}

/// A difference ends when the setting is changed, and when the node is gone.
#[test]
fn a_difference_ends() {
    let (mut wire, settings) = nodes(&["a", "b"]);
    settings[0].set("founders", "a,b");
    settings[1].set("founders", "a");
    assert_eq!(reported(&mut wire, &settings, 0).len(), 1);
    settings[1].set("founders", "a,b");
    assert_eq!(reported(&mut wire, &settings, 0), [""; 0]);
    assert_eq!(settings[0].differences(), []);
    settings[1].set("founders", "b");
    assert_eq!(reported(&mut wire, &settings, 0).len(), 1);
    wire.down(0, 1);
    let (now, b) = (wire.now, wire.replicas[1].actor().clone());
    wire.replicas[0].handle_member(now, &b.node, b.incarnation, Life::Dead);
    assert_eq!(reported(&mut wire, &settings, 0), [""; 0]);
    assert_eq!(settings[0].differences(), [], "b does not live");
    let now = wire.now;
    wire.replicas[0].handle_member(now, &b.node, b.incarnation, Life::Alive);
    wire.up(0, 1);
    wire.run(3);
    assert_eq!(settings[0].differences().len(), 1, "b is back");
}

/// A setting that a node withdraws is no difference, and may come back.
#[test]
fn a_setting_that_is_withdrawn_is_no_difference() {
    let (mut wire, settings) = nodes(&["a", "b"]);
    settings[0].set("object x", "hold");
    settings[1].set("object x", "drop");
    assert_eq!(reported(&mut wire, &settings, 0).len(), 1);
    settings[1].unset("object x");
    settings[1].unset("object y");
    wire.run(3);
    assert_eq!(settings[0].differences(), []);
    settings[1].set("object x", "drop");
    wire.run(3);
    assert_eq!(settings[0].differences().len(), 1);
}

/// Rows that arrive within a second of a comparison are compared when somebody asks.
#[test]
fn the_answer_contains_what_has_just_arrived() {
    let (mut wire, settings) = nodes(&["a", "b", "c"]);
    settings.iter().for_each(|of| of.set("founders", "a,b"));
    settings[1].set("founders", "b");
    assert_eq!(reported(&mut wire, &settings, 0).len(), 1);
    settings[2].set("founders", "c");
    let now = wire.now;
    wire.replicas.iter_mut().for_each(|replica| replica.handle_changes(now));
    wire.talk();
    assert_eq!(settings[0].poll(wire.now.mono), [], "logs are written once a second");
    let found: Vec<_> = settings[0].differences().iter().map(ToString::to_string).collect();
    assert_eq!(found, ["founders is a,b here and b on b", "founders is a,b here and c on c"]);
}

/// A node states so many settings and no more; that is reported. A value of any length and form can be compared.
#[test]
fn settings_are_bounded() {
    let (mut wire, settings) = nodes(&["a", "b"]);
    for n in 0..=bounds::SETTINGS {
        settings[0].set(&format!("throttle {n}"), "1");
    }
    assert_eq!(settings[0].bounds().len(), 1);
    let long = |end: &str| format!("{}\n {end}", "x".repeat(1000));
    settings[1].set("throttle 7", &long("1"));
    let found = reported(&mut wire, &settings, 0);
    assert!(matches!(&found[..], [found] if found.starts_with("throttle 7 is 1 here and #")), "{found:?}");
    settings[0].set("throttle 7", &long("1"));
    reported(&mut wire, &settings, 0);
    assert_eq!(settings[0].differences(), []);
    settings[0].set("throttle 7", &long("2"));
    assert_eq!(reported(&mut wire, &settings, 0).len(), 1);
}

/// A member that writes far more rows than a node has settings is not compared. The others are, and the bound is reported.
#[test]
fn a_member_cannot_make_the_comparison_expensive() {
    let (mut wire, settings) = nodes(&["a", "b", "c"]);
    settings[0].set("founders", "a,b");
    settings[1].set("founders", "b");
    settings[2].set("founders", "c");
    let flood = Arc::clone(wire.replicas[1].structure("node:settings").unwrap());
    for n in 0..=2 * bounds::SETTINGS {
        flood.add(format!("made up {n}").as_bytes(), 1).unwrap();
        // Each delta of the wire carries one row.
        if n % 500 == 0 {
            wire.run(1);
        }
    }
    assert_eq!(reported(&mut wire, &settings, 0), ["founders is a,b here and c on c"]);
    assert!(!settings[0].bounds().is_empty());
}
