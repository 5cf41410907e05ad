//! A relay between an owner and a replica that has the owner's rows in pieces.

use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_schemas::Version;
use tallymesh_schemas::message::Message;

use crate::wire::{Wire, config, is_delta, read, spec};

/// b received the rows of a in pieces and lacks a row that changed before its turn. c knows an earlier state of that row, is
/// below the low-water mark of b's copy, and has a link only to b. They exchange messages for a while. Returns the lowest
/// count that c read for the row meanwhile; the row always counted something.
pub(crate) fn passed_on() -> (Wire, i64) {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 2);
    for key in ["x", "moves", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 2);
    wire.add_to(0, "gone", -1);
    wire.wait(15);
    wire.add_to(0, "last", 1);
    wire.up(0, 1);
    let (b, owner, head) = (wire.node(1), wire.replicas[0].actor().clone(), wire.structure(0).held()[0].applied);
    let have =
        |wire: &Wire| wire.structure(1).held().iter().find(|held| held.actor == owner).map_or(0, |held| held.applied.0);
    while have(&wire) < head.0 {
        let mut bytes = Vec::new();
        assert!(wire.replicas[0].poll_transmit(&b, &mut bytes));
        wire.give(0, 1, &bytes).unwrap();
        pass(&mut wire, 1, 0);
        wire.add_to(0, "moves", 1);
    }
    assert_eq!((wire.total(1, "last"), wire.total(1, "moves")), (1, 0), "b has the last row and lacks one before it");
    wire.up(1, 2);
    let mut least = wire.total(2, "moves");
    for _ in 0..60 {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        for at in [1, 2] {
            let now = wire.now;
            wire.replicas[at].handle_timeout(now);
        }
        while pass(&mut wire, 1, 2) + pass(&mut wire, 2, 1) > 0 {}
        least = least.min(wire.total(2, "moves"));
    }
    (wire, least)
}

/// Hands over what one has to say to another; how many messages that were.
fn pass(wire: &mut Wire, from: usize, to: usize) -> usize {
    let messages = wire.take(from, to);
    for bytes in &messages {
        wire.give(from, to, bytes).unwrap();
    }
    messages.len()
}

/// The node b has received a's rows in pieces up to version 3, and lacks a row that moved on before its piece was cut. Returns
/// with it what a stated at version 3.
pub(crate) fn lacking_what_moved_on() -> (Wire, Vec<Vec<u8>>) {
    let mut wire = Wire::new(&["a", "b"]);
    for key in ["x", "moves", "last"] {
        wire.add_to(0, key, 1);
    }
    wire.up(0, 1);
    let stated = wire.take(0, 1);
    for (from, to, messages) in [(0, 1, stated.clone()), (1, 0, wire.take(1, 0))] {
        messages.iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
    }
    for bytes in wire.take(1, 0) {
        wire.give(1, 0, &bytes).unwrap();
    }
    let first = wire.take(0, 1).into_iter().find(|bytes| is_delta(bytes)).unwrap();
    wire.give(0, 1, &first).unwrap();
    wire.add_to(0, "moves", 1);
    let owner = wire.replicas[0].actor().clone();
    let have = |wire: &Wire| wire.structure(1).held().iter().find(|held| held.actor == owner).map(|held| held.applied);
    while have(&wire) < Some(Version(3)) {
        wire.wait_a_little();
        for bytes in wire.take(1, 0) {
            wire.give(1, 0, &bytes).unwrap();
        }
        let next = wire
            .take(0, 1)
            .into_iter()
            .find(|bytes| matches!(read(bytes), Message::Delta(delta) if delta.after == Version(1)));
        next.inspect(|bytes| wire.give(0, 1, bytes).unwrap());
    }
    assert_eq!((have(&wire), wire.total(1, "moves")), (Some(Version(3)), 0), "it lacks what moved on");
    (wire, stated)
}
