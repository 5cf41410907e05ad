//! What a member says about another one never replaces that one's own word (I12).

#[allow(dead_code)]
mod wire;

use std::time::Duration;

use tallymesh_engine::Life;
use tallymesh_engine::replica::Verification;
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Incarnation, NodeName, OnDead, StructureId, UnixMs, Version, bounds};

use wire::{NAME, Wire, config, name, spec};

/// Three nodes, each linked with each other; the first has counted.
fn three() -> Wire {
    let mut wire = Wire::new(&["a", "b", "c"]);
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        up(&mut wire, one, other);
    }
    wire.add_to(0, "k", 3);
    wire.talk();
    assert_eq!(wire.total(1, "k"), 3);
    wire
}

/// A connection and a link over it.
fn up(wire: &mut Wire, a: usize, b: usize) {
    for (at, of) in [(a, b), (b, a)] {
        let (now, of) = (wire.now_at(at), wire.replicas[of].actor().clone());
        wire.replicas[at].handle_hello(now, &of.node, of.incarnation);
    }
    wire.up(a, b);
}

fn down(wire: &mut Wire, a: usize, b: usize) {
    wire.down(a, b);
    for (at, of) in [(a, b), (b, a)] {
        let of = wire.node(of);
        wire.replicas[at].handle_hangup(&of);
    }
}

/// A digest of the third node to the second, which tells of these runs and tombstones.
fn tell(wire: &mut Wire, actors: Vec<Actor>, tombstones: Vec<Tombstone>) {
    let entry = |actor| DigestEntry {
        actor,
        since: Version(0),
        applied: Version(7),
        low_water: Version(0),
        fingerprint: 0,
        age_ms: None,
    };
    let part = StructureDigest {
        structure: StructureId::of(NAME),
        name: NAME,
        kind: spec().class.kind(),
        entries: actors.into_iter().map(entry).collect(),
    };
    let message = Message::Digest(Digest {
        incarnation: wire.replicas[2].actor().incarnation,
        clock_ms: wire.now.unix_ms,
        answers: 0,
        complete: false,
        structures: vec![part],
        tombstones,
    });
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    wire.give(2, 1, &bytes).unwrap();
}

/// What the second node has of the first.
fn seen(wire: &Wire) -> (Incarnation, Life) {
    let a = wire.node(0);
    wire.replicas[1].nodes().find(|(node, ..)| **node == a).map(|(_, run, life)| (run, life)).unwrap()
}

/// A member reports a later run of a node that has no link at that moment. The node's first message over a new link makes the
/// node count again, in the run that it is in.
#[test]
fn a_node_s_own_statement_replaces_a_later_run_from_hearsay() {
    for run in [bounds::INCARNATION_REPORTED, 1001] {
        let mut wire = three();
        down(&mut wire, 0, 1);
        let a = wire.replicas[0].actor().clone();
        tell(&mut wire, vec![Actor::new(a.node.clone(), Incarnation(run))], Vec::new());
        assert_eq!(seen(&wire).0, Incarnation(run), "nobody else speaks for it");
        up(&mut wire, 0, 1);
        assert_eq!(seen(&wire), (a.incarnation, Life::Alive));
        for bytes in wire.take(0, 1) {
            wire.give(0, 1, &bytes).unwrap();
        }
        let mut wire = settle(wire);
        assert_eq!(wire.total(1, "k"), 3);
        wire.assert_same(0, 1);
        wire.run(1);
    }
}

fn settle(mut wire: Wire) -> Wire {
    wire.talk();
    wire.run(2);
    wire
}

/// The same without a hello: the first digest of the link states the run. The peer does not have to answer anything.
#[test]
fn the_first_digest_of_a_link_is_a_nodes_own_word() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    wire.up(1, 2);
    wire.add_to(0, "k", 3);
    let a = wire.replicas[0].actor().clone();
    tell(&mut wire, vec![Actor::new(a.node.clone(), Incarnation(1_000_000))], Vec::new());
    assert_eq!(seen(&wire).0, Incarnation(1_000_000));
    wire.up(0, 1);
    for bytes in wire.take(0, 1) {
        wire.give(0, 1, &bytes).unwrap();
    }
    assert_eq!(seen(&wire), (a.incarnation, Life::Alive));
    let asked = wire.take(1, 0);
    assert!(!asked.is_empty());
    wire.talk();
    wire.run(2);
    assert_eq!(wire.total(1, "k"), 3);
}

