//! How cost grows: `cargo run --release -p tallymesh-benches --bin growth`

use clap::{Parser, ValueEnum};
use tallymesh_benches::counting;
use tallymesh_benches::growth::{self, Column};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Measures how cost grows with keys and with actors.
#[derive(Parser)]
struct Args {
    /// How many keys; ten million take seven gigabytes of memory.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    keys: Vec<usize>,
    /// How many other nodes count the same keys.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 8, 32, 64])]
    actors: Vec<usize>,
    /// How many keys those count.
    #[arg(long, default_value_t = 20_000)]
    shared: usize,
    /// As tables in Markdown, or as JSON.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// Sizes from left to right, figures from top to bottom.
fn table(of: &str, columns: &[Column]) -> String {
    let sizes: Vec<_> = columns.iter().map(|column| column.size.to_string()).collect();
    let mut text = format!("| {of} | {} |\n|---|{}\n", sizes.join(" | "), "---:|".repeat(columns.len()));
    let lines = columns.first().map_or(0, |column| column.figures.len());
    for line in 0..lines {
        let figures: Vec<_> = columns.iter().map(|column| number(column.figures[line].1)).collect();
        text += &format!("| {} | {} |\n", columns[0].figures[line].0, figures.join(" | "));
    }
    text
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn main() {
    let args = Args::parse();
    let keys: Vec<_> = args.keys.iter().map(|keys| growth::by_keys((*keys).max(1))).collect();
    let of = |actors: &usize| growth::by_actors((*actors).max(1), args.shared.max(1));
    let actors: Vec<_> = args.actors.iter().map(of).collect();
    match args.output {
        Output::Text => {
            let of_actors = format!("other nodes, {} keys each", args.shared);
            println!("{}\n{}", table("keys", &keys), table(&of_actors, &actors));
        }
        Output::Json => println!("{}", serde_json::json!({ "keys": keys, "shared": args.shared, "actors": actors })),
    }
}
