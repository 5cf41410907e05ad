//! Verification says "converged" only of what it compared, and blames nobody for what it could not compare in time (I14).

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::time::Duration;

use tallymesh_engine::Life;
use tallymesh_engine::replica::{Backlog, Fault, NotHeld, Outcome, Verification, Verifier};
use tallymesh_schemas::message::{DigestEntry, Message};
use tallymesh_schemas::{Actor, Bound, Incarnation, NodeName, Version, bounds};
use wire::{Wire, name, spec};

const PATIENCE: Duration = Duration::from_secs(5);

/// Three nodes that are linked and have what each other counts.
fn three() -> Wire {
    let mut wire = Wire::new(&["a", "b", "c"]);
    for (x, y) in [(0, 1), (0, 2), (1, 2)] {
        wire.up(x, y);
    }
    for at in 0..3 {
        wire.add_to(at, "k", 1);
    }
    wire.talk();
    wire
}

/// Verifies on the first node; `step` is what happens between two looks.
fn verify(wire: &mut Wire, mut step: impl FnMut(&mut Wire)) -> (Verification, Duration) {
    let began = wire.now.mono;
    let now = wire.now;
    let mut verifier = Verifier::new(&mut wire.replicas[0], now, PATIENCE);
    loop {
        let now = wire.now;
        if let Some(found) = verifier.poll(&mut wire.replicas[0], now, |_| true, Backlog::Empty) {
            return (found, wire.now.mono.since(began));
        }
        step(wire);
        wire.now.mono = wire.now.mono.after(Duration::from_millis(10));
        assert!(wire.now.mono.since(began) < PATIENCE * 2, "it does not end");
    }
}

fn talk(wire: &mut Wire) {
    wire.talk();
}