/// Two processes may have had one name. A node learns of the later run that other nodes reported, and renews as a still later
/// one.
#[test]
fn a_node_learns_of_the_later_run_that_other_nodes_reported() {
    let mut wire = three();
    down(&mut wire, 0, 1);
    let a = wire.node(0);
    let later = Incarnation(1_000_000);
    tell(&mut wire, vec![Actor::new(a, later)], Vec::new());
    up(&mut wire, 0, 1);
    let mut wire = settle(wire);
    assert!(wire.replicas[0].actor().incarnation > later);
    wire.run(2);
    assert_eq!((wire.total(1, "k"), wire.total(2, "k")), (3, 3));
}

/// In a large cluster a node speaks over a connection over which no rows are exchanged.
#[test]
fn a_connection_without_a_link_is_a_nodes_own_word() {
    let mut wire = three();
    let a = wire.replicas[0].actor().clone();
    wire.down(0, 1);
    tell(&mut wire, vec![Actor::new(a.node.clone(), Incarnation(1_000_000))], Vec::new());
    assert_eq!(seen(&wire).0, a.incarnation);
    assert_eq!(wire.total(1, "k"), 3);
}

/// Two processes have one name, and both end. The membership holds one run of a name: since it has named the earlier run, it does
/// not say of the later one that it lives or that it is dead.
#[test]
fn a_later_run_ends_when_the_membership_names_an_earlier_one() {
    let mut drop = spec();
    drop.on_dead = OnDead::Drop(Duration::from_secs(3));
    for (life, linked) in [(Life::Alive, false), (Life::Alive, true), (Life::Suspect, false), (Life::Suspect, true)] {
        let mut wire = Wire::with(&["a", "b"], &config(), &drop);
        let (later, now) = (wire.replicas[0].actor().clone(), wire.now);
        up(&mut wire, 0, 1);
        wire.add_to(0, "k", 3);
        wire.talk();
        for said in [Life::Alive, life] {
            wire.replicas[1].handle_member(now, &later.node, later.incarnation, said);
        }
        if !linked {
            down(&mut wire, 0, 1);
        }
        assert_eq!((seen(&wire), wire.total(1, "k")), ((later.incarnation, life), 3));
        let earlier = Incarnation(later.incarnation.0 - 1);
        wire.replicas[1].handle_hello(now, &later.node, earlier);
        wire.replicas[1].handle_member(now, &later.node, earlier, Life::Alive);
        if linked {
            assert_eq!(seen(&wire).1, life, "its link is up");
            down(&mut wire, 0, 1);
        }
        wire.replicas[1].handle_hangup(&later.node);
        wire.replicas[1].handle_member(now, &later.node, earlier, Life::Dead);
        wire.wait(5);
        assert_eq!((seen(&wire), wire.total(1, "k")), ((later.incarnation, Life::Dead), 0));
        let now = wire.now;
        wire.replicas[1].handle_member(now, &later.node, later.incarnation, Life::Alive);
        assert_eq!((seen(&wire).1, wire.total(1, "k")), (Life::Alive, 3), "the later run was there all the time");
    }
}

/// The membership may have the run that a node says to be in before the node's hello comes here.
#[test]
fn a_run_that_the_membership_names_first_lives_when_its_node_says_hello() {
    let mut wire = three();
    let (a, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    down(&mut wire, 0, 1);
    tell(&mut wire, vec![Actor::new(a.node.clone(), Incarnation(1_000_000))], Vec::new());
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Alive);
    wire.replicas[1].handle_hello(now, &a.node, a.incarnation);
    assert_eq!(seen(&wire), (a.incarnation, Life::Alive));
}

/// When the membership reports a node as alive again, reads count its rows again.
#[test]
fn a_node_that_had_left_counts_when_the_membership_reports_it_alive() {
    let mut wire = three();
    let (a, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Alive);
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Left);
    assert_eq!((seen(&wire).1, wire.total(1, "k")), (Life::Left, 0));
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Alive);
    assert_eq!((seen(&wire).1, wire.total(1, "k")), (Life::Alive, 3));
}

