//! Message by message: what the simulator found, and what was found by thinking, in the smallest form that shows it.

#[allow(dead_code, reason = "each test crate uses its part")]
mod pieces;
#[allow(dead_code)]
mod wire;

use std::time::Duration;

use tallymesh_engine::{Config, Event, Life};
use tallymesh_schemas::message::{Digest, Message, Tombstone};
use tallymesh_schemas::{Actor, Class, Incarnation, StructureSpec};
use wire::{Wire, config, is_delta, read, spec};

/// I5. Pieces of a transfer leave out rows that moved on; their keys have to travel when they come.
#[test]
fn a_key_travels_with_a_row_that_moved_on_while_it_was_its_turn() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.talk();
    for key in ["k1", "k2", "k3"] {
        wire.add_to(0, key, 1);
    }
    // The first piece is cut with k1, then k2 moves on before its turn comes.
    let mut bytes = Vec::new();
    let b = wire.node(1);
    assert!(wire.replicas[0].poll_transmit(&b, &mut bytes));
    wire.give(0, 1, &bytes).unwrap();
    wire.add_to(0, "k2", 1);
    wire.talk();
    wire.assert_same(0, 1);
    assert_eq!(wire.replicas[1].counters().gaps, 0, "nothing had to be asked for");
}

/// I6. A slot that got another key while pieces of it were under way is not taken for the old key.
#[test]
fn a_slot_with_another_key_is_not_taken_for_the_old_one() {
    let mut wire = Wire::with(&["a", "b"], &Config { retention: Duration::from_secs(4), ..config() }, &spec());
    wire.up(0, 1);
    wire.add_to(0, "old", 1);
    wire.talk();
    wire.add_to(0, "old", -1);
    wire.talk();
    wire.run(12);
    assert_eq!(wire.structure(0).held()[0].rows, 0, "it was retired and purged");
    // From now on b misses everything but what is let through.
    for key in ["x1", "new", "x2"] {
        wire.add_to(0, key, 1);
    }
    let pieces = wire.take(0, 1);
    let deltas: Vec<_> = pieces.iter().filter(|bytes| is_delta(bytes)).collect();
    assert!(deltas.len() >= 3);
    wire.give(0, 1, deltas[0]).unwrap();
    for round in 0..5 {
        wire.add_to(0, "new", 1);
        wire.run(2);
        wire.assert_same(0, 1);
        assert_eq!(wire.total(1, "new"), round + 2);
        assert_eq!(wire.total(1, "old"), 0);
    }
}

