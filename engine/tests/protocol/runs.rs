//! Runs of a node: conflicts, and what is said about earlier and later ones.

use std::time::Duration;

use tallymesh_engine::{Event, Life};
use tallymesh_schemas::message::{Digest, Message, Tombstone};
use tallymesh_schemas::{Actor, Class, Incarnation, UnixMs};

use crate::wire::{Wire, config, is_delta, read, spec};

/// A run is void. A replica does not report it to peers that have rows of an earlier run: the void run has no rows, and no
/// peer would drop it again.
#[test]
fn a_void_run_is_named_to_nobody() {
    let mut spec = spec();
    spec.class = Class::GaugeCache;
    let mut wire = Wire::with(&["a", "b", "c"], &config(), &spec);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.talk();
    let (first, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    let void = Incarnation(first.incarnation.0 + 1);
    wire.replicas[1].handle_member(now, &first.node, void, Life::Alive);
    let buried =
        Tombstone { node: first.node.clone(), from: void, incarnation: void, until_ms: UnixMs(now.unix_ms.0 + 60_000) };
    let digest = Message::Digest(Digest {
        incarnation: wire.replicas[2].actor().incarnation,
        clock_ms: now.unix_ms,
        answers: 0,
        complete: false,
        structures: Vec::new(),
        tombstones: vec![buried],
    });
    let mut bytes = Vec::new();
    digest.encode(&mut bytes).unwrap();
    wire.give(2, 1, &bytes).unwrap();
    // The first run has not learned of any of this, and keeps sending.
    wire.run(1);
    let held: Vec<_> = wire.structure(1).held().into_iter().map(|held| held.actor).collect();
    assert!(!held.contains(&Actor::new(first.node, void)), "{held:?}");
}

/// A goodbye ends the run that sends it. If the membership knows a later run, the rows of the later run still count.
#[test]
fn a_goodbye_is_of_the_run_that_says_it() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.talk();
    let (first, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    let later = Incarnation(first.incarnation.0 + 1);
    wire.replicas[1].handle_member(now, &first.node, later, Life::Alive);
    let leaving = wire.now_at(0);
    wire.replicas[0].leave(leaving);
    let messages = wire.take(0, 1);
    assert!(messages.iter().any(|bytes| matches!(read(bytes), Message::Goodbye)));
    for bytes in messages {
        wire.give(0, 1, &bytes).unwrap();
    }
    let nodes: Vec<_> = wire.replicas[1].nodes().map(|(_, run, life)| (run, life)).collect();
    assert_eq!(nodes, [(later, Life::Alive)]);
}

/// I7. A node that takes many incarnations does not remember what was said about the earlier ones.
#[test]
fn what_was_said_about_earlier_runs_is_let_go() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(0, "k", 1);
    wire.add_to(1, "k", 1);
    wire.run(2);
    let before = wire.replicas.iter().map(|r| r.link_entries()).max();
    for _ in 0..10 {
        let (now, next) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].renew(now, next).unwrap();
        wire.run(2);
    }
    wire.assert_same(0, 1);
    assert_eq!(wire.replicas.iter().map(|r| r.link_entries()).max(), before);
}

/// I1. Somebody else was this run before, and peers remember more of it than we have counted.
#[test]
fn a_head_that_we_never_had_is_a_conflict() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    for _ in 0..5 {
        wire.add_to(0, "k", 1);
    }
    wire.talk();
    wire.down(0, 1);
    let was = wire.replicas[0].actor().clone();
    let mut again = tallymesh_engine::Replica::new(config(), was.node.clone(), was.incarnation);
    again.replicate(spec(), std::sync::Arc::new(|| ())).unwrap();
    wire.replicas[0] = again;
    wire.add_to(0, "k", 1);
    wire.up(0, 1);
    wire.run(2);
    assert!(wire.replicas[0].actor().incarnation > was.incarnation);
    let event = std::iter::from_fn(|| wire.replicas[0].poll_event()).find(|e| matches!(e, Event::Conflict { .. }));
    assert!(event.is_some());
    assert_eq!(wire.total(1, "k"), 1, "the run that is gone counts no more");
    wire.assert_same(0, 1);
}

/// I10. A digest shows a node that another process uses its name. Entries about other nodes come before that in the digest.
/// The rows of these nodes count when they arrive, and not only after the next digest.
#[test]
fn rows_of_other_nodes_count_although_their_digest_shows_an_identity_conflict() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.add_to(0, "k", 3);
    wire.add_to(2, "k", 1);
    wire.talk();
    wire.down(1, 2);
    let was = wire.replicas[2].actor().clone();
    let mut again = tallymesh_engine::Replica::new(config(), was.node.clone(), Incarnation(was.incarnation.0 - 500));
    again.replicate(spec(), std::sync::Arc::new(|| ())).unwrap();
    wire.replicas[2] = again;
    wire.up(1, 2);
    for bytes in wire.take(1, 2) {
        wire.give(1, 2, &bytes).unwrap();
    }
    assert!(wire.replicas[2].actor().incarnation > was.incarnation, "it has found that it is not alone");
    for bytes in wire.take(2, 1) {
        wire.give(2, 1, &bytes).unwrap();
    }
    for bytes in wire.take(1, 2).iter().filter(|bytes| is_delta(bytes)) {
        wire.give(1, 2, bytes).unwrap();
    }
    assert_eq!(wire.total(2, "k"), 3);
}

