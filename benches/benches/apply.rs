//! Taking in a delta of known keys: decode and join.

use divan::{Bencher, counter::ItemsCount};
use tallymesh_benches::{add, apply};

fn main() {
    divan::main();
}

#[divan::bench(args = [1, 100, 1_000, 100_000])]
fn delta_of_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let feed = std::cell::RefCell::new(apply::Feed::new(add::KEYS));
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| feed.borrow_mut().flush(rows))
        .bench_local_values(|messages| feed.borrow_mut().deliver(&messages));
}
