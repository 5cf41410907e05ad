//! Keys that come and go: measures whether the memory of a node depends on the keys that it has ever seen, or on those that it
//! holds.
//!
//! `cargo run --release --example churn -- 10000000` writes ten million distinct keys in each of ten cycles, through three
//! objects: a cache with a bound, a gauge cache whose entries expire, and counts of connections by address, each of which is
//! open for a second. After each cycle it prints what is held and the memory of the process. In the end everything is removed.
//!
//! Two nodes write, each half of the keys. They are replicas in one process. Messages pass between them in memory, and time is
//! virtual: a cycle takes 100 seconds of it.

use std::error::Error;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Cache, Config, GaugeCache, Now, Replica, Structure, Time, Wake};
use tallymesh_schemas::{Bounds, Class, GaugeCacheSpec, Incarnation, NodeName, StructureSpec, UnixMs};

/// Steps of a cycle, of 100 ms each.
const STEPS: u64 = 1000;

const STEP: Duration = Duration::from_millis(100);

/// The cache holds at most this fraction of the keys of a cycle.
const SHARE: u64 = 10;

/// Steps for which a connection is open.
const OPEN: u64 = 10;

/// How long an entry of the gauge cache stays.
const TTL: Duration = Duration::from_secs(10);

/// How long the nodes go on when everything is removed: removals of caches are kept for a minute.
const REST: Duration = Duration::from_secs(180);

const CYCLES: u64 = 10;

const NAMES: [&str; 2] = ["a", "b"];

/// A node: its replica, and the objects that a service would hold of it.
struct Node {
    replica: Replica,
    cache: Cache,
    gauge_cache: Arc<GaugeCache>,
    connections: Arc<Structure>,
}

/// Two linked nodes.
struct Cluster {
    nodes: [Node; 2],
    now: Now,
    /// Keys of a step.
    keys: u64,
    /// The step that comes next.
    step: u64,
}

/// What a node holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    /// Entries of the cache, with the removals that are not collected yet.
    cached: usize,
    /// Entries of the gauge cache.
    gauged: usize,
    /// Addresses with open connections.
    open: usize,
    /// Bytes of the three objects, as the engine counts them: the cache, the gauge cache, and the connections.
    bytes: [usize; 3],
}

fn name(at: usize) -> NodeName {
    NodeName::new(NAMES[at]).expect("a valid name")
}

/// The key of a number: a different one for each number.
fn key(number: u64) -> [u8; 16] {
    let mut key = *b"key-000000000000";
    for (place, digit) in (4..16).rev().zip(0..) {
        key[place] = b"0123456789abcdef"[(number >> (digit * 4) & 0xf) as usize];
    }
    key
}

/// The address of a number, in the form of a key. Neighbouring numbers lie in different blocks.
fn address(number: u64) -> Vec<u8> {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let mut octets = [0; 16];
    octets[0] = 0x20;
    octets[8..].copy_from_slice(&spread);
    let (key, n) = tallymesh_schemas::key::from_net(std::net::IpAddr::from(octets).into());
    key[..n].to_vec()
}

impl Node {
    fn start(at: usize, now: Now, cached: NonZeroU64) -> Result<Self, Box<dyn Error>> {
        let wake: Wake = Arc::new(|| ());
        let mut replica = Replica::new(Config::default(), name(at), Incarnation(now.unix_ms.0));
        let bounds = Bounds { elements: Some(cached), ..Bounds::default() };
        let cache =
            replica.replicate_cache(StructureSpec::from(Class::Cache).with_bounds(bounds), Arc::clone(&wake))?;
        let gauges = GaugeCacheSpec::new("sessions")?.with_ttl(TTL);
        let gauge_cache = replica.replicate_gauge_cache(gauges, Arc::clone(&wake))?;
        let connections = replica.replicate(StructureSpec::from(Class::InboundCidr), wake)?;
        Ok(Self { replica, cache, gauge_cache, connections })
    }

    fn held(&self, now: Now) -> Held {
        Held {
            cached: self.cache.held(),
            gauged: self.gauge_cache.len(now.mono),
            open: self.connections.keys(),
            bytes: [self.cache.bytes(), self.gauge_cache.structure().bytes(), self.connections.bytes()],
        }
    }
}

impl Cluster {
    /// `keys` is the number of keys of a cycle.
    fn start(keys: u64) -> Result<Self, Box<dyn Error>> {
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let cached = NonZeroU64::new(keys / SHARE).ok_or("a cycle has ten keys or more")?;
        let mut nodes = [Node::start(0, now, cached)?, Node::start(1, now, cached)?];
        for (node, other) in nodes.iter_mut().zip([1, 0]) {
            node.replica.handle_link_up(now, &name(other));
        }
        let mut cluster = Self { nodes, now, keys: (keys / STEPS).max(1), step: 0 };
        cluster.pass(Duration::from_secs(3))?;
        Ok(cluster)
    }

    /// The numbers of a step, each with the node that writes it.
    fn numbers(&self, step: u64) -> impl Iterator<Item = (u64, &Node)> {
        let numbers = step * self.keys..(step + 1) * self.keys;
        numbers.map(|number| (number, &self.nodes[(number % 2) as usize]))
    }

