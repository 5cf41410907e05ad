//! Nodes that restart again and again while they count: measures what ended runs cost the others.
//!
//! `cargo run --release --example restarts -- 100` restarts each of three nodes 100 times, in turn. All of them write to 100,000
//! keys of a cache, a gauge cache, a series and throttles. After every ten restarts of each node it prints a line. In the second
//! half the last node is stopped and not forgotten, and the other two restart.
//!
//! The nodes are replicas in one process. Messages pass between them in memory, and time is virtual, so nothing but the work of
//! the replicas is measured. A restarted node begins without any state and takes everything from the others.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallymesh_engine::limiter::Limiter;
use tallymesh_engine::replica::{Backlog, Verification, Verifier};
use tallymesh_engine::{Cache, Config, GaugeCache, Life, Now, Replica, Series, Structure, Time, Wake};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{
    Class, GaugeCacheSpec, Incarnation, Kind, NodeName, Rate, SeriesName, SeriesSpec, Strength, StructureSpec,
    ThrottleSpec, UnixMs,
};

/// Keys of each of the four objects.
const KEYS: usize = 25_000;

/// Keys of each object that each node changes between two restarts.
const CHANGED: usize = 100;

/// Windows of the series, of a second each.
const WINDOWS: u32 = 48;

/// Windows of another series, of an hour each. Nothing is counted in them.
const HOURS: u32 = 24;

/// Restarts of each node between two lines.
const LINE: usize = 10;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Senders and receivers.
const PAIRS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];

/// A node: its replica, and what a service would hold of it.
struct Node {
    replica: Replica,
    cache: Cache,
    gauge_cache: Arc<GaugeCache>,
    series: Arc<Series>,
    limiter: Limiter,
}

/// The cluster. A node that is stopped is `None`.
struct Cluster {
    nodes: Vec<Option<Node>>,
    now: Now,
    /// The key that is changed next.
    next: usize,
}

/// What a line shows.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Restarts of each node.
    restarts: usize,
    /// Memory of the process in MiB.
    resident: f64,
    /// Copies of rows, and entries about links, of all nodes.
    entries: usize,
    /// Bytes of a digest of everything.
    digest: usize,
    /// How long a verification takes.
    verify: Duration,
    /// Copies of ended runs without a row.
    empty: usize,
    /// Copies of ended runs in the gauge cache, and their rows.
    counts: (usize, usize),
    /// Bytes of the gauge cache.
    counts_bytes: usize,
}

fn name(at: usize) -> NodeName {
    NodeName::new(NAMES[at]).expect("a valid name")
}

impl Node {
    fn start(at: usize, now: Now) -> Result<Self, Box<dyn Error>> {
        let wake: Wake = Arc::new(|| ());
        let mut replica = Replica::new(Config::default(), name(at), Incarnation(now.unix_ms.0));
        let cache = replica.replicate_cache(Class::Cache.into(), Arc::clone(&wake))?;
        let gauge_cache = replica.replicate_gauge_cache(GaugeCacheSpec::new("sessions")?, Arc::clone(&wake))?;
        let spec = SeriesSpec::new(SeriesName::new("requests")?, Kind::GaugeTable, 1, WINDOWS);
        let series = replica.replicate_series(now, spec, Arc::clone(&wake))?;
        let hourly = SeriesSpec::new(SeriesName::new("requests")?, Kind::GaugeTable, 3600, HOURS);
        replica.replicate_series(now, hourly, Arc::clone(&wake))?;
        let throttles = replica.replicate(StructureSpec::from(Class::SharedNamedThrottles), Arc::clone(&wake))?;
        let limiter = Limiter::new(throttles, None, name(at), now.unix_ms.0, now.mono, wake);
        Ok(Self { replica, cache, gauge_cache, series, limiter })
    }

    /// Changes a key of each object.
    fn change(&self, key: usize, now: Now) -> Result<(), Box<dyn Error>> {
        let key = format!("key-{}", key % KEYS);
        self.cache.set(key.as_bytes(), &key, Duration::ZERO, now.unix_ms)?;
        self.gauge_cache.add(key.as_bytes(), 1, now.mono)?;
        self.series.add(key.as_bytes(), 1)?;
        let spec = ThrottleSpec::new(Rate::new(1000, Duration::from_secs(1), 1000)?, Strength::Soft);
        self.limiter.throttle(&key, spec, now.mono)?.take(now.mono, 1);
        Ok(())
    }

