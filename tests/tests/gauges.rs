//! Gauge caches: what all count adds up, and an entry goes when it is removed, when nobody changes it, or when there are
//! too many. Whatever the engine removes by itself has to be due, and goes into the ground truth.

use std::num::NonZeroU64;
use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Failure, Fault, quick_config};
use tallymesh_schemas::GaugeCacheSpec;

const SECOND: Duration = Duration::from_secs(1);

fn gauge() -> GaugeCacheSpec {
    GaugeCacheSpec::new("attempts").unwrap()
}

fn cluster(seed: u64, names: &[&str], spec: GaugeCacheSpec) -> Cluster {
    let config = tallymesh_engine::Config { delta_bytes: 200, ..quick_config() };
    let builder = Builder::new(seed).nodes(names.iter().copied()).structures([]).gauges([spec]).config(config);
    let mut cluster = builder.start();
    play(cluster.run_for(SECOND * 3));
    cluster
}

fn play<R>(result: Result<R, Failure>) -> R {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn add(cluster: &mut Cluster, label: &str, key: &str, n: i64) {
    cluster.with(label, |node| node.gauge_add("attempts", key.as_bytes(), n)).unwrap();
}

fn remove(cluster: &mut Cluster, label: &str, key: &str) {
    assert!(cluster.with(label, |node| node.gauge_remove("attempts", key.as_bytes())).unwrap(), "{key} is there");
}

fn all(cluster: &Cluster, key: &str) -> Vec<Option<i64>> {
    let running = cluster.nodes().iter().filter(|node| node.process().is_some());
    running.map(|node| cluster.gauge(node.label(), "attempts", key.as_bytes())).collect()
}

#[test]
fn what_all_count_adds_up_and_outlives_them() {
    let mut cluster = cluster(1, &["a", "b", "c"], gauge());
    add(&mut cluster, "a", "k", 5);
    add(&mut cluster, "b", "k", -7);
    add(&mut cluster, "c", "k", 4);
    play(cluster.run_for(SECOND));
    assert_eq!(all(&cluster, "k"), [Some(2); 3]);
    cluster.fault(&Fault::Restart(vec!["c".to_owned()]));
    play(cluster.run_for(SECOND * 3));
    add(&mut cluster, "c", "k", 1);
    play(cluster.settle());
    assert_eq!(all(&cluster, "k"), [Some(3); 3], "what a run had counted stays");
    cluster.fault(&Fault::Crash(vec!["b".to_owned()]));
    play(cluster.settle());
    assert_eq!(all(&cluster, "k"), [Some(3); 2]);
}

/// On both sides of a partition one entry is counted and removed: what was not known where it was removed stays.
#[test]
fn what_is_counted_beside_a_removal_stays() {
    let mut cluster = cluster(1, &["a", "b", "c"], gauge());
    add(&mut cluster, "a", "k", 5);
    play(cluster.run_for(SECOND));
    play(cluster.script("at 0s cut a from rest"));
    play(cluster.run_for(SECOND));
    add(&mut cluster, "a", "k", 2);
    remove(&mut cluster, "b", "k");
    remove(&mut cluster, "a", "k");
    add(&mut cluster, "a", "k", 30);
    play(cluster.run_for(SECOND * 2));
    assert_eq!(all(&cluster, "k"), [Some(30), None, None], "the fault bit");
    cluster.fault(&Fault::Heal);
    play(cluster.settle());
    assert_eq!(all(&cluster, "k"), [Some(30); 3], "removed twice is removed once");
}

/// Its time begins with the last change anywhere, by a clock that nobody sets; who was away does not bring it back.
#[test]
fn an_entry_expires_when_no_node_changes_it() {
    let spec = gauge().with_ttl(SECOND * 10);
    let mut cluster = cluster(1, &["a", "b", "c"], spec);
    add(&mut cluster, "a", "k", 5);
    add(&mut cluster, "b", "old", 1);
    play(cluster.run_for(SECOND * 2));
    play(cluster.script("at 0s cut c from rest; at 1s set a 3600s; at 2s set b -3600s"));
    play(cluster.run_for(SECOND * 5));
    add(&mut cluster, "b", "k", 1);
    play(cluster.run_for(SECOND * 6));
    assert_eq!(all(&cluster, "k"), [Some(6), Some(6), None], "c has not received the change");
    assert_eq!(all(&cluster, "old"), [None; 3]);
    play(cluster.run_for(SECOND * 30));
    assert_eq!(all(&cluster, "k"), [None; 3]);
    cluster.fault(&Fault::Heal);
    play(cluster.settle());
    assert_eq!(all(&cluster, "k"), [None; 3]);
    add(&mut cluster, "c", "k", 1);
    play(cluster.run_for(SECOND));
    assert_eq!(all(&cluster, "k"), [Some(1); 3], "it begins again at zero");
}

/// A suspended machine expires all entries when it wakes. Changes that other nodes made meanwhile stay.
#[test]
fn a_clock_that_jumps_expires_only_the_counts_that_its_node_knew() {
    let spec = gauge().with_ttl(SECOND * 10);
    let mut cluster = cluster(1, &["a", "b", "c"], spec);
    add(&mut cluster, "b", "k", 5);
    play(cluster.run_for(SECOND * 2));
    play(cluster.script("at 0s cut a from rest"));
    play(cluster.run_for(SECOND));
    add(&mut cluster, "b", "k", 1);
    cluster.fault(&Fault::Jump("a".to_owned(), SECOND * 40));
    play(cluster.run_for(SECOND * 2));
    assert_eq!(all(&cluster, "k"), [None, Some(6), Some(6)]);
    cluster.fault(&Fault::Heal);
    play(cluster.run_for(SECOND * 2));
    assert_eq!(all(&cluster, "k"), [Some(1); 3]);
    play(cluster.settle());
}

#[test]
fn the_oldest_goes_when_there_are_too_many() {
    let spec = gauge().with_max_elements(NonZeroU64::new(4).unwrap());
    let mut cluster = cluster(1, &["a", "b", "c"], spec);
    for key in 0..12 {
        add(&mut cluster, ["a", "b", "c"][key % 3], &format!("k{key}"), 1);
        // One is changed again and again.
        add(&mut cluster, "a", "k0", 1);
        play(cluster.run_for(SECOND / 2));
    }
    play(cluster.settle());
    let there: Vec<_> = (0..12).filter(|key| all(&cluster, &format!("k{key}")) != [None; 3]).collect();
    assert_eq!(there, [0, 9, 10, 11]);
    assert_eq!(all(&cluster, "k0"), [Some(13); 3]);
}

fn faulty(seed: u64, spec: &GaugeCacheSpec, script: &str, marks: &[&str]) {
    let mut cluster = cluster(seed, &["a", "b", "c", "d"], spec.clone());
    let result = (|| {
        cluster.script(script)?;
        for _ in 0..80 {
            for label in ["a", "b", "c", "d"] {
                cluster.with(label, |node| {
                    let key = format!("k{}", node.random().below(8)).into_bytes();
                    match node.random().below(5) {
                        0 => drop(node.gauge_remove("attempts", &key)),
                        n => node.gauge_add("attempts", &key, n as i64 * 3 - 7),
                    }
                });
            }
            cluster.run_for(SECOND / 10)?;
        }
        cluster.fault(&Fault::Heal);
        cluster.settle()
    })();
    play(result.map_err(|failure| Failure { what: format!("seed {seed}: {}", failure.what), ..failure }));
    for mark in marks {
        assert!(cluster.trace().marked(mark) > 0, "\"{mark}\" did not happen: {:?}", cluster.trace().marks());
    }
}

#[test]
fn whatever_happens_on_the_way() {
    let kinds = [
        gauge(),
        gauge().with_ttl(SECOND),
        gauge().with_ttl(SECOND * 3).with_max_elements(NonZeroU64::new(3).unwrap()),
    ];
    for (seed, spec) in (0..2).flat_map(|seed| kinds.iter().map(move |spec| (seed, spec))) {
        faulty(seed, spec, "at 1s cut a,b from c,d; at 4s heal; at 5s cut a from c", &["cut", "message cut off"]);
        faulty(100 + seed, spec, "at 0s lose 20%; at 0s double 10%; at 0s reorder 30%", &["message lost", "reordered"]);
        faulty(200 + seed, spec, "at 2s restart b; at 4s restart b,c; at 6s renew d", &["restart", "renew"]);
        faulty(300 + seed, spec, "at 1s set a 20s; at 3s set a -20s; at 4s jump b 15s; at 5s stop c", &["set", "jump"]);
    }
}

/// Every node restarts in turn, again and again, and nobody remembers: an entry goes when its time is over all the same.
#[test]
fn rolling_restarts_keep_no_entry() {
    for seed in 0..3 {
        let mut cluster = cluster(900 + seed, &["a", "b", "c"], gauge().with_ttl(SECOND * 30));
        add(&mut cluster, "a", "k", 5);
        play(cluster.run_for(SECOND * 5));
        for round in 0..12 {
            let label = ["a", "b", "c"][round % 3];
            cluster.fault(&Fault::Restart(vec![label.to_owned()]));
            play(cluster.run_for(SECOND * 5));
            if round < 3 {
                assert_eq!(all(&cluster, "k"), [Some(5); 3], "seed {seed}, after {} s", 5 * (round + 2));
            }
        }
        // Clocks differ by five seconds at most, and marks are four seconds apart.
        assert_eq!(all(&cluster, "k"), [None; 3], "seed {seed}");
        play(cluster.settle());
    }
}
