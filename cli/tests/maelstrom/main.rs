//! `tally maelstrom` against the ground truth: processes on a network that delays, loses and duplicates messages, and is
//! partitioned.
//!
//! The run that issue trackers and docs quote, 25 nodes at 100 ms a message, takes half a minute:
//! `cargo test --release -p tallymesh-cli --test maelstrom -- --ignored --nocapture`

#![allow(clippy::tests_outside_test_module, reason = "a test crate of its own")]

mod network;
mod pace;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::network::{Faults, Network, Random};
use serde_json::{Value, json};

const QUIET: Faults = Faults { latency: Duration::from_millis(1), jitter: Duration::ZERO, loss: 0, duplication: 0 };

const STORM: Faults =
    Faults { latency: Duration::from_millis(2), jitter: Duration::from_millis(20), loss: 20, duplication: 20 };

/// The values that all nodes read, once they are the same as `expected`.
fn all_read(network: &mut Network, field: &str, expected: &Value) {
    for node in 0..network.len() {
        network.until(&format!("{expected} on n{node}"), |network| {
            let mut read = network.call(node, json!({ "type": "read" }))[field].take();
            if let Some(list) = read.as_array_mut() {
                list.sort_by_key(Value::to_string);
            }
            (read == *expected).then_some(())
        });
    }
}

fn assert_faults_happened(network: &Network) {
    let counts = network.counts;
    assert!(counts.lost > 0 && counts.doubled > 0 && counts.cut > 0, "the faults happened: {counts:?}");
}

#[test]
fn a_counter_is_exact_after_loss_duplication_and_a_partition() {
    let mut network = Network::cluster("pn-counter", 5, STORM, 1);
    let mut random = Random(2);
    let mut sum = 0;
    for step in 0..300 {
        match step {
            100 => network.cut(&[0, 1]),
            200 => network.heal(),
            _ => {}
        }
        let delta = random.below(21) as i64 - 10;
        sum += delta;
        let node = random.below(5) as usize;
        assert_eq!(network.call(node, json!({ "type": "add", "delta": delta }))["type"], "add_ok");
    }
    all_read(&mut network, "value", &json!(sum));
    assert_faults_happened(&network);
}

#[test]
fn the_sides_of_a_partition_count_apart_and_agree_when_it_heals() {
    let mut network = Network::cluster("g-counter", 4, QUIET, 3);
    network.call(0, json!({ "type": "add", "delta": 1 }));
    all_read(&mut network, "value", &json!(1));
    network.cut(&[0, 1]);
    network.call(0, json!({ "type": "add", "delta": 10 }));
    network.call(3, json!({ "type": "add", "delta": 100 }));
    for (node, value) in [(1, 11), (2, 101)] {
        network.until("the count of the own side", |network| {
            (network.call(node, json!({ "type": "read" }))["value"] == value).then_some(())
        });
    }
    assert!(network.counts.cut > 0);
    network.heal();
    all_read(&mut network, "value", &json!(111));
}

#[test]
fn a_set_has_every_element_after_loss_duplication_and_a_partition() {
    let mut network = Network::cluster("g-set", 5, STORM, 4);
    let elements: Vec<Value> = (0..150)
        .map(|n| match n % 3 {
            0 => json!(n),
            1 => json!(format!("\u{7f}é {n}")),
            _ => json!({ "n": n, "of": [n, null] }),
        })
        .collect();
    for (step, element) in elements.iter().enumerate() {
        match step {
            50 => network.cut(&[4]),
            100 => network.heal(),
            _ => {}
        }
        // Twice, on two nodes: the set contains it once.
        for node in [step % 5, (step + 2) % 5] {
            assert_eq!(network.call(node, json!({ "type": "add", "element": element }))["type"], "add_ok");
        }
    }
    let mut expected = elements;
    expected.sort_by_key(Value::to_string);
    all_read(&mut network, "value", &json!(expected));
    assert_faults_happened(&network);
}

#[test]
fn a_broadcast_reaches_all_nodes_with_any_topology() {
    let mut network = Network::cluster("broadcast", 5, STORM, 5);
    for node in 0..5 {
        let topology = json!({ "type": "topology", "topology": { "n0": ["n1"], "n1": ["n0"] } });
        assert_eq!(network.call(node, topology)["type"], "topology_ok");
    }
    network.cut(&[2, 3]);
    for message in 0..60 {
        let node = message % 5;
        let said = network.call(node, json!({ "type": "broadcast", "message": message }));
        assert_eq!(said["type"], "broadcast_ok");
    }
    network.heal();
    let mut expected: Vec<_> = (0..60).map(|message| json!(message)).collect();
    expected.sort_by_key(Value::to_string);
    all_read(&mut network, "messages", &json!(expected));
    assert_faults_happened(&network);
}

