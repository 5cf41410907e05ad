//! What a limit of 300/s admits at five times that demand, kept hard, soft, soft with a small epsilon, and by static parts:
//! the table of `docs/limits.md`.
//!
//! `cargo run --release -p tallymesh-harness --example limits_table -- 2 3 10 50` (these are the numbers of nodes)
//!
//! All four are measured by the same simulation, under a checker that sees every admission. Static parts are what one does
//! without a cluster: every node has a bucket of R/N of its own, which is full when its process begins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use tallymesh_engine::Time;
use tallymesh_engine::limiter::{Base, Bucket, UNITS};

use tallymesh_harness::{Builder, Cluster, Conditions, Failure, Limits, Random, Timing, fault, quick_config, spec};
use tallymesh_schemas::{Class, Rate, Strength, StructureSpec, ThrottleSpec};

const SECOND: Duration = Duration::from_secs(1);
const TABLE: &str = "shared_named_throttles";
const RATE: &str = "300/1s";
const RECLAIM: Duration = Duration::from_secs(6);

/// Five times the rate.
const DEMAND: u64 = 1500;

/// Among more nodes than that, so many are founders.
const FOUNDERS: usize = 10;

/// How a limit is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Hard,
    Soft,
    Epsilon,
    Static,
}

impl Kept {
    const ALL: [Self; 4] = [Self::Hard, Self::Soft, Self::Epsilon, Self::Static];

    fn spec(self, rate: Rate) -> ThrottleSpec {
        let strength = if self == Self::Hard { Strength::Hard } else { Strength::Soft };
        let epsilon = if self == Self::Epsilon { 50 } else { ThrottleSpec::EPSILON };
        ThrottleSpec::new(rate, strength).with_epsilon(epsilon)
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Uniform,
    Hot,
    Moving,
}

impl Demand {
    /// Requests a second of the `i`th of `n` nodes.
    fn of(self, i: usize, n: usize, second: u64) -> u64 {
        let all = |hot: bool| if hot { DEMAND } else { 0 };
        match self {
            Self::Uniform => DEMAND / n as u64,
            Self::Hot => all(i == 1),
            Self::Moving => all(i as u64 == second / 5 % n as u64),
        }
    }
}

/// What goes wrong meanwhile, for 60 seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Loss,
    Split(usize),
    Crashes,
    Clocks,
    Jumps,
}

