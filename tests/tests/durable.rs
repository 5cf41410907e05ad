//! What outlives a run: saved by each node, taken back by the next one, and never by two writers.

mod levels;

use std::time::Duration;

use tallymesh_engine::{CacheError, Config, Life};
use tallymesh_harness::{Builder, Cluster, Conditions, Failure, Fault, quick_config, series, spec};
use tallymesh_schemas::{Class, Kind, SeriesSpec};

const SECOND: Duration = Duration::from_secs(1);
const NODES: [&str; 3] = ["a", "b", "c"];

fn logins() -> SeriesSpec {
    series("logins", Kind::GaugeTable, 600, 3).persistent()
}

/// Three nodes with a cache, a series that persists and one that does not, that save every second.
fn builder(seed: u64) -> Builder {
    Builder::new(seed)
        .nodes(NODES)
        .structures([spec("outbound_domains", Class::OutboundDomains)])
        .series([logins(), series("visits", Kind::GaugeTable, 600, 3)])
        .caches([spec("sessions", Class::Cache)])
        .config(Config { delta_bytes: 200, ..quick_config() })
        .saves(SECOND)
}

fn play<R>(result: Result<R, Failure>) -> R {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn set(cluster: &mut Cluster, label: &str, key: &str, value: &str) {
    let set = cluster.with(label, |node| node.set("sessions", key.as_bytes(), value.as_bytes(), Duration::ZERO));
    set.unwrap().unwrap();
}

fn count(cluster: &mut Cluster, label: &str, key: &str, n: i64) {
    cluster.with(label, |node| {
        for series in ["logins", "visits"] {
            node.count_events(series, key.as_bytes(), n);
        }
        node.add("outbound_domains", b"example.com", n);
    });
}

fn get(cluster: &Cluster, label: &str, key: &str) -> Option<String> {
    cluster.cached(label, "sessions", key.as_bytes()).map(|value| String::from_utf8(value).unwrap())
}

fn events(cluster: &Cluster, label: &str, series: &str, key: &str) -> i64 {
    cluster.events(label, series, key.as_bytes()).values().sum()
}

/// What soft throttles have admitted they do not admit once more when nodes begin again, one or all at once.
#[test]
fn soft_throttles_are_as_full_as_they_were() {
    let all = play(levels::admitted_over_restarts());
    assert!((20..24).contains(&all[0]), "{all:?}");
    assert_eq!(all, [all[0]; 3]);
}

fn all() -> Vec<String> {
    NODES.map(str::to_owned).to_vec()
}

fn filled(seed: u64) -> Cluster {
    let mut cluster = builder(seed).start();
    play(cluster.run_for(SECOND * 2));
    for (at, label) in NODES.iter().enumerate() {
        for key in 0..40 {
            set(&mut cluster, label, &format!("{label}{key}"), &format!("{label} wrote {key}"));
            count(&mut cluster, label, &format!("user{key}"), 1 + at as i64);
        }
        set(&mut cluster, label, "shared", label);
        play(cluster.run_for(SECOND));
    }
    assert!(cluster.with("b", |node| node.remove("sessions", b"a7")).unwrap().unwrap());
    play(cluster.run_for(SECOND * 3));
    cluster
}

fn are_written(cluster: &Cluster, labels: &[&str]) {
    for label in labels {
        for of in NODES {
            for key in (0..40).filter(|key| (of, *key) != ("a", 7)) {
                let value = get(cluster, label, &format!("{of}{key}"));
                assert_eq!(value, Some(format!("{of} wrote {key}")), "{of}{key} on {label}");
            }
        }
        assert_eq!((get(cluster, label, "a7"), get(cluster, label, "shared").as_deref()), (None, Some("c")), "{label}");
    }
}

fn is_all_there(cluster: &Cluster, labels: &[&str]) {
    are_written(cluster, labels);
    is_counted(cluster, labels);
}

fn is_counted(cluster: &Cluster, labels: &[&str]) {
    for label in labels {
        for key in 0..40 {
            assert_eq!(events(cluster, label, "logins", &format!("user{key}")), 6, "user{key} on {label}");
        }
    }
}

/// All nodes end at once, and what outlives a run is there again, at once and without any talk. What does not is gone: a
/// series that does not persist, and what was open.
#[test]
fn a_whole_cluster_restarts() {
    let mut cluster = filled(1);
    cluster.fault(&Fault::Reboot(all()));
    is_all_there(&cluster, &NODES);
    for label in NODES {
        assert_eq!(events(&cluster, label, "visits", "user3"), 0, "it does not persist");
        assert_eq!(cluster.count(label, "outbound_domains", b"example.com"), 0, "nothing is open");
    }
    // All go on writing; nobody writes what an earlier run wrote.
    for label in NODES {
        set(&mut cluster, label, &format!("new{label}"), label);
        count(&mut cluster, label, "user0", 10);
        play(cluster.run_for(SECOND * 2));
    }
    play(cluster.settle());
    for label in NODES {
        assert_eq!(events(&cluster, label, "logins", "user0"), 36);
        assert_eq!(get(&cluster, label, "newa").as_deref(), Some("a"));
    }
    assert_eq!(cluster.trace().marked("told: conflict"), 0);
    assert_eq!(cluster.trace().marked("reboot"), 3, "the fault bit");
    // And once more, with what the run before took back.
    play(cluster.run_for(SECOND * 2));
    cluster.fault(&Fault::Reboot(all()));
    assert_eq!(events(&cluster, "b", "logins", "user0"), 36);
    assert_eq!(get(&cluster, "c", "b5").as_deref(), Some("b wrote 5"));
    play(cluster.settle());
}

/// A node is lost for ever. Its writes stay when the other nodes restart.
#[test]
fn the_other_nodes_save_the_writes_of_a_lost_node() {
    let mut cluster = filled(2);
    cluster.fault(&Fault::Crash(vec!["c".to_owned()]));
    play(cluster.run_for(SECOND * 8));
    cluster.fault(&Fault::Reboot(vec!["a".to_owned(), "b".to_owned()]));
    is_all_there(&cluster, &["a", "b"]);
    // It is still known, so that what is retired waits for it, and it can be forgotten.
    let known = cluster.node("a").process().unwrap().replica().nodes().find(|(name, ..)| name.as_str() == "c");
    assert_eq!(known.map(|(_, _, life)| life), Some(Life::Dead));
    play(cluster.run_for(SECOND * 2));
    cluster.fault(&Fault::Forget("c".to_owned(), "a".to_owned()));
    play(cluster.settle());
    assert_eq!(get(&cluster, "b", "c5").as_deref(), Some("c wrote 5"), "others have taken it over");
    // That it is forgotten outlives the run as well.
    play(cluster.run_for(SECOND * 2));
    cluster.fault(&Fault::Reboot(vec!["a".to_owned(), "b".to_owned()]));
    let nodes = cluster.node("b").process().unwrap().replica().nodes();
    assert!(nodes.into_iter().all(|(name, ..)| name.as_str() != "c"), "c is forgotten");
    assert_eq!(get(&cluster, "b", "c5").as_deref(), Some("c wrote 5"));
    play(cluster.settle());
}

/// Wall clocks that are set back while the cluster is down: each run is later than the one before all the same.
#[test]
fn clocks_that_are_set_back() {
    let mut cluster = filled(3);
    let was: Vec<_> = NODES.map(|label| cluster.node(label).process().unwrap().replica().actor().clone()).into();
    for (label, by) in NODES.into_iter().zip([-40_000, -3, -25_000]) {
        cluster.fault(&Fault::Set(label.to_owned(), by));
    }
    cluster.fault(&Fault::Reboot(all()));
    for (label, was) in NODES.into_iter().zip(&was) {
        let now = cluster.node(label).process().unwrap().replica().actor();
        assert!(now > was && now.node == was.node, "{now} comes after {was}");
    }
    are_written(&cluster, &NODES);
    // A write comes behind what was taken back, whatever the clock says.
    for label in ["b", "a", "c"] {
        set(&mut cluster, label, "shared", &format!("{label} again"));
        play(cluster.run_for(SECOND * 3));
        for other in NODES {
            assert_eq!(get(&cluster, other, "shared"), Some(format!("{label} again")), "on {other}");
        }
    }
    // The window that was the current one is still to come for some; then what was counted in it is there.
    play(cluster.run_for(SECOND * 50));
    is_counted(&cluster, &NODES);
    play(cluster.settle());
    assert_eq!(cluster.trace().marked("told: conflict"), 0);
}

/// A clock that is minutes behind when its node starts: events that were counted later than that wait until the clock is right,
/// and are not lost meanwhile. The node reads what it has saved of a cache, and writes nothing that would come before it.
#[test]
fn what_lies_in_the_future_is_not_lost() {
    let mut cluster = filled(4);
    cluster.fault(&Fault::Cut(vec!["a".to_owned()], Vec::new()));
    cluster.fault(&Fault::Set("a".to_owned(), -600_000));
    cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
    for _ in 0..2 {
        are_written(&cluster, &["a"]);
        assert_eq!(events(&cluster, "a", "logins", "user3"), 0, "its window has not come");
        let refused = cluster.with("a", |node| node.set("sessions", b"b5", b"of the past", Duration::ZERO)).unwrap();
        assert!(matches!(refused, Err(CacheError::Clock { .. })), "{refused:?}");
        play(cluster.run_for(SECOND * 5));
        cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
    }
    cluster.fault(&Fault::Set("a".to_owned(), 600_000));
    play(cluster.run_for(SECOND * 3));
    is_all_there(&cluster, &["a"]);
    set(&mut cluster, "a", "written", "after that");
    cluster.fault(&Fault::Heal);
    play(cluster.settle());
    is_all_there(&cluster, &NODES);
    assert_eq!(get(&cluster, "c", "written").as_deref(), Some("after that"));
}

/// A node starts with a backup. After the backup was made, this node and other nodes wrote more. The later rows win.
#[test]
fn later_rows_win_over_a_restored_backup() {
    for seed in 0..6 {
        let mut cluster = builder(seed).start();
        play(cluster.run_for(SECOND * 2));
        for second in 0..12 {
            for label in NODES {
                set(&mut cluster, label, "shared", &format!("{label} {second}"));
                set(&mut cluster, label, label, &second.to_string());
                count(&mut cluster, label, "user", 1);
            }
            if second == 6 {
                assert!(cluster.with("c", |node| node.remove("sessions", b"b")).unwrap().unwrap());
            }
            play(cluster.run_for(SECOND));
        }
        let before = get(&cluster, "b", "shared");
        cluster.fault(&Fault::Rewind("a".to_owned(), SECOND * 6));
        assert!(events(&cluster, "a", "logins", "user") < 36, "seed {seed}: it is a backup");
        play(cluster.settle());
        for label in NODES {
            assert_eq!(events(&cluster, label, "logins", "user"), 36, "seed {seed}, {label}");
            assert_eq!(
                (get(&cluster, label, "shared"), get(&cluster, label, "a").as_deref()),
                (before.clone(), Some("11"))
            );
        }
        // The same backup once more, after the run in between has written as well.
        count(&mut cluster, "a", "user", 4);
        play(cluster.run_for(SECOND * 3));
        cluster.fault(&Fault::Rewind("a".to_owned(), SECOND * 200));
        play(cluster.settle());
        assert!(NODES.iter().all(|label| events(&cluster, label, "logins", "user") == 40), "seed {seed}");
        assert_eq!(cluster.trace().marked("told: conflict"), 0, "seed {seed}");
        assert_eq!(cluster.trace().marked("rewind"), 2, "the fault bit");
    }
}

/// A disk that is full does not stop anything. What was written since is lost with the process, but not where others have it;
/// and when there is room again, all is saved.
#[test]
fn a_full_disk() {
    let mut cluster = filled(5);
    cluster.fault(&Fault::Full(all()));
    set(&mut cluster, "a", "late", "1");
    count(&mut cluster, "b", "user0", 100);
    play(cluster.run_for(SECOND * 4));
    assert!(cluster.trace().marked("not saved") > 3, "the fault bit");
    assert_eq!(get(&cluster, "c", "late").as_deref(), Some("1"), "serving goes on");
    cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
    assert_eq!(get(&cluster, "a", "late"), None);
    is_all_there(&cluster, &["a"]);
    play(cluster.run_for(SECOND * 10));
    assert_eq!(get(&cluster, "a", "late").as_deref(), Some("1"), "the others had it");
    cluster.fault(&Fault::Heal);
    play(cluster.run_for(SECOND * 3));
    cluster.fault(&Fault::Reboot(all()));
    assert_eq!(get(&cluster, "b", "late").as_deref(), Some("1"));
    assert_eq!(events(&cluster, "c", "logins", "user0"), 106);
    play(cluster.settle());
}

/// An entry is removed, and nobody remembers that any more, while a node's disk is full, or while it is away: what it has saved
/// of a node that was forgotten meanwhile does not bring the entry back.
#[test]
fn what_was_removed_does_not_come_back_from_a_disk() {
    for away in [false, true] {
        let mut cluster = builder(6).nodes(["a", "b", "c", "d"]).start();
        play(cluster.run_for(SECOND * 2));
        set(&mut cluster, "d", "k", "v");
        play(cluster.run_for(SECOND * 3));
        cluster.fault(&if away { Fault::Crash(vec!["a".to_owned()]) } else { Fault::Full(vec!["a".to_owned()]) });
        cluster.fault(&Fault::Crash(vec!["d".to_owned()]));
        play(cluster.run_for(SECOND * 8));
        cluster.fault(&Fault::Forget("d".to_owned(), "b".to_owned()));
        if away {
            cluster.fault(&Fault::Forget("a".to_owned(), "b".to_owned()));
        }
        play(cluster.run_for(SECOND * 2));
        assert_eq!(get(&cluster, "c", "k").as_deref(), Some("v"), "it was taken over");
        assert!(cluster.with("c", |node| node.remove("sessions", b"k")).unwrap().unwrap());
        play(cluster.run_for(SECOND * 100));
        let held = |label: &str| cluster.cache(label, "sessions").0.held();
        assert_eq!((held("b"), held("c")), (0, 0), "nobody remembers the removal");
        cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
        assert_eq!(get(&cluster, "a", "k").as_deref(), Some("v"), "it is in what a has saved");
        play(cluster.run_for(SECOND * 10));
        for label in NODES {
            assert_eq!(get(&cluster, label, "k"), None, "{label}, away: {away}");
        }
        play(cluster.settle());
    }
}

/// The clock of a node runs an hour ahead, and what it writes is taken by nobody; it is restarted with the right clock. It writes
/// what it had saved again as of now, as soon as the other clocks confirm its own. What it writes after that wins.
#[test]
fn what_a_wrong_clock_has_written_does_not_win_after_a_restart() {
    let mut cluster = filled(7);
    cluster.fault(&Fault::Set("a".to_owned(), 3_600_000));
    set(&mut cluster, "a", "shared", "from the future");
    play(cluster.run_for(SECOND * 3));
    cluster.fault(&Fault::Set("a".to_owned(), -3_600_000));
    cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
    let refused = cluster.with("a", |node| node.set("sessions", b"shared", b"too early", Duration::ZERO)).unwrap();
    assert!(matches!(refused, Err(CacheError::Clock { .. })), "{refused:?}");
    for label in ["b", "c"] {
        assert_eq!(get(&cluster, label, "shared").as_deref(), Some("c"), "{label}");
    }
    play(cluster.run_for(SECOND * 5));
    for label in NODES {
        assert_eq!(get(&cluster, label, "shared").as_deref(), Some("from the future"), "{label}");
    }
    for (label, value) in [("b", "of b, then"), ("a", "of a, then")] {
        set(&mut cluster, label, "shared", value);
        play(cluster.run_for(SECOND));
        assert_eq!(NODES.map(|other| get(&cluster, other, "shared").unwrap_or_default()), [value; 3]);
    }
    play(cluster.settle());
}

/// Processes end at any moment, on bad links, with writes all the time; every second one of them begins with what was saved.
#[test]
fn storms_of_restarts() {
    for seed in 20..32 {
        let conditions = Conditions { lose: 500, double: 300, reorder: 300, ..Conditions::default() };
        let mut cluster = builder(seed).conditions(conditions).saves(Duration::from_millis(150)).start();
        let result = (|| {
            cluster.run_for(SECOND)?;
            cluster.script(
                "at 1s reboot a; at 2s reboot b,c; at 3s cut a from rest; at 3500ms reboot a; at 5s heal; at 5500ms reboot a,b,c; \
                 at 7s rewind b 2s; at 8s full c; at 9s reboot c; at 9100ms reboot c; at 10s heal; at 10500ms reboot a,b,c; at 11s restart b",
            )?;
            for tenth in 0..120 {
                for label in NODES {
                    cluster.with(label, |node| {
                        let key = format!("k{}", node.random().below(9)).into_bytes();
                        if node.random().chance(2500) {
                            node.remove("sessions", &key).ok();
                        } else {
                            let salt = node.random().below(1 << 30);
                            let value = format!("{}-{tenth}-{salt}", node.name());
                            node.set("sessions", &key, value.as_bytes(), Duration::ZERO).ok();
                        }
                        node.count_events("logins", &key, 1);
                    });
                }
                cluster.run_for(SECOND / 10)?;
            }
            cluster.fault(&Fault::Heal);
            cluster.settle()
        })();
        play(result.map_err(|failure| Failure { what: format!("seed {seed}: {}", failure.what), ..failure }));
        assert!(cluster.trace().marked("reboot") >= 12 && cluster.trace().marked("not saved") > 0, "the faults bit");
    }
}

/// A node restarts while its clock is an hour behind, and no other node is there. It reads what it has saved. It refuses to write
/// a key, because a write of the past would be lost as soon as the clock is right. Then it writes it.
#[test]
fn nothing_is_written_before_what_was_saved() {
    let mut cluster = builder(31).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "a", "k", "of a");
    play(cluster.run_for(SECOND * 3));
    play(cluster.script("at 0s cut a from rest; at 1s set a -3600s; at 2s reboot a; at 12s set a 3600s; at 20s heal"));
    play(cluster.run_for(SECOND * 3));
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("of a"));
    for key in ["k", "new"] {
        let refused = cluster.with("a", |node| node.set("sessions", key.as_bytes(), b"of the past", Duration::ZERO));
        assert!(matches!(refused, Some(Err(CacheError::Clock { .. }))), "{key}: {refused:?}");
    }
    play(cluster.run_for(SECOND * 8));
    assert_eq!((get(&cluster, "a", "k").as_deref(), get(&cluster, "a", "new")), (Some("of a"), None));
    play(cluster.run_for(SECOND));
    tallymesh_harness::check::always(&cluster).unwrap();
    play(cluster.run_for(SECOND * 2));
    set(&mut cluster, "a", "k", "of a, later");
    play(cluster.run_for(SECOND * 10));
    play(cluster.settle());
    for label in NODES {
        assert_eq!(get(&cluster, label, "k").as_deref(), Some("of a, later"), "{label}");
    }
}
