//! Series under one fault each: what was counted in which window is there, exactly, on every node that keeps the window.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_engine::{Scope, Time};
use tallymesh_harness::{Builder, Cluster, Conditions, Fault, address, series};
use tallymesh_schemas::{Kind, NodeName, Window};

const SECOND: Duration = Duration::from_secs(1);
const KEY: &[u8] = b"someone@example.com";
const INTERVAL: u32 = 10;

/// Three nodes whose clocks agree, at the beginning of a window of ten seconds, of which six are kept.
fn cluster(seed: u64) -> Cluster {
    started(seed, INTERVAL, 6, &["a", "b", "c"])
}

fn started(seed: u64, interval: u32, windows: u32, nodes: &[&str]) -> Cluster {
    let mut cluster = Builder::new(seed)
        .nodes(nodes.iter().copied())
        .series([series("logins", Kind::GaugeTable, interval, windows)])
        .skew(Duration::ZERO)
        .start();
    cluster.run_for(SECOND).unwrap();
    cluster
}

/// Counts on a node, and says in which window.
fn add(cluster: &mut Cluster, label: &str, n: i64) -> Window {
    cluster.with(label, |node| node.count_events("logins", KEY, n)).unwrap()
}

fn remove(cluster: &mut Cluster, label: &str) {
    cluster.with(label, |node| node.remove_events("logins", KEY)).unwrap();
}

fn current(cluster: &Cluster, label: &str) -> Window {
    cluster.series(label, "logins").0.current()
}

fn reads(cluster: &Cluster, label: &str, expected: &[(Window, i64)]) {
    let expected: BTreeMap<_, _> = expected.iter().copied().collect();
    assert_eq!(cluster.events(label, "logins", KEY), expected, "at {label}");
}

fn everywhere(cluster: &Cluster, expected: &[(Window, i64)]) {
    for node in cluster.nodes().iter().filter(|node| node.is_working()) {
        reads(cluster, node.label(), expected);
    }
}

fn bit(cluster: &Cluster, marks: &[&str]) {
    for mark in marks {
        assert!(cluster.trace().marked(mark) > 0, "\"{mark}\" did not happen: {:?}", cluster.trace().marks());
    }
}

/// Clocks that differ by less than an interval blur the edge of a window; over all windows nothing is lost, and every node
/// reads the same of each.
#[test]
fn clocks_that_differ_by_less_than_a_window() {
    let mut cluster = cluster(1);
    cluster.script("at 0s set b +3s; at 0s set c +6s").unwrap();
    cluster.run_for(SECOND).unwrap();
    let (mut expected, mut apart) = (BTreeMap::new(), 0);
    for _ in 0..250 {
        let windows = ["a", "b", "c"].map(|label| add(&mut cluster, label, 1));
        apart += usize::from(windows[0] != windows[2]);
        for window in windows {
            *expected.entry(window).or_insert(0) += 1;
        }
        cluster.run_for(SECOND / 10).unwrap();
    }
    cluster.settle().unwrap();
    let expected: Vec<_> = expected.into_iter().collect();
    everywhere(&cluster, &expected);
    assert_eq!(expected.iter().map(|(_, n)| n).sum::<i64>(), 750);
    assert!(apart > 100, "they were in different windows {apart} times");
    bit(&cluster, &["set", "window turned"]);
    assert_eq!(cluster.trace().marked("told: clock off"), 0);
}

/// A clock jumps ahead by several windows. The counts of those windows are there when the other nodes reach them, and the node
/// reports the jump.
#[test]
fn a_clock_that_jumps_ahead() {
    let mut cluster = started(2, INTERVAL, 12, &["a", "b", "c"]);
    let first = add(&mut cluster, "b", 5);
    add(&mut cluster, "a", 1);
    cluster.run_for(SECOND).unwrap();
    cluster.script("at 0s jump b 27s").unwrap();
    cluster.run_for(SECOND * 3).unwrap();
    let ahead = add(&mut cluster, "b", 7);
    assert_eq!(ahead, first + 3, "b is ahead");
    let behind = add(&mut cluster, "a", 2);
    assert_eq!(behind, first);
    cluster.run_for(SECOND).unwrap();
    reads(&cluster, "a", &[(first, 8)]);
    reads(&cluster, "b", &[(first, 8), (ahead, 7)]);
    cluster.settle().unwrap();
    everywhere(&cluster, &[(first, 8), (ahead, 7)]);
    bit(&cluster, &["jump", "told: clock off", "window turned"]);
}

