//! Models of concurrent threads on keys, cells and structures. Loom runs each model through every interleaving (the larger
//! ones: through those with up to [`PREEMPTIONS`] preemptions) and every value that the memory model lets a thread read. The
//! models run the shipped code. docs/concurrency.md describes how to run them and which faults each model has caught.

use std::sync::Arc;
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureSpec, Version, key};

use crate::budget::{Budget, NodeBudget};
use crate::counter::structure::Structure;
use crate::keyspace::cell::{Added, Cell};
use crate::keyspace::id::CellId;
use crate::keyspace::keys::Keys;
use crate::keyspace::quota::Quota;
use crate::keyspace::totals::Totals;
use crate::shape::Shape;
use crate::time::Time;

/// Enough to find every known kind of mistake with two or three threads, and few enough to finish.
const PREEMPTIONS: usize = 3;

const KEY: &[u8] = b"a.example";

fn every_way(model: impl Fn() + Send + Sync + 'static) {
    check(loom::model::Builder::new(), model);
}

fn most_ways(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    check(builder, model);
}

/// Runs a model and prints the number of executions. A single execution would mean that nothing ran concurrently.
fn check(builder: loom::model::Builder, model: impl Fn() + Send + Sync + 'static) {
    let executions = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&executions);
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    println!("{executions} executions");
    assert!(executions > 2, "{executions} executions");
}

/// Budgets without bounds.
fn quota() -> Quota {
    Quota::new(Arc::new(Budget::new(None)), Arc::new(NodeBudget::new(Default::default())))
}

/// A table with one cell that has counted, is zero again and is committed. (Loom lets a sequentially consistent load read an
/// atomic's initial value even after a sequentially consistent store; the memory model does not. So this function stores to
/// both totals before threads begin. The models of structures do the same.)
fn keys() -> (Arc<Keys>, CellId) {
    let keys = Arc::new(Keys::new(Shape::of(Class::OutboundDomains), 1, quota()));
    let id = keys.with_or_new(KEY, |id, _| id).unwrap();
    add(&keys, id, 1);
    add(&keys, id, -1);
    commit(&keys);
    (keys, id)
}

fn cell(keys: &Keys, id: CellId) -> &Cell {
    keys.cells().get(id)
}

fn add(keys: &Keys, id: CellId, n: i64) {
    if cell(keys, id).add(n) == Added::First {
        keys.list(id);
    }
}

/// Commits and returns the totals of the last listed cell.
fn commit(keys: &Keys) -> Option<Totals> {
    let mut listed = Vec::new();
    keys.drain(&mut listed);
    listed.iter().map(|id| cell(keys, *id).take()).next_back()
}

fn structure(class: Class) -> Arc<Structure> {
    let actor = Actor::new(NodeName::new("us").unwrap(), Incarnation(1));
    let spec = StructureSpec::from(class).with_pace(StructureSpec::MAX_DELAY, 2);
    Arc::new(Structure::new(spec, actor, 1, Arc::new(|| ()), &Arc::default(), quota()))
}

/// Asserts that everything is committed and that the count is `count`.
fn assert_counts(structure: &Structure, key: &[u8], count: i64) {
    assert_eq!(structure.count(key, Time(0)).total, count);
    structure.audit().unwrap();
    assert_eq!(structure.pending(), 0, "what is pending is what is listed");
    let held = structure.held();
    let rows = structure.rows_of(&held[0].actor);
    assert_eq!(rows.iter().map(|(_, row)| row.value()).sum::<i64>(), count);
}

/// I5: an addition against a commit. A change that the commit does not see is listed again.
#[test]
fn no_change_is_missed() {
    every_way(|| {
        let (keys, id) = keys();
        let adders = [1, -1].map(|n| {
            let keys = Arc::clone(&keys);
            thread::spawn(move || add(&keys, id, n))
        });
        let mut committed = commit(&keys);
        adders.into_iter().for_each(|adder| adder.join().unwrap());
        committed = commit(&keys).or(committed);
        assert_eq!(committed, Some(cell(&keys, id).totals()), "the last commit has everything");
        assert_eq!(cell(&keys, id).totals(), Totals { added: 2, removed: 2 });
    });
}

/// The same with one thread that adds twice: the flag is set, cleared and set again.
#[test]
fn no_later_change_is_missed() {
    every_way(|| {
        let (keys, id) = keys();
        let adder = thread::spawn({
            let keys = Arc::clone(&keys);
            move || {
                add(&keys, id, 1);
                add(&keys, id, 1);
            }
        });
        let mut committed = commit(&keys);
        committed = commit(&keys).or(committed);
        adder.join().unwrap();
        committed = commit(&keys).or(committed);
        assert_eq!(committed, Some(Totals { added: 3, removed: 1 }));
        assert_eq!(cell(&keys, id).own(), 2);
    });
}

/// Of racing holders, no more than the limit hold at the same time, releases included.
#[test]
fn holders_stay_within_the_limit() {
    most_ways(|| {
        let (keys, id) = keys();
        let inside = Arc::new(AtomicUsize::new(0));
        let holder = |keys: Arc<Keys>, inside: Arc<AtomicUsize>| {
            move || {
                let cell = cell(&keys, id);
                if cell.add_within(1, 1, Cell::others) == Added::Refused {
                    return false;
                }
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "one is in at a time");
                inside.fetch_sub(1, Ordering::SeqCst);
                let _ = cell.add(-1);
                true
            }
        };
        let holders = [0, 1].map(|_| thread::spawn(holder(Arc::clone(&keys), Arc::clone(&inside))));
        let ours = holder(Arc::clone(&keys), Arc::clone(&inside))();
        let theirs = holders.map(|holder| holder.join().unwrap());
        assert!(ours || theirs.contains(&true), "somebody gets in");
        assert_eq!(cell(&keys, id).own(), 0);
    });
}

