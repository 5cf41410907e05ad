//! Nodes that restart: with their saved state, with an older one, and without.

use std::sync::Arc;

use tallymesh_engine::{Life, Replica};
use tallymesh_schemas::{Incarnation, bounds};

use crate::disk::Disk;
use crate::late::{KEY, cache, cache_config, cache_spec, cache_wire, get, remove, set};
use crate::wire::Wire;
use crate::{assert_agreed, state};

const PAIRS: [(usize, usize); 3] = [(0, 1), (0, 2), (1, 2)];

/// The process of a node ends, and another one begins with a disk.
pub(crate) fn restart(wire: &mut Wire, at: usize, disk: Option<&Disk>) {
    let (name, run) = (wire.node(at), wire.replicas[at].actor().incarnation.0 + 1);
    for other in (0..wire.replicas.len()).filter(|other| *other != at) {
        wire.down(at, other);
    }
    let mut replica = Replica::new(cache_config(), name, Incarnation(run));
    replica.replicate_cache(cache_spec(), Arc::new(|| ())).unwrap();
    if let Some(disk) = disk {
        disk.restore(&mut replica, wire.now_at(at));
    }
    wire.replicas[at] = replica;
}

fn link_all(wire: &mut Wire) {
    PAIRS.iter().for_each(|(a, b)| wire.up(*a, *b));
}

/// Three linked nodes, of which the first one saves.
fn saving() -> (Wire, Disk) {
    let mut wire = cache_wire(&["a", "b", "c"]);
    wire.replicas[0].keep_state();
    (wire, Disk::default())
}

/// A node that restarts without state gets everything from the others, its own earlier writes as well.
#[test]
fn a_node_that_lost_its_state_gets_its_own_writes_back() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"of a");
    set(&mut wire, 1, b"of b", b"v");
    wire.run(3);
    restart(&mut wire, 0, None);
    assert_eq!(get(&wire, 0, KEY), None);
    link_all(&mut wire);
    wire.run(2);
    assert_eq!(get(&wire, 0, KEY).as_deref(), Some(&b"of a"[..]));
    set(&mut wire, 0, KEY, b"of a, again");
    wire.run(10);
    assert_eq!(get(&wire, 2, KEY).as_deref(), Some(&b"of a, again"[..]));
    assert_agreed(&wire, 0..3);
}

/// A node that restarts with its state reads it at once, and gets only what it lacks. Its earlier run's writes that nobody has
/// heard of reach the others.
#[test]
fn a_node_that_restarts_with_its_state_continues() {
    let (mut wire, mut disk) = saving();
    (0..100_u8).for_each(|n| set(&mut wire, 1, &[n], b"value"));
    wire.run(3);
    PAIRS.iter().for_each(|(a, b)| wire.down(*a, *b));
    set(&mut wire, 0, KEY, b"nobody heard of it");
    disk.save(&mut wire.replicas[0]);
    restart(&mut wire, 0, Some(&disk));
    assert_eq!(get(&wire, 0, KEY).as_deref(), Some(&b"nobody heard of it"[..]));
    assert_eq!(state(&wire, 0).0.len(), 101);
    set(&mut wire, 1, b"meanwhile", b"v");
    link_all(&mut wire);
    let before: u64 = wire.replicas.iter().map(|replica| replica.counters().row_bytes_out).sum();
    wire.run(10);
    let sent = wire.replicas.iter().map(|replica| replica.counters().row_bytes_out).sum::<u64>();
    assert_eq!(get(&wire, 2, KEY).as_deref(), Some(&b"nobody heard of it"[..]));
    assert_agreed(&wire, 0..3);
    let since = sent.saturating_sub(before);
    assert!(since < 600, "{since} bytes for two entries");
}

/// A node restarts from an older disk. What was removed and collected since does not come back, and what it wrote after the disk
/// was saved comes from the others.
#[test]
fn an_older_disk_brings_nothing_back() {
    let (mut wire, mut disk) = saving();
    for key in [KEY, b"stays", b"later"] {
        set(&mut wire, 0, key, b"value");
    }
    wire.run(3);
    disk.save(&mut wire.replicas[0]);
    remove(&mut wire, 1, KEY);
    set(&mut wire, 0, b"later", b"later");
    set(&mut wire, 0, b"new", b"value");
    wire.run(90);
    assert_eq!(cache(&wire, 1).held(), 3, "the removal was collected");
    restart(&mut wire, 0, Some(&disk));
    assert!(get(&wire, 0, KEY).is_some(), "as it was saved");
    link_all(&mut wire);
    wire.run(20);
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY)), [None, None, None]);
    assert_eq!(get(&wire, 0, b"later").as_deref(), Some(&b"later"[..]));
    assert_eq!(state(&wire, 0).0.len(), 3);
    assert_agreed(&wire, 0..3);
}

