//! `tally inspect`, `tally explain` and `tally diff`, on running nodes and on a saved state.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{DEATH, Mesh, Process, SOON, eventually, tally};

const NODES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];

const OBJECTS: &str = r#"
Datasource "sessions" {}
cluster {
  Replicate "sessions" {
    type = "cache"
  }
  Replicate "shared_named_throttles" {}
}
gauge_cache "retries" {
  replicate = "cluster"
}
audit_series "logins" {
  type = "string"
  interval = 86400
  windows = 3
}
audit_series "here" {
  type = "string"
  interval = 86400
  windows = 3
  replicate = "none"
}
limits {
  founders = ["relay-0-1", "relay-0-2", "relay-0-3"]
  throttle "campaign" {
    rate = "100/1h"
  }
  permits "uploads" { maximum = 9 }
  inbound "/24" { max_connections = 15 }
}
"#;

fn mesh() -> Mesh {
    let mut mesh = Mesh::new(&NODES);
    for name in NODES {
        mesh.edit(name, |text| text + OBJECTS);
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    mesh
}

/// A view as JSON.
fn view(mesh: &Mesh, node: &str, arguments: &[&str]) -> Value {
    let text = mesh.ask(node, &[&["--output", "json"], arguments].concat()).ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The derived total of a key.
fn derived(mesh: &Mesh, node: &str, object: &str, key: &str) -> i64 {
    let view = view(mesh, node, &["inspect", object, key]);
    let key = &view["keys"][0];
    let rows = key["rows"].as_array().unwrap().iter().filter(|row| row["counts"] == true);
    let sum: i64 = rows.map(|row| row["value"].as_i64().unwrap()).sum();
    assert_eq!(key["total"], sum + key["pending"].as_i64().unwrap(), "{key}");
    key["total"].as_i64().unwrap()
}

/// The last number that a command prints.
fn number(text: &str) -> i64 {
    text.split(|c: char| !c.is_ascii_digit() && c != '-').rfind(|word| !word.is_empty()).unwrap().parse().unwrap()
}

fn add(mesh: &Mesh, node: &str, arguments: &[&str]) {
    mesh.ask(node, arguments).ok();
}

/// Objects with a key, its total, and the command that reads it.
const READS: [(&str, &str, i64, &[&str]); 6] = [
    ("inbound_cidr", "192.0.2.7", 15, &["--output", "csv", "count", "inbound_cidr", "192.0.2.7"]),
    ("inbound_cidr", "192.0.2.0/24", 17, &["--output", "csv", "count", "inbound_cidr", "192.0.2.0/24"]),
    ("outbound_domains", "example.com", 15, &["--output", "csv", "count", "outbound_domains", "example.com"]),
    ("logins", "alice", 15, &["--output", "csv", "series", "count", "logins", "alice"]),
    ("retries", "alice", 15, &["gauge", "get", "retries", "alice"]),
    ("shared_named_throttles", "campaign", 15, &["--output", "csv", "count", "shared_named_throttles", "campaign"]),
];

/// Counts on all nodes, in every kind of object.
fn count(mesh: &Mesh) {
    for (node, n) in NODES.into_iter().zip(["3", "4", "8"]) {
        add(mesh, node, &["add", "inbound_cidr", "192.0.2.7", n]);
        add(mesh, node, &["add", "outbound_domains", "example.com", n]);
        add(mesh, node, &["series", "add", "logins", "alice", n]);
        add(mesh, node, &["gauge", "inc", "retries", "alice", n]);
        add(mesh, node, &["throttle", "take", "campaign", n]);
    }
    add(mesh, NODES[0], &["add", "inbound_cidr", "192.0.2.9", "2"]);
}

#[test]
fn the_sum_of_a_view_is_what_a_read_answers() {
    let mut mesh = mesh();
    count(&mesh);
    let reads = READS;
    let read = |mesh: &Mesh, how: &[&str]| {
        let text = mesh.ask(NODES[0], how).ok();
        let last = text.lines().last().unwrap().to_owned();
        if how[0] == "--output" { last.split(',').next().unwrap().parse().unwrap() } else { number(&last) }
    };
    for (object, key, total, how) in reads {
        eventually(&format!("{object} {key} is {total}"), SOON, || {
            let read: i64 = read(&mesh, how);
            if read == total { Ok(()) } else { Err(read.to_string()) }
        });
        assert_eq!(derived(&mesh, NODES[0], object, key), total, "{object} {key}");
    }

    // A reset covers what was known of each actor, and counts that come later count.
    add(&mesh, NODES[0], &["series", "remove", "logins", "alice"]);
    add(&mesh, NODES[0], &["series", "add", "logins", "alice", "2"]);
    assert_eq!((derived(&mesh, NODES[0], "logins", "alice"), read(&mesh, reads[3].3)), (2, 2));
    let reset = view(&mesh, NODES[0], &["inspect", "logins", "alice"]);
    assert_eq!(reset["keys"][0]["resets"].as_array().unwrap().len(), 3, "{reset}");

    // The run of a dead node: what is open there stops counting, and what happened there stays.
    mesh.kill(NODES[2]);
    eventually("the rows of the dead node do not count", DEATH, || {
        let view = view(&mesh, NODES[0], &["inspect", "inbound_cidr", "192.0.2.7"]);
        if view["keys"][0]["rows"][2]["counts"] == false { Ok(()) } else { Err(view.to_string()) }
    });
    for (object, key, _, how) in reads {
        assert_eq!(derived(&mesh, NODES[0], object, key), read(&mesh, how), "{object} {key}");
    }
    let text = mesh.ask(NODES[0], &["inspect", "inbound_cidr", "192.0.2.7"]).ok();
    assert!(text.contains("total 7 = 3 (relay-0-1) + 4 (relay-0-2)\nleft out: 8 (relay-0-3: dead for "), "{text}");
    assert!(
        text.contains("limit inbound 192.0.2.0/24: at most 15 open; one more would be admitted: 9 are open"),
        "{text}"
    );
    let words = mesh.ask(NODES[0], &["explain", "inbound_cidr", "192.0.2.7"]).ok();
    assert!(words.starts_with("relay-0-1 reads 7 for 192.0.2.7 in inbound_cidr.\n"), "{words}");
    assert!(
        words.contains("relay-0-3 does not count 8: in its run ") && words.contains("The node is dead for "),
        "{words}"
    );

    // A later run of the node: the earlier one ends. Its events stay.
    mesh.start(NODES[2], &[]);
    eventually("the earlier run has ended", SOON, || {
        let view = view(&mesh, NODES[0], &["inspect", "logins"]);
        let states = view["actors"].as_array().unwrap().iter().map(|actor| actor["state"].as_str().unwrap());
        if states.clone().any(|state| state == "ended") { Ok(()) } else { Err(view.to_string()) }
    });
    assert_eq!(derived(&mesh, NODES[0], "logins", "alice"), read(&mesh, reads[3].3));
    assert_eq!(derived(&mesh, NODES[0], "inbound_cidr", "192.0.2.7"), read(&mesh, reads[0].3));
    assert!(mesh.ask(NODES[0], &["inspect", "inbound_cidr", "198.51.100.1"]).fails(1).contains("holds nothing of"));
    assert!(mesh.ask(NODES[0], &["inspect", "inbound_cidr", "no address"]).fails(2).contains("no address"));
    assert!(mesh.ask(NODES[0], &["inspect", "nothing"]).fails(2).contains("nothing"));
}

/// Fields of something that this test does not bring about: a copy that is behind, and a lease.
const SOMETIMES: [&str; 2] = ["tries", "left_ms"];

/// The fields that docs/inspect.md lists.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../docs/inspect.md");
    let fields = page.split("## Fields").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = fields.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

/// Adds the names of all fields of a value.
fn names(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            into.insert(name.clone());
            names(value, into);
        }),
        Value::Array(list) => list.iter().for_each(|value| names(value, into)),
        _ => {}
    }
}

