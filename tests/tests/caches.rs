//! Caches: of the writes of a key the last one wins, everywhere, whatever happens on the way.

mod sessions;

use std::num::NonZeroU64;
use std::time::Duration;

use tallymesh_engine::CacheError;
use tallymesh_harness::{Cluster, Failure, Fault};
use tallymesh_schemas::{Bounds, bounds};

use crate::sessions::{NEVER, SECOND, cache, cluster, get, held, play, remove, set};

#[test]
fn a_value_is_read_everywhere_and_the_last_one_wins() {
    let mut cluster = cluster(1, &["a", "b", "c"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "a", "k", "first");
    play(cluster.run_for(SECOND));
    assert_eq!(get(&cluster, "c", "k").as_deref(), Some("first"));
    set(&mut cluster, "b", "k", "second");
    play(cluster.settle());
    for label in ["a", "b", "c"] {
        assert_eq!(get(&cluster, label, "k").as_deref(), Some("second"));
        assert_eq!(held(&cluster, label, "k"), 1, "there is one entry for a key, on {label}");
    }
    remove(&mut cluster, "c", "k");
    play(cluster.settle());
    for label in ["a", "b", "c"] {
        assert_eq!((get(&cluster, label, "k"), held(&cluster, label, "k")), (None, 0), "{label}");
    }
}

/// The clocks of the nodes are seconds apart. A node that has received a write still writes with a later stamp.
#[test]
fn a_write_comes_behind_what_its_writer_had_seen() {
    for seed in 0..10 {
        let mut cluster = cluster(seed, &["a", "b", "c"]).skew(Duration::from_secs(30)).start();
        play(cluster.run_for(SECOND * 3));
        for round in 0..12 {
            let label = ["a", "b", "c"][round % 3];
            set(&mut cluster, label, "k", &round.to_string());
            play(cluster.run_for(SECOND));
            for label in ["a", "b", "c"] {
                assert_eq!(get(&cluster, label, "k"), Some(round.to_string()), "seed {seed}, {label}");
            }
        }
        play(cluster.settle());
    }
}

/// Writes and removals of few keys on all nodes, under faults.
fn traffic(cluster: &mut Cluster, tenths: u32) -> Result<(), Failure> {
    let labels: Vec<_> = cluster.nodes().iter().map(|node| node.label().to_owned()).collect();
    for i in 0..tenths {
        for label in &labels {
            cluster.with(label, |node| {
                let key = format!("k{}", node.random().below(12)).into_bytes();
                let ttl = if node.random().chance(3000) { Duration::from_millis(700) } else { NEVER };
                if node.random().chance(3000) {
                    node.remove("sessions", &key).map(drop).ok();
                } else {
                    let salt = node.random().below(1 << 30);
                    let value = format!("{}-{i}-{salt}", node.name());
                    node.set("sessions", &key, value.as_bytes(), ttl).map(drop).ok();
                }
            });
        }
        cluster.run_for(SECOND / 10)?;
    }
    Ok(())
}

fn faulty(seed: u64, script: &str, marks: &[&str]) {
    let mut cluster = cluster(seed, &["a", "b", "c", "d"]).start();
    let result = (|| {
        cluster.run_for(SECOND)?;
        cluster.script(script)?;
        traffic(&mut cluster, 100)?;
        cluster.fault(&Fault::Heal);
        cluster.settle()
    })();
    play(result.map_err(|failure| Failure { what: format!("seed {seed}: {}", failure.what), ..failure }));
    for mark in marks {
        assert!(cluster.trace().marked(mark) > 0, "\"{mark}\" did not happen: {:?}", cluster.trace().marks());
    }
}

#[test]
fn partitions_and_losses() {
    for seed in 0..6 {
        faulty(seed, "at 1s cut a,b from c,d; at 5s heal; at 6s cut a from c", &["cut", "message cut off"]);
        faulty(100 + seed, "at 0s lose 20%; at 0s double 10%; at 0s reorder 30%", &["message lost", "reordered"]);
    }
}

#[test]
fn nodes_restart_leave_and_renew() {
    for seed in 0..6 {
        faulty(200 + seed, "at 2s restart b; at 4s restart b,c; at 6s crash d; at 7s restart d", &["restart"]);
        faulty(300 + seed, "at 2s renew a; at 3s reuse b; at 5s cut a from b; at 6s renew a,b", &["renew", "reuse"]);
        faulty(400 + seed, "at 2s forget b at a; at 5s cut c from rest; at 6s forget c at a; at 8s heal", &["forget"]);
    }
}

#[test]
fn clocks_that_jump() {
    for seed in 0..6 {
        faulty(500 + seed, "at 2s set a 20s; at 4s set a -20s; at 5s jump b 15s", &["set", "jump"]);
    }
}

/// A clock that is far ahead decides nothing: what it writes is not taken, and told anew when the clock is right again.
#[test]
fn a_clock_far_ahead_does_not_win() {
    let mut cluster = cluster(1, &["a", "b", "c"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "b", "k", "before");
    play(cluster.run_for(SECOND));
    play(cluster.script("at 0s set a 3600s"));
    play(cluster.run_for(SECOND));
    set(&mut cluster, "a", "k", "from the future");
    set(&mut cluster, "a", "other", "first");
    set(&mut cluster, "a", "other", "second");
    play(cluster.run_for(SECOND * 10));
    assert!(cluster.trace().marked("told: ahead") > 0, "{:?}", cluster.trace().marks());
    assert_eq!(get(&cluster, "b", "k").as_deref(), Some("before"));
    assert_eq!(get(&cluster, "c", "other"), None);
    set(&mut cluster, "c", "k", "now");
    play(cluster.run_for(SECOND));
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("from the future"));
    assert_eq!(get(&cluster, "b", "k").as_deref(), Some("now"));
    // Its clock is right again: it writes nothing that would come before what it has written, until it has told it anew.
    cluster.fault(&Fault::Set("a".to_owned(), -3_600_000));
    let refused = cluster.with("a", |node| node.set("sessions", b"k", b"refused", NEVER)).unwrap();
    assert!(matches!(refused, Err(CacheError::Clock { .. })), "{refused:?}");
    play(cluster.run_for(SECOND * 3));
    play(cluster.settle());
    for label in ["a", "b", "c"] {
        assert_eq!(get(&cluster, label, "k").as_deref(), Some("from the future"), "told anew, it came last: {label}");
        assert_eq!(get(&cluster, label, "other").as_deref(), Some("second"), "in the order of its writes: {label}");
    }
    set(&mut cluster, "c", "k", "last");
    play(cluster.settle());
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("last"));
}