/// I5. A replica that is built up in pieces below the floor does not have to start over with each piece.
#[test]
fn a_transfer_in_pieces_below_the_floor_ends() {
    let mut wire = Wire::with(&["a", "b"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    for key in ["k1", "k2", "k3", "k4"] {
        wire.add_to(0, key, 1);
    }
    wire.add_to(0, "gone", 1);
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    assert!(wire.structure(0).held()[0].low_water > 4, "the floor lies above the first piece");
    wire.up(0, 1);
    let took = wire.talk();
    wire.assert_same(0, 1);
    assert!(took < 20, "{took} messages");
}

/// The same for a snapshot: a replica that was away while rows went and the floor rose.
#[test]
fn a_snapshot_in_pieces_below_the_floor_ends() {
    let mut wire = Wire::with(&["a", "b"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    for key in ["k1", "k2", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    for key in ["k1", "k3", "k4"] {
        wire.add_to(0, key, 1);
    }
    wire.up(0, 1);
    let took = wire.talk();
    wire.assert_same(0, 1);
    assert_eq!(wire.total(1, "gone"), 0);
    assert!(wire.replicas[1].counters().replaced >= 1, "it took a snapshot");
    assert!(took < 40, "{took} messages");
}

/// I5. Who has an actor's rows from a snapshot does not know what was retired before, and must not let others believe it.
#[test]
fn a_relay_that_took_a_snapshot_does_not_hide_what_was_retired() {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    for key in ["k1", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 1);
    // c comes when "gone" is retired and purged, and is all that b meets afterwards.
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    wire.add_to(0, "k2", 1);
    wire.up(0, 2);
    wire.talk();
    wire.assert_same(0, 2);
    wire.down(0, 2);
    wire.up(1, 2);
    wire.run(5);
    wire.assert_same(0, 1);
    assert_eq!(wire.total(1, "gone"), 0);
}

/// I2. A relay that has an owner's rows in pieces may lack some that moved on before their turn came: until it has had
/// everything at one moment, its rows do not take the place of what a replica knows of a living owner.
#[test]
fn a_relay_that_lacks_rows_takes_none_away() {
    let (mut wire, least) = pieces::passed_on();
    assert_eq!(least, 1, "c has lost a row");
    // When b has everything, c has.
    wire.run(5);
    wire.assert_same(0, 1);
    wire.assert_same(0, 2);
    assert!(wire.replicas[2].counters().replaced >= 1, "it took a snapshot");
}

/// I5. A doubled piece of a snapshot does not bring about another snapshot.
#[test]
fn a_doubled_piece_of_a_snapshot_is_stale() {
    let mut wire = Wire::with(&["a", "b"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    for key in ["k1", "k2", "k3", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    wire.add_to(0, "k1", 1);
    wire.up(0, 1);
    let mut pieces = Vec::new();
    for _ in 0..20 {
        for bytes in wire.take(0, 1) {
            wire.give(0, 1, &bytes).unwrap();
            pieces.push(bytes);
        }
        for bytes in wire.take(1, 0) {
            wire.give(1, 0, &bytes).unwrap();
        }
    }
    let pieces: Vec<_> = pieces.into_iter().filter(|b| matches!(read(b), Message::Delta(d) if d.snapshot)).collect();
    assert!(pieces.len() > 1);
    wire.assert_same(0, 1);
    for bytes in &pieces {
        wire.give(0, 1, bytes).unwrap();
    }
    assert!(wire.take(1, 0).iter().all(|bytes| !matches!(read(bytes), Message::Want(_))), "nothing to ask for");
    wire.run(6);
    wire.assert_same(0, 1);
    assert!(!wire.structure(1).held()[0].replacing, "no half-built snapshot is left");
    assert_eq!(wire.replicas[1].counters().replaced, 1);
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

/// A run that is void is not named to those who have rows of an earlier one: it has no rows, and nobody would drop it again.
#[test]
fn a_void_run_is_named_to_nobody() {
    let spec = StructureSpec { class: Class::Cache, ..spec() };
    let mut wire = Wire::with(&["a", "b", "c"], &config(), &spec);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.talk();
    let (first, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    let void = Incarnation(first.incarnation.0 + 1);
    wire.replicas[1].handle_member(now, &first.node, void, Life::Alive);
    let buried = Tombstone { node: first.node.clone(), from: void, incarnation: void, until_ms: now.unix_ms + 60_000 };
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
    // The first run has not heard of any of this, and goes on talking.
    wire.run(1);
    let held: Vec<_> = wire.structure(1).held().into_iter().map(|held| held.actor).collect();
    assert!(!held.contains(&Actor::new(first.node, void)), "{held:?}");
}

/// A goodbye is of the run that says it, also where the membership has heard of a later one: that one's rows count on.
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

/// Totals only grow, of a node that leaves as well, whatever is counted meanwhile and whatever sign it has.
#[test]
fn a_leaving_node_takes_nothing_back() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(0, "k", 10);
    wire.add_to(0, "k", -3);
    wire.add_to(0, "less", -5);
    wire.talk();
    let now = wire.now;
    wire.replicas[0].leave(now);
    wire.add_to(0, "k", -4);
    wire.add_to(0, "new", 1);
    let messages = wire.take(0, 1);
    for bytes in &messages {
        wire.give(0, 1, bytes).unwrap();
    }
    assert!(matches!(read(messages.last().unwrap()), Message::Goodbye));
    let mut rows = wire.structure(1).rows_of(wire.replicas[0].actor());
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows: Vec<_> = rows.iter().map(|(key, row)| (key.as_slice(), row.added, row.removed)).collect();
    assert_eq!(rows, [(&b"k"[..], 10, 10), (&b"less"[..], 5, 5)]);
    wire.structure(0).audit().unwrap();
    let nodes: Vec<_> = wire.replicas[1].nodes().map(|(name, _, life)| (name.as_str().to_owned(), life)).collect();
    assert_eq!(nodes, [("a".to_owned(), Life::Left)]);
    assert!(wire.replicas[0].has_left());
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

/// A joiner without snapshot starts where its peers are. Digests of many actors come in several messages; it has joined all
/// the same, and who comes later is known from the beginning.
#[test]
fn joining_ends_with_a_digest_in_several_messages() {
    let mut late = spec();
    late.snapshot = false;
    let many: Vec<_> = (0..20).map(|i| format!("s{i:02}")).collect();
    let mut wire = Wire::new(&["a"]);
    // Many structures come before this one's id or after it; one of them has so many actors that the digest is cut.
    for extra in &many {
        let mut spec = spec();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        wire.replicas[0].replicate(spec, std::sync::Arc::new(|| ())).unwrap();
    }
    for i in 0..60 {
        wire.add(&format!("n{i}"), &config(), &spec());
    }
    for extra in &many {
        let mut spec = spec();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        for replica in &mut wire.replicas[1..] {
            replica.replicate(spec.clone(), std::sync::Arc::new(|| ())).unwrap();
        }
    }
    for i in 1..wire.replicas.len() {
        wire.up(0, i);
        wire.talk();
    }
    assert!(wire.take(0, 1).is_empty());
    let joiner = wire.add("joiner", &config(), &late);
    for extra in &many {
        let mut spec = late.clone();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        wire.replicas[joiner].replicate(spec, std::sync::Arc::new(|| ())).unwrap();
    }
    wire.up(0, joiner);
    let digests = wire.take(0, joiner);
    assert!(digests.len() > 1, "the digest takes several messages");
    for bytes in digests {
        wire.give(0, joiner, &bytes).unwrap();
    }
    wire.talk();
    let later = wire.add("later", &config(), &spec());
    wire.add_to(later, "k", 5);
    wire.up(later, joiner);
    wire.talk();
    assert_eq!(wire.total(joiner, "k"), 5);
}

/// A replica that began in the middle is not asked for what came before: that would be asked for ever.
#[test]
fn who_cannot_help_is_not_asked() {
    let mut late = spec();
    late.snapshot = false;
    let mut wire = Wire::new(&["a", "b"]);
    let c = wire.add("c", &config(), &late);
    wire.up(0, 1);
    wire.add_to(0, "k1", 1);
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "k2", 1);
    wire.add_to(0, "k3", 1);
    wire.up(0, c);
    wire.talk();
    wire.add_to(0, "k4", 1);
    wire.talk();
    wire.down(0, c);
    // b has up to 1, c knows what came after 3.
    wire.up(1, c);
    wire.run(5);
    let asked = wire.replicas[1].counters().wants_out;
    wire.run(30);
    assert_eq!(wire.replicas[1].counters().wants_out, asked, "c cannot help");
    wire.up(0, 1);
    wire.run(2);
    wire.assert_same(0, 1);
}

/// I8. After [`handle_timeout`](tallymesh_engine::Replica::handle_timeout) the timer lies ahead, also when the sweep has
/// retired rows.
#[test]
fn the_timer_moves_on_when_rows_are_retired() {
    let mut wire = Wire::new(&["a"]);
    wire.add_to(0, "k", 1);
    wire.add_to(0, "k", -1);
    for _ in 0..100 {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        let now = wire.now;
        wire.replicas[0].handle_timeout(now);
        assert!(wire.replicas[0].poll_timeout() > now.mono);
    }
    assert_eq!(wire.structure(0).held()[0].rows, 0);
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

/// I10. The digest that tells a node that it is not alone under its name has told of others before: their rows count as they
/// come, and not only when the next one is read.
#[test]
fn what_a_digest_told_before_it_showed_a_conflict_counts() {
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

/// A run that is superseded by one of which its peers have no rows, only the membership's word, learns of it all the same.
#[test]
fn a_superseded_run_is_told_though_nobody_has_rows_of_the_newer_one() {
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

/// I5. The same for a third node: whoever was away while a node began another run, of which nobody has rows, and died,
/// lets go of the earlier run as everybody else has.
#[test]
fn a_superseded_run_of_a_third_node_is_told_though_nobody_has_rows_of_the_newer_one() {
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
    // What b hears while a is away.
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

/// That there is a link says that a node lives, and no more once it is down: if the membership has never heard of it, or had
/// declared it dead before, nobody else would ever say that it is gone.
#[test]
fn a_link_alone_keeps_nobody_alive() {
    let mut drop = spec();
    drop.on_dead = tallymesh_schemas::OnDead::Drop(Duration::from_secs(3));
    for told in [None, Some(Life::Dead), Some(Life::Alive)] {
        let mut wire = Wire::with(&["a", "b"], &config(), &drop);
        let (a, now) = (wire.replicas[0].actor().clone(), wire.now);
        if let Some(life) = told {
            wire.replicas[1].handle_member(now, &a.node, a.incarnation, life);
        }
        wire.add_to(0, "k", 3);
        wire.up(0, 1);
        wire.run(2);
        assert_eq!(wire.total(1, "k"), 3);
        wire.down(0, 1);
        wire.wait(2);
        assert_eq!(wire.total(1, "k"), 3, "it still counts for a while");
        wire.wait(4);
        assert_eq!(wire.total(1, "k"), if told == Some(Life::Alive) { 3 } else { 0 }, "{told:?}");
    }
}

/// The life of a run says nothing about the next one: who hears of that from others only takes it for dead, for nobody else may
/// ever say so.
#[test]
fn a_run_that_is_known_by_hearsay_is_not_alive() {
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

/// A verification that is under way asks again over a link that has come in the place of the one that it asked over.
#[test]
fn a_link_that_comes_anew_is_asked_what_the_one_before_was() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(1, "k", 3);
    wire.talk();
    let now = wire.now;
    let nonce = wire.replicas[0].probe(now);
    assert!(!wire.replicas[0].verification(nonce).converged());
    wire.take(0, 1);
    wire.down(0, 1);
    wire.up(0, 1);
    wire.talk();
    assert!(wire.replicas[0].verification(nonce).converged());
}
