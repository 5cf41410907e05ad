//! Waiting until other nodes hold a change, and reading what another node has written.

use rustix::process::Signal;

use crate::support::Mesh;

const NAMES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];
const DOMAIN: &str = "example.com";

/// A cache and a series.
const MORE: &str = r#"
Datasource "sessions" {}
cluster {
  Replicate "sessions" {
    type = "cache"
    parameters = "snapshot"
  }
}
audit_series "logins" {
  type = "string"
  interval = 300
  windows = 6
  replicate = "cluster"
}
"#;

/// After the wait, each other node reads the change at once.
#[test]
fn a_change_that_was_waited_for_is_on_the_other_nodes() {
    let mut mesh = Mesh::new(&NAMES);
    for name in NAMES {
        mesh.edit(name, |text| text + MORE);
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    for n in 1..=5 {
        mesh.ask("relay-0-1", &["add", "outbound_domains", DOMAIN, "--wait", "2"]).ok();
        for name in &NAMES[1..] {
            assert_eq!(mesh.total(name, "outbound_domains", DOMAIN), n, "{name}");
        }
    }
    mesh.ask("relay-0-1", &["cache", "set", "sessions", "user:7", "Ada", "--wait", "2"]).ok();
    mesh.ask("relay-0-1", &["series", "add", "logins", "alice", "--wait", "2"]).ok();
    for name in &NAMES[1..] {
        assert_eq!(mesh.ask(name, &["cache", "get", "sessions", "user:7"]).ok(), "Ada");
        let logins =
            mesh.ask(name, &["--output", "json", "series", "count", "logins", "alice", "--windows", "0-1"]).ok();
        assert!(logins.contains("\"total\":1"), "{logins}");
    }
    mesh.feed("relay-0-2", &["load", "inbound_cidr", "--wait", "2"], "192.0.2.7 3\n192.0.2.9\n").ok();
    assert_eq!(mesh.total("relay-0-3", "inbound_cidr", "192.0.2.0/24"), 4);
}

/// A stopped process holds nothing new. The answer names who does.
#[test]
fn a_node_that_does_not_answer_does_not_confirm() {
    let mut mesh = Mesh::running(&NAMES);
    mesh.wait_for_links();
    mesh.process("relay-0-3").signal(Signal::STOP);
    mesh.ask("relay-0-1", &["--timeout", "20", "add", "outbound_domains", DOMAIN, "--wait", "1"]).ok();
    let refused = mesh.ask("relay-0-1", &["--timeout", "1", "flush", "2"]).fails(1);
    assert!(refused.contains("1 of 2 other nodes hold it after 1 s: relay-0-2"), "{refused}");
    mesh.process("relay-0-3").signal(Signal::CONT);
    mesh.ask("relay-0-1", &["--timeout", "20", "flush", "2"]).ok();
    assert_eq!(mesh.total("relay-0-3", "outbound_domains", DOMAIN), 1);
}

#[test]
fn a_node_waits_for_the_changes_of_a_position() {
    let mut mesh = Mesh::running(&NAMES);
    mesh.wait_for_links();
    for n in 1..=5 {
        mesh.ask("relay-0-2", &["add", "outbound_domains", DOMAIN]).ok();
        let position = mesh.ask("relay-0-2", &["flush", "0"]).ok();
        let count = ["--output", "json", "count", "outbound_domains", DOMAIN, "--after", position.trim()];
        let count: serde_json::Value = serde_json::from_str(&mesh.ask("relay-0-3", &count).ok()).unwrap();
        assert_eq!(count["total"], n);
    }
    // While relay-0-3 stands still, relay-0-2 changes something and is killed. relay-0-3 gets it from relay-0-1.
    mesh.process("relay-0-3").signal(Signal::STOP);
    mesh.ask("relay-0-2", &["add", "outbound_domains", DOMAIN]).ok();
    let position = mesh.ask("relay-0-2", &["--timeout", "20", "flush", "1"]).ok();
    mesh.kill("relay-0-2");
    mesh.process("relay-0-3").signal(Signal::CONT);
    let count = ["--timeout", "20", "count", "outbound_domains", DOMAIN, "--after", position.trim()];
    mesh.ask("relay-0-3", &count).ok();
    assert_eq!(mesh.total("relay-0-3", "outbound_domains", DOMAIN), 6);
    let bad = mesh.ask("relay-0-1", &["count", "outbound_domains", DOMAIN, "--after", "01zz"]).fails(2);
    assert!(bad.contains("character 3 of the position is no hexadecimal digit"), "{bad}");
}

/// A count with a part that nobody has confirmed for longer ends with 1, and is printed.
#[test]
fn a_stale_count_is_no_fresh_one() {
    let mut mesh = Mesh::running(&NAMES[..2]);
    mesh.wait_for_links();
    mesh.ask("relay-0-2", &["add", "outbound_domains", DOMAIN]).ok();
    mesh.ask("relay-0-2", &["flush"]).ok();
    mesh.ask("relay-0-1", &["count", "outbound_domains", DOMAIN, "--fresh", "60"]).ok();
    mesh.kill("relay-0-2");
    let stale = crate::support::eventually("the part of the killed node is stale", crate::support::DEATH, || {
        let ended =
            mesh.asking("relay-0-1", &["count", "outbound_domains", DOMAIN, "--fresh", "1.5"]).output().unwrap();
        if ended.status.success() { Err("it is fresh".to_owned()) } else { Ok(ended) }
    });
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("and 1.5 s are allowed"), "{stale:?}");
}
