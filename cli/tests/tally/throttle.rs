//! Throttles and limits, from three running nodes.

use std::process::Stdio;
use std::time::Instant;

use crate::support::{Mesh, SOON, eventually, tally};

const NODES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];

const LIMITS: &str = r#"
cluster {
  Replicate "shared_named_throttles" {}
  Replicate "OBTM" {}
  Replicate "OBTC" {}
}
limits {
  founders = ["relay-0-1", "relay-0-2", "relay-0-3"]
  reclaim_after = "2s"
  throttle "hard" {
    rate = "300/1s"
    strength = "hard"
  }
  throttle "soft" {
    rate = "20/1m"
    burst = 10
  }
  permits "sessions" { maximum = 20 }
  throttle "idle" {
    rate = "100/1h"
  }
  domain "*" {
    cluster_outbound_throttle_messages = "100/1h"
  }
  domain "example.com" {
    cluster_outbound_throttle_messages = "5/1s"
    cluster_max_outbound_connections = 3
  }
  inbound "/24" { max_connections = 20 }
}
"#;

fn mesh() -> Mesh {
    let mut mesh = Mesh::new(&NODES);
    for name in NODES {
        mesh.edit(name, |text| text + LIMITS);
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    mesh
}

fn share(mesh: &Mesh, node: &str) -> u64 {
    let text = mesh.ask(node, &["--output", "json", "throttle", "show", "hard"]).ok();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()[0]["share_ppm"].as_u64().unwrap()
}

/// I9 on running nodes: ten seconds of five times the rate on each. The clients count the admissions.
#[test]
fn a_hard_limit_holds_under_five_times_the_rate() {
    let mesh = mesh();
    // During a cold start, `explain` reports why nothing is admitted.
    let said = mesh.ask("relay-0-1", &["throttle", "explain", "hard"]).ok();
    assert!(said.contains("founding: admits from its own share") || said.contains("holds the share"), "{said}");
    eventually("every founder has its share", SOON, || {
        let shares: Vec<_> = NODES.iter().map(|node| share(&mesh, node)).collect();
        if shares.iter().all(|share| *share > 300_000) { Ok(()) } else { Err(format!("{shares:?}")) }
    });
    let ask = ["--output", "json", "throttle", "take", "hard", "--for", "10", "--rate", "500"];
    let began = Instant::now();
    let asking: Vec<_> =
        NODES.iter().map(|node| mesh.asking(node, &ask).stdout(Stdio::piped()).spawn().unwrap()).collect();
    let mut admitted: u64 = 0;
    for process in asking {
        let output = process.wait_with_output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        admitted += said["admitted"].as_u64().unwrap();
    }
    // The burst and the rate. On a busy machine the processes do not begin at the same moment.
    let most = 300.0 + 300.0 * began.elapsed().as_secs_f64();
    assert!(admitted as f64 <= most, "{admitted} of {most}");
    assert!(admitted >= 2900, "{admitted} of 3000 and the burst");

    // One node alone gets nearly all.
    mesh.ask("relay-0-2", &["throttle", "take", "hard", "--for", "3", "--rate", "1000"]).ok();
    eventually("the busy node has nearly everything", SOON, || {
        mesh.ask("relay-0-2", &["throttle", "take", "hard", "--for", "1", "--rate", "1000"]).ok();
        let share = share(&mesh, "relay-0-2");
        if share >= 950_000 { Ok(()) } else { Err(share.to_string()) }
    });
    let said = mesh.ask("relay-0-2", &["throttle", "explain", "hard"]).ok();
    assert!(said.contains("was lent") && said.contains("0 beyond"), "{said}");
}

/// One of three nodes has five times the rate: no node uses the limit, and every node reports the difference.
#[test]
fn limits_that_differ_are_not_used_and_are_reported() {
    let mut mesh = Mesh::new(&NODES);
    for name in NODES {
        let limits = if name == NODES[2] { LIMITS.replace("300/1s", "1500/1s") } else { LIMITS.to_owned() };
        mesh.edit(name, |text| text + &limits);
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    for node in NODES {
        let said = eventually(&format!("{node} reports the difference"), SOON, || {
            let said = mesh.ask(node, &["throttle", "explain", "hard"]).ok();
            if said.contains("differs: throttle hard is ") { Ok(said) } else { Err(said) }
        });
        assert!(said.contains("300/1000ms,burst=300") && said.contains("1500/1000ms,burst=1500"), "{said}");
        let verified = mesh.ask(node, &["verify"]);
        assert!(
            verified.code == Some(1) && verified.stdout.contains("configurations differ: throttle hard"),
            "{verified:?}"
        );
        let members = mesh.ask(node, &["cluster", "membership"]).ok();
        assert!(members.contains("configurations differ: throttle hard"), "{members}");
        let refused = mesh.ask(node, &["throttle", "take", "hard"]).fails(1);
        assert!(refused.contains("another configuration"), "{refused}");
    }
}

/// Each object that one of three nodes configures differently is reported on all nodes, with both values.
#[test]
fn objects_that_differ_are_reported() {
    let mut mesh = Mesh::new(&NODES);
    let series = |windows: u32| {
        format!("audit_series \"hits\" {{\n  type = \"cidr\"\n  interval = 60\n  windows = {windows}\n}}\n")
    };
    for name in NODES {
        let other = name == NODES[2];
        mesh.edit(name, |text| {
            let limits = if other { LIMITS.replace("burst = 10", "burst = 11") } else { LIMITS.to_owned() };
            text + &limits + &series(if other { 5 } else { 6 })
        });
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    for (at, node) in NODES.iter().enumerate() {
        // All nodes have the rows of all others then, so the node has everything to compare.
        let verified = eventually(&format!("the copies on {node} are compared"), SOON, || {
            let verified = mesh.ask(node, &["verify"]);
            if verified.stdout.starts_with("converged") { Ok(verified) } else { Err(format!("{verified:?}")) }
        });
        assert_eq!(verified.code, Some(1), "{verified:?}");
        for object in ["throttle soft is 20/60000ms,burst=1", "series hits of 60 s is address_events,windows="] {
            assert!(verified.stdout.contains(object), "{verified:?}");
        }
        let members = mesh.ask(node, &["cluster", "membership"]).ok();
        for said in [&verified.stdout, &members] {
            let lines = said.lines().filter(|line| line.contains("configurations differ: ")).count();
            assert_eq!(lines, if at == 2 { 4 } else { 2 }, "{said}");
        }
        // A node writes them into its log once a second.
        eventually(&format!("{node} logs the difference"), SOON, || {
            let log = mesh.log(node);
            let is_logged = log.contains("WARN") && log.contains("another node has another configuration");
            if is_logged { Ok(()) } else { Err(log) }
        });
    }
}

/// A throttle that a node does not use, and one of a scope that is new to it, decide by the admissions of the other nodes (I11).
#[test]
fn unused_throttles_include_what_other_nodes_admitted() {
    let mesh = mesh();
    for name in ["idle", "domain never-seen.example"] {
        assert_eq!(mesh.ask("relay-0-1", &["throttle", "take", name, "90"]).ok(), "admitted\n");
        for node in &NODES[1..] {
            eventually(&format!("{node} has received it"), SOON, || {
                let shown = mesh.ask(node, &["throttle", "show", name]).ok();
                if shown.contains("90") { Ok(()) } else { Err(shown) }
            });
            assert!(mesh.ask(node, &["throttle", "take", name, "90"]).fails(1).contains("refused: fits after"));
            let said = mesh.ask(node, &["throttle", "explain", name]).ok();
            assert!(said.contains("10 tokens are there") && said.contains("an earlier run of this node"), "{said}");
        }
    }
}

#[test]
fn a_soft_throttle_is_taken_from_on_one_node_and_used_up_on_all() {
    let mesh = mesh();
    assert_eq!(mesh.ask("relay-0-1", &["throttle", "check", "soft", "9"]).ok(), "admitted\n");
    assert_eq!(mesh.ask("relay-0-1", &["throttle", "take", "soft", "9"]).ok(), "admitted\n");
    for node in NODES {
        eventually(&format!("{node} has received it"), SOON, || {
            let said = mesh.ask(node, &["throttle", "check", "soft", "5"]);
            if said.code == Some(1) && said.stderr.contains("refused: fits after") {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        });
    }
    assert!(mesh.ask("relay-0-2", &["throttle", "take", "soft", "11"]).fails(1).contains("do not fit"));
    assert!(
        mesh.ask("relay-0-2", &["throttle", "take", "other"]).fails(2).contains("no throttle \"other\"; this node has")
    );
    let listed = mesh.ask("relay-0-3", &["--output", "csv", "throttle", "list"]).ok();
    assert!(listed.starts_with("name,rate,burst,strength,on_partition,tokens,share_ppm,admitted,local\n"), "{listed}");
    assert!(listed.contains("\nsoft,20/1m,10,soft,fail_open,"), "{listed}");
    assert!(listed.contains("\ndomain example.com,5/1s,5,soft,"), "{listed}");
    let said = mesh.ask("relay-0-3", &["throttle", "explain", "soft"]).ok();
    assert!(said.contains("bound now") && said.contains("bound at worst"), "{said}");
    // The first nodes by name get the remainder.
    let limits = eventually("permits are there", SOON, || {
        let limits = mesh.ask("relay-0-3", &["limits"]).ok();
        if limits.contains("6 of them here") { Ok(limits) } else { Err(limits) }
    });
    let expected = "\
founders relay-0-1, relay-0-2, relay-0-3, reclaim_after 2s, a missing one is stood in for
throttle hard: 300/1s, burst 300, hard, in a partition fair_share
throttle soft: 20/1m, burst 10, soft, in a partition fail_open
throttle idle: 100/1h, burst 100, soft, in a partition fail_open
permits sessions: 20 in all, 6 of them here with 0 in use; 0 are open in the cluster
domain *: messages 100/1h, burst 100, soft
domain example.com: messages 5/1s, burst 5, soft
domain example.com: at most 3 open connections
inbound /24 IPv4: at most 20 open connections
";
    assert_eq!(limits, expected);
    // The admissions are shown, and the facts about shares are not.
    let shown = mesh.ask("relay-0-1", &["cluster", "shared", "show", "shared_named_throttles"]).ok();
    assert_eq!(shown.lines().count(), 2, "{shown}");
    assert!(shown.contains("throttle table") && shown.contains("soft:            9"), "{shown}");
    assert!(tally(&["throttle", "list"]).code != Some(0));
}
