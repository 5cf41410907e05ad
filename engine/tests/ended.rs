//! A run that has ended, and of which a structure holds nothing, costs nothing there (I13). Runs that have counted keep their rows.

#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Config, Replica};
use tallymesh_schemas::message::{DigestEntry, Message};
use tallymesh_schemas::saved::Change;
use tallymesh_schemas::{
    Actor, Class, Incarnation, Kind, SeriesName, SeriesSpec, StructureName, StructureSpec, Version,
};
use wire::{Wire, name};

const KEY: &[u8] = b"k";

/// Structures in which the rows of a run stay when it has ended.
const NAMES: [&str; 3] = ["gauge_x", "gauge_y", "gauge_z"];

fn config() -> Config {
    Config { delta_bytes: 1000, ..wire::config() }
}

fn specs() -> impl Iterator<Item = StructureSpec> {
    NAMES.into_iter().map(|name| {
        let mut spec = StructureSpec::new(StructureName::new(name).unwrap(), Class::GaugeCache);
        spec.max_delay = Duration::ZERO;
        spec
    })
}

fn replicate(wire: &mut Wire, at: usize) {
    for spec in specs() {
        wire.replicas[at].replicate(spec, Arc::new(|| ())).unwrap();
    }
    let mut series = SeriesSpec::new(SeriesName::new("s").unwrap(), Kind::GaugeTable, 600, 4);
    series.max_delay = Duration::ZERO;
    let now = wire.now;
    wire.replicas[at].replicate_series(now, series, Arc::new(|| ())).unwrap();
}

fn cluster(names: &[&str]) -> Wire {
    let mut wire = Wire::with(names, &config(), &wire::spec());
    (0..names.len()).for_each(|at| replicate(&mut wire, at));
    for a in 0..names.len() {
        (a + 1..names.len()).for_each(|b| wire.up(a, b));
    }
    wire.run(2);
    wire
}

/// The node ends, and a new process without memory begins.
fn restart(wire: &mut Wire, at: usize) {
    let others: Vec<_> = (0..wire.replicas.len()).filter(|other| *other != at).collect();
    others.iter().for_each(|other| wire.down(at, *other));
    let run = wire.replicas[at].actor().incarnation.0 + 1000;
    wire.replicas[at] = Replica::new(config(), wire.node(at), Incarnation(run));
    wire.replicas[at].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    replicate(wire, at);
    others.iter().for_each(|other| wire.up(at, *other));
    wire.run(2);
}

fn add(wire: &mut Wire, at: usize, structure: &str, n: i64) {
    wire.replicas[at].structure(structure).unwrap().add(KEY, n).unwrap();
    let now = wire.now;
    wire.replicas[at].handle_changes(now);
    wire.talk();
}

fn held(wire: &Wire, at: usize, structure: &str) -> Vec<Actor> {
    wire.replicas[at].structure(structure).unwrap().held().into_iter().map(|held| held.actor).collect()
}

/// Copies on a node, and what it keeps about its links.
fn size(wire: &Wire, at: usize) -> (usize, usize, usize) {
    let replica = &wire.replicas[at];
    let copies = replica.structures().iter().map(|structure| structure.held().len()).sum();
    (copies, replica.link_entries(), replica.relay_entries())
}

/// Bytes of a digest of everything.
fn digest_bytes(wire: &mut Wire, from: usize, to: usize) -> usize {
    let now = wire.now;
    wire.replicas[to].probe(now);
    for bytes in wire.take(to, from) {
        wire.give(to, from, &bytes).unwrap();
    }
    let answer = wire.take(from, to);
    answer.iter().for_each(|bytes| wire.give(from, to, bytes).unwrap());
    wire.talk();
    answer.iter().filter(|bytes| matches!(wire::read(bytes), Message::Digest(_))).map(Vec::len).sum()
}

/// An entry of a digest about a run in a structure.
fn says(wire: &mut Wire, (from, to): (usize, usize), structure: &str, actor: &Actor, applied: u64) {
    let spec = wire.replicas[to].structure(structure).unwrap().spec().clone();
    let entry = DigestEntry {
        actor: actor.clone(),
        since: Version(0),
        applied: Version(applied),
        low_water: Version(0),
        fingerprint: applied,
        age_ms: None,
    };
    let digest = wire.digest_about(from, &spec, vec![entry]);
    wire.give(from, to, &digest).unwrap();
}

#[test]
fn runs_that_counted_nothing_leave_nothing() {
    let mut wire = cluster(&["a", "b", "c"]);
    add(&mut wire, 0, NAMES[0], 1);
    restart(&mut wire, 1);
    wire.run(5);
    let before: Vec<_> = (0..3).map(|at| size(&wire, at)).collect();
    let bytes = digest_bytes(&mut wire, 0, 1);
    for round in 0..12 {
        restart(&mut wire, 1 + round % 2);
    }
    wire.run(5);
    let after: Vec<_> = (0..3).map(|at| size(&wire, at)).collect();
    assert_eq!(after, before, "copies, entries about links, entries of relays");
    let now = digest_bytes(&mut wire, 0, 1);
    assert!(now.abs_diff(bytes) < 20, "{bytes} bytes before, {now} now");
}