/// While a node says goodbye, that it was alive a moment ago is no news.
#[test]
fn a_goodbye_holds_while_its_link_is_up() {
    let mut wire = three();
    let (a, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    wire.replicas[0].leave(now);
    for bytes in wire.take(0, 1) {
        wire.give(0, 1, &bytes).unwrap();
    }
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Alive);
    assert_eq!(seen(&wire).1, Life::Left);
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Dead);
    assert_eq!(seen(&wire).1, Life::Left, "a goodbye is the node's own word");
}

fn forgotten(wire: &Wire, run: Incarnation) -> Tombstone {
    let until_ms = UnixMs(wire.now.unix_ms.0 + 600_000);
    Tombstone { node: wire.node(0), from: Incarnation(0), incarnation: run, until_ms }
}

/// A member reports a running node as forgotten. The node keeps counting, learns of the report, and renews. Then the other
/// nodes forget the earlier run.
#[test]
fn a_node_that_speaks_is_not_forgotten_on_a_members_word() {
    let mut wire = three();
    let run = wire.replicas[0].actor().incarnation;
    let tombstone = forgotten(&wire, run);
    tell(&mut wire, Vec::new(), vec![tombstone]);
    assert_eq!((seen(&wire), wire.total(1, "k")), ((run, Life::Alive), 3));
    let mut wire = settle(wire);
    let next = wire.replicas[0].actor().clone();
    assert!(next.incarnation > run, "the node has learned of the report");
    assert!(wire.replicas[1].is_void(&Actor::new(next.node.clone(), run)));
    assert_eq!((seen(&wire).0, wire.total(1, "k"), wire.total(2, "k")), (next.incarnation, 3, 3));
    wire.run(1);
}

/// Without a link this node cannot tell the node that it was forgotten, so it passes the tombstone on to those who can.
#[test]
fn a_tombstone_of_a_node_without_a_link_is_passed_on() {
    let mut wire = three();
    let a = wire.replicas[0].actor().clone();
    wire.down(0, 1);
    let tombstone = forgotten(&wire, a.incarnation);
    tell(&mut wire, Vec::new(), vec![tombstone]);
    assert!(wire.replicas[1].is_void(&a));
}

/// A replica accepts a member's tombstone of a node only when the replica itself sees that the node is dead.
#[test]
fn a_replica_forgets_a_dead_node_that_a_member_reports_as_forgotten() {
    let mut wire = three();
    let a = wire.replicas[0].actor().clone();
    let tombstone = forgotten(&wire, a.incarnation);
    tell(&mut wire, Vec::new(), vec![tombstone]);
    down(&mut wire, 0, 1);
    let now = wire.now_at(1);
    assert_eq!(wire.total(1, "k"), 3);
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Dead);
    assert!(wire.replicas[1].is_void(&a));
    assert_eq!(wire.total(1, "k"), 0);
}

/// Names that a member makes up leave room for those who speak for themselves.
#[test]
fn made_up_names_leave_room_for_real_nodes() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    wire.up(1, 2);
    for batch in 0..6 {
        let made_up = |n| Actor::new(NodeName::new(&format!("made-up-{batch}-{n}")).unwrap(), Incarnation(1));
        tell(&mut wire, (0..bounds::DIGEST_ENTRIES).map(made_up).collect(), Vec::new());
    }
    let told = wire.replicas[1].nodes().filter(|(node, ..)| **node != name("c")).count();
    assert_eq!(told, bounds::NODES_TOLD);
    wire.add_to(0, "k", 3);
    wire.up(0, 1);
    for bytes in wire.take(0, 1) {
        wire.give(0, 1, &bytes).unwrap();
    }
    let a = wire.node(0);
    assert!(wire.replicas[1].nodes().any(|(node, ..)| *node == a));
}

/// What the second node finds when it asks all.
fn verified(wire: &mut Wire) -> Verification {
    let nonce = wire.replicas[1].probe(wire.now);
    wire.talk();
    wire.replicas[1].verification(nonce)
}

fn made_up(n: usize) -> NodeName {
    name(&format!("made-up-{n}"))
}

fn report_invented_names(wire: &mut Wire, count: usize) {
    tell(wire, (0..count).map(|n| Actor::new(made_up(n), Incarnation(1))).collect(), Vec::new());
}