    fn pass(&mut self, now: Now) {
        self.limiter.handle_timeout(now, self.replica.reach(), &[]);
        self.replica.handle_timeout(now);
        while self.replica.poll_event().is_some() {}
    }

    fn structures(&self) -> Vec<Arc<Structure>> {
        self.replica.structures()
    }
}

impl Cluster {
    fn start() -> Result<Self, Box<dyn Error>> {
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let nodes = (0..NAMES.len()).map(|at| Node::start(at, now).map(Some)).collect::<Result<_, _>>()?;
        let mut cluster = Self { nodes, now, next: 0 };
        for at in 0..NAMES.len() {
            cluster.link(at);
        }
        let first = cluster.nodes[0].as_ref().ok_or("all nodes run")?;
        (0..KEYS).try_for_each(|key| first.change(key, now))?;
        cluster.run(Duration::from_secs(5));
        Ok(cluster)
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some())
    }

    /// Links a node with all others.
    fn link(&mut self, at: usize) {
        let now = self.now;
        for other in self.running().filter(|other| *other != at).collect::<Vec<_>>() {
            for (from, to) in [(at, other), (other, at)] {
                if let Some(node) = &mut self.nodes[from] {
                    node.replica.handle_link_down(&name(to));
                    node.replica.handle_link_up(now, &name(to));
                }
            }
        }
    }

    fn restart(&mut self, at: usize) -> Result<(), Box<dyn Error>> {
        self.nodes[at] = None;
        self.nodes[at] = Some(Node::start(at, self.now)?);
        self.link(at);
        for writer in self.running().collect::<Vec<_>>() {
            for _ in 0..CHANGED {
                self.next += 1;
                self.nodes[writer].iter().try_for_each(|node| node.change(self.next, self.now))?;
            }
        }
        self.run(Duration::from_secs(1));
        Ok(())
    }

    /// Stops a node for good.
    fn stop(&mut self, at: usize) {
        let Some(stopped) = self.nodes[at].take() else { return };
        let (now, run) = (self.now, stopped.replica.actor().incarnation);
        for node in self.nodes.iter_mut().flatten() {
            node.replica.handle_link_down(&name(at));
            node.replica.handle_member(now, &name(at), run, Life::Dead);
        }
    }

    /// Delivers messages until none is left.
    fn exchange(&mut self) {
        let mut silent = false;
        while !silent {
            silent = true;
            for (from, to) in PAIRS {
                while let Some(message) = self.next_message(from, to) {
                    silent = false;
                    let now = self.now;
                    if let Some(node) = &mut self.nodes[to] {
                        node.replica.handle_message(now, &name(from), &message).expect("a node sends valid messages");
                    }
                }
            }
        }
    }

    fn next_message(&mut self, from: usize, to: usize) -> Option<Vec<u8>> {
        let mut message = Vec::new();
        let sender = self.nodes[from].as_mut()?;
        sender.replica.poll_transmit(&name(to), &mut message).then_some(message)
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now.mono.after(time);
        while self.now.mono < end {
            self.now.mono = self.now.mono.after(Duration::from_millis(100));
            self.now.unix_ms.0 += 100;
            let now = self.now;
            self.nodes.iter_mut().flatten().for_each(|node| node.pass(now));
            self.exchange();
        }
    }

    /// The bytes of a digest of everything from the second node to the first.
    fn digest_bytes(&mut self) -> usize {
        let now = self.now;
        let Some(asking) = &mut self.nodes[0] else { return 0 };
        asking.replica.probe(now);
        let mut bytes = 0;
        for (from, to) in [(0, 1), (1, 0)] {
            while let Some(message) = self.next_message(from, to) {
                let is_digest = matches!(Message::decode(&message), Ok(Message::Digest(_)));
                bytes += if from == 1 && is_digest { message.len() } else { 0 };
                if let Some(node) = &mut self.nodes[to] {
                    node.replica.handle_message(now, &name(from), &message).expect("a node sends valid messages");
                }
            }
        }
        self.exchange();
        bytes
    }

    /// Verifies on the first node. Returns the result and how long it took, with the answers of the others.
    fn verify(&mut self) -> Option<(Verification, Duration)> {
        let began = Instant::now();
        let now = self.now;
        let mut verifier = Verifier::new(&mut self.nodes[0].as_mut()?.replica, now, Duration::from_secs(5));
        loop {
            self.exchange();
            let now = self.now;
            let found = verifier.poll(&mut self.nodes[0].as_mut()?.replica, now, |_| true, Backlog::Empty);
            if let Some(found) = found {
                return Some((found, began.elapsed()));
            }
            self.now.mono = now.mono.after(Duration::from_millis(1)).max(verifier.poll_timeout());
        }
    }

    fn line(&mut self, restarts: usize) -> Result<(Line, Verification), Box<dyn Error>> {
        let digest = self.digest_bytes();
        let (found, verify) = self.verify().ok_or("the first node runs")?;
        let mut line = Line {
            restarts,
            resident: resident(),
            entries: 0,
            digest,
            verify,
            empty: 0,
            counts: (0, 0),
            counts_bytes: 0,
        };
        for node in self.nodes.iter().flatten() {
            line.entries += node.replica.link_entries() + node.replica.relay_entries();
            line.counts_bytes += node.gauge_cache.structure().bytes();
            for structure in node.structures() {
                let is_counted = structure.id() == node.gauge_cache.structure().id();
                for held in structure.held() {
                    line.entries += 1;
                    let current = self.nodes.iter().flatten().any(|other| *other.replica.actor() == held.actor);
                    line.empty += usize::from(!current && held.rows == 0 && !self.is_stopped(&held.actor.node));
                    if !current && is_counted {
                        line.counts = (line.counts.0 + 1, line.counts.1 + held.rows);
                    }
                }
            }
        }
        Ok((line, found))
    }

    fn is_stopped(&self, node: &NodeName) -> bool {
        NAMES.iter().zip(&self.nodes).any(|(name, running)| *name == node.as_str() && running.is_none())
    }
}

