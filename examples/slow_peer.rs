//! Nodes that count under load while one of them is stopped: measures the effect on the others, and when the stopped node is
//! current again.
//!
//! `cargo run --release --example slow_peer -- 10 20` runs ten nodes and stops one of them for 20 seconds.
//!
//! The stopped node has its own runtime, whose only thread is blocked. It reads nothing, acknowledges nothing and sends
//! nothing, like a stopped process. After 6 seconds, its peers close their links to it.

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tallymesh::{Class, Domains, Node};
use tokio::sync::mpsc as wishes;

#[expect(dead_code, reason = "this cluster has two runtimes, and is started by hand")]
mod common;

/// Keys that each node changes in a round. No two nodes share a key.
const KEYS: usize = 500;

/// The longest time that the example waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two checks of a condition.
const LOOK: Duration = Duration::from_micros(500);

/// A node with its counters.
struct Member {
    node: Node,
    domains: Domains,
}

/// The results.
struct Found {
    /// Rows per second that the other nodes applied: before the stop, during it, and afterwards.
    rows_a_second: [f64; 3],
    /// Memory of the whole process in KiB: when the node was stopped, and when it was released.
    resident: [f64; 2],
    /// Time from the release until the node had all rows.
    current_after: Duration,
}

fn key(node: usize, n: usize) -> String {
    format!("m{n}.node{node}.test.net")
}

impl Member {
    /// The applied version of another member's rows on this node, or this node's own version.
    fn have(&self, of: &Self) -> u64 {
        let held = self.domains.structure().held();
        let actor = of.node.actor();
        held.iter().find(|held| held.actor == actor).map_or(0, |held| held.applied.0)
    }

    /// Whether the node has all rows of the other members.
    fn current(&self, all: &[Self]) -> bool {
        all.iter().all(|other| other.domains.structure().pending() == 0 && self.have(other) == other.have(other))
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return Err(format!("not within {PATIENCE:?}: {what}").into());
        }
        thread::sleep(LOOK);
    }
    Ok(())
}

/// Starts a thread for the runtime of the node to be stopped. Sending a receiver to it blocks the runtime until the sender of
/// that receiver is dropped.
fn holdable(runtime: tokio::runtime::Runtime) -> wishes::Sender<mpsc::Receiver<()>> {
    let (wish, mut wished) = wishes::channel::<mpsc::Receiver<()>>(1);
    thread::spawn(move || {
        runtime.block_on(async {
            while let Some(hold) = wished.recv().await {
                // Blocks on purpose, so that nothing else of this runtime runs meanwhile.
                let _ = hold.recv();
            }
        });
    });
    wish
}

/// Every node changes all its keys repeatedly; a round ends when all nodes have all changes. Returns the rows per second that
/// all nodes together applied, and the number of rounds.
fn load(lively: &[Member], time: Duration) -> Result<(f64, usize), Box<dyn Error>> {
    let (start, mut rounds) = (Instant::now(), 0);
    while start.elapsed() < time {
        for (number, member) in lively.iter().enumerate() {
            (0..KEYS).try_for_each(|n| member.domains.add(&key(number, n), 1))?;
        }
        until("a round to arrive", || lively.iter().all(|member| member.current(lively)))?;
        rounds += 1;
    }
    let rows = rounds * KEYS * lively.len() * (lively.len() - 1);
    Ok((rows as f64 / start.elapsed().as_secs_f64(), rounds))
}

/// Memory in use by this process in KiB; zero where the operating system does not report it.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

fn stand_still(nodes: usize, time: Duration) -> Result<Found, Box<dyn Error>> {
    let names: Vec<_> = (0..nodes).map(|n| format!("relay-0-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut lively: Vec<Member> = Vec::new();
    let mut slow = None;
    for (number, identity) in common::identities(&names)?.into_iter().enumerate() {
        let mut builder = Node::builder(names[number]).identity(identity).replicate(Class::OutboundDomains.into());
        if let Some(first) = lively.first() {
            builder = builder.seed(first.node.listen_addr().to_string());
        }
        let last = number + 1 == nodes;
        let node = if last { own.block_on(builder.start())? } else { runtime.block_on(builder.start())? };
        let member = Member { domains: node.domains(Class::OutboundDomains.name())?, node };
        if last { slow = Some(member) } else { lively.push(member) }
    }
    let slow = slow.ok_or("a cluster has nodes")?;
    let wish = holdable(own);
    until("all to be linked", || {
        let linked = |member: &Member| {
            runtime.block_on(member.node.members()).unwrap_or_default().iter().filter(|m| m.linked).count()
        };
        lively.iter().chain([&slow]).all(|member| linked(member) + 1 == nodes)
    })?;

    // All keys are known from here on, so memory has no reason to grow.
    let warm = load(&lively, time / 4)?.1;
    let (before, first) = load(&lively, time)?;
    until("the last node to be current", || slow.current(&lively))?;
    let (release, hold) = mpsc::channel();
    let resident_before = resident();
    wish.blocking_send(hold)?;
    let stood_at = slow.have(&lively[0]);
    let (during, second) = load(&lively, time)?;
    assert!(slow.have(&lively[0]) <= stood_at + KEYS as u64, "it stood still");
    let resident = [resident_before, resident()];
    let begun = Instant::now();
    drop(release);
    until("it to be current again", || slow.current(&lively))?;
    let current_after = begun.elapsed();
    let (after, third) = load(&lively, time)?;
    until("all to be current", || slow.current(&lively))?;

    let rounds = (warm + first + second + third) as i64;
    for (number, n) in (0..lively.len()).flat_map(|number| (0..KEYS).map(move |n| (number, n))) {
        for member in lively.iter().chain([&slow]) {
            assert_eq!(member.domains.count(&key(number, n))?.total, rounds, "{}", member.node.name());
        }
    }
    for member in lively.iter().chain([&slow]) {
        runtime.block_on(member.node.abort());
    }
    Ok(Found { rows_a_second: [before, during, after], resident, current_after })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u64>());
    let nodes = arguments.next().transpose()?.unwrap_or(10).clamp(3, 64) as usize;
    let seconds = arguments.next().transpose()?.unwrap_or(10).clamp(1, 3600);
    let Found { rows_a_second: [before, during, after], resident, current_after } =
        stand_still(nodes, Duration::from_secs(seconds))?;
    println!("{nodes} nodes, one of which stands still for {seconds} s");
    println!("rows/s taken in by the others: {before:.0} before, {during:.0} meanwhile, {after:.0} afterwards");
    println!("                               {:+.1} % while it stood still", (during / before - 1.0) * 100.0);
    println!("memory of all nodes:           {:.0} KiB before, {:.0} KiB at the end of it", resident[0], resident[1]);
    println!("current again after:           {:.2} s", current_after.as_secs_f64());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_stands_still_holds_nobody_up() {
        let found = stand_still(4, Duration::from_secs(2)).unwrap();
        let [before, during, _] = found.rows_a_second;
        // Other programs use the machine as well. If the stopped process blocked the others, the rate would be zero.
        assert!(during > before / 4.0, "{before} rows/s, and {during} while one stood still");
        assert!(found.resident[1] < found.resident[0] + 32_768.0, "KiB: {:?}", found.resident);
        assert!(found.current_after < Duration::from_secs(20), "{:?}", found.current_after);
    }
}