/// Names that a member makes up are not missing: a node that reaches all others reaches the whole cluster.
#[test]
fn made_up_names_are_not_missing() {
    let mut wire = three();
    report_invented_names(&mut wire, 5);
    let reach = wire.replicas[1].reach();
    assert_eq!((reach.alive, reach.known, reach.heard_of), (3, 3, 5));
    // A node that has spoken is missing when it is dead.
    down(&mut wire, 0, 1);
    let (a, now) = (wire.replicas[0].actor().clone(), wire.now_at(1));
    wire.replicas[1].handle_member(now, &a.node, a.incarnation, Life::Dead);
    let reach = wire.replicas[1].reach();
    assert_eq!((reach.alive, reach.known, reach.heard_of), (2, 3, 5));
}

/// A member invents a name and reports it. Only the nodes that receive the report know the name: honest nodes do not pass it
/// on.
#[test]
fn a_made_up_name_is_not_passed_on() {
    let mut wire = three();
    down(&mut wire, 0, 2);
    report_invented_names(&mut wire, 5);
    assert_eq!(wire.replicas[1].nodes().count(), 2 + 5);
    let mut wire = settle(wire);
    wire.run(5);
    assert_eq!(wire.replicas[0].nodes().count(), 2);
    // As soon as there are rows, they go on.
    let mut writer = RowWriter::new(Version(0));
    let state = RowState::Live { key: Some(b"made up"), added: 1, removed: 0 };
    writer.push(WireRow { slot: 0, version: Version(7), state });
    let delta = Delta {
        structure: StructureId::of(NAME),
        actor: Actor::new(made_up(3), Incarnation(1)),
        since: Version(0),
        keys_complete: Version(0),
        after: Version(0),
        upto: Version(7),
        low_water: Version(0),
        snapshot: false,
        fingerprint: None,
        rows: &writer.finish(),
    };
    let mut bytes = Vec::new();
    Message::Delta(delta).encode(&mut bytes).unwrap();
    wire.give(2, 1, &bytes).unwrap();
    let wire = settle(wire);
    assert_eq!(wire.replicas[0].nodes().count(), 3);
}

/// An operator forgets the member that invented names. The replica then forgets these names, and they do not come back.
#[test]
fn invented_names_end_with_the_member_that_reported_them() {
    let mut wire = three();
    for from in [0, bounds::NODES_TOLD] {
        let told = (from..from + bounds::DIGEST_ENTRIES).map(|n| Actor::new(made_up(n), Incarnation(1)));
        tell(&mut wire, told.collect(), Vec::new());
    }
    assert_eq!(wire.replicas[1].nodes().count(), 2 + bounds::NODES_TOLD);
    let mut wire = settle(wire);
    down(&mut wire, 1, 2);
    down(&mut wire, 0, 2);
    let (liar, now) = (wire.node(2), wire.now_at(0));
    wire.replicas[0].forget(now, &liar);
    let mut wire = settle(wire);
    for at in [0, 1] {
        assert_eq!(wire.replicas[at].nodes().count(), 1, "{at}");
        assert_eq!(wire.structure(at).held().len(), 2, "{at}");
    }
    let found = verified(&mut wire);
    assert!(found.converged(), "{found}");
}

/// The membership knows a name from one member alone. When that one is forgotten, nobody misses the name.
#[test]
fn a_member_that_only_a_forgotten_one_introduced_is_not_missed() {
    let mut wire = three();
    let (liar, now) = (wire.node(2), wire.now_at(1));
    for (n, life) in [(0, Life::Alive), (1, Life::Suspect), (2, Life::Dead)] {
        wire.replicas[1].handle_introduced(now, &made_up(n), Incarnation(1), life, &liar);
    }
    assert_eq!(verified(&mut wire).unlinked, [made_up(0), made_up(1)]);
    assert_eq!(wire.replicas[1].members().count(), 2, "a name is no member until the node speaks");
    down(&mut wire, 1, 2);
    down(&mut wire, 0, 2);
    wire.replicas[1].forget(now, &liar);
    let found = verified(&mut wire);
    assert!(found.converged(), "{found}");
}

/// The membership drops a name because no member reaches it. The replica then drops the name too. The counts of the node stay.
#[test]
fn the_replica_drops_a_name_that_the_membership_drops() {
    let mut wire = three();
    let (a, liar, now) = (wire.node(0), wire.node(2), wire.now_at(1));
    wire.replicas[1].handle_introduced(now, &made_up(0), Incarnation(1), Life::Dead, &liar);
    for node in [&made_up(0), &a] {
        wire.replicas[1].handle_dropped(now, node);
    }
    assert_eq!((wire.replicas[1].nodes().count(), wire.total(1, "k")), (2, 3));
}
