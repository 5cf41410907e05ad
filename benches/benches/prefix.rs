//! Sums under prefixes of a million addresses, by mask.

use divan::{Bencher, counter::ItemsCount};
use tallymesh_benches::input::Spread;
use tallymesh_benches::prefix::Trees;

fn main() {
    divan::main();
}

fn sums(bencher: Bencher<'_, '_>, bits: u8, spread: Spread) {
    let trees = Trees::new(1_000_000, spread);
    let blocks: Vec<_> = trees.blocks(bits).into_iter().take(64).collect();
    bencher
        .counter(ItemsCount::new(blocks.len()))
        .bench_local(|| blocks.iter().map(|block| trees.ours(*block)).sum::<i64>());
}

#[divan::bench(args = [8, 13, 16, 20, 24, 32])]
fn clustered(bencher: Bencher<'_, '_>, bits: u8) {
    sums(bencher, bits, Spread::Clustered);
}

#[divan::bench(args = [8, 13, 16, 20, 24, 32])]
fn uniform(bencher: Bencher<'_, '_>, bits: u8) {
    sums(bencher, bits, Spread::Uniform);
}