#[test]
fn digests_detect_that_the_last_message_was_lost() {
    let mut network = Network::cluster("pn-counter", 3, QUIET, 6);
    network.call(0, json!({ "type": "add", "delta": 1 }));
    all_read(&mut network, "value", &json!(1));
    // The very last change is lost: no later change shows a gap.
    network.set_faults(Faults { loss: 100, ..QUIET });
    network.call(0, json!({ "type": "add", "delta": 1 }));
    // A round that began before the change has at most two messages, and the next one carries the change.
    network.until("the loss of the change", |network| (network.lost_of[0] >= 5).then_some(()));
    network.set_faults(QUIET);
    all_read(&mut network, "value", &json!(2));
}

#[test]
fn bad_requests_are_answered_with_their_codes() {
    let mut network = Network::start("g-counter", 2, QUIET, 7);
    let code = |network: &mut Network, body: Value| {
        let answer = network.call(0, body);
        assert_eq!(answer["type"], "error", "{answer}");
        assert!(answer["text"].is_string());
        answer["code"].as_u64().unwrap()
    };
    assert_eq!(code(&mut network, json!({ "type": "read" })), 11);
    assert_eq!(code(&mut network, json!({ "type": "init" })), 12);
    assert_eq!(code(&mut network, json!({ "type": "init", "node_id": "N 0", "node_ids": ["N 0"] })), 12);
    assert_eq!(code(&mut network, json!({ "type": "init", "node_id": "n0", "node_ids": [1] })), 12);
    let init = json!({ "type": "init", "node_id": "n0", "node_ids": ["n0", "n1"] });
    assert_eq!(network.call(0, init.clone())["type"], "init_ok");
    assert_eq!(network.call(0, init)["type"], "init_ok");
    assert_eq!(code(&mut network, json!({ "type": "init", "node_id": "n1", "node_ids": ["n0", "n1"] })), 12);
    for lines in [
        "",
        "{",
        "[]",
        "\u{0}",
        r#"{"src":"n1","dest":"n0","body":{"type":"tally"}}"#,
        r#"{"src":"n1","dest":"n0","body":{"type":"tally","frames":"?"}}"#,
        r#"{"src":"n1","dest":"n0","body":{"type":"tally","frames":"AQUAAAD/////"}}"#,
        r#"{"src":"n1","dest":"n0","body":{"type":"tally","frames":"AQIAAAD/"}}"#,
        r#"{"src":"n9","dest":"n0","body":{"type":"tally","frames":"AQEAAAQ="}}"#,
        r#"{"src":"N","dest":"n0","body":{"type":"tally","frames":"AQEAAAQ="}}"#,
    ] {
        network.write(0, lines);
    }
    assert_eq!(code(&mut network, json!({ "type": "subtract" })), 10);
    assert_eq!(code(&mut network, json!({ "type": "broadcast", "message": 1 })), 10);
    assert_eq!(code(&mut network, json!({})), 12);
    assert_eq!(code(&mut network, json!({ "type": "add" })), 12);
    assert_eq!(code(&mut network, json!({ "type": "add", "delta": -1 })), 12);
    assert_eq!(code(&mut network, json!({ "type": "add", "delta": i64::MAX })), 12);
    assert_eq!(network.call(0, json!({ "type": "add", "delta": 2 }))["type"], "add_ok");
    assert_eq!(network.call(0, json!({ "type": "read" }))["value"], 2);
}

#[test]
fn an_element_that_is_too_long_is_refused() {
    let mut network = Network::cluster("g-set", 1, QUIET, 8);
    let long = "x".repeat(600);
    let refused = network.call(0, json!({ "type": "add", "element": long }));
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!(12)));
    assert_eq!(network.call(0, json!({ "type": "add", "element": "x" }))["type"], "add_ok");
    let read = network.call(0, json!({ "type": "read" }));
    let read: BTreeSet<_> = read["value"].as_array().unwrap().iter().map(Value::to_string).collect();
    assert_eq!(read, BTreeSet::from(["\"x\"".to_owned()]));
}