#[test]
fn what_all_hold_has_converged() {
    let mut wire = three();
    let (found, took) = verify(&mut wire, talk);
    assert_eq!((found.outcome(), found.members.len(), found.copies), (Outcome::Converged, 3, 9));
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_dead_member_is_named_at_once() {
    let mut wire = three();
    let run = wire.replicas[2].actor().clone();
    wire.down(0, 2);
    wire.down(1, 2);
    let now = wire.now;
    for at in 0..2 {
        wire.replicas[at].handle_member(now, &run.node, run.incarnation, Life::Dead);
    }
    let (found, took) = verify(&mut wire, talk);
    assert_eq!((found.outcome(), found.dead, found.findings), (Outcome::NotConverged, vec![name("c")], vec![]));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn a_member_that_has_left_is_not_missed() {
    let mut wire = three();
    let now = wire.now;
    wire.replicas[2].leave(now);
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    assert_eq!(verify(&mut wire, talk).0.outcome(), Outcome::Converged);
}

/// A member is alive, and other members report it. In a small cluster it should have a link.
#[test]
fn an_unlinked_member_is_named() {
    let mut wire = three();
    let run = wire.replicas[2].actor().clone();
    wire.down(0, 2);
    let now = wire.now;
    wire.replicas[0].handle_member(now, &run.node, run.incarnation, Life::Alive);
    let (found, _) = verify(&mut wire, talk);
    assert_eq!((found.outcome(), &found.unlinked), (Outcome::NotConverged, &vec![name("c")]));
    // In a large one it need not: others pass its rows on.
    let mut verifier = Verifier::new(&mut wire.replicas[0], now, PATIENCE);
    wire.talk();
    let found = verifier.poll(&mut wire.replicas[0], now, |_| false, Backlog::Empty).unwrap();
    assert_eq!((found.outcome(), found.beyond), (Outcome::Converged, vec![name("c")]));
}

#[test]
fn a_silent_member_is_named_and_the_others_are_compared() {
    let mut wire = three();
    wire.add_to(1, "k", 1);
    let (found, _) = verify(&mut wire, |wire| {
        // `c` does not read and does not write.
        let messages = [(0, 1), (1, 0)].map(|(from, to)| (from, to, wire.take(from, to)));
        for (from, to, messages) in messages {
            messages.iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
        }
    });
    assert_eq!((found.outcome(), &found.silent), (Outcome::NotConverged, &vec![name("c")]));
    assert_eq!(found.members, [name("a"), name("b")]);
    assert_eq!(found.findings, [], "that c says nothing is no fault of b's");
}

/// The answer is under way for longer than there is patience: nobody is wrong, and nothing is known to be right.
#[test]
fn an_answer_that_comes_too_late_is_no_fault() {
    let mut wire = three();
    wire.add_to(2, "k", 1);
    wire.talk();
    // What `c` said before it was asked is older than what `a` holds now: it is not compared.
    wire.add_to(0, "k", 1);
    let (found, _) = verify(&mut wire, |wire| {
        wire.take(0, 1).iter().for_each(|bytes| wire.give(0, 1, bytes).unwrap());
        wire.take(1, 0).iter().for_each(|bytes| wire.give(1, 0, bytes).unwrap());
        let mut rows = wire.take(2, 0);
        wire.take(0, 2);
        rows.retain(|bytes| !matches!(Message::decode(bytes), Ok(Message::Digest(digest)) if digest.answers > 0));
        let probe = Message::Probe { nonce: 0 };
        let mut said = Vec::new();
        probe.encode(&mut said).unwrap();
        rows.push(said);
        rows.iter().for_each(|bytes| wire.give(2, 0, bytes).unwrap());
    });
    assert_eq!((found.outcome(), &found.late), (Outcome::NotCompared, &vec![name("c")]), "{found:?}");
}

/// A node that has not yet read its peers' answers does not report the peers as silent.
#[test]
fn a_slow_node_does_not_call_its_peers_silent() {
    let mut wire = three();
    let now = wire.now;
    let mut verifier = Verifier::new(&mut wire.replicas[0], now, PATIENCE);
    wire.now.mono = wire.now.mono.after(PAUSE_AND_MORE);
    let now = wire.now;
    assert_eq!(verifier.poll(&mut wire.replicas[0], now, |_| true, Backlog::Waiting), None, "it reads first");
    wire.talk();
    let found = verifier.poll(&mut wire.replicas[0], now, |_| true, Backlog::Empty).unwrap();
    assert_eq!(found.outcome(), Outcome::Converged);
    // Nor when it never comes to it.
    let mut verifier = Verifier::new(&mut wire.replicas[0], now, PATIENCE);
    let mut found = None;
    while found.is_none() {
        wire.now.mono = wire.now.mono.after(PAUSE_AND_MORE);
        let now = wire.now;
        found = verifier.poll(&mut wire.replicas[0], now, |_| true, Backlog::Waiting);
    }
    let found = found.unwrap();
    assert_eq!((found.outcome(), found.late), (Outcome::NotCompared, vec![name("b"), name("c")]));
}

const PAUSE_AND_MORE: Duration = Duration::from_secs(6);

/// A node counts all the time. The verification compares its rows all the same: it compares the state at the start of the
/// verification.
#[test]
fn counts_that_keep_changing_are_compared() {
    let mut wire = three();
    let mut hold = None;
    let (found, took) = verify(&mut wire, |wire| {
        // What `b` counts comes to `c` one step after it comes to `a`.
        wire.add_to(1, "k", 1);
        if let Some(late) = hold.replace(wire.take(1, 2)) {
            late.iter().for_each(|bytes: &Vec<u8>| wire.give(1, 2, bytes).unwrap());
        }
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (2, 1)] {
            wire.take(from, to).iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
        }
    });
    assert_ne!(found.outcome(), Outcome::NotConverged, "after {took:?}: {found:?}");
    assert!(found.findings.iter().all(|finding| finding.fault == Fault::Changes), "{found:?}");
}

/// A copy that stays behind is called so, and by no other word.
#[test]
fn a_copy_that_stays_behind_lags() {
    let mut wire = three();
    wire.add_to(1, "k", 1);
    let (found, _) = verify(&mut wire, |wire| {
        // Deltas of `b` do not reach `c`.
        let lost = wire.take(1, 2).into_iter().filter(|bytes| !matches!(Message::decode(bytes), Ok(Message::Delta(_))));
        lost.collect::<Vec<_>>().iter().for_each(|bytes| wire.give(1, 2, bytes).unwrap());
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0), (2, 1)] {
            wire.take(from, to).iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
        }
    });
    assert_eq!(found.outcome(), Outcome::NotConverged);
    let lags: Vec<_> = found.findings.iter().map(|finding| (&finding.member, finding.fault)).collect();
    assert_eq!(lags, [(&name("c"), Fault::Lags)]);
}

/// Digests in which a member names runs of its own.
fn names_runs(wire: &mut Wire, at: usize, from: usize, runs: &[Actor]) {
    let spec = wire.structure(at).spec().clone();
    for runs in runs.chunks(bounds::DIGEST_ENTRIES) {
        let entry = |actor: &Actor| DigestEntry {
            actor: actor.clone(),
            since: Version(0),
            applied: Version(7),
            low_water: Version(0),
            fingerprint: 1,
            age_ms: None,
        };
        let digest = wire.digest_about(from, &spec, runs.iter().map(entry).collect());
        wire.give(from, at, &digest).unwrap();
    }
}