impl Trouble {
    fn name(self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Loss => "20 % loss".to_owned(),
            Self::Split(parts) => format!("split in {parts}"),
            Self::Crashes => "crash storm".to_owned(),
            Self::Clocks => "clocks 2 % off, set by ±30 s".to_owned(),
            Self::Jumps => "clocks jump ahead by 0.2 s".to_owned(),
        }
    }

    /// The faults, and marks by which it is known that they bit.
    fn script(self, names: &[String]) -> (String, &'static [&'static str]) {
        let mut random = Random::new(7);
        let each = |every: u64, fault: &mut dyn FnMut() -> String| {
            (0..60 / every).map(|n| format!("at {}s {}; ", n * every, fault())).collect::<String>()
        };
        let one = |random: &mut Random| names[random.index(names.len())].clone();
        match self {
            Self::None => (String::new(), &["delta"]),
            Self::Loss => ("at 0s lose 20%".to_owned(), &["message lost"]),
            Self::Split(parts) => {
                let part =
                    |p: usize| names.iter().skip(p).step_by(parts).map(String::as_str).collect::<Vec<_>>().join(",");
                let cuts = (0..parts - 1).map(|p| format!("at 0s cut {} from rest; ", part(p)));
                (cuts.chain(["at 60s heal".to_owned()]).collect(), &["cut", "message cut off", "member dead"])
            }
            Self::Crashes => {
                let third = names.len().div_ceil(3);
                let text = each(15, &mut || {
                    let first = random.index(names.len());
                    let whom: Vec<_> = (0..third).map(|n| names[(first + n) % names.len()].as_str()).collect();
                    format!("restart {}", whom.join(","))
                });
                (text, &["restart"])
            }
            Self::Clocks => {
                let text = each(5, &mut || {
                    let sign = if random.chance(5000) { "-" } else { "" };
                    format!("set {} {sign}30s", one(&mut random))
                });
                (text, &["set"])
            }
            Self::Jumps => (each(5, &mut || format!("jump {} 200ms", one(&mut random))), &["jump"]),
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Used {
    /// Of the rate, while there was trouble, in per cent.
    during: f64,
    /// And in the ten seconds that begin ten seconds after.
    after: f64,
    /// The most by which a window was ever overshot, in tokens.
    beyond: u64,
}

/// One cell of the table.
struct Case {
    nodes: usize,
    demand: Demand,
    trouble: Trouble,
    kept: Kept,
}

/// The buckets of static parts, by node and process.
type Parts = BTreeMap<String, (String, Bucket)>;

impl Case {
    /// Time between two requests' worth of asking: in a large cluster more come at once, and changes wait for each other.
    fn pace(&self) -> Duration {
        if self.nodes > FOUNDERS { SECOND } else { SECOND / 10 }
    }

    fn cluster(&self) -> (Cluster, Vec<String>) {
        let names: Vec<_> = (0..self.nodes).map(|i| format!("n{i:02}")).collect();
        let founders: Vec<_> = names.iter().take(FOUNDERS).map(String::as_str).collect();
        let rate = RATE.parse().expect("a rate");
        let cluster = Builder::new(15 + self.nodes as u64)
            .nodes(names.clone())
            .structures([
                spec(TABLE, Class::SharedNamedThrottles).with_pace(self.pace() / 10, StructureSpec::MAX_PENDING)
            ])
            .config(quick_config())
            .timing(Timing { audit_every: if self.nodes > FOUNDERS { 100_000 } else { 1000 }, ..Timing::default() })
            .conditions(Conditions { lose: 100, ..Conditions::default() })
            .limits(Limits::founded(&founders, RECLAIM).throttle(TABLE, "t", self.kept.spec(rate)))
            .drift(if self.trouble == Trouble::Clocks { 20_000 } else { 500 })
            .start();
        (cluster, names)
    }

    /// Asks for so long, and says what part of the rate was admitted, in per cent.
    fn ask(&self, cluster: &mut Cluster, names: &[String], parts: &mut Parts, seconds: u64) -> Result<f64, Failure> {
        let admitted = |cluster: &Cluster| cluster.admissions().of("t").map_or(0, |tally| tally.admitted);
        let (before, start) = (admitted(cluster), cluster.now());
        let end = start.after(SECOND * seconds as u32);
        let mut asked = vec![0_u64; names.len()];
        while cluster.now() < end {
            cluster.run_for(self.pace() / 10)?;
            let second = cluster.now().0 / 1_000_000;
            for (i, name) in names.iter().enumerate() {
                asked[i] += self.demand.of(i, names.len(), second) * (self.pace().as_millis() / 100) as u64;
                for _ in 0..asked[i] / 100 {
                    self.take(cluster, name, parts);
                }
                asked[i] %= 100;
            }
        }
        Ok((admitted(cluster) - before) as f64 / (3.0 * seconds as f64))
    }

    fn take(&self, cluster: &mut Cluster, name: &str, parts: &mut Parts) {
        if self.kept != Kept::Static {
            cluster.with(name, |node| node.take(TABLE, "t", 1));
            return;
        }
        let Some(process) = cluster.node(name).process() else { return };
        let run = process.replica().actor().to_string();
        let units = UNITS / self.nodes as u64;
        cluster.with(name, |node| {
            let now = node.now().mono;
            let part = || {
                let rate: Rate = RATE.parse().expect("a rate");
                let full = Base { epoch: 0, since: Time(0), units, until: Time::NEVER };
                Bucket::since(rate, full, Time(now.0.max(10_000_000)))
            };
            let known = parts.entry(name.to_owned()).or_insert_with(|| (run.clone(), part()));
            if known.0 != run {
                *known = (run, part());
            }
            if known.1.take(now, 1).admitted() {
                node.admit("t", 1);
            }
        });
    }

    fn run(&self, seconds: u64) -> Result<Used, Failure> {
        let (mut cluster, names) = self.cluster();
        let mut parts = Parts::new();
        self.ask(&mut cluster, &names, &mut parts, 12)?;
        let (script, marks) = self.trouble.script(&names);
        cluster.script(&script)?;
        let during = self.ask(&mut cluster, &names, &mut parts, seconds)?;
        for mark in marks {
            assert!(cluster.trace().marked(mark) > 0, "\"{mark}\" did not happen");
        }
        let after = if self.trouble == Trouble::None {
            during
        } else {
            cluster.fault(&fault::Fault::Heal);
            self.ask(&mut cluster, &names, &mut parts, 10)?;
            self.ask(&mut cluster, &names, &mut parts, 10)?
        };
        let beyond = cluster.admissions().of("t").map_or(0, |tally| tally.overshoot);
        Ok(Used { during, after, beyond })
    }
}

/// One row of the table, and for how many seconds there is trouble in it.
#[derive(Clone, Copy)]
struct Row {
    nodes: usize,
    demand: Demand,
    trouble: Trouble,
    seconds: u64,
}

impl Row {
    /// The rows of so many nodes.
    fn of(nodes: usize) -> Vec<Self> {
        let row = |demand, trouble, seconds| Self { nodes, demand, trouble, seconds };
        let calm = [Demand::Uniform, Demand::Hot, Demand::Moving].map(|demand| row(demand, Trouble::None, 20));
        let troubles =
            [Trouble::Loss, Trouble::Split(2), Trouble::Split(3), Trouble::Crashes, Trouble::Clocks, Trouble::Jumps];
        let troubles = troubles.into_iter().filter(|trouble| nodes > 2 || *trouble != Trouble::Split(3));
        let hot = [Trouble::Split(2), Trouble::Crashes].into_iter().filter(|_| nodes <= FOUNDERS);
        let uniform = troubles.map(|trouble| row(Demand::Uniform, trouble, 60));
        calm.into_iter().chain(uniform).chain(hot.map(|trouble| row(Demand::Hot, trouble, 60))).collect()
    }

    /// Its line, with all four; an error says what is wrong with the hard one.
    fn measure(self) -> Result<String, String> {
        let Self { nodes, demand, trouble, seconds } = self;
        let what = match demand {
            Demand::Uniform => "uniform",
            Demand::Hot => "one hot node",
            Demand::Moving => "moving every 5 s",
        };
        let mut line = format!("| {nodes} | {what} | {} |", trouble.name());
        let mut wrong = None;
        for kept in Kept::ALL {
            let used = Case { nodes, demand, trouble, kept }.run(seconds);
            let used = used.map_err(|failure| format!("{line} {failure}"))?;
            line += &if trouble == Trouble::None {
                format!(" {:.0} % / {} |", used.during, used.beyond)
            } else {
                format!(" {:.0}, {:.0} % / {} |", used.during, used.after, used.beyond)
            };
            let least = match (trouble, demand) {
                (Trouble::None, Demand::Uniform) => 98.0,
                (Trouble::None, Demand::Hot) => 95.0,
                _ => 0.0,
            };
            if kept == Kept::Hard && (used.during < least || (used.beyond > 0 && trouble != Trouble::Jumps)) {
                wrong = Some(format!("{used:?}, at least {least} % was wanted"));
            }
        }
        wrong.map_or(Ok(line.clone()), |wrong| Err(format!("{line} {wrong}")))
    }
}

fn main() -> Result<(), String> {
    let numbers =
        std::env::args().skip(1).map(|text| text.parse::<usize>().map_err(|error| format!("{text}: {error}")));
    let rows: Vec<_> = numbers.collect::<Result<Vec<_>, _>>()?.into_iter().flat_map(Row::of).collect();
    println!(
        "| nodes | demand | trouble | hard | soft | soft, epsilon 0.05 | static R/N |\n|---:|---|---|---|---|---|---|"
    );
    let (next, begin) = (AtomicUsize::new(0), Instant::now());
    let (tell, measured) = channel();
    let (rows, next) = (&rows, &next);
    // As many rows at once as there are processors, since each is simulated by itself. They are printed in order.
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            let tell = tell.clone();
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(at) else { return };
                    if tell.send((at, row.measure())).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let (mut waiting, mut ended, mut printed) = (BTreeMap::new(), 0, 0);
        for (at, line) in measured {
            ended += 1;
            eprintln!(
                "{ended} of {} rows, {:.0} s: {}",
                rows.len(),
                begin.elapsed().as_secs_f64(),
                line.as_deref().unwrap_or("failed")
            );
            waiting.insert(at, line?);
            while let Some(line) = waiting.remove(&printed) {
                println!("{line}");
                printed += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A short form of the table: hard limits are never overshot, and are used as far as was promised.
    #[test]
    fn the_table_in_short() {
        for demand in [Demand::Uniform, Demand::Hot, Demand::Moving] {
            Row { nodes: 3, demand, trouble: Trouble::None, seconds: 5 }.measure().unwrap();
        }
        Row { nodes: 4, demand: Demand::Uniform, trouble: Trouble::Split(2), seconds: 12 }.measure().unwrap();
        let hot = Case { nodes: 10, demand: Demand::Hot, trouble: Trouble::None, kept: Kept::Hard }.run(5).unwrap();
        assert!(hot.during >= 95.0 && hot.beyond == 0, "{hot:?}");
    }

    /// Static parts are what they are: exact, and of no use to a hot node.
    #[test]
    fn static_parts_are_measured() {
        let case = |demand| Case { nodes: 10, demand, trouble: Trouble::None, kept: Kept::Static };
        let (uniform, hot) = (case(Demand::Uniform).run(4).unwrap(), case(Demand::Hot).run(4).unwrap());
        assert!(uniform.during > 99.0 && uniform.beyond == 0, "{uniform:?}");
        assert!((9.0..11.0).contains(&hot.during), "{hot:?}");
    }
}
