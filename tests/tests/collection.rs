//! What caches drop, and what they keep: removals, the entries of ended runs, and what an older disk holds.

mod sessions;

use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_harness::{Cluster, Fault, quick_config};
use tallymesh_schemas::Actor;

use crate::sessions::{SECOND, cluster, get, held, play, remove, set};

const NODES: [&str; 3] = ["a", "b", "c"];

fn keeps_away_nodes(retention: Duration) -> Config {
    Config { delta_bytes: 200, retention, ..quick_config() }
}

/// Whether a node has taken in a write.
fn has_taken_in(cluster: &Cluster, label: &str, (run, number): (&Actor, u64)) -> bool {
    let (cache, _) = cluster.cache(label, "sessions");
    cache.seen().iter().any(|(other, reached)| other == run && *reached >= number)
}

/// The removal of a key, as a node holds it.
fn removal(cluster: &Cluster, label: &str, key: &str) -> (Actor, u64) {
    let (cache, _) = cluster.cache(label, "sessions");
    let found = cache.held_entries(None, usize::MAX).into_iter().find(|entry| entry.key == key.as_bytes()).unwrap();
    assert_eq!(found.value, None, "{key} is removed on {label}");
    (found.actor, found.number)
}

/// Lets time pass in steps, until something holds. Returns how long that took.
fn time_until(cluster: &mut Cluster, within: Duration, holds: impl Fn(&Cluster) -> bool) -> Duration {
    let step = SECOND / 20;
    let mut passed = Duration::ZERO;
    while !holds(cluster) {
        assert!(passed < within, "not within {within:?}");
        play(cluster.run_for(step));
        passed += step;
    }
    passed
}

/// I13. The nodes collect a removal two rounds after the last one has taken it in, if it is older than a minute. A round is a
/// second. Until then they keep it.
#[test]
fn a_removal_goes_two_rounds_after_all_nodes_have_reported() {
    let mut cluster = cluster(1, &NODES).config(keeps_away_nodes(SECOND * 3600)).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "c", "k", "value");
    play(cluster.run_for(SECOND * 2));
    play(cluster.script("at 0s cut c from rest"));
    play(cluster.run_for(SECOND * 2));
    remove(&mut cluster, "a", "k");
    let removed = removal(&cluster, "a", "k");
    play(cluster.run_for(SECOND * 200));
    assert_eq!(["a", "b"].map(|label| held(&cluster, label, "k")), [1; 2], "a node has not reported it");
    cluster.fault(&Fault::Heal);
    time_until(&mut cluster, SECOND * 10, |cluster| has_taken_in(cluster, "c", (&removed.0, removed.1)));
    assert_eq!(get(&cluster, "c", "k"), None, "what is taken in is done");
    let gone = |cluster: &Cluster| NODES.iter().all(|label| held(cluster, label, "k") == 0);
    let rounds = time_until(&mut cluster, SECOND * 10, gone);
    // The report of the last node takes a part of a digest interval.
    assert!(rounds <= SECOND * 3, "{rounds:?}");
    play(cluster.settle());
}

/// A node that is away may hold a write that a removal supersedes. The other nodes keep the removal until that node has been
/// dead for [`Config::retention`], or until an operator forgets it. The node that returns compares its keys with those of a peer
/// before it takes over what the peer has taken in. So the removed key goes there as well, and what the node wrote meanwhile
/// stays.
#[test]
fn a_removal_waits_for_a_node_that_is_away_until_the_retention_ends() {
    for forget in [false, true] {
        let retention = SECOND * if forget { 3600 } else { 150 };
        let mut cluster = cluster(1, &NODES).config(keeps_away_nodes(retention)).start();
        play(cluster.run_for(SECOND * 3));
        for key in ["gone", "written again", "stays"] {
            set(&mut cluster, "c", key, "of c");
        }
        play(cluster.run_for(SECOND * 2));
        play(cluster.script("at 0s cut c from rest"));
        play(cluster.run_for(SECOND * 2));
        remove(&mut cluster, "a", "gone");
        remove(&mut cluster, "b", "written again");
        play(cluster.run_for(SECOND));
        let removed = removal(&cluster, "b", "gone");
        play(cluster.run_for(SECOND * 119));
        assert_eq!(["a", "b"].map(|label| held(&cluster, label, "gone")), [1; 2], "the node may come back: {forget}");
        if forget {
            cluster.fault(&Fault::Forget("c".to_owned(), "a".to_owned()));
        }
        play(cluster.run_for(SECOND * if forget { 5 } else { 40 }));
        assert_eq!(["a", "b"].map(|label| held(&cluster, label, "gone")), [0; 2], "nobody is waited for: {forget}");
        assert_eq!(get(&cluster, "c", "gone").as_deref(), Some("of c"));
        set(&mut cluster, "c", "written again", "of c, later");
        set(&mut cluster, "c", "meanwhile", "of c");
        cluster.fault(&Fault::Heal);
        for _ in 0..500 {
            play(cluster.run_for(SECOND / 100));
            let taken_over = has_taken_in(&cluster, "c", (&removed.0, removed.1));
            assert!(!taken_over || get(&cluster, "c", "gone").is_none(), "it is compared first: {forget}");
        }
        play(cluster.settle());
        for label in NODES {
            assert_eq!((get(&cluster, label, "gone"), held(&cluster, label, "gone")), (None, 0), "{label}, {forget}");
            for (key, value) in [("written again", "of c, later"), ("meanwhile", "of c"), ("stays", "of c")] {
                assert_eq!(get(&cluster, label, key).as_deref(), Some(value), "{key} on {label}, {forget}");
            }
        }
    }
}

