//! Instructions of the hot paths, counted by callgrind: the same on a busy machine as on a quiet one.
//!
//! `cargo run --release -p tallymesh-benches --bin instructions` compares them with the baseline in the repository, and
//! ends with 1 when a path has become longer. `-- renew` writes the baseline anew. Instructions are not time: what waits
//! for memory shows in `compare` alone.

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::{Parser, Subcommand};
use ipnet::{IpNet, Ipv4Net};
use tallymesh_benches::apply::Feed;
use tallymesh_benches::input::{self, Spread, address_key};
use tallymesh_benches::prefix::net;
use tallymesh_benches::take::{READY, Throttles};
use tallymesh_benches::{add, replicas};
use tallymesh_engine::limiter::Throttle;
use tallymesh_engine::{Counter, Now, Replica, Structure, Time};
use tallymesh_schemas::{Class, Strength, UnixMs};

/// Additions, rows and takes of a path.
const N: usize = 10_000;

/// Addresses that are summed up.
const ADDRESSES: usize = 100_000;

/// Sums of a path.
const SUMS: usize = 1_000;

const NOW: Now = Now { mono: Time(1), unix_ms: UnixMs(1) };

/// Counts the instructions of the hot paths.
#[derive(Parser)]
struct Args {
    /// What to do; comparing unless it is said.
    #[command(subcommand)]
    action: Option<Action>,
    /// By how many percent a path may be longer than its baseline.
    #[arg(long, default_value_t = 3.0)]
    tolerance: f64,
}

#[derive(Clone, Copy, Subcommand)]
enum Action {
    /// Compares with the baseline; ends with 1 if a path has become longer.
    Compare,
    /// Writes the baseline anew.
    Renew,
    /// Goes the paths once, to be counted from outside.
    #[command(hide = true)]
    Run,
}

/// The functions whose instructions are counted, and how often each does what it is named for. Callgrind finds them by
/// the beginning of their names: they have no closures, whose names would begin so as well.
const PATHS: [(&str, usize); 11] = [
    ("counted_add_to_counter", N),
    ("counted_add_by_key", N),
    ("counted_add_new_key", N),
    ("counted_commit_row", N),
    ("counted_apply_row", N),
    ("counted_sum_under_8", SUMS),
    ("counted_sum_under_16", SUMS),
    ("counted_sum_under_24", SUMS),
    ("counted_sum_under_32", SUMS),
    ("counted_take_soft", N),
    ("counted_take_hard", N),
];

#[inline(never)]
fn counted_add_to_counter(counter: &Counter) {
    for _ in 0..N {
        black_box(counter).add(1);
    }
}

/// Functions that do the same for different input. Each says its name, or the compiler would make one of them.
macro_rules! adds {
    ($($name:ident),*) => {
        $(
            #[inline(never)]
            fn $name(structure: &Structure, keys: &[String]) {
                black_box(stringify!($name));
                for key in keys {
                    let _ = black_box(structure.add(key.as_bytes(), 1));
                }
            }
        )*
    };
}

adds!(counted_add_by_key, counted_add_new_key);

#[inline(never)]
fn counted_commit_row(replica: &mut Replica) {
    replica.handle_changes(NOW);
}

#[inline(never)]
fn counted_apply_row(feed: &mut Feed, messages: &[Vec<u8>]) {
    feed.deliver(messages);
}

macro_rules! sums {
    ($($name:ident),*) => {
        $(
            #[inline(never)]
            fn $name(structure: &Structure, blocks: &[Ipv4Net]) {
                black_box(stringify!($name));
                for block in blocks {
                    black_box(structure.count_net(IpNet::V4(*block), NOW.mono));
                }
            }
        )*
    };
}

sums!(counted_sum_under_8, counted_sum_under_16, counted_sum_under_24, counted_sum_under_32);

macro_rules! takes {
    ($($name:ident),*) => {
        $(
            #[inline(never)]
            fn $name(throttle: &Arc<Throttle>) {
                black_box(stringify!($name));
                for _ in 0..N {
                    black_box(throttle.take(READY, 1));
                }
            }
        )*
    };
}

takes!(counted_take_soft, counted_take_hard);

/// Goes every path once, with everything that it needs there and known before.
fn run() {
    let (_replica, counter) = add::resolved();
    counted_add_to_counter(&counter);

    let (mut replica, structure) = replicas::alone(Class::OutboundDomains);
    let keys = input::keys(2 * N);
    let (known, new) = keys.split_at(N);
    for key in known {
        let _ = structure.add(key.as_bytes(), 1);
    }
    replica.handle_changes(NOW);
    counted_add_by_key(&structure, known);
    counted_commit_row(&mut replica);
    counted_add_new_key(&structure, new);

    let mut feed = Feed::new(N);
    let messages = feed.flush(N);
    counted_apply_row(&mut feed, &messages);
    assert!(feed.agrees(), "the receiver has what the sender has");

    let (mut replica, structure) = replicas::alone(Class::InboundCidr);
    let addresses = input::addresses(ADDRESSES, Spread::Clustered);
    for address in &addresses {
        let _ = structure.add(&address_key(*address), 1);
    }
    replica.handle_changes(NOW);
    let draws = input::draws(SUMS, ADDRESSES, 5);
    let blocks = |bits| -> Vec<_> { draws.iter().map(|at| net(addresses[*at as usize], bits)).collect() };
    counted_sum_under_8(&structure, &blocks(8));
    counted_sum_under_16(&structure, &blocks(16));
    counted_sum_under_24(&structure, &blocks(24));
    counted_sum_under_32(&structure, &blocks(32));

    let soft = Throttles::new(Strength::Soft, 1);
    counted_take_soft(&soft.limiter.resolve(&soft.names[0], READY).expect("it was declared"));
    let hard = Throttles::new(Strength::Hard, 1);
    let throttle = hard.limiter.resolve(&hard.names[0], READY).expect("it was declared");
    assert!(throttle.take(READY, 1).admitted(), "the share is in its hands");
    counted_take_hard(&throttle);
}

