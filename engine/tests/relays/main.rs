//! Rows that come from others than their owner, in pieces, beside what the owner says itself.

mod history;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../pieces/mod.rs"]
mod pieces;
mod runs;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../wire/mod.rs"]
mod wire;

use std::time::Duration;

use pieces::lacking_what_moved_on;
use tallymesh_engine::{Config, Life};
use tallymesh_schemas::Version;
use tallymesh_schemas::message::{Delta, Message};
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, WireRow};
use wire::{Wire, config, encoded, is_delta, read, spec};

/// I3. What a relay passes on in pieces may be newer than a statement of the owner's that is still under way: a row that has
/// moved on since is in neither. That is no divergence, whether a digest states it or a delta; one that is there all the same
/// is found, and repaired.
#[test]
fn an_owners_statement_that_is_older_than_a_relays_rows_shows_no_divergence() {
    for (by_delta, diverges) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut wire = Wire::new(&["a", "b", "c"]);
        wire.up(0, 1);
        for key in ["x", "moves", "last"] {
            wire.add_to(0, key, 1);
        }
        wire.talk();
        // c asks b for them, and b takes its time.
        wire.up(1, 2);
        for (from, to) in [(1, 2), (2, 1)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        // What a states itself takes longer still. Then a row moves on.
        wire.up(0, 2);
        for bytes in wire.take(2, 0) {
            wire.give(2, 0, &bytes).unwrap();
        }
        let mut stated = wire.take(0, 2);
        stated.retain(|bytes| is_delta(bytes) == by_delta);
        wire.add_to(0, "moves", 1);
        for bytes in wire.take(0, 1) {
            wire.give(0, 1, &bytes).unwrap();
        }
        let mut pieces = wire.take(1, 2);
        pieces.retain(|bytes| is_delta(bytes));
        if diverges {
            pieces[0] = counting(&pieces[0], 7);
        }
        for bytes in pieces[..2].iter().chain(&stated) {
            wire.give(if stated.contains(bytes) { 0 } else { 1 }, 2, bytes).unwrap();
        }
        let owner = wire.replicas[0].actor().clone();
        let held = wire.structure(2).held().into_iter().find(|held| held.actor == owner).unwrap();
        assert_eq!(
            (held.applied, held.rows, stated.is_empty()),
            (Version(3), 2, false),
            "it has what b had, and lacks what moved on"
        );
        assert_eq!(wire.replicas[2].counters().divergences, 0, "stated by delta: {by_delta}");
        wire.run(10);
        let counters = wire.replicas[2].counters();
        let expected = u64::from(diverges);
        assert_eq!((counters.divergences, counters.replaced), (expected, expected), "stated by delta: {by_delta}");
        assert_eq!((wire.total(2, "x"), wire.total(2, "moves")), (1, 2));
        wire.assert_same(0, 2);
    }
}

/// I3. What an owner states may come twice, and the second time behind pieces of its rows that were cut later: what had moved on by then
/// is in none of them. That is no divergence.
#[test]
fn a_statement_that_comes_again_shows_no_divergence() {
    let (mut wire, stated) = lacking_what_moved_on();
    for bytes in &stated {
        wire.give(0, 1, bytes).unwrap();
    }
    assert_eq!(wire.total(1, "moves"), 0);
    assert_eq!(wire.replicas[1].counters().divergences, 0);
    wire.run(10);
    assert_eq!((wire.replicas[1].counters().divergences, wire.total(1, "moves")), (0, 2));
    wire.assert_same(0, 1);
}

/// A copy that has reached the owner's head in pieces, and lacks a row that has changed since, is not current. The bound of a
/// soft throttle relies on the age of the stalest copy.
#[test]
fn a_copy_that_lacks_a_row_of_its_owner_s_head_is_not_current() {
    let (mut wire, stated) = lacking_what_moved_on();
    let stalest = |wire: &Wire| wire.structure(1).count(b"x", wire.now.mono).stalest;
    let before = stalest(&wire);
    assert!(before > Duration::ZERO, "no statement has arrived since the first rows");
    for bytes in &stated {
        wire.give(0, 1, bytes).unwrap();
    }
    assert_eq!(stalest(&wire), before, "the owner's head is reached, and a row from before it is missing");
    wire.run(10);
    assert!(stalest(&wire) <= Duration::from_secs(2), "{:?}", stalest(&wire));
    wire.assert_same(0, 1);
}

