//! Additions: to a counter at hand and by key, ours and the peers'.

use std::hint::black_box;
use std::sync::atomic::{AtomicI64, Ordering};

use divan::{Bencher, counter::ItemsCount};
use tallymesh_benches::{add, input};

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 2])]
fn resolved_tallymesh(bencher: Bencher<'_, '_>) {
    let (_replica, counter) = add::resolved();
    bencher.bench(|| black_box(&counter).add(1));
}

#[divan::bench(threads = [1, 2])]
fn resolved_atomic(bencher: Bencher<'_, '_>) {
    let counter = AtomicI64::new(0);
    bencher.bench(|| black_box(&counter).fetch_add(1, Ordering::Relaxed));
}

/// Additions of one measurement.
const N: usize = 10_000;

#[divan::bench(args = [0, 1, 2, 3, 4], threads = [1, 2])]
fn by_key(bencher: Bencher<'_, '_>, contender: usize) {
    let keys = input::keys(add::KEYS);
    let draws = input::draws(N, keys.len(), 5);
    let (_replica, all) = add::keyed(&keys);
    let (_, counters) = &all[contender];
    bencher.counter(ItemsCount::new(N)).bench(|| draws.iter().for_each(|at| counters.add(&keys[*at as usize], 1)));
}