#[test]
fn every_view_has_its_formats_and_its_fields_are_documented() {
    let mesh = mesh();
    for n in 0..5 {
        add(&mesh, NODES[0], &["add", "inbound_cidr", &format!("192.0.2.{n}"), "2"]);
        add(&mesh, NODES[1], &["cache", "set", "sessions", &format!("user:{n}"), "Ada"]);
    }
    add(&mesh, NODES[0], &["series", "add", "here", "alice"]);
    add(&mesh, NODES[0], &["series", "add", "logins", "alice"]);
    add(&mesh, NODES[0], &["series", "remove", "logins", "alice"]);
    mesh.counts(NODES[2], "inbound_cidr", "192.0.2.0/24", 10, SOON);
    eventually("the writes have arrived", SOON, || {
        let got = mesh.ask(NODES[0], &["cache", "get", "sessions", "user:4"]);
        if got.code == Some(0) { Ok(()) } else { Err(got.stderr) }
    });

    let views: [&[&str]; 11] = [
        &["inspect", "inbound_cidr"],
        &["inspect", "inbound_cidr", "192.0.2.3"],
        &["inspect", "inbound_cidr", "--rows"],
        &["inspect", "inbound_cidr", "--links"],
        &["inspect", "inbound_cidr", "--log"],
        &["inspect", "sessions"],
        &["inspect", "sessions", "user:3"],
        &["inspect", "sessions", "--links"],
        &["inspect", "logins", "alice"],
        &["explain", "shared_named_throttles", "uploads"],
        &["inspect", "inbound_cidr", "--on", "all"],
    ];
    let mut found = BTreeSet::new();
    for arguments in views {
        names(&view(&mesh, NODES[0], arguments), &mut found);
        assert!(!mesh.ask(NODES[0], arguments).ok().is_empty(), "{arguments:?}");
    }
    let differing = mesh.ask(NODES[0], &["--output", "json", "diff", "here", NODES[0], NODES[1]]);
    assert_eq!(differing.code, Some(1), "{differing:?}");
    names(&serde_json::from_str(&differing.stdout).unwrap(), &mut found);
    let documented = documented();
    let unknown: Vec<_> = found.difference(&documented).collect();
    let unseen: Vec<_> = documented.difference(&found).filter(|name| !SOMETIMES.contains(&name.as_str())).collect();
    assert!(unknown.is_empty() && unseen.is_empty(), "not documented: {unknown:?}, not shown: {unseen:?}");

    let csv = mesh.ask(NODES[0], &["--output", "csv", "inspect", "inbound_cidr"]).ok();
    assert!(
        csv.starts_with("node,incarnation,counts,state,since,applied,low_water,rows,fingerprint,heard_ms\nrelay-0-1,"),
        "{csv}"
    );
    let page = mesh.ask(NODES[0], &["inspect", "inbound_cidr", "--rows", "192.0.2.1", "--limit", "2"]);
    assert!(page.stderr.contains("continue with --rows 192.0.2.3"), "{page:?}");
    assert!(page.ok().contains("192.0.2.2: 2\n"));
    let log = view(&mesh, NODES[0], &["inspect", "inbound_cidr", "--log", "3"]);
    let versions: Vec<_> =
        log["log"].as_array().unwrap().iter().map(|change| change["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [4, 5]);
    let entry = mesh.ask(NODES[0], &["inspect", "sessions", "user:3"]).ok();
    assert!(
        entry.contains("winner    write 4 of relay-0-2#") && entry.contains("content   \"Ada\", 3 bytes"),
        "{entry}"
    );
    assert!(mesh.ask(NODES[0], &["--output", "csv", "inspect", "inbound_cidr", "--links"]).fails(2).contains("CSV"));
}

/// Several nodes side by side: they agree, one holds what the others do not, and one cannot be reached.
#[test]
fn nodes_are_compared_side_by_side() {
    let mut mesh = mesh();
    add(&mesh, NODES[0], &["add", "inbound_cidr", "192.0.2.7", "3"]);
    add(&mesh, NODES[0], &["series", "add", "here", "alice"]);
    for node in NODES {
        mesh.counts(node, "inbound_cidr", "192.0.2.7", 3, SOON);
    }
    eventually("the nodes agree", SOON, || {
        let said = mesh.ask(NODES[0], &["inspect", "inbound_cidr", "192.0.2.7", "--on", "all"]);
        if said.code == Some(0) && said.stdout.ends_with("the nodes agree\n") {
            Ok(())
        } else {
            Err(format!("{said:?}"))
        }
    });
    let said = mesh.ask(NODES[1], &["diff", "inbound_cidr", NODES[0], NODES[2]]).ok();
    assert_eq!(said, "1 keys compared, none differs\n");
    let differs = mesh.ask(NODES[0], &["inspect", "here", "alice", "--on", "relay-0-1,relay-0-2"]);
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.stdout.contains("differs"), "{differs:?}");
    let differs = mesh.ask(NODES[0], &["diff", "here", NODES[0], NODES[1]]);
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.stdout.contains("  relay-0-2: nothing\n"), "{differs:?}");

    let mut watch =
        mesh.asking(NODES[0], &["--output", "json", "inspect", "inbound_cidr", "192.0.2.7", "--watch", "0.05"]);
    let mut watch = Process::start(&mut watch);
    let next = |watch: &Process| -> Value { serde_json::from_str(&watch.lines.recv_timeout(SOON).unwrap()).unwrap() };
    assert_eq!(next(&watch)["keys"][0]["total"], 3);
    add(&mesh, NODES[1], &["add", "inbound_cidr", "192.0.2.7"]);
    eventually("the watch shows the change", SOON, || {
        let seen = next(&watch);
        if seen["keys"][0]["total"] == 4 { Ok(()) } else { Err(seen.to_string()) }
    });
    watch.signal(Signal::TERM);
    watch.code();

    mesh.kill(NODES[2]);
    let gone = mesh.ask(NODES[0], &["inspect", "inbound_cidr", "--on", "relay-0-1,relay-0-3"]);
    assert_eq!(gone.code, Some(3), "{gone:?}");
    assert!(gone.stdout.contains("relay-0-3 was not asked: cannot reach the node"), "{gone:?}");
}

