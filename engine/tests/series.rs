//! Series: windows that turn, counts that outlive who counted, keys that are cleared.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tallymesh_engine::{Event, Life, Replica, Scope, Series};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{Incarnation, Kind, SeriesName, SeriesSpec};

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;
use wire::{Wire, config, is_delta, name, read};

const INTERVAL: u32 = 10;

fn spec() -> SeriesSpec {
    let spec = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, INTERVAL, 3);
    SeriesSpec { max_delay: Duration::ZERO, ..spec }
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
    wire.run(u64::from(INTERVAL) - wire.now.unix_ms / 1000 % u64::from(INTERVAL));
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

/// What a run has counted stays when the node leaves, dies or starts again; the new run learns it from the others.
#[test]
fn counts_outlive_the_run_that_counted() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 2, "k", 1);
    wire.talk();
    let now = wire.now;
    wire.replicas[2].leave(now);
    wire.talk();
    wire.down(0, 1);
    wire.down(0, 2);
    wire.down(1, 2);
    wire.replicas[1].handle_member(now, &name("a"), Incarnation(1000), Life::Dead);
    wire.wait(1);
    assert_eq!(counts(&wire, 1, "k"), [6, 0, 0]);

    wire.replicas[0] = Replica::new(config(), name("a"), Incarnation(2000));
    wire.replicas[0].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    keep(&mut wire, 0);
    add(&mut wire, 0, "k", 10);
    wire.up(0, 1);
    wire.run(3);
    assert_eq!(counts(&wire, 0, "k"), [16, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [16, 0, 0]);
    let of_a = series(&wire, 1).count_from(&name("a"), Scope::Key(b"k"), 0..=0);
    assert_eq!(of_a, Some(15), "both runs");
}

/// A node that goes on as another run takes its counts along; nobody counts them twice, whoever hears of it from whom.
#[test]
fn a_renewed_run_takes_its_counts_along() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 1);
    wire.talk();
    clear(&mut wire, 1, "k");
    add(&mut wire, 0, "k", 2);
    wire.talk();
    everywhere(&wire, "k", &[2, 0, 0]);
    // c hears of it from b alone.
    wire.down(0, 2);
    let (now, run) = (wire.now, wire.replicas[0].actor().incarnation);
    wire.replicas[0].renew(now, run);
    add(&mut wire, 0, "k", 20);
    wire.run(12);
    everywhere(&wire, "k", &[0, 22, 0]);
    wire.up(0, 2);
    wire.run(3);
    everywhere(&wire, "k", &[0, 22, 0]);
    clear(&mut wire, 2, "k");
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// A node that starts again behind a clock that was set back finds its earlier run to be a later one. What that has counted
/// is not its own to void.
#[test]
fn a_renewed_run_voids_no_other_process() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    wire.down(0, 1);
    wire.replicas[0] = Replica::new(config(), name("a"), Incarnation(900));
    wire.replicas[0].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    keep(&mut wire, 0);
    add(&mut wire, 0, "k", 10);
    wire.up(0, 1);
    wire.run(3);
    assert!(wire.replicas[0].actor().incarnation > Incarnation(1000));
    for _ in 0..2 {
        let (now, run) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].renew(now, run);
        wire.run(2);
    }
    everywhere(&wire, "k", &[15, 0, 0]);
}

#[test]
fn a_forgotten_node_counts_no_more() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 1);
    wire.run(1);
    // It cleared b's count; with its rows that is forgotten too.
    clear(&mut wire, 0, "k");
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
    wire.down(0, 1);
    wire.down(0, 2);
    let now = wire.now;
    wire.replicas[1].forget(now, &name("a"));
    wire.run(1);
    assert_eq!(counts(&wire, 1, "k"), [1, 0, 0]);
    assert_eq!(counts(&wire, 2, "k"), [1, 0, 0]);
}

