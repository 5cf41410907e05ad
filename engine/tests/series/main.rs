//! Series: windows that turn, counts that outlive who counted, keys that are cleared.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tallymesh_engine::{Event, Life, Replica, Scope, Series};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{Incarnation, Kind, SeriesName, SeriesSpec, Version};

mod clearing;
mod clocks;
mod resize;
mod runs;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../wire/mod.rs"]
mod wire;
use wire::{Wire, config, is_delta, name, read};

const INTERVAL: u32 = 10;

fn spec() -> SeriesSpec {
    let mut spec = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, INTERVAL, 3);
    spec.max_delay = Duration::ZERO;
    spec
}

/// Linked nodes that keep the series, at the beginning of a window.
fn wire(names: &[&str]) -> Wire {
    let mut wire = Wire::new(names);
    for at in 0..names.len() {
        keep(&mut wire, at);
    }
    for a in 0..names.len() {
        for b in a + 1..names.len() {
            wire.up(a, b);
        }
    }
    wire.run(2);
    wire.run(u64::from(INTERVAL) - wire.now.unix_ms.0 / 1000 % u64::from(INTERVAL));
    wire
}

fn keep(wire: &mut Wire, at: usize) {
    let now = wire.now;
    wire.replicas[at].replicate_series(now, spec(), Arc::new(|| ())).unwrap();
}

fn series(wire: &Wire, at: usize) -> Arc<Series> {
    Arc::clone(wire.replicas[at].series().next().unwrap())
}

fn add(wire: &mut Wire, at: usize, key: &str, n: i64) {
    series(wire, at).add(key.as_bytes(), n).unwrap();
    wire.replicas[at].handle_changes(wire.now);
}

fn clear(wire: &mut Wire, at: usize, key: &str) {
    series(wire, at).remove(key.as_bytes()).unwrap();
    wire.replicas[at].handle_changes(wire.now);
}

/// The counts of the windows, the current one first.
fn counts(wire: &Wire, at: usize, key: &str) -> Vec<i64> {
    for window in series(wire, at).windows() {
        window.audit().unwrap();
    }
    series(wire, at).counts(Scope::Key(key.as_bytes()), wire.now.mono).iter().map(|count| count.total).collect()
}

fn everywhere(wire: &Wire, key: &str, expected: &[i64]) {
    for at in 0..wire.replicas.len() {
        assert_eq!(counts(wire, at, key), expected, "at {}", wire.node(at));
    }
}

#[test]
fn windows_turn_and_what_has_aged_out_is_gone() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 2);
    wire.talk();
    everywhere(&wire, "k", &[7, 0, 0]);
    wire.run(10);
    add(&mut wire, 2, "k", 1);
    wire.talk();
    everywhere(&wire, "k", &[1, 7, 0]);
    wire.run(10);
    everywhere(&wire, "k", &[0, 1, 7]);
    let entries: Vec<_> = wire.replicas.iter().map(Replica::link_entries).collect();
    wire.run(10);
    everywhere(&wire, "k", &[0, 0, 1]);
    let later: Vec<_> = wire.replicas.iter().map(Replica::link_entries).collect();
    assert_eq!(later, entries, "links remember nothing of windows that are gone");
    assert_eq!(wire.replicas[0].structures().len(), 1 + 4, "the windows that are kept, and the next one");
}

#[test]
fn a_sum_over_windows_and_the_sliding_count() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 10);
    wire.run(10);
    add(&mut wire, 1, "k", 4);
    wire.run(5);
    let series = series(&wire, 0);
    let (key, mono) = (Scope::Key(b"k"), wire.now.mono);
    assert_eq!(series.count(key, 0..=1, mono).total, 14);
    assert_eq!(series.count(key, 1..=1, mono).local, 10);
    assert_eq!(series.count(key, 1..=u32::MAX, mono).total, 10);
    assert_eq!(series.count(key, 7..=9, mono).total, 0);
    assert_eq!(series.count_from(&name("b"), key, 0..=2), Some(4));
    assert_eq!(series.count_from(&name("z"), key, 0..=2), None);
    assert_eq!(series.sliding(key, wire.now), 4.0 + 10.0 * 0.5);
}

/// A partition over the end of a window: what each side counted on either side of it comes together in the right window.
#[test]
fn a_partition_over_the_end_of_a_window_heals() {
    let mut wire = wire(&["a", "b"]);
    wire.run(8);
    wire.down(0, 1);
    add(&mut wire, 0, "k", 3);
    add(&mut wire, 1, "k", 30);
    wire.wait(4);
    add(&mut wire, 0, "k", 4);
    add(&mut wire, 1, "k", 40);
    wire.wait(1);
    assert_eq!(counts(&wire, 0, "k"), [4, 3, 0]);
    wire.up(0, 1);
    wire.run(2);
    everywhere(&wire, "k", &[44, 33, 0]);
}