impl Line {
    fn print(&self) {
        let Self { restarts, resident, entries, digest, verify, empty, counts: (copies, rows), counts_bytes } = self;
        println!(
            "{restarts:>8} {resident:>10.1} {entries:>9} {digest:>9} {:>10.2} {empty:>7} {copies:>7} {rows:>9} {:>9.1}",
            verify.as_secs_f64() * 1000.0,
            *counts_bytes as f64 / f64::from(1 << 20)
        );
    }
}

/// Memory in use by this process in MiB; zero where the operating system does not report it.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// Restarts each node of the cluster that often. Calls `each` with every line.
fn restart(
    cluster: &mut Cluster,
    times: usize,
    mut each: impl FnMut(&Line, &Verification),
) -> Result<(), Box<dyn Error>> {
    for round in 1..=times {
        for at in cluster.running().collect::<Vec<_>>() {
            cluster.restart(at)?;
        }
        if round % LINE == 0 || round == times {
            let (line, found) = cluster.line(round)?;
            each(&line, &found);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let restarts = std::env::args().nth(1).map(|argument| argument.parse()).transpose()?.unwrap_or(20);
    let mut cluster = Cluster::start()?;
    let head = || {
        println!(
            "{:>8} {:>10} {:>9} {:>9} {:>10} {:>7} {:>7} {:>9} {:>9}",
            "restarts", "memory MiB", "entries", "digest B", "verify ms", "empty", "ended", "rows", "MiB"
        );
    };
    println!("each of three nodes restarts; then, after the last node has stopped, each of two");
    println!(
        "empty: copies of ended runs that count nothing; ended: copies of ended runs in the gauge cache, with rows"
    );
    head();
    let mut last = None;
    restart(&mut cluster, restarts, |line, found| {
        line.print();
        last = Some((*line, found.outcome()));
    })?;
    let (_, outcome) = last.ok_or("there are no restarts")?;
    println!("verify: {outcome:?}");
    cluster.stop(NAMES.len() - 1);
    println!("node {} is stopped, and not forgotten", NAMES[NAMES.len() - 1]);
    head();
    restart(&mut cluster, restarts, |line, _| line.print())?;
    println!("what grows: the rows of ended runs in the gauge cache, because they still count");
    println!("the bound: for each key one row of each run that has changed it, of at most 4096 runs");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ended_runs_that_count_nothing_cost_nothing() {
        let mut cluster = Cluster::start().unwrap();
        let mut lines = Vec::new();
        restart(&mut cluster, LINE, |line, found| lines.push((*line, found.converged()))).unwrap();
        for (line, converged) in lines {
            assert!(converged, "{line:?}");
            assert_eq!(line.empty, 0, "{line:?}");
        }
    }
}