#[test]
fn runs_that_counted_stay_and_come_to_new_nodes() {
    let mut wire = cluster(&["a", "b", "c"]);
    let run = wire.replicas[1].actor().clone();
    add(&mut wire, 1, NAMES[1], 7);
    restart(&mut wire, 1);
    restart(&mut wire, 2);
    for at in 0..3 {
        assert_eq!(wire.replicas[at].structure(NAMES[1]).unwrap().count(KEY, wire.now.mono).total, 7);
        assert!(held(&wire, at, NAMES[1]).contains(&run), "its rows stay");
        assert!(!held(&wire, at, NAMES[2]).contains(&run), "it counted nothing there");
    }
}

/// A run ends while its rows are on the way to a node. That node gets them from another one.
#[test]
fn rows_that_come_after_the_run_has_ended_are_taken() {
    let mut wire = cluster(&["a", "b", "c"]);
    wire.down(0, 1);
    wire.down(0, 2);
    add(&mut wire, 1, NAMES[0], 5);
    // b begins again and reaches a first. a drops the earlier run, of which it has nothing.
    wire.down(1, 2);
    let run = wire.replicas[1].actor().clone();
    wire.replicas[1] = Replica::new(config(), name("b"), Incarnation(9000));
    wire.replicas[1].replicate(wire::spec(), Arc::new(|| ())).unwrap();
    replicate(&mut wire, 1);
    wire.up(0, 1);
    wire.run(1);
    assert!(!held(&wire, 0, NAMES[0]).contains(&run));
    wire.up(0, 2);
    // a tells b in its next digest.
    wire.run(2);
    assert_eq!(wire.replicas[0].structure(NAMES[0]).unwrap().count(KEY, wire.now.mono).total, 5);
    assert_eq!(wire.replicas[1].structure(NAMES[0]).unwrap().count(KEY, wire.now.mono).total, 5);
}

/// Builds without this rule list all runs.
#[test]
fn an_entry_about_nothing_is_not_admitted() {
    let mut wire = cluster(&["a", "b"]);
    let ended = Actor::new(name("b"), Incarnation(1));
    says(&mut wire, (1, 0), NAMES[0], &ended, 0);
    assert!(!held(&wire, 0, NAMES[0]).contains(&ended));
    let before = size(&wire, 0);
    says(&mut wire, (1, 0), NAMES[0], &ended, 0);
    assert_eq!(size(&wire, 0), before);
}

/// A peer claims rows of an ended run and does not send them. While the peer has a link, this node waits for them.
#[test]
fn a_copy_that_no_peer_can_fill_goes() {
    let mut wire = cluster(&["a", "b", "c"]);
    let ended = Actor::new(name("c"), Incarnation(1));
    says(&mut wire, (1, 0), NAMES[0], &ended, 9);
    wire.wait(3);
    assert!(held(&wire, 0, NAMES[0]).contains(&ended));
    wire.down(0, 1);
    wire.wait(2);
    assert!(!held(&wire, 0, NAMES[0]).contains(&ended));
}

#[test]
fn saved_state_has_no_runs_that_counted_nothing() {
    let mut wire = cluster(&["a", "b"]);
    wire.replicas[0].keep_state();
    add(&mut wire, 1, NAMES[0], 1);
    for _ in 0..5 {
        restart(&mut wire, 1);
    }
    let mut rows = Vec::new();
    while let Some(batch) = wire.replicas[0].poll_save() {
        for change in batch.changes {
            match change {
                Change::Rows { shape, actor, .. } => rows.push((shape.name, actor)),
                Change::Facts(facts) => assert_eq!(facts.nodes.len(), 1),
                _ => {}
            }
        }
        wire.replicas[0].handle_saved();
    }
    assert_eq!(rows, [(NAMES[0].to_owned(), Actor::new(name("b"), Incarnation(1001)))]);
}

/// A digest names what has changed, in the structures that have changed.
#[test]
fn a_digest_names_the_structure_that_has_changed() {
    let mut wire = cluster(&["a", "b"]);
    wire.run(5);
    add(&mut wire, 0, NAMES[2], 1);
    add(&mut wire, 0, NAMES[2], 1);
    let mut named = Vec::new();
    for _ in 0..15 {
        wire.wait_a_little();
        for bytes in wire.take(0, 1) {
            if let Message::Digest(digest) = wire::read(&bytes)
                && !digest.complete
            {
                named.extend(digest.structures.iter().map(|part| part.name.to_owned()));
            }
            wire.give(0, 1, &bytes).unwrap();
        }
    }
    assert_eq!(named, [NAMES[2]]);
}
