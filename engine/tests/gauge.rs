//! Gauge caches on replicas that are joined by wires.

#[allow(dead_code)]
mod wire;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{GaugeCache, Replica};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{GaugeCacheSpec, Incarnation, Version};
use wire::Wire;

const KEY: &[u8] = b"k";

fn gauges(names: &[&str], ttl: u64, max_elements: u64) -> Wire {
    let mut wire = Wire::new(names);
    let mut spec = GaugeCacheSpec::new("g").unwrap().with_ttl(Duration::from_secs(ttl));
    spec.max_elements = NonZeroU64::new(max_elements);
    spec.max_delay = Duration::ZERO;
    for replica in &mut wire.replicas {
        replica.replicate_gauge_cache(spec.clone(), Arc::new(|| ())).unwrap();
    }
    for a in 0..names.len() {
        (a + 1..names.len()).for_each(|b| wire.up(a, b));
    }
    wire.run(3);
    wire
}

fn gauge(wire: &Wire, at: usize) -> Arc<GaugeCache> {
    Arc::clone(&wire.replicas[at].gauge_caches()[0])
}

fn add(wire: &mut Wire, at: usize, key: &[u8], n: i64) {
    gauge(wire, at).add(key, n, wire.now.mono).unwrap();
    let now = wire.now_at(at);
    wire.replicas[at].handle_changes(now);
}

fn get(wire: &Wire, at: usize) -> Option<i64> {
    gauge(wire, at).get(KEY, wire.now.mono)
}

fn all(wire: &Wire) -> Vec<Option<i64>> {
    (0..wire.replicas.len()).map(|at| get(wire, at)).collect()
}

#[test]
fn all_count_and_anybody_removes() {
    let mut wire = gauges(&["a", "b", "c"], 0, 0);
    assert_eq!(all(&wire), [None; 3]);
    add(&mut wire, 0, KEY, 5);
    add(&mut wire, 1, KEY, -2);
    wire.run(2);
    assert_eq!(all(&wire), [Some(3); 3]);
    add(&mut wire, 2, KEY, -3);
    wire.run(2);
    assert_eq!(all(&wire), [Some(0); 3], "an entry that counts zero is one");
    assert!(gauge(&wire, 1).remove(KEY, wire.now.mono).unwrap());
    wire.run(2);
    assert_eq!(all(&wire), [None; 3]);
    add(&mut wire, 0, KEY, 1);
    wire.run(2);
    assert_eq!(all(&wire), [Some(1); 3], "it begins again at zero");
}

