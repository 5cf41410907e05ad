//! Copies that are replaced: what is read meanwhile and afterwards.

use tallymesh_engine::{Life, Stamp};
use tallymesh_schemas::message::{Delta, Message};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{UnixMs, Version};

use crate::late::{KEY, cache_wire, get, remove, set};
use crate::wire::{Wire, encoded, is_delta};
use crate::{delta_of_a, delta_with};

/// An owner states a fingerprint that this copy does not have, so the replica fetches all rows again. Until the last one has
/// arrived, it reads the previous rows. Otherwise it would read a write that one of them supersedes.
#[test]
fn reads_return_the_previous_rows_while_a_replacement_arrives() {
    let mut wire = cache_wire(&["a", "b"]);
    for key in [KEY, b"l", b"m"] {
        set(&mut wire, 0, key, &[b'v'; 40_000]);
    }
    wire.run(5);
    wire.give(0, 1, &delta_of_a(&wire, 3, 3, Some(7), &[])).unwrap();
    assert!(wire.replicas[1].counters().divergences > 0, "b takes its rows for others than a has");
    for bytes in wire.take(1, 0) {
        wire.give(1, 0, &bytes).unwrap();
    }
    let pieces: Vec<_> = wire.take(0, 1).into_iter().filter(|bytes| is_delta(bytes)).collect();
    assert!(pieces.len() > 1, "it comes in pieces");
    wire.give(0, 1, &pieces[0]).unwrap();
    for key in [KEY, b"l", b"m"] {
        assert_eq!(get(&wire, 1, key).as_deref(), Some(&[b'v'; 40_000][..]), "{key:?}");
    }
    for piece in &pieces[1..] {
        wire.give(0, 1, piece).unwrap();
    }
    assert!(wire.replicas[1].counters().replaced > 0, "all have come anew");
    assert_eq!(get(&wire, 1, b"m").as_deref(), Some(&[b'v'; 40_000][..]));
    wire.assert_same(0, 1);
}

/// What an owner has never written goes when its rows have come anew, and what it has written there is read.
#[test]
fn what_its_owner_does_not_have_goes() {
    let mut wire = cache_wire(&["a", "b"]);
    set(&mut wire, 0, KEY, b"right");
    wire.run(3);
    let mut rows = RowWriter::new(Version(1));
    let stamp = Stamp::at(UnixMs(wire.now.unix_ms.0 + 1000)).0;
    rows.push(WireRow {
        slot: 0,
        version: Version(2),
        state: RowState::Content { key: None, stamp, expires_ms: 0, value: b"wrong" },
    });
    rows.push(WireRow {
        slot: 1,
        version: Version(3),
        state: RowState::Content { key: Some(b"none"), stamp, expires_ms: 0, value: b"wrong" },
    });
    wire.give(0, 1, &delta_of_a(&wire, 1, 3, None, &rows.finish())).unwrap();
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"wrong"[..]));
    for key in [b"l", b"m"] {
        set(&mut wire, 0, key, b"right");
    }
    wire.run(20);
    assert!(wire.replicas[1].counters().replaced > 0, "all have come anew");
    assert_eq!((get(&wire, 1, KEY).as_deref(), get(&wire, 1, b"none")), (Some(&b"right"[..]), None));
    wire.assert_same(0, 1);
}