#[test]
fn to_clear_takes_what_was_known_and_no_more() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 7);
    add(&mut wire, 1, "other", 1);
    wire.run(10);
    add(&mut wire, 1, "k", 3);
    wire.talk();
    everywhere(&wire, "k", &[3, 12, 0]);
    // b counts on before it hears, two nodes clear at the same time, and c hears of the clearing first.
    wire.down(0, 1);
    wire.down(1, 2);
    add(&mut wire, 1, "k", 100);
    clear(&mut wire, 0, "k");
    clear(&mut wire, 2, "k");
    wire.run(1);
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [103, 12, 0]);
    assert_eq!(counts(&wire, 2, "k"), [0, 0, 0]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.run(2);
    everywhere(&wire, "k", &[100, 0, 0]);
    everywhere(&wire, "other", &[0, 1, 0]);
    add(&mut wire, 0, "k", 1);
    wire.talk();
    everywhere(&wire, "k", &[101, 0, 0]);
    let keys: Vec<_> = series(&wire, 0).windows()[0].list_all().entries(10).into_iter().map(|e| e.key).collect();
    assert_eq!(keys, [b"k".to_vec()], "what clears is not listed");
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

/// What adds up to nothing is cleared like anything else: whoever had cleared less of it at the same time would bring the
/// rest back.
#[test]
fn to_clear_what_counts_nothing_clears_it() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 1);
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    clear(&mut wire, 2, "k");
    add(&mut wire, 0, "k", -1);
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.up(0, 2);
    wire.up(1, 2);
    wire.run(2);
    everywhere(&wire, "k", &[0, 0, 0]);
    // So it does in a run that takes over what it has cleared.
    let (now, run) = (wire.now, wire.replicas[1].actor().incarnation);
    wire.replicas[1].renew(now, run);
    wire.run(2);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// Who clears what somebody else has cleared does not rely on that one's word: it may be forgotten.
#[test]
fn each_clearing_stands_by_itself() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    clear(&mut wire, 2, "k");
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    let now = wire.now;
    wire.replicas[1].forget(now, &name("c"));
    wire.run(1);
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [0, 0, 0]);
}

/// A clearing that arrives before what it clears.
#[test]
fn a_row_that_was_cleared_before_it_came_counts_nothing() {
    let mut wire = wire(&["a", "b", "c"]);
    wire.down(0, 2);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.talk();
    assert_eq!(counts(&wire, 2, "k"), [0, 0, 0]);
    wire.up(0, 2);
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
    add(&mut wire, 0, "k", -2);
    wire.talk();
    everywhere(&wire, "k", &[-2, 0, 0]);
}

/// Clocks that differ by less than a window blur its edge; nothing is lost.
#[test]
fn a_clock_that_is_a_little_ahead_loses_nothing() {
    let mut wire = wire(&["a", "b"]);
    wire.run(8);
    wire.clock_off = Some((0, 4000));
    wire.run(1);
    add(&mut wire, 0, "k", 1);
    add(&mut wire, 1, "k", 10);
    wire.talk();
    assert_eq!(counts(&wire, 0, "k"), [1, 10, 0], "a is in the next window");
    assert_eq!(counts(&wire, 1, "k"), [10, 0, 0]);
    wire.run(1);
    everywhere(&wire, "k", &[1, 10, 0]);
    assert!(!events(&mut wire, 1).iter().any(|event| matches!(event, Event::ClockOff { .. })));
}

fn events(wire: &mut Wire, at: usize) -> Vec<Event> {
    std::iter::from_fn(|| wire.replicas[at].poll_event()).collect()
}

#[test]
fn a_clock_that_is_far_off_is_reported() {
    let mut wire = wire(&["a", "b"]);
    wire.clock_off = Some((0, 60_000));
    wire.run(3);
    let off = |event: &Event| match event {
        Event::ClockOff { peer, by, ahead } => Some((peer.clone(), by.as_secs(), *ahead)),
        _ => None,
    };
    let said: Vec<_> = events(&mut wire, 1).iter().filter_map(off).collect();
    assert_eq!(said, [(name("a"), 60, true)], "once");
    let said: Vec<_> = events(&mut wire, 0).iter().filter_map(off).collect();
    assert_eq!(said, [(name("b"), 60, false)]);
}

/// A clock that goes back brings no window back and begins none twice.
#[test]
fn a_clock_that_goes_back_doubles_nothing() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 1);
    wire.run(10);
    add(&mut wire, 0, "k", 2);
    wire.run(1);
    let window = series(&wire, 0).current();
    wire.clock_off = Some((0, -12_000));
    wire.run(4);
    assert_eq!(series(&wire, 0).current(), window);
    add(&mut wire, 0, "k", 3);
    wire.run(1);
    everywhere(&wire, "k", &[5, 1, 0]);
    // As long as the clock is back by, and once more, and it is as it was.
    let mut windows = Vec::new();
    for _ in 0..30 {
        wire.run(1);
        windows.push(series(&wire, 0).current());
    }
    assert!(windows.is_sorted());
    assert_eq!(Some(&series(&wire, 0).spec().window_at(wire.now.unix_ms - 12_000)), windows.last());
}

