//! Taking tokens on one node: soft and hard, held and by name, and a plain local cell rate algorithm that shares nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use tallymesh_benches::take::{NAMES, Plain, Throttles};
use tallymesh_schemas::Strength;

fn main() {
    divan::main();
}

const STRENGTHS: [&str; 2] = ["soft", "hard"];

fn strength(name: &str) -> Strength {
    if name == "hard" { Strength::Hard } else { Strength::Soft }
}

#[divan::bench(args = STRENGTHS, threads = [1, 2])]
fn held(bencher: Bencher<'_, '_>, name: &str) {
    let throttles = Throttles::new(strength(name), 1);
    let throttle = throttles.limiter.resolve(&throttles.names[0], throttles.now()).expect("it was declared");
    assert!(throttle.take(throttles.now(), 1).admitted());
    bencher.bench(|| throttle.take(throttles.now(), 1));
}

#[divan::bench(args = STRENGTHS, threads = [1, 2])]
fn by_name(bencher: Bencher<'_, '_>, name: &str) {
    let (throttles, at) = (Throttles::new(strength(name), NAMES), AtomicUsize::new(0));
    bencher.bench(|| throttles.take(&throttles.names[at.fetch_add(7919, Ordering::Relaxed) % NAMES]));
}

/// What the driver does in a tick while this many hard throttles rest, their handles held: it asks one in 64 whether its
/// handle is still held.
#[divan::bench(args = [0, NAMES])]
fn tick_at_rest(bencher: Bencher<'_, '_>, names: usize) {
    let mut throttles = Throttles::new(Strength::Hard, names);
    let now = throttles.now();
    let _held: Vec<_> = throttles.names.iter().map(|name| throttles.limiter.resolve(name, now)).collect();
    let mut at = now;
    bencher.bench_local(move || {
        at = at.after(std::time::Duration::from_millis(100));
        throttles.turn(at);
    });
}

#[divan::bench(threads = [1, 2])]
fn plain(bencher: Bencher<'_, '_>) {
    let plain = Plain::default();
    bencher.bench(|| plain.take());
}