/// A saved state shows what the node showed before it ended.
#[test]
fn a_saved_state_has_the_same_views() {
    let mut mesh = Mesh::new(&NODES[..1]);
    let node = NODES[0];
    mesh.edit(node, |text| {
        let text = text.replacen("node {", "node {\n  data_dir = \"state\"", 1);
        text + "Datasource \"sessions\" {}\ncluster {\n  Replicate \"sessions\" {\n    type = \"cache\"\n  }\n}\ngauge_cache \"retries\" {}\n"
    });
    mesh.start(node, &[]);
    add(&mesh, node, &["gauge", "inc", "retries", "alice", "4"]);
    add(&mesh, node, &["gauge", "inc", "retries", "bob", "4"]);
    add(&mesh, node, &["gauge", "del", "retries", "bob"]);
    add(&mesh, node, &["gauge", "inc", "retries", "bob", "3"]);
    add(&mesh, node, &["cache", "set", "sessions", "user:7", "Ada"]);
    let live = view(&mesh, node, &["inspect", "retries", "bob"]);
    let live_entry = view(&mesh, node, &["inspect", "sessions", "user:7"]);
    mesh.process(node).signal(Signal::TERM);
    assert_eq!(mesh.process(node).code(), 0);
    let dir = mesh.path("mesh").join("state");
    let saved = |arguments: &[&str]| -> Value {
        let text = tally(&[&["--output", "json", "state", "inspect", dir.to_str().unwrap()], arguments].concat()).ok();
        serde_json::from_str(&text).unwrap()
    };
    let rows = saved(&["retries", "bob"]);
    assert_eq!((&rows["keys"][0]["total"], &live["keys"][0]["total"]), (&Value::from(3), &Value::from(3)));
    for field in ["added", "removed", "version", "reset_added", "value", "actor"] {
        assert_eq!(rows["keys"][0]["rows"][0][field], live["keys"][0]["rows"][0][field], "{field}");
    }
    let entry = saved(&["sessions", "user:7"]);
    for field in ["actor", "number", "stamp", "content", "taken_in"] {
        assert_eq!(entry["entries"][0][field], live_entry["entries"][0][field], "{field}");
    }
    assert_eq!(saved(&["sessions"])["actors"][0]["version"], 1);
    let missing = tally(&["state", "inspect", dir.to_str().unwrap(), "retries", "carol"]).fails(1);
    assert!(missing.contains("holds nothing of \"carol\""), "{missing}");
}
