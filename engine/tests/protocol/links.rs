//! Links that come and go, nodes that join and leave, and time.

use std::time::Duration;

use tallymesh_engine::Life;
use tallymesh_schemas::message::Message;

use crate::wire::{Wire, config, read, spec};

/// Totals only grow, of a node that leaves as well, whatever is counted meanwhile and whatever sign it has.
#[test]
fn a_leaving_node_takes_nothing_back() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(0, "k", 10);
    wire.add_to(0, "k", -3);
    wire.add_to(0, "less", -5);
    wire.talk();
    let now = wire.now;
    wire.replicas[0].leave(now);
    wire.add_to(0, "k", -4);
    wire.add_to(0, "new", 1);
    let messages = wire.take(0, 1);
    for bytes in &messages {
        wire.give(0, 1, bytes).unwrap();
    }
    assert!(matches!(read(messages.last().unwrap()), Message::Goodbye));
    let mut rows = wire.structure(1).rows_of(wire.replicas[0].actor());
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    let rows: Vec<_> = rows.iter().map(|(key, row)| (key.as_slice(), row.added, row.removed)).collect();
    assert_eq!(rows, [(&b"k"[..], 10, 10), (&b"less"[..], 5, 5)]);
    wire.structure(0).audit().unwrap();
    let nodes: Vec<_> = wire.replicas[1].nodes().map(|(name, _, life)| (name.as_str().to_owned(), life)).collect();
    assert_eq!(nodes, [("a".to_owned(), Life::Left)]);
    assert!(wire.replicas[0].has_left());
}

/// A joiner without snapshot starts where its peers are. Digests of many actors come in several messages; it has joined all
/// the same, and who comes later is known from the beginning.
#[test]
fn joining_ends_with_a_digest_in_several_messages() {
    let mut late = spec();
    late.snapshot = false;
    let many: Vec<_> = (0..20).map(|i| format!("s{i:02}")).collect();
    let mut wire = Wire::new(&["a"]);
    // Many structures come before this one's id or after it; one of them has so many actors that the digest is cut.
    for extra in &many {
        let mut spec = spec();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        wire.replicas[0].replicate(spec, std::sync::Arc::new(|| ())).unwrap();
    }
    for i in 0..60 {
        wire.add(&format!("n{i}"), &config(), &spec());
    }
    for extra in &many {
        let mut spec = spec();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        for replica in &mut wire.replicas[1..] {
            replica.replicate(spec.clone(), std::sync::Arc::new(|| ())).unwrap();
        }
    }
    for i in 1..wire.replicas.len() {
        wire.up(0, i);
        wire.talk();
    }
    assert!(wire.take(0, 1).is_empty());
    let joiner = wire.add("joiner", &config(), &late);
    for extra in &many {
        let mut spec = late.clone();
        spec.name = tallymesh_schemas::StructureName::new(extra).unwrap();
        wire.replicas[joiner].replicate(spec, std::sync::Arc::new(|| ())).unwrap();
    }
    wire.up(0, joiner);
    let digests = wire.take(0, joiner);
    assert!(digests.len() > 1, "the digest takes several messages");
    for bytes in digests {
        wire.give(0, joiner, &bytes).unwrap();
    }
    wire.talk();
    let later = wire.add("later", &config(), &spec());
    wire.add_to(later, "k", 5);
    wire.up(later, joiner);
    wire.talk();
    assert_eq!(wire.total(joiner, "k"), 5);
}

/// A peer's copy begins in the middle. The replica does not ask it for earlier rows, because it would ask for ever.
#[test]
fn a_replica_does_not_ask_a_peer_without_the_missing_rows() {
    let mut late = spec();
    late.snapshot = false;
    let mut wire = Wire::new(&["a", "b"]);
    let c = wire.add("c", &config(), &late);
    wire.up(0, 1);
    wire.add_to(0, "k1", 1);
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "k2", 1);
    wire.add_to(0, "k3", 1);
    wire.up(0, c);
    wire.talk();
    wire.add_to(0, "k4", 1);
    wire.talk();
    wire.down(0, c);
    // b has up to 1, c knows what came after 3.
    wire.up(1, c);
    wire.run(5);
    let asked = wire.replicas[1].counters().wants_out;
    wire.run(30);
    assert_eq!(wire.replicas[1].counters().wants_out, asked, "c cannot help");
    wire.up(0, 1);
    wire.run(2);
    wire.assert_same(0, 1);
}

/// I8. After [`handle_timeout`](tallymesh_engine::Replica::handle_timeout) the timer lies ahead, also when the sweep has
/// retired rows.
#[test]
fn the_timer_moves_on_when_rows_are_retired() {
    let mut wire = Wire::new(&["a"]);
    wire.add_to(0, "k", 1);
    wire.add_to(0, "k", -1);
    for _ in 0..100 {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        let now = wire.now;
        wire.replicas[0].handle_timeout(now);
        assert!(wire.replicas[0].poll_timeout() > now.mono);
    }
    assert_eq!(wire.structure(0).held()[0].rows, 0);
}

/// A link shows that a node is alive, but not after the link is down. The membership may never have known the node, or may
/// have declared it dead before. Then no other report would say that the node is gone.
#[test]
fn a_link_that_is_down_keeps_no_node_alive() {
    let mut drop = spec();
    drop.on_dead = tallymesh_schemas::OnDead::Drop(Duration::from_secs(3));
    for told in [None, Some(Life::Dead), Some(Life::Alive)] {
        let mut wire = Wire::with(&["a", "b"], &config(), &drop);
        let (a, now) = (wire.replicas[0].actor().clone(), wire.now);
        if let Some(life) = told {
            wire.replicas[1].handle_member(now, &a.node, a.incarnation, life);
        }
        wire.add_to(0, "k", 3);
        wire.up(0, 1);
        wire.run(2);
        assert_eq!(wire.total(1, "k"), 3);
        wire.down(0, 1);
        wire.wait(2);
        assert_eq!(wire.total(1, "k"), 3, "it still counts for a while");
        wire.wait(4);
        assert_eq!(wire.total(1, "k"), if told == Some(Life::Alive) { 3 } else { 0 }, "{told:?}");
    }
}

/// A link is replaced during a verification. The verification asks again over the new link.
#[test]
fn a_verification_asks_again_over_a_new_link() {
    let mut wire = Wire::new(&["a", "b"]);
    wire.up(0, 1);
    wire.add_to(1, "k", 3);
    wire.talk();
    let now = wire.now;
    let nonce = wire.replicas[0].probe(now);
    assert!(!wire.replicas[0].verification(nonce).converged());
    wire.take(0, 1);
    wire.down(0, 1);
    wire.up(0, 1);
    wire.talk();
    assert!(wire.replicas[0].verification(nonce).converged());
}