/// Instructions of each path for one of what it does, by name.
type Counts = BTreeMap<String, f64>;

fn baseline() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

/// Runs this program under callgrind, which writes what it has counted at the end of each path.
fn count() -> Result<Counts, String> {
    let folder = std::env::temp_dir().join(format!("tally-instructions-{}", std::process::id()));
    fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let counts = count_in(&folder);
    // What is left there does no harm.
    let _ = fs::remove_dir_all(&folder);
    counts
}

fn count_in(folder: &Path) -> Result<Counts, String> {
    let ourselves = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*::counted_*"])
        // Callgrind takes no pattern here.
        .args(PATHS.map(|(name, _)| format!("--dump-after=instructions::{name}")))
        .arg(format!("--callgrind-out-file={}/counted", folder.display()))
        .arg(ourselves)
        .arg("run")
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let files = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut counts = Counts::new();
    for file in files.flatten() {
        let text = fs::read_to_string(file.path()).map_err(|error| format!("cannot read what was counted: {error}"))?;
        counts.extend(dumped(&text));
    }
    match PATHS.iter().find(|(name, _)| !counts.contains_key(short(name))) {
        Some((name, _)) => Err(format!("callgrind has not seen {name}: is it there in this build?")),
        None => Ok(counts),
    }
}

fn short(path: &str) -> &str {
    path.strip_prefix("counted_").unwrap_or(path)
}

/// The path that a dump is of, and its instructions for each of what it does.
fn dumped(text: &str) -> Option<(String, f64)> {
    let after = |label: &str| text.lines().find_map(|line| line.strip_prefix(label));
    let trigger = after("desc: Trigger:")?.trim();
    let (_, ended) = trigger.rsplit_once("::")?;
    let (name, n) = PATHS.iter().find(|(name, _)| *name == ended)?;
    let total: f64 = after("summary:").or_else(|| after("totals:"))?.trim().parse().ok()?;
    Some((short(name).to_owned(), total / *n as f64))
}

fn parse(text: &str) -> Counts {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some((line.split_once(' ')?.0.to_owned(), line.rsplit(' ').next()?.parse().ok()?)))
        .collect()
}

fn renew(counts: &Counts) -> Result<(), String> {
    let mut text = String::from(
        "# Instructions for one of each, by callgrind. Written by\n\
         # cargo run --release -p tallymesh-benches --bin instructions -- renew\n",
    );
    text += &format!("# on {}\n", std::env::consts::ARCH);
    for (name, count) in counts {
        text += &format!("{name} {count:.1}\n");
    }
    let path = baseline();
    fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Prints a line a path; whether none has become longer.
fn compare(counts: &Counts, before: &Counts, tolerance: f64) -> bool {
    println!("{:16} {:>10} {:>10} {:>8}", "instructions", "baseline", "now", "change");
    let mut good = true;
    for (name, now) in counts {
        let Some(was) = before.get(name) else {
            println!("{name:16} {:>10} {now:>10.1} {:>8}  not in the baseline", "-", "");
            good = false;
            continue;
        };
        let change = (now / was - 1.0) * 100.0;
        let verdict = match () {
            () if change > tolerance => "  LONGER",
            () if change < -tolerance => "  shorter: renew the baseline",
            () => "",
        };
        good &= change <= tolerance;
        println!("{name:16} {was:>10.1} {now:>10.1} {change:>+7.1}%{verdict}");
    }
    good
}

fn act(action: Action, tolerance: f64) -> Result<bool, String> {
    if let Action::Run = action {
        run();
        return Ok(true);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("skipped: valgrind is not on the PATH");
        return Ok(true);
    }
    let text = fs::read_to_string(baseline()).unwrap_or_default();
    let arch = format!("# on {}", std::env::consts::ARCH);
    if matches!(action, Action::Compare) && !text.lines().any(|line| line == arch) {
        println!("skipped: the baseline is not of {}; write one with `renew`", std::env::consts::ARCH);
        return Ok(true);
    }
    let counts = count()?;
    let good = compare(&counts, &parse(&text), tolerance);
    if let Action::Renew = action {
        renew(&counts)?;
        return Ok(true);
    }
    Ok(good)
}

fn main() -> ExitCode {
    let args = Args::parse();
    match act(args.action.unwrap_or(Action::Compare), args.tolerance) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: a path has become longer; mend it, or say why in the commit that renews the baseline");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(3)
        }
    }
}
