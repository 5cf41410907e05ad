//! Taking tokens on one node: soft and hard, held and by name, and a plain local GCRA that shares nothing.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use divan::Bencher;
use tallymesh_benches::replicas;
use tallymesh_engine::limits::{Founding, Limiter, Reach};
use tallymesh_engine::{Replica, Time};
use tallymesh_schemas::{Class, NodeName, Strength, ThrottleSpec};

fn main() {
    divan::main();
}

const NAMES: usize = 100_000;

/// A limiter of `names` throttles that are never used up, its share in its hands.
fn limiter(strength: Strength, names: usize) -> (Replica, Limiter, Vec<String>) {
    let (replica, structure) = replicas::alone(Class::SharedNamedThrottles);
    let node = NodeName::new("a").expect("a good name");
    let founding = Founding::new([node.clone()], Duration::from_secs(1)).expect("a founder");
    let limiter = Limiter::new(structure, Some(founding), node, 1, Time(0), Arc::new(|| ()));
    let rate = "4000000000/1ms".parse().expect("a rate");
    let names: Vec<_> = (0..names).map(|n| format!("throttle-{n}")).collect();
    for name in &names {
        limiter.declare(name, ThrottleSpec::new(rate, strength), Time(0)).expect("a throttle");
    }
    let start = Instant::now();
    let mut now = Time(0);
    while now.0 < 3_000_000 && start.elapsed() < Duration::from_secs(20) {
        now = Time(now.0 + 100_000);
        limiter.handle_timeout(now, Reach::ALONE, &[]);
    }
    (replica, limiter, names)
}

fn held(bencher: Bencher<'_, '_>, strength: Strength) {
    let (_replica, limiter, names) = limiter(strength, 1);
    let throttle = limiter.find(&names[0]).expect("it was declared");
    assert!(throttle.take(Time(4_000_000), 1).admitted());
    let clock = Instant::now();
    bencher.bench(|| throttle.take(Time(4_000_000 + clock.elapsed().as_micros() as u64), 1));
}

#[divan::bench(threads = [1, 2])]
fn held_soft(bencher: Bencher<'_, '_>) {
    held(bencher, Strength::Soft);
}

#[divan::bench(threads = [1, 2])]
fn held_hard(bencher: Bencher<'_, '_>) {
    held(bencher, Strength::Hard);
}

#[divan::bench(threads = [1, 2])]
fn by_name_soft(bencher: Bencher<'_, '_>) {
    let (_replica, limiter, names) = limiter(Strength::Soft, NAMES);
    let (clock, at) = (Instant::now(), AtomicU64::new(0));
    bencher.bench(|| {
        let name = &names[(at.fetch_add(7919, Ordering::Relaxed) % NAMES as u64) as usize];
        let now = Time(4_000_000 + clock.elapsed().as_micros() as u64);
        limiter.resolve(name, now).map(|throttle| throttle.take(now, 1))
    });
}

/// The generic cell rate algorithm as one atomic: the theoretical arrival time, moved on with each admission.
#[divan::bench(threads = [1, 2])]
fn plain_gcra(bencher: Bencher<'_, '_>) {
    let (arrival, clock) = (AtomicU64::new(0), Instant::now());
    let (increment, tolerance) = (1_u64, 1_000_000_000_000_u64);
    bencher.bench(|| {
        let now = clock.elapsed().as_nanos() as u64;
        let admitted = arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            let next = at.max(now) + increment;
            (next - now <= tolerance).then_some(next)
        });
        black_box(admitted).is_ok()
    });
}
