//! Measures the messages per operation, and the time until all nodes have it: 25 nodes, 100 ms per message, 100 operations a
//! second, half of them reads, as in Maelstrom's broadcast workload.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::network::{Counts, DEADLINE, Faults, Network, Random};

const NODES: usize = 25;
const INTERVAL: Duration = Duration::from_millis(10);
const RUN: Duration = Duration::from_secs(20);
/// Time between two reads of a node that are not counted as operations. The measured times are late by up to this much.
const LOOK: Duration = Duration::from_millis(50);

const SLOW: Faults = Faults { latency: Duration::from_millis(100), jitter: Duration::ZERO, loss: 0, duplication: 0 };

/// The broadcasts in progress, and those that arrived at all nodes.
#[derive(Default)]
struct Spread {
    sent: BTreeMap<u64, (Instant, usize)>,
    known: Vec<std::collections::BTreeSet<u64>>,
    took: Vec<Duration>,
}

impl Spread {
    /// Records the answer of a node.
    fn record(&mut self, node: usize, at: Instant, messages: &Value) {
        for message in messages.as_array().into_iter().flatten().filter_map(Value::as_u64) {
            if !self.known[node].insert(message) {
                continue;
            }
            if let Some((sent, nodes)) = self.sent.get_mut(&message) {
                *nodes += 1;
                if *nodes == NODES {
                    self.took.push(at - *sent);
                }
            }
        }
    }
}

#[test]
#[ignore = "takes half a minute: cargo test --release -p tallymesh-cli --test maelstrom -- --ignored --nocapture"]
fn at_25_nodes_and_100_ms_an_operation_costs_20_messages_and_a_second_at_most() {
    let mut network = Network::cluster("broadcast", NODES, SLOW, 9);
    // The first messages between the nodes do not belong to an operation.
    network.carry(Instant::now() + Duration::from_secs(2));
    network.counts = Counts::default();

    let mut random = Random(10);
    let mut spread = Spread { known: vec![Default::default(); NODES], ..Spread::default() };
    let mut looks: Vec<Option<u64>> = vec![None; NODES];
    let start = Instant::now();
    let (mut next_operation, mut next_look) = (start, start);
    let (mut operations, mut reads) = (0_u64, 0_u64);
    let mut counted = None;
    while counted.is_none() || spread.took.len() < spread.sent.len() {
        let now = Instant::now();
        assert!(now - start < RUN + DEADLINE, "{} of {operations} arrived", spread.took.len());
        if now >= start + RUN {
            counted.get_or_insert((network.counts, now - start));
            next_operation = next_look;
        } else if now >= next_operation {
            next_operation += INTERVAL;
            let node = random.below(NODES as u64) as usize;
            if random.below(2) == 0 {
                operations += 1;
                spread.sent.insert(operations, (now, 0));
                network.request(node, json!({ "type": "broadcast", "message": operations }));
            } else {
                reads += 1;
                network.request(node, json!({ "type": "read" }));
            }
        }
        if now >= next_look {
            next_look += LOOK;
            for (node, look) in looks.iter_mut().enumerate() {
                look.get_or_insert_with(|| network.request(node, json!({ "type": "read" })));
            }
        }
        network.carry(next_operation.min(next_look));
        for (node, look) in looks.iter_mut().enumerate() {
            if let Some(answer) = look.and_then(|request| network.try_answer(request)) {
                spread.record(node, answer.at, &answer.body["messages"]);
                *look = None;
            }
        }
    }
    let (counts, ran) = counted.unwrap_or_default();
    report(counts, ran, operations, reads, spread.took);
}

fn report(counts: Counts, ran: Duration, operations: u64, reads: u64, mut took: Vec<Duration>) {
    took.sort();
    let quantile = |q: usize| took[(took.len() - 1) * q / 100];
    let each = counts.sent as f64 / operations as f64;
    println!("{NODES} nodes, {:?} a message, {operations} broadcasts and {reads} reads in {ran:.1?}", SLOW.latency);
    println!("messages between nodes: {} of {} bytes", counts.sent, counts.bytes / counts.sent.max(1));
    println!(
        "a broadcast: {each:.1}; an operation, reads included: {:.1}",
        each * operations as f64 / (operations + reads) as f64
    );
    println!(
        "until all nodes have it: median {:.0?}, 99 % {:.0?}, all {:.0?}",
        quantile(50),
        quantile(99),
        quantile(100)
    );
    assert!(each <= 20.0, "{each:.1} messages a broadcast");
    assert!(quantile(50) < Duration::from_secs(1), "median {:?}", quantile(50));
}
