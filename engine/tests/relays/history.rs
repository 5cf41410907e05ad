//! Rows from before the point at which a node's neighbours began.

use std::time::Duration;

use tallymesh_engine::{Config, Life};
use tallymesh_schemas::Version;
use tallymesh_schemas::message::{Delta, Message};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};

use crate::wire::{Wire, config, encoded, is_delta, spec};

/// I5. A node whose neighbours all began later than what it misses gets it all the same: they ask for it in their turn, up to the owner.
#[test]
fn neighbours_that_began_in_the_middle_fetch_what_was_before() {
    let spec = spec().without_snapshot();
    let mut wire = Wire::with(&["a", "b", "c"], &config(), &spec);
    let owner = wire.replicas[0].actor().clone();
    wire.up(0, 1);
    wire.up(1, 2);
    let now = wire.now_at(2);
    wire.replicas[2].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.run(1);
    wire.add_to(0, "x", 1);
    wire.add_to(0, "gone", 1);
    wire.run(3);
    assert_eq!((wire.total(2, "x"), wire.total(2, "gone")), (1, 1));
    wire.down(1, 2);
    wire.add_to(0, "x", 1);
    wire.add_to(0, "gone", -1);
    wire.add_to(0, "y", 1);
    wire.talk();
    // Two join, each in the middle of what there is; the only way to c is by them.
    for (to, late) in [(0, "d"), (3, "e")] {
        let late = wire.add(late, &config(), &spec);
        wire.up(to, late);
        wire.talk();
    }
    assert!([3, 4].iter().all(|late| wire.total(*late, "y") == 0), "they do not know what was before");
    let now = wire.now_at(4);
    wire.replicas[4].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.up(4, 2);
    wire.run(15);
    assert_eq!((wire.total(2, "x"), wire.total(2, "gone"), wire.total(2, "y")), (2, 0, 1));
    wire.add_to(0, "x", 1);
    wire.talk();
    wire.assert_same(0, 2);
    let quiet = wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>();
    wire.run(15);
    assert_eq!(wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>(), quiet, "nobody asks on");
}

/// I5. A replica that received rows in pieces may know retirements beyond its applied version, and needs no snapshot. A peer
/// whose copy begins at that version or earlier sends the rows that follow.
#[test]
fn a_replica_that_knows_later_retirements_continues_from_its_applied_version() {
    let spec = spec().without_snapshot();
    let config = Config { retention: Duration::from_secs(3), ..config() };
    let mut wire = Wire::with(&["a", "b", "c"], &config, &spec);
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    for key in ["x", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.up(0, 2);
    wire.talk();
    wire.add_to(0, "gone", -1);
    let owner = wire.replicas[0].actor().clone();
    let now = wire.now_at(0);
    let (b, c) = (wire.replicas[1].actor().clone(), 2);
    wire.replicas[0].handle_member(now, &b.node, b.incarnation, Life::Dead);
    wire.run(700);
    wire.add_to(0, "last", 1);
    wire.talk();
    let held = |wire: &Wire, at: usize| {
        let held = wire.structure(at).held().into_iter().find(|held| held.actor == owner).unwrap();
        (held.since, held.applied, held.low_water)
    };
    let (since, have, low_water) = held(&wire, c);
    assert!(
        since > Version(0) && low_water > since,
        "c began in the middle, {since}, and what went behind it is purged, {low_water}"
    );
    wire.up(0, 1);
    for bytes in wire.take(0, 1).into_iter().filter(|bytes| !is_delta(bytes)) {
        wire.give(0, 1, &bytes).unwrap();
    }
    let mut rows = RowWriter::new(Version(0));
    rows.push(WireRow {
        slot: 0,
        version: Version(1),
        state: RowState::Live { key: Some(b"x"), added: 1, removed: 0 },
    });
    let rows = rows.finish();
    let piece = Delta { upto: since, low_water, rows: &rows, ..wire.delta_of(0, wire.structure(0).id()) };
    wire.give(0, 1, &encoded(&Message::Delta(piece))).unwrap();
    assert_eq!(held(&wire, 1), (Version(0), since, low_water));
    wire.down(0, 1);
    wire.down(0, c);
    for at in [1, c] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    wire.up(1, c);
    wire.run(10);
    assert_eq!(held(&wire, 1), (Version(0), have, low_water));
}

/// I5. No node on the way to the owner knows that its copy is complete, because the last rows came from a node whose copy
/// began in the middle. The replica still applies the rows, since they remove nothing.
#[test]
fn earlier_rows_come_from_a_copy_that_is_not_known_to_be_complete() {
    let spec = spec().without_snapshot();
    let mut wire = Wire::with(&["a", "early", "behind"], &config(), &spec);
    let owner = wire.replicas[0].actor().clone();
    let knows = |wire: &mut Wire, n: usize| {
        let now = wire.now_at(n);
        wire.replicas[n].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    };
    let (early, behind) = (1, 2);
    wire.up(0, early);
    wire.up(0, behind);
    wire.run(1);
    for (key, behind_receives) in [("x", true), ("missed", false)] {
        wire.add_to(0, key, 1);
        wire.run(3);
        if behind_receives {
            wire.down(0, behind);
        }
    }
    wire.down(0, early);
    // Two join, and know only what comes from now on.
    let [relay, middle] = ["relay", "middle"].map(|late| {
        let late = wire.add(late, &config(), &spec);
        wire.up(0, late);
        wire.talk();
        late
    });
    wire.add_to(0, "y", 1);
    wire.run(3);
    wire.down(0, middle);
    knows(&mut wire, early);
    wire.up(early, relay);
    wire.run(5);
    assert_eq!((wire.total(early, "y"), wire.total(middle, "missed")), (1, 0));
    for n in [middle, behind] {
        knows(&mut wire, n);
    }
    wire.up(early, middle);
    wire.up(middle, behind);
    wire.run(15);
    for n in [middle, behind] {
        assert_eq!(["x", "missed", "y"].map(|key| wire.total(n, key)), [1; 3], "node {n}");
    }
    let asked = |wire: &Wire| wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>();
    let quiet = asked(&wire);
    wire.run(15);
    assert_eq!(asked(&wire), quiet, "nobody asks on");
}
