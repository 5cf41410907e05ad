//! Runs seeds until one fails.
#![deny(missing_docs)]

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use tallymesh_harness::fault::write_script;
use tallymesh_harness::swarm::{Detail, Plan, draw, run, shrink};

/// Simulates clusters, one a seed, each with its own mix of faults, and stops at the first that fails.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; 0 for as many as there are processors.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Runs one seed and prints its trace.
    #[arg(long)]
    trace: bool,
    /// Goes on behind failures and lists them.
    #[arg(long)]
    all: bool,
    /// Runs that are spent to make a failing one smaller.
    #[arg(long, default_value_t = 300)]
    shrink: usize,
}

/// Seeds between two progress lines when the output is no terminal.
const LINE: u64 = 10_000;

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    failed: u64,
    operations: u64,
    marks: BTreeMap<&'static str, u64>,
    slowest: Duration,
    /// The sum over all seeds of a mix of the trace hash and the seed. It is the same for the same seeds, in any order.
    hash: u64,
}

impl Total {
    /// Reports progress: on a terminal once a second in one line, otherwise now and then in a line of its own.
    fn progress(&self, of: u64, begin: Instant, told: &mut Instant) {
        let watched = stderr().is_terminal();
        if if watched { told.elapsed() < Duration::from_secs(1) } else { !self.seeds.is_multiple_of(LINE) } {
            return;
        }
        *told = Instant::now();
        let rate = self.seeds as f64 / begin.elapsed().as_secs_f64();
        let line = format!("{} of {of} seeds, {rate:.1} seeds/s, {} failed", self.seeds, self.failed);
        if watched { eprint!("\r{line}\x1b[K") } else { eprintln!("{line}") }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        return trace(&draw(arguments.from));
    }
    let threads = match arguments.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (total, failed) = (Mutex::new(Total::default()), Mutex::new(None));
    let begin = Instant::now();
    let told = Mutex::new(begin);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    if i >= arguments.seeds {
                        return;
                    }
                    let seed = arguments.from + i;
                    let outcome = run(&draw(seed), Detail::Hash);
                    if let Some(failure) = &outcome.failure {
                        stop.store(!arguments.all, Ordering::Relaxed);
                        println!("seed {seed}: {failure}");
                        let mut failed = failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                        // The lowest seed of those that fail at once, so that two runs of the swarm name the same one.
                        *failed = Some(failed.unwrap_or(seed).min(seed));
                    }
                    let mut total = total.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    total.seeds += 1;
                    total.failed += u64::from(outcome.failure.is_some());
                    total.operations += outcome.operations;
                    total.slowest = total.slowest.max(outcome.settled);
                    total.hash = total.hash.wrapping_add((outcome.hash ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
                    for (mark, n) in outcome.marks {
                        *total.marks.entry(mark).or_default() += n;
                    }
                    let mut told = told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    total.progress(arguments.seeds, begin, &mut told);
                }
            });
        }
    });
    if stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let total = total.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    let seconds = begin.elapsed().as_secs_f64();
    for (mark, n) in &total.marks {
        println!("{n:>12}  {mark}");
    }
    println!("{:>12}  operations", total.operations);
    println!("slowest convergence after healing: {:.1} virtual seconds", total.slowest.as_secs_f64());
    println!("hash of all traces: {:016x}", total.hash);
    println!("{} seeds in {seconds:.1} s: {:.1} seeds/s", total.seeds, total.seeds as f64 / seconds);
    match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
        None => ExitCode::SUCCESS,
        Some(seed) => {
            println!("\nseed {seed} fails; shrinking");
            let plan = shrink(&draw(seed), arguments.shrink);
            trace(&plan);
            println!("again: swarm --from {seed} --trace");
            ExitCode::FAILURE
        }
    }
}

fn trace(plan: &Plan) -> ExitCode {
    let outcome = run(plan, Detail::Text);
    for line in &outcome.lines {
        println!("{line}");
    }
    println!("\nscript:\n{}", write_script(&plan.script));
    let structures = plan.structures.iter();
    let structures: Vec<_> =
        structures.map(|s| format!("{}{}", s.name, if s.snapshot { "" } else { " (no snapshot)" })).collect();
    let series = plan.series.iter().map(|s| format!("{} ({} windows of {} s)", s.name, s.windows, s.interval));
    let caches = plan.caches.iter().map(|cache| format!("cache {} {:?}", cache.name, cache.bounds));
    let gauges =
        plan.gauges.iter().map(|gauge| format!("gauge cache {} {:?} {:?}", gauge.name, gauge.ttl, gauge.max_elements));
    let all: Vec<_> = structures.into_iter().chain(series).chain(caches).chain(gauges).collect();
    println!("nodes {}; {}", plan.nodes.join(","), all.join(", "));
    println!(
        "{:?}\n{:?}\n{:?}\ndrift {} ppm, {:?}",
        plan.load, plan.config, plan.conditions, plan.drift_ppm, plan.length
    );
    if let Some(asked) = &plan.asked {
        println!("{asked:?}");
    }
    println!("hash {:016x}", outcome.hash);
    match outcome.failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            println!("seed {}: {failure}", plan.seed);
            ExitCode::FAILURE
        }
    }
}