/// A clock that is set back brings no window back and begins none twice: it goes on at half pace.
#[test]
fn a_clock_that_is_set_back() {
    let mut cluster = cluster(3);
    let first = add(&mut cluster, "b", 5);
    cluster.run_for(SECOND * 10).unwrap();
    let second = add(&mut cluster, "b", 6);
    assert_eq!(second, first + 1);
    cluster.script("at 0s set b -30s").unwrap();
    cluster.run_for(SECOND * 2).unwrap();
    assert_eq!(add(&mut cluster, "b", 10), second, "the window that it was in");
    cluster.run_for(SECOND * 10).unwrap();
    let (slow, right) = (add(&mut cluster, "b", 1), add(&mut cluster, "a", 1));
    assert_eq!((slow, right), (second, second + 1), "half as fast");
    cluster.settle().unwrap();
    everywhere(&cluster, &[(first, 5), (second, 17), (right, 1)]);
    bit(&cluster, &["set", "window turned"]);
}

/// What either side counts on either side of a window's end comes together in the right window.
#[test]
fn partition_over_the_end_of_a_window() {
    let mut cluster = cluster(4);
    cluster.run_for(SECOND * 6).unwrap();
    cluster.script("at 0s cut a from rest; at 6s heal").unwrap();
    cluster.run_for(SECOND).unwrap();
    let first = add(&mut cluster, "a", 3);
    add(&mut cluster, "b", 30);
    cluster.run_for(SECOND * 4).unwrap();
    let second = add(&mut cluster, "a", 4);
    add(&mut cluster, "b", 40);
    assert_eq!(second, first + 1);
    cluster.run_for(SECOND / 2).unwrap();
    reads(&cluster, "a", &[(first, 3), (second, 4)]);
    reads(&cluster, "c", &[(first, 30), (second, 40)]);
    cluster.run_for(SECOND).unwrap();
    cluster.settle().unwrap();
    everywhere(&cluster, &[(first, 33), (second, 44)]);
    bit(&cluster, &["cut", "message cut off", "window turned"]);
}

/// What a node has counted stays when it dies, also on one that comes after its death, and goes with its window.
#[test]
fn death_of_a_counting_node() {
    let mut cluster = cluster(5);
    let window = add(&mut cluster, "a", 5);
    add(&mut cluster, "b", 1);
    cluster.run_for(SECOND).unwrap();
    cluster.script("at 0s crash a; at 12s restart c").unwrap();
    cluster.run_for(SECOND * 20).unwrap();
    bit(&cluster, &["crash", "member dead", "restart"]);
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 6)]);
    let a = NodeName::new("a").unwrap();
    assert_eq!(cluster.series("c", "logins").0.count_from(&a, Scope::Key(KEY), 0..=9), Some(5));
    // Up to its very end.
    let last = window + 5;
    while current(&cluster, "c") <= last {
        reads(&cluster, "c", &[(window, 6)]);
        cluster.run_for(SECOND / 2).unwrap();
    }
    reads(&cluster, "c", &[]);
}

#[test]
fn leaving_takes_no_counts_away() {
    let mut cluster = cluster(6);
    let window = add(&mut cluster, "a", 5);
    add(&mut cluster, "b", 1);
    cluster.run_for(SECOND / 2).unwrap();
    add(&mut cluster, "a", 2);
    cluster.script("at 0s leave a").unwrap();
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 8)]);
    bit(&cluster, &["leave", "left in peace", "goodbye"]);
}

/// Both runs count; the restarted node learns from the others what it had counted before.
#[test]
fn restart_without_state() {
    let mut cluster = cluster(7);
    let window = add(&mut cluster, "a", 5);
    add(&mut cluster, "b", 100);
    cluster.run_for(SECOND).unwrap();
    cluster.script("at 0s restart a").unwrap();
    cluster.run_for(SECOND / 10).unwrap();
    assert_eq!(add(&mut cluster, "a", 3), window);
    reads(&cluster, "a", &[(window, 3)]);
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 108)]);
    let a = NodeName::new("a").unwrap();
    for label in ["a", "b", "c"] {
        assert_eq!(cluster.series(label, "logins").0.count_from(&a, Scope::Key(KEY), 0..=9), Some(8));
    }
    bit(&cluster, &["restart"]);
}