fn ghosts(count: usize) -> Vec<Actor> {
    (0..count).map(|n| Actor::new(NodeName::new(&format!("ghost-{n:05}")).unwrap(), Incarnation(1))).collect()
}

fn times(wire: &Wire, at: usize, bound: Bound) -> u64 {
    wire.replicas[at].bounds().iter().filter(|report| report.bound == bound).map(|report| report.times).sum()
}

/// A member that names ever new runs of its own in a structure where ended runs stay keeps nobody else out. The runs that find
/// no place are named, and it has not converged: nobody reads what they count (I14).
#[test]
fn a_node_with_many_runs_leaves_places_for_others() {
    let mut spec = spec();
    spec.class = tallymesh_schemas::Class::GaugeCache;
    let mut wire = Wire::new(&[]);
    for node in ["a", "liar", "late"] {
        wire.add(node, &wire::config(), &spec);
    }
    let mut liar = tallymesh_engine::Replica::new(wire::config(), name("liar"), Incarnation(1_000_000));
    liar.replicate(spec.clone(), std::sync::Arc::new(|| ())).unwrap();
    wire.replicas[1] = liar;
    wire.up(0, 1);
    wire.talk();
    let runs: Vec<_> = (1..=6000).map(|n| Actor::new(name("liar"), Incarnation(n))).collect();
    names_runs(&mut wire, 0, 1, &runs);
    assert!(times(&wire, 0, Bound::Actors) > 0, "its runs are bounded");
    let held = |wire: &Wire, node: &str| wire.structure(0).held().iter().any(|held| held.actor.node == name(node));
    wire.up(0, 2);
    wire.talk();
    assert!(held(&wire, "late"), "a node that comes later has a place");
    let nonce = wire.replicas[0].probe(wire.now);
    let found = wire.replicas[0].verification(nonce);
    let runs =
        found.unheld.iter().filter(|what| matches!(what, NotHeld::Run { actor, .. } if actor.node == name("liar")));
    assert_eq!(
        (runs.count(), found.more_unheld),
        (bounds::UNHELD, true),
        "the others are named as far as there is room"
    );
    // Forgetting the node makes room.
    let now = wire.now;
    wire.replicas[0].forget(now, &name("liar"));
    let nonce = wire.replicas[0].probe(wire.now);
    let found = wire.replicas[0].verification(nonce);
    assert_eq!((found.unheld.len(), found.more_unheld), (0, false));
}

/// A name that one member has made up is no member: nobody misses it, and nobody lists it.
#[test]
fn a_made_up_name_is_no_member() {
    let mut wire = Wire::new(&["a", "liar"]);
    wire.up(0, 1);
    wire.talk();
    names_runs(&mut wire, 0, 1, &ghosts(5));
    assert_eq!(wire.replicas[0].nodes().count(), 6);
    assert_eq!(wire.replicas[0].members().count(), 1);
    let nonce = wire.replicas[0].probe(wire.now);
    assert_eq!(wire.replicas[0].verification(nonce).dead, []);
}

/// A replica bounds the number of nodes that it knows by hearsay, and keeps places for the nodes that have a link.
#[test]
fn nodes_known_by_hearsay_leave_places_for_linked_nodes() {
    let mut wire = Wire::new(&["a", "liar", "late"]);
    wire.up(0, 1);
    wire.talk();
    names_runs(&mut wire, 0, 1, &ghosts(6000));
    assert!(times(&wire, 0, Bound::Nodes) > 0);
    let now = wire.now;
    let nonce = wire.replicas[0].probe(now);
    let found = wire.replicas[0].verification(nonce);
    assert!(found.unheld.iter().any(|what| matches!(what, NotHeld::Node { .. })), "they are named");
    assert_eq!(found.outcome(), Outcome::NotConverged);
    wire.up(0, 2);
    wire.add_to(2, "k", 5);
    wire.talk();
    assert_eq!(wire.total(0, "k"), 5, "what it counts is taken");
    // When an operator forgets the liar, the verification does not miss the nodes that only the liar reported.
    wire.replicas[0].forget(now, &name("liar"));
    let nonce = wire.replicas[0].probe(wire.now);
    let found = wire.replicas[0].verification(nonce);
    assert_eq!((found.unheld.len(), found.more_unheld), (0, false));
}
