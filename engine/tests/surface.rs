//! What a service calls: handles, watches, and structures that cannot be.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tallymesh_engine::replica::StructureError;
use tallymesh_engine::{Config, Now, Replica, Time};
use tallymesh_schemas::{
    Class, Incarnation, Kind, NodeName, SeriesName, SeriesSpec, StructureName, StructureSpec, UnixMs, bounds, key,
};
use wire::{Wire, config, name};

fn address(text: &str) -> Vec<u8> {
    let (key, len) = key::from_net(text.parse().unwrap());
    key[..len].to_vec()
}

/// A watch reports every key that changes, on whichever node. It keeps at most as many as it was made for, and reports how many
/// it lost.
#[test]
fn a_watch_reports_changes_and_how_many_it_lost() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.talk();
    let woken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&woken);
    let wake = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let watch = wire.structure(1).watch(3, wake);
    wire.add_to(1, "ours", 1);
    wire.add_to(0, "theirs", 1);
    wire.talk();
    assert_eq!(watch.take(), (vec![b"ours".to_vec(), b"theirs".to_vec()], 0));
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    for key in ["k1", "k2", "k3", "k4", "k5"] {
        wire.add_to(0, key, 1);
        wire.talk();
    }
    let (keys, lost) = watch.take();
    assert_eq!((keys, lost), (["k3", "k4", "k5"].map(|key| key.as_bytes().to_vec()).to_vec(), 2));
    drop(watch);
    wire.add_to(0, "k6", 1);
    wire.talk();
    assert_eq!(woken.load(Ordering::Relaxed), 7, "nobody watches any more");
}

/// What one node counts under a block, also when it is not ours; nothing is known of a node that nobody has named.
#[test]
fn a_block_is_summed_for_each_node() {
    let mut spec = StructureSpec::new(StructureName::new(wire::NAME).unwrap(), Class::OutboundCidr);
    spec.max_delay = Duration::ZERO;
    let mut wire = Wire::with(&["a", "b"], &config(), &spec);
    wire.up(0, 1);
    for (at, net, n) in
        [(0, "192.0.2.1/32", 3), (0, "192.0.2.0/25", 4), (0, "198.51.100.1/32", 5), (1, "192.0.2.1/32", 7)]
    {
        wire.structure(at).add(&address(net), n).unwrap();
        let now = wire.now;
        wire.replicas[at].handle_changes(now);
    }
    wire.talk();
    let net = "192.0.2.0/24".parse().unwrap();
    for at in [0, 1] {
        let structure = wire.structure(at);
        assert_eq!(structure.count_net_from(&name("a"), net), Some(7));
        assert_eq!(structure.count_net_from(&name("b"), net), Some(7));
        assert_eq!(structure.count_net_from(&name("c"), net), None);
        assert_eq!(structure.count_net(net, wire.now.mono).total, 14);
        assert_eq!(structure.latest(&name("a")).as_ref(), Some(wire.replicas[0].actor()));
        assert_eq!(structure.latest(&name("c")), None);
    }
}

/// A hold counts as long as it is held, and a clone of a counter is the same counter.
#[test]
fn a_hold_counts_until_it_is_dropped() {
    let wire = Wire::new(&["a"]);
    let counter = wire.structure(0).counter(b"k").unwrap();
    let (first, second) = (counter.hold(), counter.clone().try_hold(2));
    assert_eq!(wire.total(0, "k"), 2);
    assert!(counter.try_hold(2).is_none());
    drop(first);
    assert_eq!(wire.total(0, "k"), 1);
    drop(second);
    assert_eq!(wire.total(0, "k"), 0);
}

/// Names are given once, and a node has so many structures and windows.
#[test]
fn structures_that_cannot_be_are_refused() {
    let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(1));
    let spec = |name: &str| StructureSpec::new(StructureName::new(name).unwrap(), Class::OutboundDomains);
    let mut replicate = |spec: StructureSpec| replica.replicate(spec, Arc::new(|| ())).map(drop);
    assert_eq!(replicate(spec("s0")), Ok(()));
    assert_eq!(replicate(spec("s0")), Err(StructureError::Duplicate(StructureName::new("s0").unwrap())));
    for n in 1..bounds::STRUCTURES {
        assert_eq!(replicate(spec(&format!("s{n}"))), Ok(()));
    }
    assert_eq!(replicate(spec("more")), Err(StructureError::TooMany));

    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(1));
    let mut replicate = |name: &str, windows| {
        let spec = SeriesSpec::new(SeriesName::new(name).unwrap(), Kind::GaugeTable, 10, windows);
        replica.replicate_series(now, spec, Arc::new(|| ())).map(drop)
    };
    assert_eq!(replicate("logins", 3), Ok(()));
    let twice = StructureError::DuplicateSeries(SeriesName::new("logins").unwrap(), 10);
    assert_eq!(replicate("logins", 3), Err(twice));
    assert_eq!(replicate("more", u32::MAX), Err(StructureError::TooManyWindows));
}

/// A node that learns of a later run of its own name renews as a still later run, and keeps its counts.
#[test]
fn a_node_with_a_superseded_run_renews_as_a_later_run() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(0, "k", 3);
    wire.talk();
    let (now, ours) = (wire.now, wire.replicas[0].actor().incarnation);
    wire.replicas[0].handle_superseded(now, Incarnation(ours.0 - 1), &name("b"));
    assert_eq!(wire.replicas[0].actor().incarnation, ours, "an earlier run is none of our concern");
    wire.replicas[0].handle_superseded(now, Incarnation(ours.0 + 5), &name("b"));
    assert!(wire.replicas[0].actor().incarnation.0 > ours.0 + 5);
    wire.run(2);
    assert_eq!((wire.total(0, "k"), wire.total(1, "k")), (3, 3));
    wire.assert_same(0, 1);
}

/// A block under which everything adds up to zero counts nothing and is not listed; what lies in it is.
#[test]
fn a_block_that_counts_zero_is_not_listed() {
    let mut replica = Replica::new(config(), name("a"), Incarnation(1));
    let structure = replica.replicate(StructureSpec::from(Class::InboundCidr), Arc::new(|| ())).unwrap();
    for (host, n) in [("192.0.2.1/32", 3), ("192.0.2.2/32", -3), ("198.51.100.1/32", 1), ("198.51.100.2/32", 1)] {
        structure.add(&address(host), n).unwrap();
    }
    let blocks = structure.list_all().blocks(100);
    let listed: Vec<_> = blocks.iter().map(|block| (block.net.to_string(), block.count)).collect();
    let expected = [
        ("192.0.0.0/5", 2),
        ("192.0.2.1/32", 3),
        ("192.0.2.2/32", -3),
        ("198.51.100.0/30", 2),
        ("198.51.100.1/32", 1),
        ("198.51.100.2/32", 1),
    ];
    assert_eq!(listed, expected.map(|(net, count)| (net.to_owned(), count)));
}