/// With `snapshot` a joining node receives everything, whatever its size. Without it the node receives the writes from then
/// on.
#[test]
fn a_joining_node_receives_everything_or_only_later_writes() {
    for snapshot in [true, false] {
        let mut spec = cache();
        spec.snapshot = snapshot;
        let mut cluster = cluster(1, &["a", "b", "c"]).caches([spec]).start();
        play(cluster.run_for(SECOND * 3));
        cluster.fault(&Fault::Crash(vec!["c".to_owned()]));
        let large = "v".repeat(bounds::VALUE_BYTES - 8);
        for key in 0..40 {
            set(&mut cluster, "a", &format!("k{key}"), &format!("{large}{key}"));
        }
        play(cluster.run_for(SECOND * 8));
        cluster.fault(&Fault::Restart(vec!["c".to_owned()]));
        play(cluster.run_for(SECOND * 8));
        set(&mut cluster, "b", "k7", "new");
        set(&mut cluster, "a", "k8", "newer");
        play(cluster.settle());
        assert_eq!(get(&cluster, "c", "k0").is_some(), snapshot);
        assert_eq!(get(&cluster, "c", "k7").as_deref(), Some("new"));
        assert_eq!(get(&cluster, "c", "k8").as_deref(), Some("newer"));
        assert_eq!(get(&cluster, "a", "k0"), Some(format!("{large}0")));
    }
}