    fn cycle(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..STEPS {
            let (step, now) = (self.step, self.now);
            for (number, node) in self.numbers(step) {
                node.cache.set(&key(number), b"value", Duration::ZERO, now.unix_ms)?;
                node.gauge_cache.add(&key(number), 1, now.mono)?;
                node.connections.add(&address(number), 1)?;
            }
            if let Some(ended) = step.checked_sub(OPEN) {
                self.close(ended)?;
            }
            self.step += 1;
            self.pass(STEP)?;
        }
        Ok(())
    }

    fn close(&self, step: u64) -> Result<(), Box<dyn Error>> {
        Ok(self.numbers(step).try_for_each(|(number, node)| node.connections.add(&address(number), -1))?)
    }

    /// Removes everything.
    fn clear(&mut self) -> Result<(), Box<dyn Error>> {
        (self.step.saturating_sub(OPEN)..self.step).try_for_each(|step| self.close(step))?;
        loop {
            let now = self.now;
            let page = self.nodes[0].cache.entries(None, 100_000, now.unix_ms);
            page.iter().try_for_each(|entry| self.nodes[0].cache.remove(&entry.key, now.unix_ms).map(drop))?;
            self.pass(STEP)?;
            if page.is_empty() {
                break;
            }
        }
        self.pass(REST)
    }

    /// Lets time pass.
    fn pass(&mut self, time: Duration) -> Result<(), Box<dyn Error>> {
        let end = self.now.mono.after(time);
        while self.now.mono < end {
            self.now.mono = self.now.mono.after(STEP);
            self.now.unix_ms.0 += STEP.as_millis() as u64;
            for node in &mut self.nodes {
                node.replica.handle_changes(self.now);
                node.replica.handle_timeout(self.now);
                while node.replica.poll_event().is_some() {}
            }
            self.exchange()?;
        }
        Ok(())
    }

    /// Delivers messages until none is left.
    fn exchange(&mut self) -> Result<(), Box<dyn Error>> {
        let (mut message, mut silent) = (Vec::new(), 0);
        for from in (0..NAMES.len()).cycle() {
            let to = 1 - from;
            silent += 1;
            while self.nodes[from].replica.poll_transmit(&name(to), &mut message) {
                silent = 0;
                self.nodes[to].replica.handle_message(self.now, &name(from), &message)?;
                message.clear();
            }
            if silent > NAMES.len() {
                break;
            }
        }
        Ok(())
    }
}

/// Memory in use by this process in MiB; zero where the operating system does not report it.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

fn print(cycle: &str, held: Held) {
    let Held { cached, gauged, open, bytes } = held;
    let [cache, gauges, connections] = bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    println!(
        "{cycle:>8} {cached:>10} {cache:>7.1} {gauged:>10} {gauges:>7.1} {open:>10} {connections:>7.1} {:>8.1}",
        resident()
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    let keys = std::env::args().nth(1).map(|argument| argument.parse()).transpose()?.unwrap_or(100_000);
    let mut cluster = Cluster::start(keys)?;
    println!("what the first of two nodes holds, the memory of its objects, and that of the process with both nodes");
    println!(
        "{:>8} {:>10} {:>7} {:>10} {:>7} {:>10} {:>7} {:>8}",
        "cycle", "cached", "MiB", "gauged", "MiB", "addresses", "MiB", "RSS MiB"
    );
    print("start", cluster.nodes[0].held(cluster.now));
    let mut resident_by_cycle = Vec::new();
    for cycle in 1..=CYCLES {
        cluster.cycle()?;
        print(&cycle.to_string(), cluster.nodes[0].held(cluster.now));
        resident_by_cycle.push(resident());
    }
    cluster.clear()?;
    print("end", cluster.nodes[0].held(cluster.now));
    if let (Some(first), Some(last)) = (resident_by_cycle.first(), resident_by_cycle.last()) {
        println!("memory after the last cycle: {:.2} of that after the first", last / first);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places in [`Held::bytes`].
    const CACHE: usize = 0;
    const CONNECTIONS: usize = 2;

    #[test]
    fn keys_that_are_gone_cost_nothing() {
        let mut cluster = Cluster::start(20_000).unwrap();
        let start = cluster.nodes[0].held(cluster.now);
        let mut held = Vec::new();
        for _ in 0..4 {
            cluster.cycle().unwrap();
            held.push(cluster.nodes[0].held(cluster.now));
        }
        assert!(held[0].cached >= 2_000 && held[0].gauged >= 1_000 && held[0].open >= 100, "{held:?}");
        // The resets of expired entries of the gauge cache stay, and take memory.
        for object in [CACHE, CONNECTIONS] {
            let [first, others @ ..] = &held[..] else { panic!("no cycle has passed") };
            assert!(others.iter().all(|later| later.bytes[object] * 10 <= first.bytes[object] * 11), "{held:?}");
        }
        cluster.clear().unwrap();
        let end = cluster.nodes[0].held(cluster.now);
        assert_eq!((end.cached, end.gauged, end.open), (0, 0, 0));
        assert!(end.bytes[CACHE] <= start.bytes[CACHE] + (1 << 16), "{start:?} {end:?}");
        assert!(end.bytes[CONNECTIONS] * 10 <= held[0].bytes[CONNECTIONS] * 11, "{held:?} {end:?}");
    }
}