/// A cell is not removed from the table while a thread that found it there adds to it.
#[test]
fn a_cell_that_is_found_is_not_removed() {
    every_way(|| {
        let (keys, id) = keys();
        let adder = thread::spawn({
            let keys = Arc::clone(&keys);
            move || keys.with_or_new(KEY, |id, _| add(&keys, id, 1)).unwrap()
        });
        let removed = keys.remove_unused(id);
        adder.join().unwrap();
        assert_eq!(keys.with(KEY, |_, cell| cell.own()), Some(1), "removed: {removed}");
        assert_eq!(keys.len(), 1);
    });
}

/// A cell is not removed while a thread pins it, up to the last addition of that thread.
#[test]
fn a_cell_that_is_held_is_not_removed() {
    every_way(|| {
        let (keys, id) = keys();
        cell(&keys, id).hold();
        let holder = thread::spawn({
            let keys = Arc::clone(&keys);
            move || {
                add(&keys, id, 1);
                cell(&keys, id).unpin();
            }
        });
        let before = keys.remove_unused(id);
        let committed = commit(&keys);
        let after = keys.remove_unused(id);
        holder.join().unwrap();
        assert!(!before && !after, "{before} {after} {committed:?}");
        assert_eq!(cell(&keys, id).own(), 1);
    });
}

/// After a holder unpins a cell, removal sees everything that the holder did.
#[test]
fn what_is_removed_is_zero_and_committed() {
    every_way(|| {
        let (keys, id) = keys();
        cell(&keys, id).hold();
        let holder = thread::spawn({
            let keys = Arc::clone(&keys);
            move || {
                add(&keys, id, 1);
                add(&keys, id, -1);
                cell(&keys, id).unpin();
            }
        });
        commit(&keys);
        let removed = keys.remove_unused(id);
        holder.join().unwrap();
        if removed {
            assert_eq!(cell(&keys, id).own(), 0);
            assert!(!cell(&keys, id).is_dirty(), "its last change was committed");
            assert_eq!(commit(&keys), None);
        }
        assert_eq!(keys.len(), usize::from(!removed));
    });
}

/// Two threads add to a new key during a commit, through the structure: rows, aggregates and the pending count are right.
#[test]
fn a_structure_commits_everything() {
    most_ways(|| {
        let structure = structure(Class::OutboundDomains);
        let adder = thread::spawn({
            let structure = Arc::clone(&structure);
            move || structure.add(KEY, 1).unwrap()
        });
        structure.add(b"b.example", 1).unwrap();
        structure.commit();
        assert!(structure.pending() <= 2, "no more is taken off than was counted");
        structure.add(KEY, 1).unwrap();
        adder.join().unwrap();
        structure.add(b"b.example", -1).unwrap();
        assert_counts(&structure, KEY, 2);
        assert_eq!(structure.keys(), 2);
    });
}

/// A read of more than one key sees what was added before it began.
#[test]
fn a_read_sees_what_was_added_before() {
    most_ways(|| {
        let structure = structure(Class::InboundCidr);
        let [net, block] = ["192.0.2.7", "192.0.2.0/24"].map(|net| key::parse_net(net).unwrap());
        let added = Arc::new(AtomicBool::new(false));
        let adder = thread::spawn({
            let (structure, added) = (Arc::clone(&structure), Arc::clone(&added));
            move || {
                let (key, len) = key::from_net(net);
                structure.add(&key[..len], 1).unwrap();
                added.store(true, Ordering::SeqCst);
            }
        });
        let before = added.load(Ordering::SeqCst);
        let count = structure.count_net(block, Time(0));
        assert!(count.total == 1 || !before, "{count:?}");
        adder.join().unwrap();
        assert_eq!(structure.count_net(block, Time(0)).total, 1);
        structure.audit().unwrap();
    });
}

/// Retirement of an idle row against an addition to it: the addition is not lost, in either order.
#[test]
fn a_row_that_counts_again_is_not_lost() {
    most_ways(|| {
        let structure = structure(Class::OutboundDomains);
        structure.add(KEY, 1).unwrap();
        structure.commit();
        structure.add(KEY, -1).unwrap();
        structure.commit();
        let adder = thread::spawn({
            let structure = Arc::clone(&structure);
            move || structure.add(KEY, 1).unwrap()
        });
        structure.sweep(Time(1), Duration::ZERO, Version::ZERO, Duration::ZERO);
        adder.join().unwrap();
        structure.sweep(Time(2), Duration::ZERO, Version::ZERO, Duration::ZERO);
        assert_counts(&structure, KEY, 1);
        assert_eq!(structure.keys(), 1);
    });
}

/// A counter that unpins its cell against the sweep: the key is removed in the end, but none of its counts is lost.
#[test]
fn a_counter_that_is_let_go_of_leaves_no_key() {
    most_ways(|| {
        let structure = structure(Class::OutboundDomains);
        let counter = structure.counter(KEY).unwrap();
        drop(counter.hold());
        structure.commit();
        let holder = thread::spawn(move || drop(counter.try_hold(1).unwrap()));
        structure.sweep(Time(1), Duration::ZERO, Version::ZERO, Duration::ZERO);
        holder.join().unwrap();
        assert_eq!(structure.count(KEY, Time(2)).total, 0);
        for at in 2..5 {
            structure.sweep(Time(at), Duration::ZERO, Version::ZERO, Duration::ZERO);
        }
        assert_counts(&structure, KEY, 0);
        assert_eq!(structure.keys(), 0);
    });
}