/// Two processes run under one name and one run, because a disk was copied. They write different keys under the same numbers.
/// The node that learns of it continues as another run, and nothing is lost.
#[test]
fn two_processes_with_one_run_lose_nothing() {
    let mut wire = cache_wire(&["a", "b"]);
    let mut twin = Replica::new(cache_config(), wire.node(0), wire.replicas[0].actor().incarnation);
    twin.replicate_cache(cache_spec(), Arc::new(|| ())).unwrap();
    wire.replicas.push(twin);
    // Both are called a, so they have a link to b in turn.
    let talk = |wire: &mut Wire, process: usize| {
        wire.up(process, 1);
        for _ in 0..50 {
            wire.wait_a_little();
            for _ in 0..5 {
                for (from, to) in [(process, 1), (1, process)] {
                    wire.take(from, to).iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
                }
            }
        }
        wire.down(process, 1);
    };
    wire.down(0, 1);
    (0..5_u8).for_each(|n| set(&mut wire, 2, &[n], b"of the twin"));
    talk(&mut wire, 2);
    set(&mut wire, 0, b"of the first", b"v");
    for process in [0, 2, 0, 2] {
        talk(&mut wire, process);
    }
    assert_ne!(wire.replicas[0].actor(), wire.replicas[2].actor());
    assert_eq!(state(&wire, 1).0.len(), 6, "{:?}", state(&wire, 1));
    assert_eq!([0, 2].map(|at| state(&wire, at).0.len()), [6; 2]);
}

/// A process saved what it wrote while its clock was an hour ahead. The next one has the right time, and writes that again.
#[test]
fn a_clock_that_was_ahead_before_a_restart_does_not_stop_the_node() {
    let mut ahead = cache_wire(&["a"]);
    ahead.replicas[0].keep_state();
    ahead.clock_off = Some((0, 3_600_000));
    set(&mut ahead, 0, KEY, b"ahead");
    let mut disk = Disk::default();
    disk.save(&mut ahead.replicas[0]);
    let mut wire = cache_wire(&["a", "b", "c"]);
    restart(&mut wire, 0, Some(&disk));
    link_all(&mut wire);
    wire.run(10);
    set(&mut wire, 0, b"now", b"v");
    set(&mut wire, 1, b"of b", b"v");
    wire.run(5);
    assert_eq!(
        [0, 1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()),
        [b"ahead"; 3],
        "it was written again, as of now"
    );
    let entry = cache(&wire, 1).entry(KEY, wire.now.unix_ms).unwrap();
    assert!(entry.stamp.unix_ms() <= wire.now.unix_ms.after(bounds::MAX_DRIFT));
    assert_agreed(&wire, 0..3);
}

/// Two nodes hold a removal that no mark covers, because a message before it was lost. Then its writer is gone for good. A third
/// node, which never had a link to the writer, gets the removal, also while the nodes go on writing.
#[test]
fn what_a_node_has_sent_without_a_mark_reaches_all() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    let writer = wire.add("d", &cache_config(), &cache_spec());
    [1, 2].iter().for_each(|at| wire.up(writer, *at));
    set(&mut wire, 0, KEY, b"of a");
    wire.run(5);
    set(&mut wire, writer, b"lost", b"of d");
    [1, 2].iter().for_each(|at| drop(wire.take(writer, *at)));
    remove(&mut wire, writer, KEY);
    for at in [1, 2] {
        for bytes in wire.take(writer, at) {
            wire.give(writer, at, &bytes).unwrap();
        }
        wire.down(writer, at);
    }
    let (now, gone) = (wire.now, wire.replicas[writer].actor().clone());
    for at in 0..3 {
        wire.replicas[at].handle_member(now, &gone.node, gone.incarnation, Life::Left);
    }
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY).is_some()), [true, false, false]);
    for tenth in 0..120_u8 {
        PAIRS.iter().for_each(|(at, _)| set(&mut wire, *at, &[*at as u8], &[tenth]));
        wire.wait_a_little();
        wire.talk();
    }
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY)), [None, None, None]);
    assert_agreed(&wire, 0..3);
}