#[test]
fn the_keys_of_all_windows_are_listed_in_order() {
    let mut wire = wire(&["a", "b"]);
    for (key, n) in [("k3", 1), ("k1", 2), ("gone", 5)] {
        add(&mut wire, 0, key, n);
    }
    wire.run(10);
    for (key, n) in [("k2", 3), ("k3", 4)] {
        add(&mut wire, 1, key, n);
    }
    wire.talk();
    clear(&mut wire, 1, "gone");
    let listed = |from: Option<&str>, page: usize| {
        let mut listing = series(&wire, 1).list(from.map(name).as_ref()).unwrap();
        let mut all = Vec::new();
        loop {
            let entries = listing.entries(page);
            if entries.is_empty() {
                return all;
            }
            all.extend(entries.into_iter().map(|entry| (String::from_utf8(entry.key).unwrap(), entry.counts)));
        }
    };
    let row = |key: &str, counts: [i64; 3]| (key.to_owned(), counts.to_vec());
    for page in [1, 2, 100] {
        assert_eq!(listed(None, page), [row("k1", [0, 2, 0]), row("k2", [3, 0, 0]), row("k3", [4, 1, 0])]);
    }
    assert_eq!(listed(Some("a"), 2), [row("k1", [0, 2, 0]), row("k3", [0, 1, 0])]);
    assert!(series(&wire, 1).list(Some(&name("z"))).is_none());
}

#[test]
fn a_node_does_not_send_a_series_without_replication() {
    let mut wire = wire(&["a", "b"]);
    let own = SeriesSpec::new(SeriesName::new("own").unwrap(), Kind::CidrTree, 60, 2).unreplicated();
    let now = wire.now;
    let kept: Vec<_> =
        (0..2).map(|at| wire.replicas[at].replicate_series(now, own.clone(), Arc::new(|| ())).unwrap()).collect();
    let (key, n) = tallymesh_schemas::key::from_net("192.0.2.7/32".parse().unwrap());
    kept[0].add(&key[..n], 3).unwrap();
    wire.run(2);
    let block = Scope::Net("192.0.2.0/24".parse().unwrap());
    let count = |at: usize| kept[at].count(block, 0..=1, wire.now.mono).total;
    assert_eq!((count(0), count(1)), (3, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize, u8, i64),
    Clear(usize, u8),
    Cut(usize, usize),
    Join(usize, usize),
    Talk,
    Renew(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..3_usize;
    prop_oneof![
        6 => (node.clone(), 0..3_u8, -3..9_i64).prop_map(|(at, key, n)| Step::Add(at, key, n)),
        2 => (node.clone(), 0..3_u8).prop_map(|(at, key)| Step::Clear(at, key)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Step::Join(a, b)),
        2 => Just(Step::Talk),
        1 => node.prop_map(Step::Renew),
        1 => (1..8_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whatever is counted, cleared, cut and renewed: the nodes agree in the end, the aggregates are what the rows say, and
    /// a key that nobody cleared counts exactly what was added.
    #[test]
    fn nodes_agree_in_the_end(steps in prop::collection::vec(step(), 1..60)) {
        let mut wire = wire(&["a", "b", "c"]);
        let mut truth = std::collections::BTreeMap::<(u8, u64), i64>::new();
        let mut cleared = std::collections::BTreeSet::new();
        for step in &steps {
            match *step {
                Step::Add(at, key, n) => {
                    *truth.entry((key, series(&wire, at).current())).or_default() += n;
                    add(&mut wire, at, &key.to_string(), n);
                }
                Step::Clear(at, key) => {
                    cleared.insert(key);
                    clear(&mut wire, at, &key.to_string());
                }
                Step::Cut(a, b) if a != b => wire.down(a, b),
                Step::Join(a, b) if a != b => wire.up(a, b),
                Step::Cut(..) | Step::Join(..) => {}
                Step::Talk => drop(wire.talk()),
                Step::Renew(at) => {
                    let (now, run) = (wire.now, wire.replicas[at].actor().incarnation);
                    wire.replicas[at].renew(now, run).unwrap();
                }
                Step::Pass(seconds) => wire.wait(seconds),
            }
        }
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            wire.up(a, b);
        }
        wire.run(6);
        for key in 0..3_u8 {
            let seen = counts(&wire, 0, &key.to_string());
            everywhere(&wire, &key.to_string(), &seen);
            if !cleared.contains(&key) {
                let current = series(&wire, 0).current();
                let expected: Vec<_> = (0..3).map(|age| truth.get(&(key, current - age)).copied().unwrap_or(0)).collect();
                prop_assert_eq!(seen, expected);
            }
        }
    }
}
