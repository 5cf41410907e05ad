//! What a starting node waits for, and the figures of a structure and of a cache for operators.

#[allow(dead_code, reason = "each test crate uses its part")]
mod late;
#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::num::NonZeroU64;
use std::time::Duration;

use late::{cache, cache_config, cache_spec, set};
use tallymesh_engine::CopyFigures;
use tallymesh_engine::replica::Awaited;
use tallymesh_schemas::Bounds;
use tallymesh_schemas::message::Message;
use wire::{NAME, Wire, config, name, read};

const MOST: usize = 16;

#[test]
fn a_node_waits_for_the_digest_and_then_for_the_rows_of_its_peer() {
    let mut wire = Wire::new(&["a", "b"]);
    for key in ["k1", "k2", "k3"] {
        wire.add_to(0, key, 1);
    }
    assert_eq!(wire.replicas[1].awaited(MOST), [], "a node without a peer waits for nothing");
    wire.up(0, 1);
    assert_eq!(wire.replicas[1].awaited(MOST), [Awaited::Digest { peer: name("a") }]);
    let (digests, rest): (Vec<_>, Vec<_>) =
        wire.take(0, 1).into_iter().partition(|bytes| matches!(read(bytes), Message::Digest(_)));
    for bytes in &digests {
        wire.give(0, 1, bytes).unwrap();
    }
    let structure = wire.structure(1).spec().name.clone();
    assert_eq!(structure.as_str(), NAME);
    assert_eq!(wire.replicas[1].awaited(MOST), [Awaited::Rows { structure, node: name("a") }]);
    assert_eq!(wire.replicas[1].awaited(0), []);
    for bytes in &rest {
        wire.give(0, 1, bytes).unwrap();
    }
    wire.talk();
    assert_eq!(wire.replicas[1].awaited(MOST), []);
    assert_eq!(wire.total(1, "k2"), 1);
}

#[test]
fn a_node_waits_for_the_end_of_each_cache() {
    let mut wire = Wire::with(&["a", "b"], &cache_config(), &cache_spec());
    set(&mut wire, 0, b"k", b"v");
    wire.wait_a_little();
    wire.up(0, 1);
    let cache_name = cache(&wire, 1).spec().name.clone();
    let entries = Awaited::Entries { cache: cache_name, peer: name("a") };
    assert_eq!(wire.replicas[1].awaited(MOST), [Awaited::Digest { peer: name("a") }, entries.clone()]);
    let digests = wire.take(0, 1).into_iter().filter(|bytes| matches!(read(bytes), Message::Digest(_)));
    for bytes in digests.collect::<Vec<_>>() {
        wire.give(0, 1, &bytes).unwrap();
    }
    assert_eq!(wire.replicas[1].awaited(MOST), [entries]);
    wire.down(0, 1);
    wire.up(0, 1);
    wire.run(2);
    assert_eq!(wire.replicas[1].awaited(MOST), []);
    assert_eq!(cache(&wire, 1).held(), 1);
}

/// A peer that does not have the cache never ends it. Nobody waits for such a peer for long.
#[test]
fn a_node_does_not_wait_for_a_peer_without_the_cache() {
    let mut wire = Wire::with(&["a"], &cache_config(), &cache_spec());
    wire.add("b", &config(), &wire::spec());
    wire.up(0, 1);
    wire.run(6);
    assert_eq!(wire.replicas[0].awaited(MOST), []);
}

#[test]
fn figures_state_rows_changes_and_how_far_copies_are_behind() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    for key in ["k1", "k2"] {
        wire.add_to(0, key, 1);
        wire.talk();
    }
    let own = wire.structure(0).figures(wire.now.mono);
    assert_eq!((own.rows, own.changes, own.commits), (2, 2, 2));
    let copy = |wire: &Wire| {
        let figures = wire.structure(1).figures(wire.now.mono);
        assert_eq!(figures.changes, 0, "b counts nothing");
        figures.copies
    };
    wire.run(2);
    let current = copy(&wire);
    let fresh = Some(Duration::from_secs(1));
    assert!(
        matches!(&current[..], [CopyFigures { behind: 0, stale, counts: true, .. }] if *stale <= fresh),
        "{current:?}"
    );
    // The deltas are lost, and the digests that follow state the head.
    for key in ["k3", "k4", "k5"] {
        wire.add_to(0, key, 1);
        wire.take(0, 1);
    }
    let lost = (0..15).find_map(|_| {
        wire.wait_a_little();
        let digests = wire.take(0, 1).into_iter().filter(|bytes| matches!(read(bytes), Message::Digest(_)));
        for bytes in digests.collect::<Vec<_>>() {
            wire.give(0, 1, &bytes).unwrap();
        }
        copy(&wire).into_iter().find(|copy| copy.behind > 0)
    });
    assert_eq!(lost.map(|copy| (copy.node, copy.behind)), Some((name("a"), 3)));
    wire.run(3);
    assert_eq!(copy(&wire)[0].behind, 0);
    assert!(wire.replicas[0].counters().flushes >= 5);
}

#[test]
fn a_cache_counts_what_it_evicts() {
    let mut spec = cache_spec();
    spec.bounds = Bounds { elements: NonZeroU64::new(2), bytes: None };
    let mut wire = Wire::with(&["a"], &config(), &spec);
    for (key, evicted) in [(b"k1", 0), (b"k2", 0), (b"k3", 1), (b"k4", 2)] {
        set(&mut wire, 0, key, b"v");
        assert_eq!(cache(&wire, 0).evicted(), evicted);
    }
}
