//! `tally config reload`, `tally config diff` and SIGHUP: a running node and its configuration file.

use std::fs;
use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use crate::load_clients::Clients;
use crate::support::{Mesh, SOON, eventually, tally};

const NODES: [&str; 2] = ["relay-0-1", "relay-0-2"];

const REPLICATED: &str = "Replicate \"inbound_cidr\" {}";

/// The changes that a reload lists: what, and whether it needs a restart.
fn changes(mesh: &Mesh, name: &str, arguments: &[&str]) -> Vec<(String, bool)> {
    let said = mesh.ask(name, &[&["--output", "json", "config", "reload"], arguments].concat()).ok();
    let said: Value = serde_json::from_str(&said).unwrap();
    let changes = said["changes"].as_array().unwrap().iter();
    changes.map(|at| (at["what"].as_str().unwrap().to_owned(), at["needs_restart"].as_bool().unwrap())).collect()
}

fn now(what: &[&str]) -> Vec<(String, bool)> {
    what.iter().map(|what| ((*what).to_owned(), false)).collect()
}

/// Objects are removed and added under load. No client is refused, and no count is lost or counted twice: what was counted before
/// an object went is there when it comes back.
#[test]
fn objects_come_and_go_under_load() {
    let mesh = Mesh::running(&NODES);
    let sockets = NODES.map(|name| mesh.file(name, "sock"));
    let load = Clients::start(&sockets);
    for name in NODES {
        mesh.ask(name, &["add", "outbound_domains", "example.com", "3"]).ok();
        mesh.counts(name, "outbound_cidr", "198.51.100.1", 0, SOON);
    }
    NODES.iter().for_each(|name| mesh.counts(name, "outbound_domains", "example.com", 6, SOON));
    let add = "Replicate \"extra\" { class = \"inbound_cidr\" }";
    for name in NODES {
        mesh.edit(name, |text| text.replace("Replicate \"outbound_domains\" {}", add));
        let changed = changes(&mesh, name, &[]);
        assert_eq!(changed, now(&["object extra", "object outbound_domains"]), "{name}");
    }
    let gone = mesh.ask("relay-0-1", &["add", "outbound_domains", "example.com"]).fails(2);
    assert!(gone.contains("no object \"outbound_domains\"") && gone.contains("extra"), "{gone}");
    mesh.ask("relay-0-1", &["add", "extra", "192.0.2.9", "4"]).ok();
    mesh.ask("relay-0-2", &["add", "extra", "192.0.2.9", "5"]).ok();
    NODES.iter().for_each(|name| mesh.counts(name, "extra", "192.0.2.9", 9, SOON));

    for name in NODES {
        mesh.edit(name, |text| text.replace(add, "Replicate \"outbound_domains\" {}"));
        assert_eq!(changes(&mesh, name, &[]), now(&["object outbound_domains", "object extra"]), "{name}");
    }
    mesh.ask("relay-0-1", &["add", "outbound_domains", "example.com", "-1"]).ok();
    NODES.iter().for_each(|name| mesh.counts(name, "outbound_domains", "example.com", 5, SOON));
    let counted = load.end();
    assert!(counted > 0);
    NODES.iter().for_each(|name| mesh.counts(name, "inbound_cidr", "192.0.2.7", counted, SOON));
    mesh.ask("relay-0-1", &["verify"]).ok();
}

