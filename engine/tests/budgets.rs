//! Budgets: a change that does not fit fails and is counted, a peer pushes no node over its budget, and what waits comes when
//! there is room.

#[allow(dead_code, reason = "each test crate uses its part")]
mod disk;
#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use disk::Disk;
use tallymesh_engine::replica::{NotHeld, Outcome, Verification};
use tallymesh_engine::{CacheError, Config, Usage};
use tallymesh_schemas::bound::Report;
use tallymesh_schemas::budget::Unit;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::saved::{Change, Facts, Part, split};
use tallymesh_schemas::{
    Bound, Budget, Class, GaugeCacheSpec, Incarnation, Kind, OverBudget, SeriesName, SeriesSpec, StructureName,
    StructureSpec,
};
use wire::{NAME, Wire, config, name, spec};

fn most(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

/// Deltas carry many rows.
fn large() -> Config {
    Config { delta_bytes: 256 << 10, ..config() }
}

/// Nodes `a` and `c` without bounds, and `small`, which may hold 10 keys, all linked.
fn three(config: &Config) -> Wire {
    let mut wire = Wire::with(&["a", "c"], config, &spec());
    wire.add("small", config, &spec().with_max_keys(most(10)));
    for (x, y) in [(0, 1), (0, 2), (1, 2)] {
        wire.up(x, y);
    }
    wire.talk();
    wire
}

const SMALL: usize = 2;

fn count(wire: &mut Wire, at: usize, keys: std::ops::Range<usize>, n: i64) {
    let structure = wire.structure(at);
    keys.for_each(|key| structure.add(format!("k{key}.example").as_bytes(), n).unwrap());
    wire.replicas[at].handle_changes(wire.now);
}

fn verify(wire: &mut Wire, at: usize) -> Verification {
    let nonce = wire.replicas[at].probe(wire.now);
    wire.talk();
    wire.replicas[at].verification(nonce)
}

fn no_room() -> NotHeld {
    NotHeld::NoRoom { structure: StructureName::new(NAME).unwrap() }
}

fn reached(wire: &Wire, at: usize) -> Vec<Report> {
    wire.replicas[at].bounds().into_iter().filter(|report| report.bound == Bound::Budget).collect()
}

/// How many keys the node holds, and may hold, in its object.
fn usage(wire: &Wire, at: usize) -> (u64, Option<u64>) {
    let Usage { used, max } = wire.structure(at).usage();
    assert_eq!(used, wire.structure(at).keys() as u64, "what is in use is what is there");
    assert_eq!(used, wire.replicas[at].budget().keys().used, "the node has one object");
    wire.structure(at).audit().unwrap();
    (used, max)
}

#[test]
fn a_change_that_does_not_fit_fails_and_is_counted() {
    let mut wire = Wire::with(&["a"], &config(), &spec().with_max_keys(most(2)));
    let structure = wire.structure(0);
    structure.add(b"one.example", 1).unwrap();
    structure.add(b"two.example", 1).unwrap();
    let object = Some(NAME.to_owned());
    let over = KeyError::Budget(OverBudget { object: object.clone(), unit: Unit::Keys, used: 2, max: 2 });
    assert_eq!(structure.add(b"three.example", 1), Err(over.clone()));
    assert_eq!(structure.counter(b"three.example").unwrap_err(), over);
    structure.add(b"one.example", 5).unwrap();
    assert_eq!((wire.total(0, "one.example"), wire.total(0, "three.example")), (6, 0));
    assert_eq!(wire.replicas[0].counters().keys_refused, 2);
    assert_eq!(reached(&wire, 0), [Report { bound: Bound::Budget, place: object, limit: 2, times: 2 }]);
    assert_eq!(usage(&wire, 0), (2, Some(2)));
    // A key that is gone makes room.
    structure.add(b"two.example", -1).unwrap();
    wire.run(5);
    structure.add(b"three.example", 1).unwrap();
    assert_eq!(usage(&wire, 0), (2, Some(2)));
}

/// Of the keys that many threads add, exactly as many are taken as fit.
#[test]
fn threads_share_a_budget_exactly() {
    let wire = Wire::with(&["a"], &config(), &spec().with_max_keys(most(1000)));
    let structure = wire.structure(0);
    let taken: usize = std::thread::scope(|scope| {
        let add = |thread: usize| {
            let structure = &structure;
            move || {
                (0..1000).filter(|key| structure.add(format!("{thread}.{key}.example").as_bytes(), 1).is_ok()).count()
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(add(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!((taken, usage(&wire, 0)), (1000, (1000, Some(1000))));
    assert_eq!(wire.replicas[0].counters().keys_refused, 3000);
}

/// The total of the node counts the keys of all objects. Rows that divide limits are written in any case.
#[test]
fn the_total_of_the_node_is_checked_too() {
    let budget = Budget { keys: Some(most(3)), bytes: None };
    let wire = &mut Wire::with(&["a"], &Config { budget, ..config() }, &spec());
    let throttles = StructureSpec::from(Class::SharedNamedThrottles);
    let throttles = wire.replicas[0].replicate(throttles, Arc::new(|| ())).unwrap();
    let structure = wire.structure(0);
    structure.add(b"one.example", 1).unwrap();
    structure.add(b"two.example", 1).unwrap();
    throttles.add(b"campaign", 1).unwrap();
    let over = KeyError::Budget(OverBudget { object: None, unit: Unit::Keys, used: 3, max: 3 });
    assert_eq!(structure.add(b"three.example", 1), Err(over.clone()));
    assert_eq!(throttles.add(b"other", 1), Err(over));
    throttles.add(b"!share", 1).unwrap();
    assert_eq!(wire.replicas[0].budget().keys(), Usage { used: 4, max: Some(3) });
    assert_eq!(reached(wire, 0), [Report { bound: Bound::Budget, place: None, limit: 3, times: 2 }]);
}

/// A node refuses a whole delta if its keys do not fit, and reports that it lacks rows. Other nodes apply the delta. The node asks
/// for the rows again after pauses that grow.
#[test]
fn a_peer_pushes_no_node_over_its_budget() {
    for config in [config(), large()] {
        let mut wire = three(&config);
        count(&mut wire, SMALL, 0..4, 1);
        wire.talk();
        count(&mut wire, 0, 100..120, 1);
        wire.talk();
        let (used, _) = usage(&wire, SMALL);
        assert_eq!(used, if config.delta_bytes == 1 { 10 } else { 4 }, "nothing of a delta, or all of it");
        wire.assert_same(0, 1);
        let before = wire.replicas[SMALL].counters();
        for round in 0..60 {
            // The owner goes on counting: its deltas follow rows that are missing.
            count(&mut wire, 0, 100..101, 1);
            wire.run(1);
            assert!(usage(&wire, SMALL).0 <= 10, "after {round} s");
        }
        let after = wire.replicas[SMALL].counters();
        let asked = after.wants_out - before.wants_out;
        assert!((5..=8).contains(&asked), "it asks after 1, 2, 4, 8, 16 and 32 s, not {asked} times");
        assert!(after.deltas_without_room - before.deltas_without_room <= asked);
        assert_eq!(reached(&wire, SMALL).len(), 1);
        let found = verify(&mut wire, SMALL);
        assert_eq!((found.outcome(), &found.unheld), (Outcome::NotConverged, &vec![no_room()]));
        let found = verify(&mut wire, 1);
        assert_eq!((found.outcome(), found.unheld), (Outcome::NotConverged, vec![]));
        assert!(found.findings.iter().all(|finding| finding.member == name("small")), "{:?}", found.findings);
        // What the small node counts reaches all.
        count(&mut wire, SMALL, 0..1, 1);
        wire.talk();
        assert_eq!((wire.total(0, "k0.example"), wire.total(1, "k100.example")), (2, 61));
    }
}

#[test]
fn what_waits_comes_when_own_keys_go() {
    let mut wire = three(&large());
    count(&mut wire, SMALL, 0..8, 1);
    count(&mut wire, 0, 100..105, 1);
    wire.run(40);
    assert_eq!(usage(&wire, SMALL).0, 8);
    count(&mut wire, SMALL, 0..3, -1);
    // The rows retire after two seconds, and the node asks at once.
    wire.run(5);
    assert_eq!((usage(&wire, SMALL).0, wire.total(SMALL, "k104.example")), (10, 1));
    wire.assert_same(0, SMALL);
    assert_eq!(verify(&mut wire, SMALL).outcome(), Outcome::Converged);
}

#[test]
fn what_waits_comes_when_the_owner_s_keys_go() {
    let mut wire = three(&large());
    count(&mut wire, 0, 100..130, 1);
    wire.run(40);
    assert_eq!(usage(&wire, SMALL).0, 0);
    count(&mut wire, 0, 105..130, -1);
    wire.run(70);
    assert_eq!((usage(&wire, SMALL).0, wire.total(SMALL, "k104.example")), (5, 1));
    wire.assert_same(0, SMALL);
    assert_eq!(verify(&mut wire, SMALL).outcome(), Outcome::Converged);
}

/// A full node takes a delta that removes as many keys as it adds.
#[test]
fn keys_that_replace_others_fit() {
    let mut wire = three(&large());
    count(&mut wire, 0, 0..10, 1);
    wire.talk();
    assert_eq!(usage(&wire, SMALL).0, 10);
    wire.down(0, SMALL);
    count(&mut wire, 0, 0..6, -1);
    wire.run(5);
    count(&mut wire, 0, 10..16, 1);
    wire.up(0, SMALL);
    wire.run(2);
    assert_eq!(usage(&wire, SMALL).0, 10);
    wire.assert_same(0, SMALL);
    assert_eq!(wire.replicas[SMALL].counters().deltas_without_room, 0);
}

/// The owner retires rows after it has made those for which there is no room. The node takes the retirements first.
#[test]
fn retirements_behind_rows_that_wait_make_room() {
    let mut wire = three(&config());
    count(&mut wire, 0, 0..10, 1);
    wire.talk();
    count(&mut wire, 0, 20..25, 1);
    wire.run(5);
    assert_eq!((usage(&wire, SMALL).0, wire.total(SMALL, "k20.example")), (10, 0));
    count(&mut wire, 0, 0..6, -1);
    wire.run(70);
    assert_eq!((usage(&wire, SMALL).0, wire.total(SMALL, "k24.example")), (9, 1));
    wire.assert_same(0, SMALL);
    assert_eq!(verify(&mut wire, SMALL).outcome(), Outcome::Converged);
}

/// The rows of a snapshot count while they wait to replace the earlier ones.
#[test]
fn a_snapshot_has_to_fit() {
    let mut wire = three(&Config { retention: Duration::from_secs(5), ..large() });
    count(&mut wire, 0, 0..6, 1);
    wire.talk();
    let node = wire.node(SMALL);
    for at in 0..2 {
        wire.down(at, SMALL);
        let (now, run) = (wire.now, wire.replicas[SMALL].actor().incarnation);
        wire.replicas[at].handle_member(now, &node, run, tallymesh_engine::Life::Dead);
    }
    count(&mut wire, 0, 0..6, -1);
    wire.run(20);
    count(&mut wire, 0, 10..16, 1);
    wire.talk();
    wire.up(0, SMALL);
    wire.up(1, SMALL);
    wire.run(30);
    assert_eq!(usage(&wire, SMALL).0, 6, "the earlier rows are there as they were");
    assert_eq!(wire.total(SMALL, "k0.example"), 1);
    assert_eq!(verify(&mut wire, SMALL).unheld, [no_room()]);
    count(&mut wire, 0, 14..16, -1);
    wire.run(80);
    assert_eq!((usage(&wire, SMALL).0, wire.total(SMALL, "k13.example")), (4, 1));
    wire.assert_same(0, SMALL);
}

/// Saved state is kept beyond the budget. Further keys are refused until there is room again.
#[test]
fn restored_state_is_kept_beyond_the_budget() {
    let gauges = || GaugeCacheSpec::new("opened").unwrap();
    let cache = || StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache);
    let start = |names: &[&str], budget: Budget| {
        let mut wire = Wire::with(names, &Config { budget, ..config() }, &spec());
        let replica = wire.replicas.last_mut().unwrap();
        replica.keep_state();
        let opened = gauges().with_max_keys(most(if budget.keys.is_some() { 2 } else { 100 }));
        let opened = replica.replicate_gauge_cache(opened, Arc::new(|| ())).unwrap();
        let cache = replica.replicate_cache(cache(), Arc::new(|| ())).unwrap();
        (wire, opened, cache)
    };
    let (mut wire, opened, sessions) = start(&["a"], Budget::default());
    for key in ["a", "b", "c"] {
        opened.add(key.as_bytes(), 1, wire.now.mono).unwrap();
        sessions.set(key.as_bytes(), "value", Duration::ZERO, wire.now.unix_ms).unwrap();
    }
    wire.replicas[0].handle_changes(wire.now);
    let mut disk = Disk::default();
    let mut parts = Vec::new();
    for change in disk.save(&mut wire.replicas[0]).into_iter().flat_map(|batch| batch.changes) {
        let Change::Rows { shape, actor, extent, after, rows, .. } = change else { continue };
        let mut part = Part { shape, actor, extent, rows: Vec::new() };
        split(&rows, after, |_, row| part.rows.extend(row)).unwrap();
        parts.push(part);
    }
    let budget = Budget { keys: Some(most(5)), bytes: Some(most(10)) };
    // The last node is in a later run than the first one of before.
    let (mut wire, opened, sessions) = start(&["other", "a"], budget);
    disk.facts = Facts { incarnation: Incarnation(7), ..Facts::default() };
    parts.into_iter().for_each(|part| wire.replicas[1].restore(wire.now, part).unwrap());
    disk.restore(&mut wire.replicas[1], wire.now);
    let (time, now) = (wire.now.unix_ms, wire.now.mono);
    assert_eq!((opened.get(b"c", now), sessions.len(time)), (Some(1), 3), "nothing saved is lost");
    let held = wire.replicas[1].budget();
    assert_eq!(held.keys(), Usage { used: 6, max: Some(5) });
    assert_eq!(held.bytes(), Usage { used: 18, max: Some(10) });
    let mut places: Vec<_> = reached(&wire, 1).into_iter().map(|report| (report.place, report.limit)).collect();
    places.sort();
    assert_eq!(places, [(None, 5), (Some("gauge:opened".to_owned()), 2)]);
    let over =
        KeyError::Budget(OverBudget { object: Some("gauge:opened".to_owned()), unit: Unit::Keys, used: 3, max: 2 });
    assert_eq!(opened.add(b"d", 1, now), Err(over));
    opened.add(b"c", 1, now).unwrap();
    let refused = |result| matches!(result, Err(CacheError::Budget(_)));
    assert!(refused(sessions.set(b"d", "", Duration::ZERO, time)), "a further key");
    assert!(refused(sessions.set(b"a", "longer", Duration::ZERO, time)), "a longer value");
    sessions.set(b"a", "short", Duration::ZERO, time).unwrap();
    assert!(sessions.remove(b"b", time).unwrap().is_some(), "a removal fits");
    assert_eq!(wire.replicas[1].budget().bytes().used, 13);
    assert_eq!(wire.replicas[1].counters().keys_refused, 3);
}

/// The removal of an entry of a gauge cache needs room for its note. Without room the entry stays, and is not read. It prevents
/// no removal that fits, and no change.
#[test]
fn a_removal_that_does_not_fit_waits() {
    let mut wire = Wire::with(&["a"], &config(), &spec());
    let mut make = |spec: GaugeCacheSpec| wire.replicas[0].replicate_gauge_cache(spec, Arc::new(|| ())).unwrap();
    let ttl = Duration::from_secs(10);
    let old = make(GaugeCacheSpec::new("old").unwrap().with_ttl(ttl).with_max_keys(most(4)));
    let many = make(GaugeCacheSpec::new("many").unwrap().with_max_elements(most(1)).with_max_keys(most(2)));
    let start = wire.now.mono;
    old.add(b"noted", 1, start).unwrap();
    assert!(old.remove(b"noted", start).unwrap());
    old.add(b"x", 1, start).unwrap();
    old.add(b"y", 1, start).unwrap();
    // Its note exists, so its next removal fits. It is the youngest entry.
    old.add(b"noted", 1, start.after(Duration::from_millis(1))).unwrap();
    wire.run(12);
    let now = wire.now.mono;
    assert_eq!((old.entries(None, 9, now), old.len(now)), (Vec::new(), 2));
    let left: Vec<_> =
        [&b"noted"[..], b"x", b"y"].into_iter().map(|key| old.structure().count(key, now).total).collect();
    assert_eq!(left, [0, 1, 1]);
    assert_eq!((old.get(b"x", now), old.structure().usage().used), (None, 4));
    assert!(matches!(old.add(b"x", 1, now), Err(KeyError::Budget(_))), "its old count must not return");
    old.add(b"noted", 5, now).unwrap();
    assert_eq!(old.get(b"noted", now), Some(5));

    many.add(b"a", 1, now).unwrap();
    many.add(b"b", 1, now).unwrap();
    many.add(b"a", 1, now).unwrap();
    assert_eq!((many.get(b"a", now), many.get(b"b", now)), (Some(2), Some(1)), "the changes are counted");
    assert_eq!(wire.replicas[0].counters().keys_refused, 1, "one change has failed");
    let places: Vec<_> = reached(&wire, 0).into_iter().filter_map(|report| report.place).collect();
    assert_eq!(places, ["gauge:many", "gauge:old"]);
}

/// The windows of a series share its budget. A window that ends makes room.
#[test]
fn windows_share_the_budget_of_their_series() {
    let mut wire = Wire::new(&["a"]);
    let spec = SeriesSpec::new(SeriesName::new("logins").unwrap(), Kind::GaugeTable, 10, 2).with_max_keys(most(5));
    let now = wire.now;
    let series = wire.replicas[0].replicate_series(now, spec, Arc::new(|| ())).unwrap();
    (0..4).for_each(|n| series.add(format!("k{n}").as_bytes(), 1).unwrap());
    wire.wait(10);
    series.add(b"k0", 1).unwrap();
    assert!(matches!(series.add(b"k1", 1), Err(KeyError::Budget(_))), "the window before has four");
    // A removal states per key and node what was counted. That does not fit either, and nothing is removed.
    assert!(matches!(series.remove(b"k0"), Err(KeyError::Budget(_))));
    assert_eq!((series.usage(), series.counts(key(b"k0"), now.mono)[0].total), (Usage { used: 5, max: Some(5) }, 1));
    wire.wait(10);
    series.add(b"k1", 1).unwrap();
    assert_eq!(series.usage().used, 2);
    assert_eq!(wire.replicas[0].budget().keys().used, 2);
    assert_eq!(reached(&wire, 0)[0].place.as_deref(), Some("series/logins/10"));
}

fn key(bytes: &[u8]) -> tallymesh_engine::Scope<'_> {
    tallymesh_engine::Scope::Key(bytes)
}

/// Entries of a peer that do not fit wait. The sessions in which the peer sends them again become rare.
#[test]
fn entries_of_a_peer_wait_for_room() {
    let spec = StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache).with_pace(Duration::ZERO, 1);
    let mut wire = Wire::with(&["a"], &large(), &spec);
    wire.add("small", &Config { budget: Budget { keys: Some(most(10)), bytes: Some(most(100)) }, ..large() }, &spec);
    wire.up(0, 1);
    let caches = [0, 1].map(|at: usize| wire.replicas[at].caches().remove(0));
    let set = |wire: &mut Wire, at: usize, key: &str, value: &str| {
        caches[at].set(key.as_bytes(), value, Duration::ZERO, wire.now.unix_ms).unwrap();
        wire.replicas[at].handle_changes(wire.now);
    };
    for n in 0..16 {
        set(&mut wire, 0, &format!("k{n:02}"), "v");
    }
    set(&mut wire, 1, "own", "v");
    wire.run(5);
    let held = |wire: &Wire| (wire.replicas[1].budget().keys().used, wire.replicas[1].budget().bytes().used);
    assert_eq!((held(&wire), caches[0].held()), ((10, 40), 17));
    let before = wire.replicas[0].counters().deltas_out;
    wire.run(60);
    let sessions = wire.replicas[0].counters().deltas_out - before;
    assert!(sessions <= 6, "{sessions} messages of entries in a minute");
    let nonce = wire.replicas[1].probe(wire.now);
    wire.talk();
    let found = wire.replicas[1].verification(nonce);
    let unheld = NotHeld::NoRoom { structure: spec.name.clone() };
    assert_eq!((found.outcome(), found.unheld), (Outcome::NotConverged, vec![unheld]));
    // A longer value does not fit; the entry before stays.
    set(&mut wire, 0, "k00", &"v".repeat(80));
    wire.run(3);
    assert_eq!(caches[1].get(b"k00", wire.now.unix_ms).as_deref(), Some(&b"v"[..]));
    for n in 0..9 {
        caches[0].remove(format!("k{n:02}").as_bytes(), wire.now.unix_ms).unwrap();
    }
    wire.replicas[0].handle_changes(wire.now);
    // Removals are collected a minute later, and make room.
    wire.run(400);
    assert_eq!((caches[1].len(wire.now.unix_ms), held(&wire).0), (8, 8));
    let nonce = wire.replicas[1].probe(wire.now);
    wire.talk();
    assert_eq!(wire.replicas[1].verification(nonce).outcome(), Outcome::Converged);
    assert_eq!(held(&wire).1, caches[1].value_bytes());
}

/// A peer that holds the same few rows of an owner, because it has no more room either, does not end the wait.
#[test]
fn a_peer_with_as_little_room_does_not_end_the_wait() {
    let mut wire = Wire::with(&["a"], &large(), &spec());
    wire.add("small", &large(), &spec().with_max_keys(most(10)));
    wire.add("tiny", &large(), &spec().with_max_keys(most(10)));
    for (x, y) in [(0, 1), (0, 2), (1, 2)] {
        wire.up(x, y);
    }
    wire.talk();
    count(&mut wire, 0, 0..5, 1);
    wire.talk();
    count(&mut wire, 0, 5..40, 1);
    wire.run(3);
    let before = wire.replicas[1].counters();
    for second in 0..60 {
        wire.run(1);
        assert_eq!(verify(&mut wire, 1).unheld, [no_room()], "after {second} s");
    }
    let asked = wire.replicas[1].counters().wants_out - before.wants_out;
    assert!(asked <= 8, "it asks after growing pauses, and not {asked} times");
}
