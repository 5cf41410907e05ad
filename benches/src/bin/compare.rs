//! One run, one table: ours and the peers, interleaved, with ratios.
//!
//! `cargo run --release -p tallymesh-benches --bin compare`

use clap::{Parser, ValueEnum};
use tallymesh_benches::report::{self, Group};
use tallymesh_benches::{add, apply, cache, counting, memory, prefix, series, take, wire};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Compares Tallymesh with its peers in one run.
#[derive(Parser)]
struct Args {
    /// Rounds of which the median is taken.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// As a table in Markdown, or as JSON.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Add,
    Apply,
    Wire,
    Prefix,
    Memory,
    Series,
    Take,
    Cache,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() {
    let args = Args::parse();
    let rounds = args.rounds.max(1);
    let parts: [(Part, &dyn Fn() -> Vec<Group>); 8] = [
        (Part::Add, &|| add::measure(rounds)),
        (Part::Apply, &|| apply::measure(rounds)),
        (Part::Wire, &wire::measure),
        (Part::Prefix, &|| prefix::measure(rounds)),
        (Part::Memory, &memory::measure),
        (Part::Series, &|| series::measure(rounds)),
        (Part::Take, &|| take::measure(rounds)),
        (Part::Cache, &|| cache::measure(rounds)),
    ];
    let chosen = parts.iter().filter(|(part, _)| args.only.is_empty() || args.only.contains(part));
    let groups: Vec<_> = chosen.flat_map(|(_, measure)| measure()).collect();
    match args.output {
        Output::Text => print!("{}", report::table(&groups)),
        Output::Json => println!("{}", serde_json::json!({ "rounds": rounds, "groups": groups })),
    }
}