/// An entry hides when it expires, and its row goes when that is so by everybody's clock.
#[test]
fn what_expires_is_gone() {
    let mut cluster = cluster(1, &["a", "b", "c"]).start();
    play(cluster.run_for(SECOND * 3));
    let set_for = |cluster: &mut Cluster, label: &str, key: &str, ttl| {
        cluster
            .with(label, |node| node.set("sessions", key.as_bytes(), key.as_bytes(), ttl).map(drop))
            .unwrap()
            .unwrap();
    };
    set(&mut cluster, "b", "short", "older, for ever");
    play(cluster.run_for(SECOND));
    set_for(&mut cluster, "a", "short", SECOND * 20);
    set_for(&mut cluster, "a", "long", SECOND * 400);
    play(cluster.run_for(SECOND * 10));
    assert_eq!(get(&cluster, "c", "short").as_deref(), Some("short"));
    play(cluster.run_for(SECOND * 20));
    for label in ["a", "b", "c"] {
        assert_eq!(get(&cluster, label, "short"), None, "{label}");
        assert_eq!(get(&cluster, label, "long").as_deref(), Some("long"), "{label}");
    }
    assert_eq!(held(&cluster, "b", "short"), 1, "other clocks may be behind");
    play(cluster.run_for(SECOND * 150));
    play(cluster.settle());
    for label in ["a", "b", "c"] {
        assert_eq!((held(&cluster, label, "short"), held(&cluster, label, "long")), (0, 1), "{label}");
    }
}

/// The oldest goes when a cache is full, on whichever node that is, and does not come back.
#[test]
fn the_oldest_goes_when_a_cache_is_full() {
    let elements = Bounds { elements: NonZeroU64::new(10), bytes: None };
    let bytes = Bounds { elements: None, bytes: NonZeroU64::new(100) };
    for bounds in [elements, bytes] {
        let spec = cache().with_bounds(bounds);
        let mut cluster = cluster(1, &["a", "b", "c"]).caches([spec]).start();
        play(cluster.run_for(SECOND * 3));
        for key in 0..30 {
            set(&mut cluster, ["a", "b", "c"][key % 3], &format!("key{key:02}"), "value");
            play(cluster.run_for(SECOND / 2));
        }
        play(cluster.settle());
        for label in ["a", "b", "c"] {
            let (cache, now) = cluster.cache(label, "sessions");
            let keys: Vec<_> = cache.entries(None, 100, now.unix_ms).into_iter().map(|entry| entry.key).collect();
            let last: Vec<_> = (20..30).map(|key| format!("key{key:02}").into_bytes()).collect();
            assert_eq!(keys, last, "{label}");
            let left: usize = (0..20).map(|key| held(&cluster, label, &format!("key{key:02}"))).sum();
            assert_eq!(left, 0, "removals are collected, on {label}");
        }
    }
}

