//! Counts that outlive the run that counted.

use super::*;

/// What a run has counted stays when the node leaves, dies or starts again; the new run learns it from the others.
#[test]
fn counts_outlive_the_run_that_counted() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 2, "k", 1);
    wire.talk();
    let now = wire.now;
    wire.replicas[2].leave(now);
    wire.talk();
    wire.down(0, 1);
    wire.down(0, 2);
    wire.down(1, 2);
    wire.replicas[1].handle_member(now, &name("a"), Incarnation(1000), Life::Dead);
    wire.wait(1);
    assert_eq!(counts(&wire, 1, "k"), [6, 0, 0]);

    wire.replicas[0] = Replica::new(config(), name("a"), Incarnation(2000));
    wire.replicas[0].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    keep(&mut wire, 0);
    add(&mut wire, 0, "k", 10);
    wire.up(0, 1);
    wire.run(3);
    assert_eq!(counts(&wire, 0, "k"), [16, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [16, 0, 0]);
    let of_a = series(&wire, 1).count_from(&name("a"), Scope::Key(b"k"), 0..=0);
    assert_eq!(of_a, Some(15), "both runs");
}

/// A node that renews states its counts again under the new run. No node counts them twice, in whatever order it learns of the
/// two runs.
#[test]
fn a_renewed_run_takes_its_counts_along() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 1);
    wire.talk();
    clear(&mut wire, 1, "k");
    add(&mut wire, 0, "k", 2);
    wire.talk();
    everywhere(&wire, "k", &[2, 0, 0]);
    // c learns of it only from b.
    wire.down(0, 2);
    let (now, run) = (wire.now, wire.replicas[0].actor().incarnation);
    wire.replicas[0].renew(now, run).unwrap();
    add(&mut wire, 0, "k", 20);
    wire.run(12);
    everywhere(&wire, "k", &[0, 22, 0]);
    wire.up(0, 2);
    wire.run(3);
    everywhere(&wire, "k", &[0, 22, 0]);
    clear(&mut wire, 2, "k");
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// A node that starts again behind a clock that was set back finds its earlier run to be a later one. What that has counted
/// is not its own to void.
#[test]
fn a_renewed_run_voids_no_other_process() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    wire.down(0, 1);
    wire.replicas[0] = Replica::new(config(), name("a"), Incarnation(900));
    wire.replicas[0].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    keep(&mut wire, 0);
    add(&mut wire, 0, "k", 10);
    wire.up(0, 1);
    wire.run(3);
    assert!(wire.replicas[0].actor().incarnation > Incarnation(1000));
    for _ in 0..2 {
        let (now, run) = (wire.now, wire.replicas[0].actor().incarnation);
        wire.replicas[0].renew(now, run).unwrap();
        wire.run(2);
    }
    everywhere(&wire, "k", &[15, 0, 0]);
}

#[test]
fn a_forgotten_node_counts_no_more() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 1);
    wire.run(1);
    // It cleared b's count; with its rows that is forgotten too.
    clear(&mut wire, 0, "k");
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
    wire.down(0, 1);
    wire.down(0, 2);
    let now = wire.now;
    wire.replicas[1].forget(now, &name("a"));
    wire.run(1);
    assert_eq!(counts(&wire, 1, "k"), [1, 0, 0]);
    assert_eq!(counts(&wire, 2, "k"), [1, 0, 0]);
}

/// A node dies while its rows are on their way. Copies that are equally far can differ then: a row that had moved on was
/// left out of the one and not of the other. They become equal.
#[test]
fn copies_of_the_dead_become_equal() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "moves", 1);
    let first: Vec<_> = wire.take(0, 1).into_iter().filter(|bytes| is_delta(bytes)).collect();
    add(&mut wire, 0, "stays", 10);
    add(&mut wire, 0, "moves", 2);
    // To b comes what was cut before "moves" moved on, and what follows up to there; to c one row that was cut later.
    let (to_b, to_c) = (wire.take(0, 1), wire.take(0, 2));
    let deltas = |list: Vec<Vec<u8>>| list.into_iter().find(|bytes| is_delta(bytes)).unwrap();
    wire.give(0, 1, &first[0]).unwrap();
    wire.give(0, 1, &deltas(to_b)).unwrap();
    wire.give(0, 2, &deltas(to_c)).unwrap();
    let a = wire.replicas[0].actor().clone();
    wire.down(0, 1);
    wire.down(0, 2);
    let have = |wire: &Wire, at: usize| {
        let held = series(wire, at).windows()[0].held();
        held.into_iter().find(|held| held.actor == a).map(|held| (held.applied, held.rows))
    };
    assert_eq!((have(&wire, 1), have(&wire, 2)), (Some((Version(2), 2)), Some((Version(2), 1))));
    let now = wire.now;
    for at in [1, 2] {
        wire.replicas[at].handle_member(now, &name("a"), a.incarnation, Life::Dead);
    }
    let counts_of = |wire: &Wire| [1, 2].map(|at| (counts(wire, at, "moves"), counts(wire, at, "stays")));
    wire.run(6);
    let [b, c] = counts_of(&wire);
    assert_eq!((&b.0[..], &b.1[..]), (&[1, 0, 0][..], &[10, 0, 0][..]));
    assert_eq!(b, c);
    let wants = [1, 2].map(|at| wire.replicas[at].counters().wants_out);
    wire.run(6);
    assert_eq!([1, 2].map(|at| wire.replicas[at].counters().wants_out), wants, "then nobody asks any more");
}