/// A run that goes on with its state takes its counts along, less what was removed; nobody counts them twice.
#[test]
fn restart_with_its_state() {
    let mut cluster = cluster(8);
    let window = add(&mut cluster, "a", 5);
    cluster.run_for(SECOND).unwrap();
    remove(&mut cluster, "b");
    cluster.run_for(SECOND).unwrap();
    add(&mut cluster, "a", 4);
    cluster.run_for(SECOND).unwrap();
    let was = cluster.node("a").process().unwrap().replica().actor().clone();
    cluster.script("at 0s cut a from b; at 0s reload a; at 4s heal").unwrap();
    cluster.run_for(SECOND / 10).unwrap();
    add(&mut cluster, "a", 3);
    cluster.run_for(SECOND * 3).unwrap();
    assert!(*cluster.node("a").process().unwrap().replica().actor() > was, "it is another run");
    reads(&cluster, "c", &[(window, 7)]);
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 7)]);
    bit(&cluster, &["reload", "cut"]);
}

/// A machine that is put back to an earlier state of its memory: what was open then is open again, and what it has counted
/// since is gone, here and with all others, in gauges and in series. What others have counted meanwhile it learns anew.
#[test]
fn a_memory_that_is_stale() {
    fn story(upto: Time) -> Cluster {
        let mut cluster = cluster(11);
        for (at, label, n) in [(2, "a", 5), (3, "b", 20), (5, "a", 3), (6, "b", 100)] {
            let at = Time::default().after(SECOND * at);
            if upto < at {
                break;
            }
            cluster.run_until(at).unwrap();
            add(&mut cluster, label, n);
            cluster.with(label, |node| node.add("inbound_cidr", &address(1), n));
        }
        cluster.run_until(upto).unwrap();
        cluster
    }
    let mut cluster = story(Time::default().after(SECOND * 7));
    cluster.again(story);
    let window = current(&cluster, "a");
    let counts = |cluster: &Cluster, all: i64| {
        everywhere(cluster, &[(window, all)]);
        for label in ["a", "b", "c"] {
            assert_eq!(cluster.count(label, "inbound_cidr", &address(1)), all, "at {label}");
        }
    };
    counts(&cluster, 128);
    let was = cluster.node("a").process().unwrap().replica().actor().clone();
    // As it was at 4 s: it had counted 5, and knew of 20.
    cluster.script("at 0s cut a from rest; at 0s restore a 3s; at 1s heal").unwrap();
    cluster.run_for(SECOND / 10).unwrap();
    reads(&cluster, "a", &[(window, 25)]);
    assert!(*cluster.node("a").process().unwrap().replica().actor() > was, "it is another run");
    cluster.run_for(SECOND).unwrap();
    assert_eq!(add(&mut cluster, "a", 1), window);
    cluster.with("a", |node| node.add("inbound_cidr", &address(1), 1));
    cluster.settle().unwrap();
    counts(&cluster, 126);
    bit(&cluster, &["restore", "cut", "told: superseded"]);
}

/// A node that removes a key removes the counts that it has received. Counts of the same moment stay.
#[test]
fn remove_against_a_concurrent_add() {
    let mut cluster = cluster(9);
    let first = add(&mut cluster, "a", 5);
    add(&mut cluster, "b", 1);
    cluster.run_for(SECOND * 10).unwrap();
    let second = add(&mut cluster, "a", 20);
    cluster.run_for(SECOND).unwrap();
    cluster.script("at 0s cut a from rest; at 4s heal").unwrap();
    cluster.run_for(SECOND).unwrap();
    add(&mut cluster, "a", 7);
    remove(&mut cluster, "b");
    cluster.run_for(SECOND).unwrap();
    add(&mut cluster, "c", 2);
    cluster.run_for(SECOND).unwrap();
    reads(&cluster, "a", &[(first, 6), (second, 27)]);
    reads(&cluster, "b", &[(second, 2)]);
    cluster.run_for(SECOND * 2).unwrap();
    cluster.settle().unwrap();
    everywhere(&cluster, &[(second, 9)]);
    bit(&cluster, &["cut", "message cut off"]);
}