/// Caches and series that one node gets later than the other one receive what was written before.
#[test]
fn caches_and_series_that_a_node_gets_later_have_what_others_wrote() {
    let mesh = Mesh::running(&NODES);
    let more = "Datasource \"sessions\" { uri = \"cache:local\" }\naudit_series \"logins\" {\n  type = \"string\"\n  \
                interval = 3600\n  windows = 3\n}\n";
    let with = |text: String| {
        let cache = format!(
            "{REPLICATED}\n  Replicate \"sessions\" {{\n    type = \"cache\"\n    parameters = \"snapshot\"\n  }}"
        );
        text.replace(REPLICATED, &cache) + more
    };
    mesh.edit("relay-0-1", with);
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["object sessions", "series logins of 3600 s"]));
    mesh.ask("relay-0-1", &["cache", "set", "sessions", "user:7", "a"]).ok();
    mesh.ask("relay-0-1", &["series", "add", "logins", "user:7", "2"]).ok();
    mesh.edit("relay-0-2", with);
    assert_eq!(changes(&mesh, "relay-0-2", &[]).len(), 2);
    mesh.answers("relay-0-2", &["cache", "get", "sessions", "user:7"], "a");
    mesh.ask("relay-0-2", &["series", "add", "logins", "user:7", "3"]).ok();
    let logins = |name: &str| {
        let count = mesh.ask(name, &["--output", "json", "series", "count", "logins", "user:7"]).ok();
        serde_json::from_str::<Value>(&count).unwrap()["total"].as_i64().unwrap()
    };
    for name in NODES {
        eventually(&format!("{name} counts five logins"), SOON, || match logins(name) {
            5 => Ok(()),
            other => Err(other.to_string()),
        });
    }
    // Windows and bounds change in place, and what is there stays.
    let tune = |text: String| {
        text.replace("windows = 3", "windows = 5")
            .replace("type = \"cache\"\n", "type = \"cache\"\n    max_size = 10\n")
    };
    mesh.edit("relay-0-1", tune);
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["object sessions", "series logins of 3600 s"]));
    mesh.answers("relay-0-1", &["cache", "get", "sessions", "user:7"], "a");
    assert_eq!(logins("relay-0-1"), 5);
    // The other node has the earlier configuration, and both sides say so with both values.
    eventually("the difference is reported", SOON, || {
        let members = mesh.ask("relay-0-2", &["cluster", "membership"]).ok();
        let both = ["windows=5", "windows=3"].iter().all(|value| members.contains(value));
        if both { Ok(()) } else { Err(members) }
    });
    mesh.edit("relay-0-2", tune);
    changes(&mesh, "relay-0-2", &[]);
    eventually("the difference is gone", SOON, || {
        let members = mesh.ask("relay-0-1", &["cluster", "membership"]).ok();
        if members.contains("configurations differ") { Err(members) } else { Ok(()) }
    });
}

/// A throttle with another rate keeps what was taken. A throttle that goes and comes back does so as well.
#[test]
fn a_changed_rate_keeps_what_was_taken() {
    let mut mesh = Mesh::new(&["relay-0-1"]);
    let limits = |rate: &str| format!("limits {{\n  throttle \"campaign\" {{ rate = \"{rate}\" }}\n}}\n");
    let named = format!("{REPLICATED}\n  Replicate \"shared_named_throttles\" {{}}");
    mesh.edit("relay-0-1", |text| text.replace(REPLICATED, &named) + &limits("10/1h"));
    mesh.start("relay-0-1", &[]);
    mesh.ask("relay-0-1", &["throttle", "take", "campaign", "8"]).ok();
    mesh.edit("relay-0-1", |text| text.replace(&limits("10/1h"), &limits("20/1h")));
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["throttle campaign"]));
    mesh.ask("relay-0-1", &["throttle", "take", "campaign", "3"]).fails(1);
    mesh.ask("relay-0-1", &["throttle", "take", "campaign", "2"]).ok();
    mesh.edit("relay-0-1", |text| text.replace(&limits("20/1h"), ""));
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["throttle campaign"]));
    mesh.edit("relay-0-1", |text| text + &limits("20/1h"));
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["throttle campaign"]));
    mesh.ask("relay-0-1", &["throttle", "take", "campaign", "1"]).fails(1);
}