/// I13. The entries of ended runs stay, and only their own writes name these runs: after 30 restarts of each node, what a node
/// holds and what it has to name is as much as after the first ones.
#[test]
fn the_entries_of_ended_runs_stay_and_cost_no_more() {
    let mut cluster = cluster(1, &NODES).start();
    play(cluster.run_for(SECOND * 3));
    let sizes = |cluster: &Cluster| {
        NODES.map(|label| {
            let (cache, _) = cluster.cache(label, "sessions");
            (cache.held(), cache.context_len(), cache.bytes())
        })
    };
    let value = |key: usize, round: usize| format!("value {:03} of {key:03}", if key < 50 { 0 } else { round });
    let mut first = None;
    for round in 0..30 {
        for (at, label) in NODES.into_iter().enumerate() {
            // The first run alone writes some keys. Each later run writes the other ones again.
            for key in (at..150).step_by(3).filter(|key| *key >= 50 || round == 0) {
                set(&mut cluster, label, &format!("key{key:03}"), &value(key, round));
            }
            play(cluster.run_for(SECOND * 2));
            cluster.fault(&Fault::Restart(vec![label.to_owned()]));
            play(cluster.run_for(SECOND * 4));
        }
        if round == 0 {
            play(cluster.settle());
            first = Some(sizes(&cluster));
        }
    }
    play(cluster.settle());
    assert_eq!(cluster.trace().marked("restart"), 90);
    for label in NODES {
        for key in 0..150 {
            let read = get(&cluster, label, &format!("key{key:03}"));
            assert_eq!(read, Some(value(key, 29)), "key{key:03} on {label}");
        }
    }
    for (was, is) in first.unwrap().into_iter().zip(sizes(&cluster)) {
        assert_eq!((is.0, is.1.max(was.1)), (was.0, was.1), "entries, and runs and nodes that are named");
        assert!(is.2 * 10 <= was.2 * 11, "{} bytes, and {} after the first restarts", is.2, was.2);
    }
}

/// A node that is restored from an older disk does not bring back what was removed since and is collected, whichever node wrote
/// it. What it wrote after the disk was saved comes back from the others.
#[test]
fn an_older_disk_brings_back_nothing_that_was_removed() {
    for seed in 0..4 {
        let mut cluster = cluster(seed, &NODES).saves(SECOND).start();
        play(cluster.run_for(SECOND * 3));
        for (label, key) in [("a", "of a"), ("b", "of b"), ("c", "of c"), ("a", "stays"), ("a", "changes")] {
            set(&mut cluster, label, key, "first");
        }
        play(cluster.run_for(SECOND * 4));
        let saved = cluster.now();
        remove(&mut cluster, "b", "of a");
        remove(&mut cluster, "a", "of b");
        remove(&mut cluster, "c", "of c");
        set(&mut cluster, "a", "changes", "second");
        set(&mut cluster, "a", "new", "second");
        let expires = cluster.with("b", |node| node.set("sessions", b"expires", b"soon", SECOND * 5).map(drop));
        expires.unwrap().unwrap();
        play(cluster.run_for(SECOND * 200));
        let removed = ["of a", "of b", "of c"];
        for key in removed.iter().chain(&["expires"]) {
            assert_eq!(NODES.map(|label| held(&cluster, label, key)), [0; 3], "{key} is collected, seed {seed}");
        }
        let age = Duration::from_micros(cluster.now().0 - saved.0);
        cluster.fault(&Fault::Rewind("a".to_owned(), age));
        for key in removed {
            assert_eq!(get(&cluster, "a", key).as_deref(), Some("first"), "{key} is on the disk, seed {seed}");
        }
        assert_eq!((get(&cluster, "a", "changes").as_deref(), get(&cluster, "a", "new")), (Some("first"), None));
        play(cluster.run_for(SECOND * 10));
        play(cluster.settle());
        for label in NODES {
            for key in removed {
                assert_eq!(
                    (get(&cluster, label, key), held(&cluster, label, key)),
                    (None, 0),
                    "{key}, {label}, {seed}"
                );
            }
            let read = ["stays", "changes", "new"].map(|key| get(&cluster, label, key).unwrap_or_default());
            assert_eq!(read, ["first", "second", "second"], "{label}, seed {seed}");
        }
        assert_eq!(cluster.trace().marked("rewind"), 1);
    }
}