/// Who removes at the same time removes once.
#[test]
fn two_concurrent_removes() {
    let mut cluster = cluster(10);
    let window = add(&mut cluster, "c", 10);
    cluster.run_for(SECOND).unwrap();
    cluster.script("at 0s cut a from b,c; at 4s heal").unwrap();
    cluster.run_for(SECOND).unwrap();
    // a knows less than b does when they remove.
    add(&mut cluster, "c", -3);
    cluster.run_for(SECOND).unwrap();
    remove(&mut cluster, "a");
    remove(&mut cluster, "b");
    add(&mut cluster, "c", 2);
    cluster.run_for(SECOND).unwrap();
    reads(&cluster, "a", &[]);
    reads(&cluster, "c", &[(window, 2)]);
    cluster.run_for(SECOND * 2).unwrap();
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 2)]);
    bit(&cluster, &["cut", "message cut off"]);
}

/// A delta that is on its way when its window ages out is ignored, and brings nothing back.
#[test]
fn late_deltas_for_expired_windows() {
    let conditions = Conditions { latency: SECOND * 3 / 2, ..Conditions::default() };
    let mut cluster = Builder::new(11)
        .series([series("logins", Kind::GaugeTable, 4, 2)])
        .skew(Duration::ZERO)
        .conditions(conditions)
        .start();
    cluster.run_for(SECOND * 8).unwrap();
    cluster.script("at 0s set a +6s").unwrap();
    // a drops the window that the others are in at its middle.
    cluster.run_for(SECOND * 5).unwrap();
    let before = add(&mut cluster, "b", 5);
    cluster.run_for(SECOND / 2).unwrap();
    assert!(current(&cluster, "a") <= before + 1, "a keeps the window still");
    cluster.run_for(SECOND * 2).unwrap();
    assert!(current(&cluster, "a") > before + 1, "a has dropped it");
    bit(&cluster, &["set", "delta for no window"]);
    for _ in 0..10 {
        reads(&cluster, "a", &[]);
        cluster.run_for(SECOND / 10).unwrap();
    }
    reads(&cluster, "c", &[(before, 5)]);
    cluster.check().unwrap();
    cluster.settle().unwrap();
    everywhere(&cluster, &[]);
}

/// A node without a cluster counts, removes and lets windows go as any other.
#[test]
fn a_single_node() {
    let mut cluster = started(12, 4, 3, &["a"]);
    let first = add(&mut cluster, "a", 5);
    cluster.run_for(SECOND * 4).unwrap();
    let second = add(&mut cluster, "a", 7);
    add(&mut cluster, "a", -1);
    reads(&cluster, "a", &[(first, 5), (second, 6)]);
    cluster.check().unwrap();
    remove(&mut cluster, "a");
    reads(&cluster, "a", &[]);
    add(&mut cluster, "a", 2);
    reads(&cluster, "a", &[(second, 2)]);
    cluster.check().unwrap();
    cluster.run_for(SECOND * 4).unwrap();
    let third = add(&mut cluster, "a", 1);
    assert_eq!([second, third], [first + 1, first + 2]);
    reads(&cluster, "a", &[(second, 2), (third, 1)]);
    cluster.run_for(SECOND * 8).unwrap();
    reads(&cluster, "a", &[(third, 1)]);
    cluster.settle().unwrap();
    reads(&cluster, "a", &[]);
    bit(&cluster, &["window turned"]);
}

/// I7. What is kept about links does not grow as windows turn.
#[test]
fn links_remember_nothing_of_windows_that_are_gone() {
    let mut cluster = started(13, 2, 3, &["a", "b", "c"]);
    let mut entries = Vec::new();
    for _ in 0..20 {
        for label in ["a", "b", "c"] {
            add(&mut cluster, label, 1);
            remove(&mut cluster, label);
            add(&mut cluster, label, 1);
        }
        cluster.run_for(SECOND * 2).unwrap();
        let kept = cluster.nodes().iter().map(|node| node.process().unwrap().replica().link_entries());
        entries.push(kept.max().unwrap());
    }
    let (early, late) = (&entries[5..10], &entries[10..]);
    assert!(late.iter().max() <= early.iter().max(), "{entries:?}");
    assert!(cluster.trace().marked("window turned") >= 60);
    cluster.settle().unwrap();
}

