//! Rows that travel in pieces, and snapshots.

use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_schemas::Version;
use tallymesh_schemas::message::Message;

use crate::pieces;
use crate::wire::{Wire, config, is_delta, read, spec};

/// I5. The pieces of a transfer leave out rows that change meanwhile. When these rows follow, their keys follow with them.
#[test]
fn a_key_travels_with_a_row_that_changed_during_the_transfer() {
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

/// I5. A replica that is built up in pieces below the low-water mark does not have to start over with each piece.
#[test]
fn a_transfer_in_pieces_below_the_floor_ends() {
    let mut wire = Wire::with(&["a", "b"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    for key in ["k1", "k2", "k3", "k4"] {
        wire.add_to(0, key, 1);
    }
    wire.add_to(0, "gone", 1);
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    assert!(wire.structure(0).held()[0].low_water > Version(4), "the low-water mark lies above the first piece");
    wire.up(0, 1);
    let took = wire.talk();
    wire.assert_same(0, 1);
    assert!(took < 20, "{took} messages");
}

/// The same for a snapshot: a replica that was away while rows went and the low-water mark rose.
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

/// I5. A replica that received an actor's rows in a snapshot does not know the earlier retirements. Its peers must not treat
/// its copy as if it knew them.
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

/// I2. A relay that received an owner's rows in pieces may lack rows that changed meanwhile. Until it has held everything at
/// one moment, its rows do not replace what a replica holds of a living owner.
#[test]
fn a_relay_without_all_rows_removes_none() {
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
