//! Memory a key, by a counting allocator: `cargo run --release -p tallymesh-benches --bin memory`

use tallymesh_benches::{counting, memory, report};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

fn main() {
    print!("{}", report::table(&memory::measure()));
}
