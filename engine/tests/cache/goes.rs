//! What goes when: removals, expired entries, and what ended runs and forgotten nodes leave behind.

use std::time::Duration;

use tallymesh_engine::Life;
use tallymesh_schemas::UnixMs;
use tallymesh_schemas::message::{CacheContext, CacheReport, Message};

use crate::late::{KEY, cache, cache_wire, get, remove, set};
use crate::wire::{Wire, encoded};
use crate::{assert_agreed, state};

/// A node writes a value that expires.
fn set_for(wire: &mut Wire, at: usize, key: &[u8], ttl: Duration) {
    let now = wire.now_at(at);
    cache(wire, at).set(key, b"value", ttl, now.unix_ms).unwrap();
    wire.replicas[at].handle_changes(now);
}

fn held(wire: &Wire, nodes: usize) -> Vec<usize> {
    (0..nodes).map(|at| cache(wire, at).held()).collect()
}

/// I13. All nodes drop a removal about a minute later, and not earlier: a node whose clock is behind may still write the key.
#[test]
fn a_removal_goes_after_a_minute() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"value");
    wire.run(2);
    remove(&mut wire, 1, KEY);
    wire.run(2);
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY)), [None, None, None]);
    wire.run(55);
    assert_eq!(held(&wire, 3), [1; 3]);
    wire.run(10);
    assert_eq!(held(&wire, 3), [0; 3]);
    assert_agreed(&wire, 0..3);
}

/// A value is not read any more from the moment at which it expires, on no node, and it goes about two minutes later.
#[test]
fn an_expired_value_is_not_read_and_goes() {
    let mut wire = cache_wire(&["a", "b"]);
    set_for(&mut wire, 0, KEY, Duration::from_secs(10));
    wire.run(9);
    assert!(get(&wire, 0, KEY).is_some() && get(&wire, 1, KEY).is_some());
    wire.run(1);
    assert_eq!([0, 1].map(|at| (get(&wire, at, KEY), cache(&wire, at).len(wire.now.unix_ms))), [(None, 0), (None, 0)]);
    assert_eq!(held(&wire, 2), [1; 2]);
    wire.run(70);
    assert_eq!(held(&wire, 2), [0; 2]);
}

/// A later write with another expiry, or none, replaces the earlier expiry.
#[test]
fn a_later_write_replaces_the_expiry() {
    let mut wire = cache_wire(&["a", "b"]);
    set_for(&mut wire, 0, KEY, Duration::from_secs(10));
    wire.run(2);
    set_for(&mut wire, 1, KEY, Duration::ZERO);
    wire.run(200);
    assert_eq!([0, 1].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"value"; 2]);
}

/// A node that is away keeps removals from being collected, until it has been dead for the retention. When it returns later
/// than that, it drops what was removed meanwhile, and the others get what it wrote meanwhile.
#[test]
fn a_node_that_was_away_for_long_does_not_bring_back_what_was_removed() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    for key in [KEY, b"stays", b"other"] {
        set(&mut wire, 0, key, b"value");
    }
    wire.run(2);
    let away = wire.replicas[2].actor().clone();
    wire.down(0, 2);
    wire.down(1, 2);
    for at in [0, 1] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &away.node, away.incarnation, Life::Dead);
    }
    remove(&mut wire, 1, KEY);
    wire.run(300);
    assert_eq!(held(&wire, 2), [3; 2], "the node may come back");
    wire.run(400);
    assert_eq!(held(&wire, 2), [2; 2]);
    set(&mut wire, 2, b"of c", b"value");
    set(&mut wire, 2, b"other", b"later");
    wire.up(0, 2);
    wire.run(2);
    wire.up(1, 2);
    wire.run(20);
    assert_eq!([0, 1, 2].map(|at| get(&wire, at, KEY)), [None, None, None]);
    let keys: Vec<_> = state(&wire, 0).0.into_iter().map(|(key, _, _)| key).collect();
    assert_eq!(keys, [b"of c".to_vec(), b"other".to_vec(), b"stays".to_vec()]);
    assert_agreed(&wire, 0..3);
}

