//! Adding on one node: to a counter that is at hand, and by key.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use tallymesh_engine::{Counter, Now, Replica, Structure, Time};
use tallymesh_schemas::{Class, UnixMs};

use crate::counters::{Counters, Crdts, Dash, Papaya, Scc};
use crate::input;
use crate::measure::{Contender, Figure, cpu, interleaved, ns_each};
use crate::replicas;
use crate::report::Group;

/// Keys that are counted.
pub const KEYS: usize = 100_000;

/// Additions between two commits: about what one thread does in the default `max_delay` of 10 ms.
pub const COMMIT_EVERY: usize = 25_000;

/// Nanoseconds of processor time for each addition, by `threads` threads that do `n` each.
pub fn ns_an_add(threads: usize, n: usize, add: impl Fn(usize) + Sync) -> f64 {
    let start = Barrier::new(threads);
    let work = |thread: usize| {
        start.wait();
        let from = cpu();
        (0..n).for_each(|i| add(thread * n + i));
        (cpu() - from).as_nanos() as f64
    };
    let total: f64 = thread::scope(|scope| {
        let running: Vec<_> = (1..threads).map(|t| scope.spawn(move || work(t))).collect();
        let first = work(0);
        // A thread that panicked has shown its message.
        running.into_iter().filter_map(|thread| thread.join().ok()).sum::<f64>() + first
    });
    total / (threads * n) as f64
}

/// A counter of ours that is at hand, with the replica behind it.
///
/// # Panics
/// When the key is refused.
pub fn resolved() -> (Replica, Counter) {
    let (replica, structure) = replicas::alone(Class::OutboundDomains);
    let counter = structure.counter(b"example.net").expect("a good key");
    (replica, counter)
}

/// Counters by key with the names of whose they are.
pub type Named = Vec<(&'static str, Arc<dyn Counters + Send>)>;

/// Ours and the peers' counters by key, filled; ours with the replica behind it.
pub fn keyed(keys: &[String]) -> (Replica, Named) {
    let (replica, structure) = replicas::alone(Class::OutboundDomains);
    let all: Named = vec![
        ("tallymesh", Arc::new(structure)),
        ("DashMap<String, AtomicI64>", Arc::new(Dash::default())),
        ("papaya", Arc::new(Papaya::default())),
        ("scc", Arc::new(Scc::default())),
        ("crdts PNCounter in DashMap", Arc::new(Crdts::default())),
    ];
    for (_, counters) in &all {
        keys.iter().for_each(|key| counters.add(key, 1));
    }
    (replica, all)
}

/// The figures of this file.
pub fn measure(rounds: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    groups.push(resolved_counter(1, rounds).want_ratio("≤ 3 × the bare atomic", "bare", 3.0));
    groups.push(resolved_counter(2, rounds));
    let keys = input::keys(KEYS);
    let one = by_key(&keys, 1, rounds).want_ratio("≤ 0.75 × DashMap", "DashMap", 0.75);
    let mut two = by_key(&keys, 2, rounds);
    // Processor time an addition: with as much of it on two threads as on one, throughput is twofold.
    let single = one.figures.first().map_or(f64::NAN, |ours| ours.value);
    two.figures.push(Figure { who: "tallymesh, one thread of the same run".to_owned(), value: single });
    groups.push(one);
    groups.push(two.want_ratio(
        "2 threads ≥ 1.8 × one's throughput: ≤ 1.11 × its time an addition",
        "tallymesh,",
        2.0 / 1.8,
    ));
    groups.push(with_commits(&keys, rounds));
    groups
}

fn resolved_counter(threads: usize, rounds: usize) -> Group {
    const N: usize = 4_000_000;
    let (_replica, counter) = resolved();
    let atomic = AtomicI64::new(0);
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh Counter", || ns_an_add(threads, N, |_| black_box(&counter).add(1))),
            Contender::new("bare AtomicI64", || {
                ns_an_add(threads, N, |_| {
                    black_box(&atomic).fetch_add(1, Ordering::Relaxed);
                })
            }),
        ],
    );
    Group::new(format!("add to a resolved counter, {}", threads_text(threads)), "ns", figures)
}

fn by_key(keys: &[String], threads: usize, rounds: usize) -> Group {
    const N: usize = 400_000;
    let draws = input::draws(threads * N, keys.len(), 5);
    let (_replica, all) = keyed(keys);
    let contenders = all.iter().map(|(name, counters)| {
        Contender::new(*name, || ns_an_add(threads, N, |i| counters.add(&keys[draws[i] as usize], 1)))
    });
    let figures = interleaved(rounds, contenders.collect());
    Group::new(format!("add by key, {KEYS} keys, {}", threads_text(threads)), "ns", figures)
}

/// The price of being replicated: additions with the commits that a driver does every `max_delay`.
fn with_commits(keys: &[String], rounds: usize) -> Group {
    let (mut replica, structure) = replicas::alone(Class::OutboundDomains);
    let dash = Dash::default();
    for key in keys {
        Counters::add(&structure, key, 1);
        dash.add(key, 1);
    }
    let draws = input::draws(COMMIT_EVERY * 16, keys.len(), 6);
    let figures = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh, additions and commits", || {
                ns_each(draws.len(), || add_and_commit(&mut replica, &structure, keys, &draws))
            }),
            Contender::new("DashMap<String, AtomicI64>, not replicated", || {
                ns_each(draws.len(), || draws.iter().for_each(|at| dash.add(&keys[*at as usize], 1)))
            }),
        ],
    );
    Group::new(format!("add by key with a commit every {COMMIT_EVERY}, 1 thread"), "ns", figures)
}

/// Adds by key, and commits as often as a driver would.
pub fn add_and_commit(replica: &mut Replica, structure: &Arc<Structure>, keys: &[String], draws: &[u32]) {
    for batch in draws.chunks(COMMIT_EVERY) {
        batch.iter().for_each(|at| Counters::add(structure, &keys[*at as usize], 1));
        replica.handle_changes(Now { mono: Time(1), unix_ms: UnixMs(1) });
    }
}

fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}