/// A node reads a write that arrived with a piece of a snapshot, and no node has the rest: the snapshot began again with fewer
/// rows, or its sender is gone. The node republishes the write, because it supersedes another write.
#[test]
fn a_node_republishes_a_write_that_arrived_with_an_unfinished_snapshot() {
    for again in [false, true] {
        let mut wire = cache_wire(&["a", "b", "c"]);
        set(&mut wire, 0, KEY, b"earlier");
        wire.run(3);
        wire.down(0, 1);
        wire.down(0, 2);
        wire.down(1, 2);
        wire.up(0, 1);
        let piece = |wire: &Wire, upto: u64, low_water: u64, rows: &[u8]| {
            let empty = wire.delta_of(0, wire.structure(0).id());
            encoded(&Message::Delta(Delta {
                upto: Version(upto),
                low_water: Version(low_water),
                snapshot: true,
                rows,
                ..empty
            }))
        };
        let mut rows = RowWriter::new(Version(0));
        let stamp = Stamp::at(UnixMs(wire.now.unix_ms.0 + 1000)).0;
        let state = RowState::Content { key: Some(KEY), stamp, expires_ms: 0, value: b"later" };
        rows.push(WireRow { slot: 0, version: Version(3), state });
        wire.give(0, 1, &piece(&wire, 4, 2, &rows.finish())).unwrap();
        if again {
            wire.give(0, 1, &piece(&wire, 1, 6, &[])).unwrap();
        }
        assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"later"[..]));
        wire.down(0, 1);
        let owner = wire.replicas[0].actor().clone();
        for at in [1, 2] {
            let now = wire.now_at(at);
            wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
        }
        wire.up(1, 2);
        wire.run(20);
        assert_eq!([1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"later"; 2], "{again}");
        assert!(!wire.structure(1).held().iter().any(|held| held.replacing), "nobody has the rest");
        wire.structure(1).audit().unwrap();
    }
}

/// A row changed while its owner's rows were in transit, and then the owner ended. The most advanced copy lacks the row. The
/// node that reads the row's write republishes it, because it supersedes another write.
#[test]
fn a_node_republishes_a_write_that_the_most_advanced_copy_lacks() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        wire.down(a, b);
    }
    set(&mut wire, 1, KEY, b"earlier");
    wire.up(1, 2);
    wire.run(3);
    wire.down(1, 2);
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 0, KEY, b"later");
    wire.up(0, 2);
    wire.run(3);
    wire.down(0, 2);
    wire.up(0, 1);
    for bytes in wire.take(0, 1).into_iter().filter(|bytes| !is_delta(bytes)) {
        wire.give(0, 1, &bytes).unwrap();
    }
    let mut rows = RowWriter::new(Version(0));
    let (stamp, value) = (Stamp::at(wire.now.unix_ms).0, &b"v"[..]);
    rows.push(WireRow {
        slot: 1,
        version: Version(4),
        state: RowState::Content { key: Some(b"other"), stamp, expires_ms: 0, value },
    });
    let (actor, rows) = (wire.replicas[0].actor().clone(), rows.finish());
    let delta =
        Delta { upto: Version(5), low_water: Version(3), rows: &rows, ..wire.delta_of(0, wire.structure(0).id()) };
    wire.give(0, 1, &encoded(&Message::Delta(delta))).unwrap();
    wire.down(0, 1);
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &actor.node, actor.incarnation, Life::Dead);
    }
    wire.up(1, 2);
    wire.run(20);
    assert!(wire.replicas[2].counters().replaced > 0, "c has taken b's copy");
    for at in [1, 2] {
        assert_eq!(get(&wire, at, KEY).as_deref(), Some(&b"later"[..]), "{at}");
        assert_eq!(get(&wire, at, b"other").as_deref(), Some(&b"v"[..]), "{at}");
    }
    wire.assert_same(1, 2);
}

/// A node has removed a key. An owner whose clock was ahead takes back the write that superseded the removal, and states an
/// earlier write. The removal supersedes that one.
#[test]
fn what_is_taken_back_makes_room_for_a_removal() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 2, KEY, b"first");
    wire.talk();
    remove(&mut wire, 2, KEY);
    wire.talk();
    let stamp = |ms: i64| Stamp::at(UnixMs(wire.now.unix_ms.0.saturating_add_signed(ms))).0;
    for (version, stamp, value) in [(1, stamp(1000), &b"ahead"[..]), (2, stamp(-1000), b"taken back to")] {
        wire.give(0, 1, &delta_with(&wire, version, stamp, value)).unwrap();
        assert_eq!(get(&wire, 1, KEY).as_deref(), (version == 1).then_some(value));
        wire.structure(1).audit().unwrap();
    }
}