/// Rows of a window that this node has dropped are not taken, whatever way they come.
#[test]
fn what_comes_after_its_window_is_ignored() {
    let mut wire = wire(&["a", "b"]);
    wire.down(0, 1);
    add(&mut wire, 0, "k", 5);
    wire.wait(29);
    // a is still in the last window that knows of it, b is a little ahead.
    wire.clock_off = Some((1, 2000));
    let now = wire.now_at(1);
    wire.replicas[1].handle_timeout(now);
    wire.up(0, 1);
    wire.talk();
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 5]);
    assert_eq!(counts(&wire, 1, "k"), [0, 0, 0]);
    wire.run(3);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// Whoever missed rows of a window that its peer has dropped stops to ask for them.
#[test]
fn rows_of_a_window_that_a_peer_has_dropped_are_not_asked_for_for_ever() {
    let mut wire = wire(&["a", "b"]);
    wire.clock_off = Some((1, -12_000));
    wire.run(20);
    add(&mut wire, 0, "k", 5);
    // Only digests arrive, until a has dropped the window and b has not.
    for _ in 0..32 {
        wire.wait(1);
        for (from, to) in [(0, 1), (1, 0)] {
            for bytes in wire.take(from, to).into_iter().filter(|bytes| matches!(read(bytes), Message::Digest(_))) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
    }
    let wants = |wire: &Wire| wire.replicas[1].counters().wants_out;
    let before = wants(&wire);
    assert!(before > 0, "b knows that something is missing");
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0], "a has dropped it");
    let held = wire.replicas[1].structures().iter().filter(|window| window.held().len() > 1).count();
    wire.run(7);
    let after = wants(&wire);
    wire.run(2);
    assert!(held > 3, "b keeps it still");
    assert_eq!(wants(&wire), after, "after {} more", after - before);
}

/// A node dies while its rows are on their way. Copies that are equally far can differ then: a row that had moved on was
/// left out of the one and not of the other. They become equal.
#[test]
fn copies_of_the_dead_become_equal() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "moves", 1);
    let first: Vec<_> = wire.take(0, 1).into_iter().filter(|bytes| is_delta(bytes)).collect();
    add(&mut wire, 0, "stays", 10);
    add(&mut wire, 0, "moves", 2);
    // To b comes what was cut before "moves" moved on, and what follows up to there; to c one row that was cut later.
    let (to_b, to_c) = (wire.take(0, 1), wire.take(0, 2));
    let deltas = |list: Vec<Vec<u8>>| list.into_iter().find(|bytes| is_delta(bytes)).unwrap();
    wire.give(0, 1, &first[0]).unwrap();
    wire.give(0, 1, &deltas(to_b)).unwrap();
    wire.give(0, 2, &deltas(to_c)).unwrap();
    let a = wire.replicas[0].actor().clone();
    wire.down(0, 1);
    wire.down(0, 2);
    let have = |wire: &Wire, at: usize| {
        let held = series(wire, at).windows()[0].held();
        held.into_iter().find(|held| held.actor == a).map(|held| (held.have, held.rows))
    };
    assert_eq!((have(&wire, 1), have(&wire, 2)), (Some((2, 2)), Some((2, 1))));
    let now = wire.now;
    for at in [1, 2] {
        wire.replicas[at].handle_member(now, &name("a"), a.incarnation, Life::Dead);
    }
    let counts_of = |wire: &Wire| [1, 2].map(|at| (counts(wire, at, "moves"), counts(wire, at, "stays")));
    wire.run(6);
    let [b, c] = counts_of(&wire);
    assert_eq!((&b.0[..], &b.1[..]), (&[1, 0, 0][..], &[10, 0, 0][..]));
    assert_eq!(b, c);
    let wants = [1, 2].map(|at| wire.replicas[at].counters().wants_out);
    wire.run(6);
    assert_eq!([1, 2].map(|at| wire.replicas[at].counters().wants_out), wants, "then nobody asks any more");
}

#[test]
fn a_series_of_one_node_s_own_is_not_told() {
    let mut wire = wire(&["a", "b"]);
    let own =
        SeriesSpec { replicate: false, ..SeriesSpec::new(SeriesName::new("own").unwrap(), Kind::CidrTree, 60, 2) };
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
                    wire.replicas[at].renew(now, run);
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
