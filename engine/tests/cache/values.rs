//! Values that a replica lacks: a row arrived without its value.

use tallymesh_engine::Life;
use tallymesh_schemas::Version;
use tallymesh_schemas::message::{Delta, Message};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};

use crate::late::{KEY, cache_wire, get, set};
use crate::wire::{Wire, encoded, read};

/// I5. A relay knows that a row is superseded, sends it without its value, and ends before it sends the superseding write. The
/// value then comes from the owner, however far the row without value has travelled.
#[test]
fn a_value_that_a_relay_kept_to_itself_comes_from_the_owner() {
    let mut wire = cache_wire(&["a", "relay", "c", "e"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    let owner = wire.replicas[0].actor().clone();
    for at in [2, 3] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    }
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"of a"[..]));
    wire.down(0, 1);
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 1, KEY, b"of relay");
    wire.up(1, 2);
    wire.up(2, 3);
    let relay = wire.replicas[1].actor().clone();
    let its_own = |bytes: &[u8]| matches!(read(bytes), Message::Delta(delta) if delta.actor == relay);
    pass_but(&mut wire, &[(1, 2), (2, 1), (2, 3), (3, 2)], its_own);
    let have = |wire: &Wire, at: usize| {
        wire.structure(at).held().iter().find(|held| held.actor == owner).map_or(0, |held| held.applied.0)
    };
    assert_eq!((have(&wire, 2), have(&wire, 3), get(&wire, 2, KEY), get(&wire, 3, KEY)), (1, 1, None, None));
    wire.down(1, 2);
    wire.replicas
        .iter_mut()
        .for_each(|replica| replica.handle_member(wire.now, &relay.node, relay.incarnation, Life::Dead));
    wire.up(0, 2);
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3], "by its owner, the next one and the one behind");
}

/// A write superseded another write, and both values were lost with the node that held them. The later write is still the
/// winner. Reads return nothing until a node with its value returns.
#[test]
fn a_write_whose_value_no_node_holds_is_not_replaced_by_an_earlier_write() {
    let mut wire = cache_wire(&["a", "relay", "c", "e"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    let owner = wire.replicas[0].actor().clone();
    for at in [2, 3] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    }
    set(&mut wire, 2, KEY, b"of c");
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 1, KEY, b"of relay");
    wire.up(1, 2);
    wire.up(2, 3);
    let relay = wire.replicas[1].actor().clone();
    let its_own = |bytes: &[u8]| matches!(read(bytes), Message::Delta(delta) if delta.actor == relay);
    pass_but(&mut wire, &[(1, 2), (2, 1), (2, 3), (3, 2)], its_own);
    wire.down(1, 2);
    wire.replicas
        .iter_mut()
        .for_each(|replica| replica.handle_member(wire.now, &relay.node, relay.incarnation, Life::Dead));
    wire.run(20);
    assert_eq!([2, 3].map(|at| get(&wire, at, KEY)), [None, None], "the last write's value is lost");
    wire.structure(2).audit().unwrap();
    wire.up(0, 2);
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3], "the node that holds the value sends it");
}

/// An owner sends a row without its value, because the owner knows a later write. The owner and the later write are lost
/// before another node receives that write. A node that holds the value sends it.
#[test]
fn a_value_that_its_owner_did_not_send_comes_from_a_node_that_holds_it() {
    let mut wire = cache_wire(&["a", "b", "c", "later"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 3, KEY, b"later");
    wire.up(0, 3);
    wire.talk();
    wire.down(0, 3);
    wire.up(0, 2);
    let (owner, later) = (wire.replicas[0].actor().clone(), wire.replicas[3].actor().clone());
    pass_but(
        &mut wire,
        &[(0, 2), (2, 0)],
        |bytes| matches!(read(bytes), Message::Delta(delta) if delta.actor == later),
    );
    assert_eq!(
        (get(&wire, 2, KEY), wire.structure(2).rows_of(&owner).len()),
        (None, 1),
        "the row came without its value"
    );
    wire.down(0, 2);
    wire.up(1, 2);
    wire.run(5);
    assert_eq!([1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"of a"; 2]);
}

/// The same with a row that arrives in a snapshot. Another sender sends the rest of the snapshot.
#[test]
fn a_value_that_the_first_sender_of_a_snapshot_left_out_comes_from_a_node_that_holds_it() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, b"before", b"v");
    wire.run(3);
    for (a, b) in [(0, 2), (1, 2)] {
        wire.down(a, b);
    }
    for key in [KEY, b"l", b"m"] {
        set(&mut wire, 0, key, &[b'v'; 40_000]);
    }
    wire.run(3);
    let owner = wire.replicas[0].actor().clone();
    let rows = wire.structure(1).rows_of(&owner);
    let row = |key: &[u8]| rows.iter().find(|(of, _)| of == key).unwrap().1;
    let (without_value, second, last) = (row(KEY), row(b"l"), row(b"m").version);
    let told = |wire: &Wire, after: Version, upto: Version, snapshot: bool, rows: &[u8]| {
        let (keys_complete, low_water) = (after, without_value.version);
        let empty = wire.delta_of(0, wire.structure(0).id());
        encoded(&Message::Delta(Delta { keys_complete, after, upto, low_water, snapshot, rows, ..empty }))
    };
    wire.give(0, 1, &told(&wire, last, last.next(), false, &[])).unwrap();
    wire.down(0, 1);
    wire.up(0, 2);
    let mut piece = RowWriter::new(Version(0));
    let state = RowState::Content { key: Some(b"before"), stamp: row(b"before").added, expires_ms: 0, value: b"v" };
    piece.push(WireRow { slot: 0, version: Version(1), state });
    let state = RowState::Live { key: Some(KEY), added: without_value.added, removed: without_value.removed };
    piece.push(WireRow { slot: 1, version: without_value.version, state });
    let (stamp, value) = (second.added, &[b'v'; 40_000][..]);
    let state = RowState::Content { key: Some(b"l"), stamp, expires_ms: 0, value };
    piece.push(WireRow { slot: 2, version: second.version, state });
    wire.give(0, 2, &told(&wire, Version(0), second.version, true, &piece.finish())).unwrap();
    wire.down(0, 2);
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    wire.up(1, 2);
    wire.run(8);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "b has sent the rest");
    let read = [KEY, b"l", b"m"].map(|key| get(&wire, 2, key).unwrap_or_default().len());
    assert_eq!(read, [40_000; 3]);
}

/// Lets some talk for three seconds; what is not passed is lost.
fn pass_but(wire: &mut Wire, ways: &[(usize, usize)], lost: impl Fn(&[u8]) -> bool) {
    for _ in 0..30 {
        wire.wait_a_little();
        for _ in 0..4 {
            for (from, to) in ways {
                for bytes in wire.take(*from, *to).into_iter().filter(|bytes| !lost(bytes)) {
                    wire.give(*from, *to, &bytes).unwrap();
                }
            }
        }
    }
}