/// Two under one name void each other's runs, so that what one of them had counted may be gone. Everybody agrees; what the
/// one that lives was told is counted in full, and nothing is counted twice.
#[test]
fn two_nodes_of_one_name() {
    let mut lost = 0;
    for (seed, script) in [
        (140, "at 0s twin a; at 4s crash a'"),
        (141, "at 1s reuse a"),
        (142, "at 0s cut a from rest; at 0s twin a; at 2s heal; at 4s crash a'"),
        (143, "at 0s set a -20s; at 1s restart a"),
    ] {
        let mut cluster = started(seed, INTERVAL, 12, &["a", "b", "c"]);
        add(&mut cluster, "a", 1);
        add(&mut cluster, "b", 100);
        cluster.run_for(SECOND / 2).unwrap();
        cluster.script(script).unwrap();
        let mut told = 101;
        for _ in 0..60 {
            cluster.run_for(SECOND / 10).unwrap();
            for (label, n) in [("a", 1000), ("a'", 1_000_000)] {
                if cluster.nodes().iter().any(|node| node.label() == label && node.is_working()) {
                    add(&mut cluster, label, n);
                    told += n;
                }
            }
        }
        cluster.fault(&Fault::Heal);
        cluster.settle().unwrap();
        let counts = ["a", "b", "c"].map(|label| cluster.events(label, "logins", KEY));
        assert!(counts.iter().all(|count| *count == counts[0]), "{script}: {counts:?}");
        let sum: i64 = counts[0].values().sum();
        let (logins, now) = cluster.series("a", "logins");
        let own = logins.count(Scope::Key(KEY), 0..=11, now.mono).local;
        assert!(own >= 1000 && sum >= 100 + own, "{script}: {sum}, of which {own} are a's");
        assert!(sum <= told, "{script}: {sum}, and {told} were told");
        lost += usize::from(sum < told);
        bit(&cluster, &["told: conflict"]);
    }
    assert!(lost > 0, "nothing was ever lost, so more could be demanded");
}

/// A clock that is wrong for three seconds, an hour or years ahead, an hour behind or before 1970: its node is back in the present
/// window as soon as the clock is right. Nothing is lost that was counted before, and what it counts then is shared.
#[test]
fn a_clock_that_is_wrong_for_a_moment() {
    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    for (seed, by) in [(40, HOUR), (41, 3 * YEAR), (42, -HOUR), (43, -60 * YEAR)] {
        let mut cluster = started(seed, INTERVAL, 30, &["a", "b", "c"]);
        let mut expected: BTreeMap<Window, i64> = BTreeMap::new();
        let mut count =
            |cluster: &mut Cluster, label: &str, n: i64| *expected.entry(add(cluster, label, n)).or_insert(0) += n;
        count(&mut cluster, "b", 5);
        cluster.run_for(SECOND * 10).unwrap();
        count(&mut cluster, "b", 6);
        cluster.run_for(SECOND).unwrap();
        cluster.fault(&Fault::Set("b".to_owned(), by));
        cluster.run_for(SECOND).unwrap();
        assert_ne!(current(&cluster, "b"), current(&cluster, "a"), "{by}");
        count(&mut cluster, "a", 10);
        cluster.run_for(SECOND * 2).unwrap();
        cluster.fault(&Fault::Set("b".to_owned(), -by));
        cluster.run_for(SECOND).unwrap();
        assert_eq!(current(&cluster, "b"), current(&cluster, "a"), "{by}: it is back");
        count(&mut cluster, "b", 1);
        cluster.run_for(SECOND * 2).unwrap();
        let expected: Vec<_> = expected.into_iter().collect();
        everywhere(&cluster, &expected);
        cluster.settle().unwrap();
        everywhere(&cluster, &expected);
        bit(&cluster, &["set", "told: clock stepped", "told: clock off", "told: clock right"]);
        assert_eq!(cluster.trace().marked("told: conflict"), 0);
    }
}

/// I1. A member reports a later run of c, far ahead of c's clock. c starts twice without saved state, and each time the other
/// nodes report that run. c never begins a run in which an earlier process of c has counted. So no node has to replace its
/// rows of c, and every count counts once.
#[test]
fn a_node_learns_of_the_same_run_in_each_process() {
    let mut cluster = cluster(17);
    let window = add(&mut cluster, "c", 1);
    cluster.script("at 0s lie a run c; at 2s restart c; at 4s restart c").unwrap();
    for n in [10, 100, 1000] {
        cluster.run_for(SECOND).unwrap();
        assert_eq!(add(&mut cluster, "c", n), window);
        cluster.run_for(SECOND).unwrap();
    }
    cluster.settle().unwrap();
    everywhere(&cluster, &[(window, 1111)]);
    bit(&cluster, &["lie answered by a new run", "restart", "told: conflict"]);
    assert_eq!(cluster.trace().marked("told: diverged"), 0);
}