/// A newer run supersedes a run. The peers have no rows of the newer run and know it only from the membership. The superseded
/// run learns of it all the same.
#[test]
fn a_superseded_run_learns_of_the_newer_run_without_rows() {
    let mut wire = Wire::new(&["a", "b"]);
    let (a, now) = (wire.replicas[0].actor().clone(), wire.now);
    wire.replicas[1].handle_member(now, &a.node, tallymesh_schemas::Incarnation(a.incarnation.0 + 5), Life::Alive);
    wire.add_to(0, "k", 3);
    wire.up(0, 1);
    wire.run(2);
    assert!(wire.replicas[0].actor().incarnation.0 > a.incarnation.0 + 5);
    assert_eq!(wire.total(1, "k"), 3);
    wire.assert_same(0, 1);
}

/// I5. The same for a third node. A node was away while another node began a run without rows and ended. It drops the earlier
/// run, as all nodes do.
#[test]
fn a_replica_drops_a_superseded_run_of_a_third_node_whose_newer_run_has_no_rows() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        wire.up(one, other);
    }
    wire.add_to(2, "k", 3);
    wire.talk();
    assert_eq!((wire.total(0, "k"), wire.total(1, "k")), (3, 3));
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        wire.down(one, other);
    }
    // What the membership reports to b while a is away.
    let (c, later, now) = (wire.node(2), Incarnation(wire.replicas[2].actor().incarnation.0 + 1), wire.now);
    for life in [Life::Alive, Life::Dead] {
        wire.replicas[1].handle_member(now, &c, later, life);
    }
    assert_eq!(wire.total(1, "k"), 0, "the gauges of the earlier run are superseded");
    wire.up(0, 1);
    let took = wire.talk();
    assert_eq!(wire.total(0, "k"), 0, "a still counts the earlier run");
    assert!(took < 10, "{took} messages");
    wire.run(5);
    assert_eq!((wire.total(0, "k"), wire.total(1, "k")), (0, 0));
    for at in [0, 1] {
        assert!(wire.structure(at).held().iter().all(|held| held.actor.node != c || held.actor.incarnation == later));
    }
}

/// That one run is alive says nothing about the next run. A replica that knows the next run only by hearsay treats it as dead,
/// because no other node may ever report its death.
#[test]
fn a_run_known_by_hearsay_is_not_alive() {
    let mut drop = spec();
    drop.on_dead = tallymesh_schemas::OnDead::Drop(Duration::from_secs(3));
    let mut wire = Wire::with(&["a", "b", "c"], &config(), &drop);
    let (old, now) = (wire.replicas[0].actor().clone(), wire.now);
    wire.up(0, 1);
    wire.replicas[1].handle_member(now, &old.node, old.incarnation, Life::Alive);
    wire.run(1);
    wire.down(0, 1);
    // It comes back as a later run that only c meets.
    let next = tallymesh_schemas::Incarnation(old.incarnation.0 + 1000);
    wire.replicas[0] = tallymesh_engine::Replica::new(config(), old.node.clone(), next);
    wire.replicas[0].replicate(drop, std::sync::Arc::new(|| ())).unwrap();
    wire.add_to(0, "k", 5);
    wire.up(0, 2);
    wire.talk();
    wire.down(0, 2);
    wire.up(1, 2);
    wire.run(2);
    assert_eq!(wire.total(1, "k"), 5, "it counts for a while");
    let now = wire.now;
    wire.replicas[1].handle_member(now, &old.node, old.incarnation, Life::Dead);
    wire.wait(5);
    assert_eq!(wire.total(1, "k"), 0);
}

/// I1. A peer of our own name is none, and what it says about newer runs does not take our rows.
#[test]
fn a_link_to_our_own_name_is_none() {
    let mut wire = Wire::new(&["a", "a"]);
    wire.add_to(0, "k", 7);
    wire.up(0, 1);
    for bytes in wire.take(1, 0) {
        let _ = wire.give(1, 0, &bytes);
    }
    wire.add_to(0, "k", 1);
    assert_eq!(wire.total(0, "k"), 8);
    wire.structure(0).audit().unwrap();
    assert_eq!(wire.structure(0).rows_of(wire.replicas[0].actor())[0].1.added, 8);
    assert_eq!(wire.replicas[0].links().count(), 0);
}
