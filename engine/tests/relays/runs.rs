//! Runs of nodes that others know by a relay.

use std::time::Duration;

use tallymesh_engine::{Config, Life};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Incarnation, Version};

use crate::wire::{NAME, Wire, config, encoded, read, spec};

/// I1, I6. A second process used a node's name in a later run. Only a node without a link to the first process knows of it. Each
/// node with a link believes what the first process states, and asks it. So the first process learns of the second one and renews
/// as a later run.
#[test]
fn a_node_learns_of_a_second_process_of_its_name_from_every_linked_peer() {
    let mut wire = Wire::new(&["b", "middle", "c"]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.add_to(2, "x", 1);
    wire.run(3);
    wire.assert_same(2, 0);
    let twin = wire.add("c", &config(), &spec());
    wire.add_to(twin, "y", 1);
    wire.up(0, twin);
    for _ in 0..20 {
        wire.wait_a_little();
        for (from, to) in [(0, twin), (twin, 0)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
    }
    wire.down(0, twin);
    assert_eq!((wire.total(0, "x"), wire.total(0, "y")), (0, 1), "it has a later run");
    let later = wire.replicas[twin].actor().incarnation;
    wire.run(12);
    assert!(wire.replicas[2].actor().incarnation > later);
    assert_eq!((wire.total(0, "x"), wire.total(0, "y")), (1, 0));
    wire.assert_same(2, 0);
    wire.assert_same(2, 1);
}

/// A relay that renews continues to pass on the rows of other nodes.
#[test]
fn a_relay_that_renews_passes_rows_on() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    let owner = wire.replicas[0].actor().clone();
    let now = wire.now_at(2);
    wire.replicas[2].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.run(5);
    wire.add_to(0, "x", 1);
    wire.talk();
    assert_eq!(wire.total(2, "x"), 1);
    let (now, run) = (wire.now_at(1), wire.replicas[1].actor().clone());
    assert!(wire.replicas[1].renew(now, Incarnation(0)).unwrap() > run);
    wire.add_to(0, "x", 1);
    wire.talk();
    assert_eq!(wire.total(2, "x"), 2, "at once");
}

/// I1, I6. A member invents rows of a node, and another node accepts them. The node learns of these rows and renews. The
/// invented rows then disappear.
#[test]
fn a_node_learns_of_rows_that_a_member_invented_for_it() {
    const NEVER_ISSUED: u64 = 1 << 40;
    let hour = Duration::from_secs(3600);
    let mut wire = Wire::with(&["a", "b", "c"], &Config { full_digest_interval: hour, ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    wire.up(1, 2);
    wire.add_to(1, "x", 1);
    wire.run(6);
    let (b, c) = (wire.replicas[1].actor().clone(), wire.replicas[2].actor().clone());
    let entry = DigestEntry {
        actor: b.clone(),
        since: Version(0),
        applied: Version(NEVER_ISSUED),
        low_water: Version(0),
        fingerprint: 7,
        age_ms: None,
    };
    let structures = vec![StructureDigest {
        structure: wire.structure(0).id(),
        name: NAME,
        kind: wire.structure(0).kind(),
        entries: vec![entry],
    }];
    let (incarnation, clock_ms) = (c.incarnation, wire.now.unix_ms);
    let lie = Digest { incarnation, clock_ms, answers: 0, complete: false, structures, tombstones: Vec::new() };
    wire.give(2, 0, &encoded(&Message::Digest(lie))).unwrap();
    let asked = (0..200).find_map(|_| {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        let now = wire.now_at(0);
        wire.replicas[0].handle_timeout(now);
        wire.take(0, 2).iter().find_map(|bytes| match read(bytes) {
            Message::Want(want) if want.actor == b => Some(want),
            _ => None,
        })
    });
    let after = asked.expect("it asks who says that there is more").after;
    let mut rows = RowWriter::new(after);
    let state = RowState::Live { key: Some(b"made-up"), added: 9, removed: 0 };
    rows.push(WireRow { slot: 40, version: Version(after.0 + 5), state });
    let (upto, fingerprint, rows) = (NEVER_ISSUED, Some(1), rows.finish());
    let delta =
        Delta { after, upto: Version(upto), fingerprint, rows: &rows, ..wire.delta_of(1, wire.structure(0).id()) };
    wire.give(2, 0, &encoded(&Message::Delta(delta))).unwrap();
    assert_eq!(wire.total(0, "made-up"), 9, "it was taken for b's");
    wire.down(0, 2);
    wire.run(5);
    assert!(wire.replicas[1].actor().incarnation > b.incarnation, "b has learned of the invented rows");
    assert_eq!((wire.total(0, "made-up"), wire.total(0, "x"), wire.total(2, "x")), (0, 1, 1));
}