/// I13. A node that has left keeps removals from being collected for as long as a dead one: for the retention.
#[test]
fn a_node_that_has_left_is_not_waited_for_without_end() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"value");
    wire.run(2);
    let now = wire.now;
    wire.replicas[2].leave(now);
    wire.run(2);
    wire.down(0, 2);
    wire.down(1, 2);
    remove(&mut wire, 1, KEY);
    wire.run(300);
    assert_eq!((get(&wire, 0, KEY), held(&wire, 2)), (None, vec![1; 2]), "the node may come back");
    wire.run(400);
    assert_eq!(held(&wire, 2), [0; 2]);
}

/// I13. A node reports writes that nobody else will receive, and dies. A round that waits for these writes ends with the node's
/// link.
#[test]
fn a_round_does_not_wait_for_what_has_gone_with_a_node() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, KEY, b"value");
    wire.run(2);
    remove(&mut wire, 0, KEY);
    wire.run(2);
    let (writer, gone) = (wire.replicas[1].actor().clone(), wire.replicas[2].actor().clone());
    let report = CacheReport {
        structure: cache(&wire, 0).id(),
        session: 1_000,
        incarnation: gone.incarnation,
        number: 1_000,
        seen: CacheContext { runs: vec![(writer, 7)], ended: Vec::new() },
        endings: Vec::new(),
        relay: false,
        partial: false,
        fingerprint: 0,
        after_ms: UnixMs::ZERO,
    };
    wire.give(2, 0, &encoded(&Message::CacheReport(report))).unwrap();
    wire.run(5);
    for at in [0, 1] {
        wire.down(at, 2);
        let now = wire.now;
        wire.replicas[at].handle_member(now, &gone.node, gone.incarnation, Life::Dead);
    }
    wire.run(900);
    assert_eq!(held(&wire, 2), [0; 2]);
}

/// Forgetting a node keeps its entries. A new node gets them as well.
#[test]
fn the_entries_of_a_forgotten_node_stay() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 2, KEY, b"of c");
    set(&mut wire, 2, b"removed", b"of c");
    wire.run(3);
    wire.down(0, 2);
    wire.down(1, 2);
    let (gone, now) = (wire.node(2), wire.now);
    wire.replicas[0].forget(now, &gone);
    wire.replicas.truncate(2);
    remove(&mut wire, 0, b"removed");
    wire.run(90);
    assert_eq!(held(&wire, 2), [1; 2], "nobody waits for a forgotten node");
    let late = wire.add("late", &crate::cache_config(), &crate::cache_spec());
    [0, 1].iter().for_each(|at| wire.up(*at, late));
    wire.run(10);
    assert_eq!([0, 1, late].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"of c"; 3]);
    assert_agreed(&wire, 0..3);
}

/// I13. Many runs of a node, one after the other, cost no more than one: they are not named any more, and their entries are
/// there once.
#[test]
fn ended_runs_leave_nothing_behind() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    let write = |wire: &mut Wire| (0..400_u16).for_each(|n| set(wire, 0, &n.to_be_bytes(), b"value"));
    write(&mut wire);
    wire.run(10);
    let sizes = |wire: &Wire| -> Vec<_> {
        (0..3).map(|at| (cache(wire, at).held(), cache(wire, at).context_len(), cache(wire, at).bytes())).collect()
    };
    // From the first listing on, the keys are in order.
    assert_agreed(&wire, 0..3);
    let before = sizes(&wire);
    for run in 0..20 {
        let now = wire.now;
        wire.replicas[0].renew(now, tallymesh_schemas::Incarnation(10_000 + run)).unwrap();
        write(&mut wire);
        wire.run(8);
    }
    wire.run(20);
    assert_agreed(&wire, 0..3);
    for ((held, context, bytes), (held_before, context_before, bytes_before)) in sizes(&wire).into_iter().zip(before) {
        assert_eq!(held, held_before);
        assert!(context <= context_before + 2, "{context} runs and nodes are named, and were {context_before}");
        assert!(bytes * 10 <= bytes_before * 12, "{bytes} bytes, and were {bytes_before}");
    }
}