/// I3. A snapshot whose pieces come from two, of whom one is ahead, may lack a row that moved on in between: it is not taken for
/// what either has.
#[test]
fn a_snapshot_of_two_senders_pieces_takes_nothing_away() {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    for key in ["x", "moves", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 2);
    wire.add_to(0, "gone", -1);
    wire.run(15);
    wire.add_to(0, "last", 1);
    wire.talk();
    // c is below the low-water mark of both. It asks b, and then a, which has counted more meanwhile.
    wire.up(1, 2);
    let mut pieces = Vec::new();
    for (owner_or_relay, last) in [(1, 3), (0, 2)] {
        if owner_or_relay == 0 {
            wire.add_to(0, "moves", 1);
            wire.up(0, 2);
        }
        for (from, to) in [(owner_or_relay, 2), (2, owner_or_relay)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        let mut from = wire.take(owner_or_relay, 2);
        from.retain(|bytes| matches!(read(bytes), Message::Delta(delta) if delta.snapshot));
        assert_eq!(from.len(), 3);
        pieces.push((owner_or_relay, from[..last].to_vec()));
    }
    for (from, pieces) in pieces.iter().rev() {
        for bytes in pieces {
            wire.give(*from, 2, bytes).unwrap();
            assert_eq!(wire.total(2, "moves"), 1, "a row that counted all the time");
        }
    }
    assert_eq!(wire.replicas[2].counters().replaced, 0);
    wire.run(10);
    assert_eq!((wire.total(2, "moves"), wire.replicas[2].counters().replaced), (2, 1));
    wire.assert_same(0, 2);
}

/// I3. A more advanced copy may lack a row that changed again and again during the transfer. This replica may hold a later
/// state of the row. A snapshot of that copy does not remove the row here.
#[test]
fn a_snapshot_of_another_node_s_copy_takes_no_row_back() {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    wire.add_to(0, "moves", 1);
    wire.add_to(0, "gone", 1);
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "moves", 1);
    wire.talk();
    wire.down(0, 2);
    // b receives the retirement and the purge of a row, and never the row that keeps changing. c receives nothing.
    wire.up(0, 1);
    wire.add_to(0, "gone", -1);
    for _ in 0..150 {
        wire.add_to(0, "other", 1);
        wire.add_to(0, "moves", 1);
        for (from, to) in [(0, 1), (1, 0)] {
            for bytes in wire.take(from, to) {
                if !matches!(read(&bytes), Message::Delta(delta) if delta.fingerprint.is_some()) {
                    wire.give(from, to, &bytes).unwrap();
                }
            }
        }
        wire.wait_a_little();
    }
    wire.down(0, 1);
    let owner = wire.replicas[0].actor().clone();
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    let added = |wire: &Wire, at: usize| {
        let rows = wire.structure(at).rows_of(&owner);
        let row = |key: &str| Some(rows.iter().find(|(of, _)| of == key.as_bytes())?.1.added);
        ["gone", "moves"].map(row)
    };
    assert_eq!((added(&wire, 1), added(&wire, 2)), ([None, Some(1)], [Some(1), Some(2)]));
    wire.up(1, 2);
    wire.run(5);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "nothing else tells c of what was purged");
    assert_eq!(added(&wire, 2), [None, Some(2)]);
    wire.structure(2).audit().unwrap();
}

/// I10. The same where the slot has another key by then. The kept row counts once, and the row that it replaces did not count.
#[test]
fn a_row_that_a_snapshot_of_another_node_s_copy_lacks_counts_once() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    wire.add_to(0, "x", 1);
    let structure = wire.structure(0).id();
    let row = |slot, version, key: &'static str| {
        let state = RowState::Live { key: Some(key.as_bytes()), added: version, removed: 0 };
        WireRow { slot, version: Version(version), state }
    };
    // b received neither the retirement of "old" nor the row that is in its slot now, because that row keeps changing. c
    // received both, and nothing since.
    for (at, upto, low_water, rows) in
        [(1, 12, 9, vec![row(0, 3, "old"), row(1, 12, "last")]), (2, 8, 0, vec![row(0, 8, "new")])]
    {
        wire.up(0, at);
        for (from, to) in [(0, at), (at, 0)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        let mut writer = RowWriter::new(Version(0));
        rows.into_iter().for_each(|row| writer.push(row));
        let rows = writer.finish();
        let delta =
            Delta { upto: Version(upto), low_water: Version(low_water), rows: &rows, ..wire.delta_of(0, structure) };
        wire.give(0, at, &encoded(&Message::Delta(delta))).unwrap();
        wire.down(0, at);
    }
    let counted = |wire: &Wire| ["old", "new", "last"].map(|key| wire.total(2, key));
    assert_eq!(counted(&wire), [0, 8, 0]);
    wire.up(1, 2);
    wire.run(5);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "nothing else tells c of what was purged");
    assert_eq!(counted(&wire), [0, 8, 12]);
    wire.structure(2).audit().unwrap();
}

/// A delta of one row that counts something else.
fn counting(bytes: &[u8], added: u64) -> Vec<u8> {
    let Message::Delta(delta) = read(bytes) else { panic!("it is a delta") };
    let mut reader = RowReader::new(delta.rows, delta.after);
    let row = reader.next_row().unwrap().unwrap();
    let RowState::Live { key, .. } = row.state else { panic!("it counts") };
    let mut rows = RowWriter::new(delta.after);
    rows.push(WireRow { state: RowState::Live { key, added, removed: 0 }, ..row });
    let rows = rows.finish();
    encoded(&Message::Delta(Delta { rows: &rows, ..delta.clone() }))
}
