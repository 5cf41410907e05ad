//! What a change costs as the cluster grows: messages, bytes and time until every node has it, in virtual time.
//!
//! `cargo run --release -p tallymesh-harness --example sizes -- 64 256`
//!
//! Up to 64 nodes each is linked to every other one, and a change goes from its owner to each of the others. Above that a
//! node has ten links, and a change is passed on. Beside it flow digests, on every link.

use std::time::{Duration, Instant};

use tallymesh_harness::cluster::Sent;
use tallymesh_harness::{Builder, Cluster, Failure, Timing, address};

/// Changes whose way is followed, one after the other.
const CHANGES: u32 = 5;

/// Time between two checks which nodes have a change.
const LOOK: Duration = Duration::from_millis(1);

/// A change that has not reached everybody by then is lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the idle cluster is looked at.
const IDLE: Duration = Duration::from_secs(3);

/// What a cluster of one size takes.
struct Size {
    nodes: usize,
    messages: f64,
    bytes: f64,
    reached: Duration,
    idle: Sent,
    memory: f64,
    took: Duration,
}

/// A cluster whose nodes have found each other.
fn cluster(nodes: usize) -> Result<Cluster, Failure> {
    // What watches over every node and every message is for tests; here it would cost more than what it watches.
    let timing = Timing { tick: Duration::from_secs(1), suspect_after: Duration::from_secs(4), ..Timing::default() };
    let timing = Timing { dead_after: Duration::from_secs(10), audit_every: u64::MAX, ..timing };
    let config = tallymesh_engine::Config::default();
    let names = (0..nodes).map(|n| format!("node-{n}"));
    let mut cluster = Builder::new(1).nodes(names).timing(timing).config(config).start();
    // Each node counts something, so that everybody has rows of everybody.
    cluster.run_for(Duration::from_millis(500))?;
    for n in 0..nodes {
        cluster.with(&format!("node-{n}"), |node| node.add("inbound_cidr", &address(1), 1));
    }
    cluster.run_for(Duration::from_secs(2))?;
    Ok(cluster)
}

fn all_have(cluster: &Cluster, count: i64) -> bool {
    cluster.nodes().iter().all(|node| cluster.count(node.label(), "inbound_cidr", &address(1)) == count)
}

fn measure(nodes: usize) -> Result<Size, Failure> {
    let (begun, before) = (Instant::now(), resident());
    let mut cluster = cluster(nodes)?;
    let memory = (resident() - before) / nodes as f64;
    assert!(all_have(&cluster, nodes as i64), "the cluster agrees before it is measured");

    let quiet = cluster.sent();
    cluster.run_for(IDLE)?;
    let idle = cluster.sent().since(quiet);

    let (mut reached, mut sent) = (Duration::ZERO, Sent::default());
    for change in 1..=CHANGES {
        let (quiet, start) = (cluster.sent(), cluster.now());
        cluster.with("node-0", |node| node.add("inbound_cidr", &address(1), 1));
        while !all_have(&cluster, nodes as i64 + i64::from(change)) {
            cluster.run_for(LOOK)?;
            assert!(cluster.now().since(start) < PATIENCE, "the change reaches everybody");
        }
        reached += cluster.now().since(start);
        sent = sent.and(cluster.sent().since(quiet));
    }
    // Deltas alone: the digests of that time are those of an idle cluster.
    let each = f64::from(CHANGES);
    Ok(Size {
        nodes,
        messages: sent.deltas as f64 / each,
        bytes: sent.delta_bytes as f64 / each,
        reached: reached / CHANGES,
        idle,
        memory,
        took: begun.elapsed(),
    })
}

/// KiB of memory that this process has in use; zero where the system does not say.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

fn row(size: &Size) -> String {
    let Size { nodes, messages, bytes, reached, idle, memory, took } = size;
    let idle_each = |n: u64| n as f64 / IDLE.as_secs_f64() / *nodes as f64;
    let (messages_idle, bytes_idle) = (idle_each(idle.messages), idle_each(idle.bytes) / 1024.0);
    let ms = reached.as_secs_f64() * 1000.0;
    let took = took.as_secs_f64();
    format!(
        "| {nodes} | {messages:.0} | {bytes:.0} | {ms:.1} | {messages_idle:.0} | {bytes_idle:.1} | {memory:.0} | {took:.1} |"
    )
}

fn main() -> Result<(), Failure> {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![16, 64] } else { sizes };
    println!(
        "| nodes | messages a change | bytes a change | ms to all | idle: messages/s a node | KiB/s a node | KiB a node | s to simulate |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for nodes in sizes {
        println!("{}", row(&measure(nodes.max(2))?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_a_message_to_each_other_node() {
        for nodes in [8, 72] {
            let size = measure(nodes).unwrap();
            assert_eq!(size.messages, (nodes - 1) as f64);
            assert!(size.reached < Duration::from_millis(200), "{:?}", size.reached);
            let each = size.idle.messages as f64 / IDLE.as_secs_f64() / nodes as f64;
            assert!(each < 13.0, "{each} messages a second and node of {nodes}");
        }
    }
}