/// What a node has written is not lost with it, and not with its name either.
#[test]
fn what_a_node_has_written_outlives_it() {
    let mut cluster = cluster(1, &["a", "b", "c"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "a", "gone", "removed later");
    set(&mut cluster, "c", "kept", "value");
    play(cluster.run_for(SECOND * 2));
    remove(&mut cluster, "c", "gone");
    play(cluster.run_for(SECOND * 2));
    cluster.fault(&Fault::Crash(vec!["c".to_owned()]));
    play(cluster.run_for(SECOND * 10));
    assert_eq!(get(&cluster, "a", "kept").as_deref(), Some("value"));
    cluster.fault(&Fault::Forget("c".to_owned(), "a".to_owned()));
    play(cluster.settle());
    for label in ["a", "b"] {
        assert_eq!(get(&cluster, label, "kept").as_deref(), Some("value"));
        assert_eq!((get(&cluster, label, "gone"), held(&cluster, label, "gone")), (None, 0));
        assert_eq!(held(&cluster, label, "kept"), 1, "who took it over first, or last, agrees with the others");
    }
}

/// Clocks that are far behind, one at a time: their nodes read what wins, take what the others write, and write behind it.
#[test]
fn clocks_that_are_behind_by_more_than_a_minute() {
    for (seed, by) in [(60, 61), (61, 3600), (62, 60 * 365 * 86_400)] {
        let mut cluster = cluster(seed, &["a", "b", "c"]).start();
        play(cluster.run_for(SECOND * 3));
        cluster.fault(&Fault::Set("b".to_owned(), -1000 * by));
        play(cluster.run_for(SECOND * 3));
        for round in 0..10 {
            set(&mut cluster, "b", "k", &format!("of b, {round}"));
            play(cluster.run_for(SECOND / 2));
            set(&mut cluster, "a", "k", &format!("of a, {round}"));
            play(cluster.run_for(SECOND / 2));
            for label in ["a", "b", "c"] {
                assert_eq!(get(&cluster, label, "k"), Some(format!("of a, {round}")), "{by} s, {label}");
            }
        }
        set(&mut cluster, "b", "k", "of b, the last");
        play(cluster.run_for(SECOND));
        cluster.fault(&Fault::Set("b".to_owned(), 1000 * by));
        play(cluster.run_for(SECOND * 4));
        play(cluster.settle());
        for label in ["a", "b", "c"] {
            assert_eq!(get(&cluster, label, "k").as_deref(), Some("of b, the last"), "{by} s, {label}");
        }
        assert!(cluster.trace().marked("told: clock off") > 0);
    }
}

/// Traffic while clocks are wrong for a moment: ahead by an hour, years ahead, behind by a minute, before 1970.
#[test]
fn clocks_that_are_wrong_for_a_moment() {
    for seed in 0..4 {
        let hour = "at 2s set a 3600s; at 5s set a -3600s";
        let (years, back) = ("at 1s set b 100000000s; at 3s set b -100000000s", "at 2s set c -61s; at 7s set c 61s");
        let epoch = "at 3s set d -900000000s; at 3s set d -900000000s; at 6s set d 900000000s; at 6s set d 900000000s";
        for (at, script) in [hour, years, back, epoch].into_iter().enumerate() {
            faulty(700 + 10 * seed + at as u64, script, &["set", "told: clock stepped"]);
        }
    }
}

/// A clock that goes wrong and stays so: what its node writes waits where it is far ahead, and all else agrees.
#[test]
fn a_clock_that_stays_wrong() {
    for seed in 0..3 {
        faulty(900 + seed, "at 2s set a 3600s", &["set", "told: ahead"]);
        faulty(910 + seed, "at 2s set c -3600s", &["set", "told: clock off"]);
    }
}

/// A clock that is years ahead for some seconds ends no entry that lives, whether most clocks decide or none does.
#[test]
fn a_clock_that_is_years_ahead_for_a_moment_ends_no_entry() {
    for names in [&["a", "b", "c"][..], &["a", "b"]] {
        let mut cluster = cluster(3, names).start();
        play(cluster.run_for(SECOND * 3));
        let written = cluster.with("b", |node| node.set("sessions", b"k", b"of b", SECOND * 3600)).unwrap();
        written.unwrap();
        play(cluster.run_for(SECOND * 3));
        play(cluster.script("at 0s set b 94608000s; at 5s set b -94608000s"));
        play(cluster.run_for(SECOND * 8));
        play(cluster.settle());
        play(cluster.run_for(SECOND * 180));
        for label in names {
            assert_eq!(get(&cluster, label, "k").as_deref(), Some("of b"), "{label} of {names:?}");
        }
        assert!(cluster.trace().marked("set") > 1);
    }
}

/// Of two clocks that differ nobody can tell which is wrong. The node that is behind takes back nothing that it has written, and writes
/// nothing that would come before it.
#[test]
fn a_clock_far_behind_takes_nothing_back_where_two_differ() {
    let mut cluster = cluster(1, &["a", "b"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "a", "k", "of a");
    play(cluster.run_for(SECOND));
    remove(&mut cluster, "a", "k");
    play(cluster.run_for(SECOND));
    set(&mut cluster, "b", "k", "of b");
    play(cluster.run_for(SECOND));
    play(cluster.script("at 0s set b -3600s"));
    play(cluster.run_for(SECOND * 5));
    let refused = cluster.with("b", |node| node.set("sessions", b"k", b"of the past", NEVER)).unwrap();
    assert!(matches!(refused, Err(CacheError::Clock { .. })), "{refused:?}");
    for label in ["a", "b"] {
        assert_eq!(get(&cluster, label, "k").as_deref(), Some("of b"), "{label}");
    }
    play(cluster.script("at 0s set b 3600s"));
    play(cluster.run_for(SECOND));
    set(&mut cluster, "b", "k", "of b, and later");
    play(cluster.settle());
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("of b, and later"));
}

/// A node without peers trusts its own clock after a minute. A write of it that had superseded a removal gets an earlier stamp
/// than the removal then. There is one entry for each key, so the removal is not held any more, and the value stays readable.
#[test]
fn a_write_with_a_new_stamp_below_a_removal_stays_readable() {
    let mut cluster = cluster(2, &["a", "b"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "a", "k", "of a");
    play(cluster.run_for(SECOND));
    remove(&mut cluster, "a", "k");
    play(cluster.run_for(SECOND));
    set(&mut cluster, "b", "k", "of b");
    play(cluster.run_for(SECOND));
    let stamp = |cluster: &Cluster, label: &str| {
        let (cache, _) = cluster.cache(label, "sessions");
        cache.held_entries(None, 1)[0].stamp
    };
    let written = stamp(&cluster, "b");
    play(cluster.script("at 0s cut b from rest; at 30s set b -3600s"));
    for _ in 0..95 {
        play(cluster.run_for(SECOND));
        assert_eq!(get(&cluster, "b", "k").as_deref(), Some("of b"));
    }
    assert!(stamp(&cluster, "b") < written, "it was written again");
    assert_eq!((held(&cluster, "b", "k"), stamp(&cluster, "a")), (1, written));
    tallymesh_harness::check::always(&cluster).unwrap();
    // The other node has it at the first stamp, which wins when the clock is right again.
    play(cluster.script("at 0s set b 3600s; at 1s heal"));
    play(cluster.run_for(SECOND * 2));
    play(cluster.settle());
    for label in ["a", "b"] {
        assert_eq!((get(&cluster, label, "k").as_deref(), stamp(&cluster, label)), (Some("of b"), written), "{label}");
    }
    set(&mut cluster, "b", "k", "the last");
    play(cluster.settle());
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("the last"));
}

/// A node without peers gives its writes earlier stamps when its clock was set back a minute ago. Its next writes have later
/// stamps than these, and reads return them also when the clock is right again.
#[test]
fn what_follows_a_write_that_was_taken_back_is_read() {
    let mut cluster = cluster(3, &["a", "b"]).start();
    play(cluster.run_for(SECOND * 3));
    set(&mut cluster, "b", "k", "of b");
    play(cluster.run_for(SECOND));
    play(cluster.script("at 0s cut a from b; at 1s leave b; at 10s set a -3600s; at 80s set a 3600s; at 80s heal"));
    set(&mut cluster, "a", "k", "of a");
    play(cluster.run_for(SECOND * 75));
    set(&mut cluster, "a", "k", "of a, and later");
    play(cluster.run_for(SECOND * 10));
    play(cluster.settle());
    assert_eq!(get(&cluster, "a", "k").as_deref(), Some("of a, and later"));
}
