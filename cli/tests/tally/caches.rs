//! Caches and gauge caches, from two running nodes.

use crate::support::{Mesh, SOON, eventually, tally_with};

const NODES: [&str; 2] = ["relay-0-1", "relay-0-2"];

const CACHES: &str = r#"
Datasource "sessions" {}
cluster {
  Replicate "sessions" {
    type = "cache"
    parameters = "snapshot"
    max_size = 1000
  }
}
gauge_cache "logins" {
  max_size = 100
  ttl = 3600
  replicate = "cluster"
}
"#;

fn mesh() -> Mesh {
    let mut mesh = Mesh::new(&NODES);
    for name in NODES {
        mesh.edit(name, |text| text + CACHES);
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    mesh
}

fn reads(mesh: &Mesh, node: &str, arguments: &[&str], expected: &str) {
    eventually(&arguments.join(" "), SOON, || {
        let text = mesh.ask(node, arguments).stdout;
        if text == expected { Ok(()) } else { Err(format!("{text:?}")) }
    });
}

#[test]
fn values_and_gauges_are_the_same_on_all_nodes() {
    let mesh = mesh();
    let [first, second] = NODES;
    assert_eq!(mesh.ask(first, &["cache", "set", "sessions", "user:7", "Ada", "--ttl", "5M"]).ok(), "");
    reads(&mesh, second, &["cache", "get", "sessions", "user:7"], "Ada");
    assert_eq!(mesh.ask(second, &["cache", "set", "sess", "user:8", "Grace"]).ok(), "");
    let shown = format!("{:>40}: Ada\n{:>40}: Grace\n", "user:7", "user:8");
    reads(&mesh, first, &["cache", "show", "sessions"], &shown);
    let heading = "lazy, snapped cache 'sessions', view 'global'\n";
    assert_eq!(mesh.ask(first, &["cluster", "shared", "show", "sessions"]).ok(), format!("{heading}{shown}"));
    let from = mesh.ask(first, &["cluster", "shared", "show", "sessions", "from", second]).ok();
    let (heading, entries) = from.split_once('\n').unwrap();
    assert!(heading.starts_with("lazy, snapped cache 'sessions', view '#ec1-"), "{heading}");
    assert!(heading.ends_with("#relay-0-2'"), "{heading}");
    assert_eq!(entries, format!("{:>40}: Grace\n", "user:8"));
    let unknown = mesh.ask(first, &["cluster", "shared", "show", "sessions", "from", "relay-0-9"]).fails(2);
    assert!(unknown.contains("nothing is known of node relay-0-9"), "{unknown}");
    let refused = mesh.ask(first, &["count", "sessions", "user:8"]).fails(2);
    assert!(refused.contains("\"sessions\" is a cache: read it with `tally cache get`"), "{refused}");
    let listed = mesh.ask(first, &["cluster", "shared", "list"]).ok();
    assert!(listed.contains(&format!("{:>30} [lazy, cache w/ snapshots]\n", "sessions")), "{listed}");
    assert!(listed.contains(&format!("{:>30} [lazy, gauge table w/ snapshots]\n", "gauge:logins")), "{listed}");
    assert_eq!(mesh.ask(second, &["cache", "del", "sessions", "user:7"]).ok(), "");
    let gone = eventually("it is removed", SOON, || match mesh.ask(first, &["cache", "get", "sessions", "user:7"]) {
        ended if ended.code == Some(1) => Ok(ended),
        ended => Err(ended.stdout),
    });
    assert!(gone.fails(1).contains("there is no \"user:7\""));
    let refused = mesh.ask(first, &["add", "sessions", "user:9", "1"]).fails(2);
    assert!(refused.contains("\"sessions\" is a cache"), "{refused}");
    let list = mesh.ask(first, &["--output", "json", "cache", "list"]).ok();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!((&list[0]["name"], &list[0]["entries"]), (&"sessions".into(), &1.into()));

    assert_eq!(mesh.ask(first, &["gauge", "inc", "logins", "alice", "5"]).ok(), "5\n");
    reads(&mesh, second, &["gauge", "get", "logins", "alice"], "5\n");
    assert_eq!(mesh.ask(second, &["gauge", "dec", "logins", "alice"]).ok(), "4\n");
    reads(&mesh, first, &["gauge", "show", "logins"], &format!("{:>60}:{:>13}\n", "alice", 4));
    mesh.ask(first, &["gauge", "del", "logins", "alice"]).ok();
    reads(&mesh, second, &["gauge", "show", "logins"], "");
    let gauges = mesh.ask(first, &["--output", "csv", "gauge", "list"]).ok();
    assert_eq!(gauges, "name,entries,max_size,ttl,shared\nlogins,0,100,3600,true\n");
}

/// The entries of a run stay when it ends. They are still those of its node.
#[test]
fn the_entries_of_an_earlier_run_are_shown_as_those_of_its_node() {
    let mut mesh = mesh();
    let [first, second] = NODES;
    assert_eq!(mesh.ask(second, &["cache", "set", "sessions", "user:8", "Grace"]).ok(), "");
    reads(&mesh, first, &["cache", "get", "sessions", "user:8"], "Grace");
    mesh.kill(second);
    mesh.start(second, &[]);
    mesh.wait_for_links();
    let shown = || mesh.ask(first, &["cluster", "shared", "show", "sessions", "from", second]).ok();
    assert!(shown().ends_with(&format!("{:>40}: Grace\n", "user:8")), "{}", shown());
    reads(&mesh, second, &["cache", "get", "sessions", "user:8"], "Grace");
}

#[test]
fn an_invalid_time_to_live_is_refused() {
    let ended = tally_with(&["cache", "set", "sessions", "k", "v", "--ttl", "5D"], b"").fails(2);
    assert!(ended.contains("no time to live"), "{ended}");
}