/// A node adds to an entry while another node removes it. The added count stays. The counts that the removing node knew go.
#[test]
fn a_count_that_is_added_during_a_removal_stays() {
    let mut wire = gauges(&["a", "b", "c"], 0, 0);
    add(&mut wire, 0, KEY, 5);
    wire.run(2);
    wire.down(0, 1);
    wire.down(1, 2);
    add(&mut wire, 0, KEY, 2);
    assert!(gauge(&wire, 1).remove(KEY, wire.now.mono).unwrap());
    wire.run(1);
    assert_eq!(all(&wire), [Some(7), None, Some(7)]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.run(10);
    assert_eq!(all(&wire), [Some(2); 3]);
}

/// The last change on any node counts. The other nodes do not wait for the node whose turn it is to clear the entry if that node
/// is gone.
#[test]
fn an_entry_expires_when_no_node_changes_it() {
    let mut wire = gauges(&["a", "b", "c"], 10, 0);
    add(&mut wire, 0, KEY, 5);
    wire.run(7);
    add(&mut wire, 1, KEY, 1);
    wire.run(7);
    assert_eq!(all(&wire), [Some(6); 3], "it has changed seven seconds ago, on another node");
    wire.run(5);
    assert_eq!(all(&wire), [None; 3]);
    wire.run(20);
    for at in 0..3 {
        assert!(gauge(&wire, at).is_empty(wire.now.mono), "it is cleared");
    }
    for at in 0..3 {
        let others: Vec<_> = (0..3).filter(|other| *other != at).collect();
        add(&mut wire, others[0], KEY, 4);
        wire.run(2);
        others.iter().for_each(|other| wire.down(at, *other));
        wire.run(30);
        assert!(gauge(&wire, others[0]).is_empty(wire.now.mono), "without {at}");
        add(&mut wire, others[0], KEY, 1);
        assert_eq!(get(&wire, others[0]), Some(1), "it begins again at zero");
        others.iter().for_each(|other| wire.up(at, *other));
        wire.run(3);
        assert_eq!(all(&wire), [Some(1); 3]);
        assert!(gauge(&wire, at).remove(KEY, wire.now.mono).unwrap());
        wire.run(2);
    }
}

#[test]
fn the_oldest_goes_when_there_are_too_many() {
    let mut wire = gauges(&["a", "b"], 0, 3);
    for n in 0..6_u8 {
        add(&mut wire, usize::from(n % 2), &[b'k', b'0' + n], 1);
        wire.run(1);
    }
    // The third but last is changed, and so the one behind it is the oldest.
    add(&mut wire, 0, b"k3", 1);
    wire.run(1);
    add(&mut wire, 1, b"k9", 1);
    wire.run(1);
    for at in 0..2 {
        let entries = gauge(&wire, at).entries(None, 9, wire.now.mono);
        let entries: Vec<_> = entries.iter().map(|entry| (entry.key.as_slice(), entry.count)).collect();
        assert_eq!(entries, [(&b"k3"[..], 2), (b"k5", 1), (b"k9", 1)]);
    }
}

/// Rows of a run that has ended count on.
/// What is added to stays, also where others have changed in the same moment.
#[test]
fn what_is_added_to_is_not_what_goes() {
    let mut wire = gauges(&["a"], 0, 1);
    for key in [b"b", b"a", b"c"] {
        add(&mut wire, 0, key, 1);
        let entries = gauge(&wire, 0).entries(None, 9, wire.now.mono);
        assert_eq!(entries.iter().map(|entry| entry.key.as_slice()).collect::<Vec<_>>(), [key]);
    }
}

#[test]
fn a_run_that_has_ended_counts_on() {
    let mut wire = gauges(&["a", "b", "c"], 0, 0);
    add(&mut wire, 2, KEY, 4);
    wire.run(2);
    wire.down(0, 2);
    wire.down(1, 2);
    add(&mut wire, 0, KEY, 1);
    wire.run(20);
    assert_eq!((get(&wire, 0), get(&wire, 1)), (Some(5), Some(5)));
    let now = wire.now;
    wire.replicas[0].renew(now, Incarnation(5000)).unwrap();
    wire.run(5);
    assert_eq!((get(&wire, 0), get(&wire, 1)), (Some(5), Some(5)), "and is not counted twice");
}

/// What a forgotten node has counted goes with it, and so do entries that nobody else has counted for.
#[test]
fn entries_of_a_forgotten_node_go() {
    let mut wire = gauges(&["a", "b", "c"], 0, 0);
    add(&mut wire, 2, KEY, 4);
    add(&mut wire, 2, b"shared", 4);
    add(&mut wire, 0, b"shared", 1);
    wire.run(2);
    wire.down(0, 2);
    wire.down(1, 2);
    wire.run(20);
    let (now, node) = (wire.now, wire.node(2));
    assert!(wire.replicas[0].forget(now, &node));
    wire.run(5);
    for at in 0..2 {
        let entries = gauge(&wire, at).entries(None, 9, wire.now.mono);
        let entries: Vec<_> = entries.iter().map(|entry| (entry.key.as_slice(), entry.count)).collect();
        assert_eq!(entries, [(&b"shared"[..], 1)]);
    }
}

/// A node that renews keeps its counts. Where all counts of an entry are zero, no node keeps the entry, and neither does the
/// renewed node.
#[test]
fn a_renewed_run_agrees_with_the_other_nodes() {
    let mut wire = gauges(&["a", "b"], 0, 0);
    add(&mut wire, 0, KEY, 3);
    add(&mut wire, 0, b"kept", 3);
    wire.run(2);
    add(&mut wire, 0, KEY, -3);
    wire.run(2);
    assert_eq!(all(&wire), [Some(0); 2]);
    let now = wire.now;
    wire.replicas[0].renew(now, Incarnation(5000)).unwrap();
    wire.run(5);
    let entries = |at: usize| gauge(&wire, at).entries(None, 9, wire.now.mono);
    assert_eq!(entries(0), entries(1));
    assert_eq!(entries(0).iter().find(|entry| entry.key == b"kept").map(|entry| entry.count), Some(3));
}

/// An owner states a fingerprint that differs from this replica's copy, so the replica fetches all rows again. An entry that
/// arrives unchanged keeps its age.
#[test]
fn an_entry_that_arrives_again_unchanged_keeps_its_age() {
    let mut wire = gauges(&["a", "b"], 10, 0);
    add(&mut wire, 0, KEY, 3);
    add(&mut wire, 0, b"other", 1);
    wire.run(4);
    let (owner, held) = (wire.replicas[0].actor().clone(), gauge(&wire, 0).structure().held());
    let head = held.iter().find(|held| held.actor == owner).unwrap().applied;
    let bytes = wire.told_by(0, gauge(&wire, 0).structure().id(), (head.0, head.0), Some(7), &[]);
    wire.give(0, 1, &bytes).unwrap();
    assert!(wire.replicas[1].counters().divergences > 0, "b takes its rows for others than a has");
    wire.run(4);
    assert!(wire.replicas[1].counters().replaced > 0, "all have come anew");
    assert_eq!(all(&wire), [Some(3); 2]);
    wire.run(4);
    assert_eq!(all(&wire), [None; 2]);
}

/// Two have written under one name, one key in different places, and both are gone. Those who have heard the one and those who
/// have heard the other agree in the end.
#[test]
fn two_histories_of_a_run_that_has_ended_become_one() {
    let history = |wire: &Wire, rows: [(u32, u64, Option<&'static [u8]>); 4]| {
        let mut writer = RowWriter::new(Version(0));
        for (slot, version, key) in rows {
            let state = key.map_or(RowState::Vacant, |key| RowState::Live { key: Some(key), added: 1, removed: 0 });
            writer.push(WireRow { slot, version: Version(version), state });
        }
        wire.told_by(2, gauge(wire, 2).structure().id(), (0, 4), None, &writer.finish())
    };
    let mut wire = gauges(&["a", "b", "o"], 0, 0);
    wire.down(0, 1);
    let one = history(&wire, [(1, 1, Some(b"l")), (0, 2, Some(KEY)), (2, 3, Some(b"m")), (4, 4, Some(b"n"))]);
    let other = history(&wire, [(0, 1, Some(b"l")), (1, 2, Some(KEY)), (2, 3, None), (5, 4, Some(b"o"))]);
    wire.give(2, 0, &one).unwrap();
    wire.give(2, 1, &other).unwrap();
    wire.down(0, 2);
    wire.down(1, 2);
    let rows = |wire: &Wire, at: usize| gauge(wire, at).structure().rows_of(wire.replicas[2].actor());
    assert_eq!((rows(&wire, 0).len(), rows(&wire, 1).len()), (4, 3));
    wire.up(0, 1);
    wire.run(30);
    let sorted = |mut rows: Vec<_>| {
        rows.sort();
        rows
    };
    let rows = [0, 1].map(|at| rows(&wire, at).into_iter().map(|(key, row)| (key, row.version.0)).collect::<Vec<_>>());
    let [a, b] = rows.map(sorted);
    assert_eq!(a, b);
    assert_eq!(a, [(KEY.to_vec(), 2), (b"l".to_vec(), 1), (b"m".to_vec(), 3), (b"o".to_vec(), 4)]);
}

/// A node restarts without its memory, and has links to all others again.
fn restart(wire: &mut Wire, at: usize) {
    let others: Vec<_> = (0..wire.replicas.len()).filter(|other| *other != at).collect();
    others.iter().for_each(|other| wire.down(at, *other));
    let (spec, was) = (gauge(wire, at).spec().clone(), wire.replicas[at].actor().clone());
    let mut replica = Replica::new(wire::config(), was.node, Incarnation(was.incarnation.0 + 100));
    replica.replicate_gauge_cache(spec, Arc::new(|| ())).unwrap();
    wire.replicas[at] = replica;
    others.iter().for_each(|other| wire.up(at, *other));
}

/// An entry is as old as it is on all nodes, whichever of them have restarted since: it goes when its time is over.
#[test]
fn rolling_restarts_keep_no_entry() {
    let mut wire = gauges(&["a", "b", "c"], 40, 0);
    add(&mut wire, 0, KEY, 5);
    wire.run(1);
    for second in 1..70 {
        if second % 6 == 0 {
            restart(&mut wire, second / 6 % 3);
        }
        wire.run(1);
        let all = all(&wire);
        if second < 38 && second % 6 > 2 {
            assert_eq!(all, [Some(5); 3], "after {second} s");
        }
        if second > 40 + 5 + 2 {
            assert_eq!(all, [None; 3], "after {second} s");
        }
    }
    add(&mut wire, 1, KEY, 1);
    wire.run(2);
    assert_eq!(all(&wire), [Some(1); 3], "it begins again at zero");
}

/// The node that counted ends before it has stated the age of its rows. The node that received the rows states it.
#[test]
fn the_age_of_rows_outlives_their_owner() {
    let mut wire = gauges(&["a", "b", "c"], 40, 0);
    add(&mut wire, 2, KEY, 5);
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    wire.run(25);
    restart(&mut wire, 0);
    wire.down(0, 2);
    wire.run(5);
    assert_eq!((get(&wire, 0), get(&wire, 1)), (Some(5), Some(5)));
    restart(&mut wire, 1);
    wire.down(1, 2);
    wire.run(5);
    assert_eq!((get(&wire, 0), get(&wire, 1)), (Some(5), Some(5)));
    wire.run(25);
    assert_eq!((get(&wire, 0), get(&wire, 1)), (None, None));
}

/// The clock of a node that hears no other node is an hour behind for some seconds. The node does not state that its rows are
/// so old: the next node would take its entry for expired, and clear it for all.
#[test]
fn a_clock_that_is_behind_for_a_moment_makes_no_entry_old() {
    let mut wire = gauges(&["a", "b"], 100, 0);
    wire.down(0, 1);
    wire.run(90);
    wire.clock_off = Some((0, -3_600_000));
    wire.run(2);
    add(&mut wire, 0, KEY, 5);
    wire.run(5);
    wire.clock_off = None;
    restart(&mut wire, 1);
    wire.run(20);
    assert_eq!(all(&wire), [Some(5); 2]);
}

/// What changes goes on living, also on a node that has just come.
#[test]
fn what_changes_on_stays() {
    let mut wire = gauges(&["a", "b", "c"], 10, 0);
    for second in 0..40 {
        if second % 7 == 0 {
            restart(&mut wire, second / 7 % 3);
        }
        add(&mut wire, second % 2, KEY, 1);
        wire.run(1);
        assert!(get(&wire, second % 2).is_some(), "after {second} s");
    }
    wire.run(4);
    assert!(all(&wire).iter().all(|count| count.is_some() && *count == get(&wire, 0)));
    // Idle nodes write nothing.
    wire.run(30);
    assert_eq!(all(&wire), [None; 3]);
    let sent = |wire: &Wire| wire.replicas.iter().map(|replica| replica.counters().deltas_out).sum::<u64>();
    let before = sent(&wire);
    wire.run(60);
    assert_eq!(sent(&wire), before, "nothing is written while nothing changes");
}
