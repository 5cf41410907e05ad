//! Caches while a clock is ahead: values that a node with such a clock does not have, and writes that it takes back.

#[allow(dead_code)]
mod late;
#[allow(dead_code)]
mod wire;

use late::{KEY, cache, cache_wire, get, set};
use tallymesh_engine::Stamp;
use tallymesh_schemas::Version;
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use wire::Wire;

const HOUR_MS: u64 = 3_600_000;

/// A row of the second node, with the value of the first one's write.
fn row_of_b(wire: &Wire, version: u64, stamp: Stamp, value: &[u8]) -> Vec<u8> {
    let mut rows = RowWriter::new(Version(version - 1));
    let state = RowState::Content { key: Some(KEY), stamp: stamp.0, expires_ms: 0, value };
    rows.push(WireRow { slot: 0, version: Version(version), state });
    wire.told_by(1, wire.structure(1).id(), (version - 1, version), None, &rows.finish())
}

/// Two nodes have a row with the same write. The second one gives it an earlier stamp, because its clock was set back. The
/// write of the first node still stands: if both nodes took the other's row for the needed one, both would retire theirs.
#[test]
fn a_write_in_a_second_row_stays_when_its_owner_changes_the_stamp() {
    let mut wire = cache_wire(&["a", "b"]);
    set(&mut wire, 0, KEY, b"value");
    let entry = |wire: &Wire| cache(wire, 0).entry(KEY, wire.now.unix_ms).map(|entry| (entry.stamp, entry.actor));
    let (stamp, us) = entry(&wire).unwrap();
    let of_b = wire.replicas[1].actor().clone();
    let same = row_of_b(&wire, 1, stamp, b"value");
    wire.give(1, 0, &same).unwrap();
    assert_eq!(entry(&wire), Some((stamp, of_b)), "of equal writes the greater actor's is the winner");
    let earlier = row_of_b(&wire, 2, Stamp(stamp.0 - (HOUR_MS << 16)), b"value");
    wire.give(1, 0, &earlier).unwrap();
    assert_eq!(entry(&wire), Some((stamp, us)));
}

/// I5. The clock of b is an hour ahead, and b reads what it has written meanwhile. So it does not keep what a writes, and passes
/// that row on without its value. c refuses the write of b, and gets the value of a from d, although the link to b is up.
#[test]
fn a_value_that_a_peer_from_the_future_does_not_have_comes_from_another() {
    let mut wire = cache_wire(&["a", "b", "c", "d"]);
    for (one, other) in [(0, 2), (2, 3)] {
        wire.down(one, other);
    }
    let owner = wire.replicas[0].actor().clone();
    let now = wire.now_at(2);
    wire.replicas[2].handle_member(now, &owner.node, owner.incarnation, tallymesh_engine::Life::Alive);
    wire.run(5);
    wire.up(2, 3);
    wire.run(5);
    wire.clock_off = Some((1, HOUR_MS as i64));
    wire.run(2);
    set(&mut wire, 1, KEY, b"of b, ahead");
    wire.run(2);
    assert_eq!(get(&wire, 2, KEY), None, "c refuses it");
    set(&mut wire, 0, KEY, b"of a");
    wire.wait_a_little();
    wire.talk();
    let held = wire.structure(2).held();
    assert!(held.iter().any(|held| held.actor == owner && held.applied == Version(1)), "{held:?}");
    assert_eq!(get(&wire, 2, KEY), None, "b, from which c takes the rows of a, has no value");
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3]);
}
