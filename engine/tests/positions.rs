//! Positions: a confirmation counts only nodes that hold all changes, and a node that has reached a position holds them.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::Cache;
use tallymesh_engine::replica::{Confirmation, Confirmed};
use tallymesh_schemas::{Class, Incarnation, Position, StructureName, StructureSpec, Version};
use wire::{Wire, is_delta, name};

const PATIENCE: Duration = Duration::from_secs(5);

fn linked(names: &[&str]) -> Wire {
    let mut wire = Wire::new(names);
    for a in 0..names.len() {
        (a + 1..names.len()).for_each(|b| wire.up(a, b));
    }
    wire.talk();
    wire
}

fn talk(wire: &mut Wire) {
    wire.talk();
}

/// Confirms on the first node; `step` is what happens between two looks.
fn confirm(wire: &mut Wire, wanted: usize, mut step: impl FnMut(&mut Wire)) -> (Confirmed, Duration) {
    let (began, now) = (wire.now.mono, wire.now);
    let mut confirmation = Confirmation::new(&mut wire.replicas[0], now, wanted, PATIENCE);
    loop {
        let now = wire.now;
        if let Some(confirmed) = confirmation.poll(&mut wire.replicas[0], now) {
            return (confirmed, wire.now.mono.since(began));
        }
        step(wire);
        wire.now.mono = wire.now.mono.after(Duration::from_millis(1));
        assert!(wire.now.mono.since(began) < PATIENCE * 2, "it does not end");
    }
}

#[test]
fn nodes_that_hold_the_changes_confirm_them_at_once() {
    let mut wire = linked(&["a", "b", "c"]);
    wire.structure(0).add(b"k", 3).unwrap();
    let (confirmed, took) = confirm(&mut wire, 2, talk);
    assert_eq!((confirmed.holders.clone(), confirmed.is_reached()), (vec![name("b"), name("c")], true));
    assert!(took < Duration::from_millis(20), "{took:?}");
    assert_eq!((wire.total(1, "k"), wire.total(2, "k")), (3, 3));
}

#[test]
fn a_node_that_is_cut_off_does_not_confirm() {
    let mut wire = linked(&["a", "b", "c"]);
    wire.structure(0).add(b"k", 1).unwrap();
    let (confirmed, took) = confirm(&mut wire, 2, |wire| {
        for (from, to) in [(0, 1), (1, 0)] {
            wire.take(from, to).iter().for_each(|message| wire.give(from, to, message).unwrap());
        }
    });
    assert_eq!((confirmed.holders.clone(), confirmed.is_reached()), (vec![name("b")], false));
    assert!(took >= PATIENCE);
}

/// Each delta has one row. The peer reports the version of the last row that arrived, while a row that changed again is still
/// missing. It has not confirmed the change of that row.
#[test]
fn a_version_without_all_rows_confirms_nothing() {
    let mut wire = linked(&["a", "b"]);
    for key in ["first", "second", "third"] {
        wire.add_to(0, key, 1);
    }
    let now = wire.now;
    let position = wire.replicas[0].position(now);
    let mut confirmation = Confirmation::new(&mut wire.replicas[0], now, 1, PATIENCE);
    // `first` changes again before anything is sent. Its row moves behind the others.
    wire.add_to(0, "first", 1);
    let mut lacking = 0;
    let confirmed = loop {
        let mut message = Vec::new();
        assert!(wire.replicas[0].poll_transmit(&name("b"), &mut message), "nothing is left, and nothing is confirmed");
        wire.give(0, 1, &message).unwrap();
        let has_all = ["first", "second", "third"].iter().all(|key| wire.total(1, key) > 0);
        assert_eq!(wire.replicas[1].has_reached(&position), has_all);
        lacking += usize::from(!has_all && is_delta(&message));
        report(&mut wire, 1, 0);
        if let Some(confirmed) = confirmation.poll(&mut wire.replicas[0], now) {
            assert!(has_all);
            break confirmed;
        }
    };
    assert!(confirmed.is_reached() && lacking == 2, "{lacking}");
}

/// Passes what a node says to another one, and nothing the other way.
fn report(wire: &mut Wire, from: usize, to: usize) {
    wire.now.mono = wire.now.mono.after(Duration::from_secs(2));
    let now = wire.now;
    wire.replicas[from].handle_timeout(now);
    wire.take(from, to).iter().for_each(|message| wire.give(from, to, message).unwrap());
}

/// While a node counts on, an earlier position is confirmed.
#[test]
fn changes_that_go_on_do_not_delay_a_confirmation() {
    let mut wire = linked(&["a", "b"]);
    wire.add_to(0, "k", 1);
    let mut n = 0;
    let (confirmed, took) = confirm(&mut wire, 1, |wire| {
        n += 1;
        wire.add_to(0, &format!("other {n}"), 1);
        wire.talk();
    });
    assert!(confirmed.is_reached() && took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_later_node_reaches_a_position_when_the_rows_arrive() {
    let mut wire = linked(&["a", "b"]);
    wire.structure(0).add(b"k", 1).unwrap();
    let position = wire.replicas[0].position(wire.now);
    assert!(wire.replicas[0].has_reached(&position) && !wire.replicas[1].has_reached(&position));
    let position: Position = position.to_string().parse().unwrap();
    wire.talk();
    assert!(wire.replicas[1].has_reached(&position));
    let unknown = Position { versions: vec![(wire.structure(0).id(), Version(99))], ..position };
    assert!(!wire.replicas[0].has_reached(&unknown) && !wire.replicas[1].has_reached(&unknown));
}

/// A node that continues as a new run states its counts again. The confirmation waits for the rows of the new run.
#[test]
fn a_renewed_node_is_confirmed_in_its_new_run() {
    let mut wire = linked(&["a", "b"]);
    wire.structure(0).add(b"k", 1).unwrap();
    let first = wire.replicas[0].actor().clone();
    let mut renewed = false;
    let (confirmed, _) = confirm(&mut wire, 1, |wire| {
        if !std::mem::replace(&mut renewed, true) {
            let (now, later) = (wire.now, first.incarnation.0 + 5);
            wire.replicas[0].renew(now, Incarnation(later)).unwrap();
        }
        wire.talk();
    });
    assert!(confirmed.is_reached() && confirmed.position.actor != first);
    assert_eq!(wire.total(1, "k"), 1);
}

#[test]
fn writes_of_caches_are_part_of_a_position() {
    let mut wire = linked(&["a", "b"]);
    let spec = StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache);
    let caches: Vec<Cache> =
        (0..2).map(|at| wire.replicas[at].replicate_cache(spec.clone(), Arc::new(|| ())).unwrap()).collect();
    caches[0].set(b"k", b"v", Duration::ZERO, wire.now.unix_ms).unwrap();
    let position = wire.replicas[0].position(wire.now);
    assert_eq!(position.versions, [(caches[0].id(), Version(1))]);
    assert!(!wire.replicas[1].has_reached(&position));
    let (confirmed, _) = confirm(&mut wire, 1, talk);
    assert!(confirmed.is_reached() && wire.replicas[1].has_reached(&position));
}