/// A file with a mistake changes nothing, and names its line. A dry run and `config diff` change nothing either. What needs a
/// restart is said, and not done.
#[test]
fn a_file_with_a_mistake_changes_nothing_and_a_restart_is_named() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let file = mesh.file("relay-0-1", "hcl");
    let good = fs::read_to_string(&file).unwrap();
    assert_eq!(mesh.ask("relay-0-1", &["config", "diff"]).ok(), "");
    let same = mesh.ask("relay-0-1", &["config", "reload"]).ok();
    assert_eq!(same, "nothing to change: the node runs with its file\n");

    fs::write(&file, good.replace(REPLICATED, "Replicate \"outbound_cidr\" {}\n  max_dely = 1")).unwrap();
    let wrong = mesh.ask("relay-0-1", &["config", "reload"]).fails(2);
    assert!(wrong.contains("relay-0-1.hcl:") && wrong.contains("max_dely"), "{wrong}");
    mesh.process("relay-0-1").signal(Signal::HUP);
    mesh.logs("relay-0-1", "the configuration is not reloaded");
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok();

    let other = good
        .replace(REPLICATED, "")
        .replace("data_dir = ", "data_dir = \"state\" # ")
        .replace("# data_dir", "data_dir");
    fs::write(&file, &other).unwrap();
    let dry = mesh.ask("relay-0-1", &["config", "reload", "--dry-run"]).ok();
    assert!(
        dry.contains("object inbound_cidr: removed: ") && dry.contains("1 would change, 1 need a restart"),
        "{dry}"
    );
    let diff = mesh.ask("relay-0-1", &["config", "diff"]);
    assert!(diff.stdout.contains("  object inbound_cidr\n-   inbound_cidr,") && diff.code == Some(1), "{diff:?}");
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok();
    mesh.process("relay-0-1").signal(Signal::HUP);
    // The log has the line of an earlier reload.
    eventually("the object is gone", SOON, || {
        let asked = mesh.ask("relay-0-1", &["count", "inbound_cidr", "192.0.2.7"]);
        if asked.code == Some(2) { Ok(()) } else { Err(format!("{asked:?}")) }
    });
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).fails(2);
    let left = mesh.ask("relay-0-1", &["config", "diff"]);
    assert!(left.stdout.contains("data_dir") && !left.stdout.contains("inbound_cidr"), "{left:?}");
    fs::write(&file, good).unwrap();
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["object inbound_cidr"]));
    mesh.counts("relay-0-1", "inbound_cidr", "192.0.2.7", 2, SOON);
}

/// Settings of the node: budgets, seeds, the level of the log, and the HTTP address.
#[test]
fn settings_of_the_node_change_while_it_runs() {
    let mut mesh = Mesh::new(&NODES);
    let listens = mesh.listens("relay-0-2");
    // The first node does not know the second one, which has no seeds.
    mesh.edit("relay-0-1", |text| text.replace(&format!("seeds = [\"{listens}\"]"), "seeds = []"));
    let first = mesh.listens("relay-0-1");
    mesh.edit("relay-0-2", |text| text.replace(&format!("seeds = [\"{first}\"]"), "seeds = []"));
    NODES.iter().for_each(|name| mesh.start(name, &[]));
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.1"]).ok();
    let port = mesh.spare();
    mesh.edit("relay-0-1", |text| {
        let more = format!("node {{\n  log = \"debug\"\n  http = \"{port}\"\n  max_keys = 1\n");
        text.replace("seeds = []", &format!("seeds = [\"{listens}\"]")).replacen("node {\n", &more, 1)
    });
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["max_keys", "seeds", "log", "http"]));
    mesh.wait_for_links();
    mesh.logs("relay-0-1", "DEBUG");
    std::net::TcpStream::connect(port).unwrap();
    // A key that is there counts on.
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.1"]).ok();
    let full = mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.2"]).fails(1);
    assert!(full.contains("keys"), "{full}");
    mesh.edit("relay-0-1", |text| text.replace("max_keys = 1\n", "").replace(&format!("  http = \"{port}\"\n"), ""));
    assert_eq!(changes(&mesh, "relay-0-1", &[]), now(&["max_keys", "http"]));
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.2"]).ok();
    eventually("nobody serves HTTP", SOON, || match std::net::TcpStream::connect(port) {
        Ok(_) => Err("it is served".to_owned()),
        Err(_) => Ok(()),
    });
    let level = mesh.ask("relay-0-1", &["config", "diff"]).ok();
    assert_eq!(level, "");
    // An address that is in use is an error, and nothing changes.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    mesh.edit("relay-0-1", |text| {
        text.replacen("node {\n", &format!("node {{\n  http = \"{address}\"\n  max_bytes = 1000\n"), 1)
    });
    let in_use = mesh.ask("relay-0-1", &["config", "reload"]).fails(2);
    assert!(in_use.contains(&address.to_string()), "{in_use}");
    let diff = mesh.ask("relay-0-1", &["config", "diff"]);
    assert!(diff.stdout.contains("max_bytes"), "{diff:?}");
    tally(&["--at", mesh.file("relay-0-2", "sock").to_str().unwrap(), "cluster", "nodename"]).ok();
}
