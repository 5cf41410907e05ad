//! The views of the manual's page on clustered replication, byte for byte, from three running nodes.

use crate::support::{Mesh, SOON};

/// Connections that are closed again: they are not listed, and the tree still branches at them.
const PASSED: [(&str, &[&str]); 3] = [
    ("relay-0-1", &["10.200.0.1", "10.0.0.1", "10.0.0.165", "10.0.0.178"]),
    ("relay-0-2", &["10.200.0.1", "10.0.0.165"]),
    ("relay-0-3", &[]),
];

/// Connections that are open.
const INBOUND: [(&str, &str); 3] = [
    ("relay-0-1", "10.0.0.180 4\n10.0.0.181\n"),
    ("relay-0-2", "10.0.0.103 3\n10.0.0.180 2\n10.0.0.181 2\n"),
    ("relay-0-3", "# the rest\n10.0.0.103 1\n\n10.0.0.180 8\n10.0.0.181 10\n"),
];

const OUTBOUND: [(&str, &str); 3] = [
    ("relay-0-1", "aol.com\nbellsouth.net 4\nhotmail.com 26\nyahoo.com 30\n"),
    ("relay-0-2", "aol.com 9\nbellsouth.net 19\nhotmail.com 200\n"),
    ("relay-0-3", "hotmail.com 20\nomniti.com 5\nyahoo.com 35\n"),
];

const GLOBAL: &str = "\
lazy, snapped cidrtree 'inbound_cidr', view 'global'
     31                         10.0.0.0/8
     31                         10.0.0.0/24
      4                         10.0.0.0/25
      4                         10.0.0.103/32
     27                         10.0.0.160/27
     27                         10.0.0.176/29
     27                         10.0.0.180/31
     14                         10.0.0.180/32
     13                         10.0.0.181/32
";

const FROM_1: &str = "\
lazy, snapped cidrtree 'inbound_cidr', view '#ec1-12137#relay-0-1'
      5                         10.0.0.0/8
      5                         10.0.0.0/24
      5                         10.0.0.160/27
      5                         10.0.0.176/29
      5                         10.0.0.180/31
      4                         10.0.0.180/32
      1                         10.0.0.181/32
";

const FROM_2: &str = "\
lazy, snapped cidrtree 'inbound_cidr', view '#ec1-48616#relay-0-2'
      7                         10.0.0.0/8
      7                         10.0.0.0/24
      3                         10.0.0.103/32
      4                         10.0.0.160/27
      4                         10.0.0.180/31
      2                         10.0.0.180/32
      2                         10.0.0.181/32
";

const DOMAINS: &str = "\
lazy, snapped gauge table 'outbound_domains', view 'global'
                                                     aol.com:           10
                                               bellsouth.net:           23
                                                 hotmail.com:          246
                                                  omniti.com:            5
                                                   yahoo.com:           65
";

const DOMAINS_FROM_1: &str = "\
lazy, snapped gauge table 'outbound_domains', view '#ec1-12137#relay-0-1'
                                                     aol.com:            1
                                               bellsouth.net:            4
                                                 hotmail.com:           26
                                                   yahoo.com:           30
";

const LIST: &str = "Currently managed objects:
                  inbound_cidr [lazy, cidrtree w/ snapshots]
      outbound_binding_domains [lazy, gauge table w/ snapshots]
                 outbound_cidr [lazy, cidrtree w/ snapshots]
              outbound_domains [lazy, gauge table w/ snapshots]
";

#[test]
fn the_pages_views_are_shown_on_every_node_to_the_byte() {
    let names = ["relay-0-1", "relay-0-2", "relay-0-3"];
    let mut mesh = Mesh::new(&names);
    for (name, incarnation) in names.iter().zip(["12137", "48616", "777"]) {
        mesh.start(name, &["--incarnation", incarnation]);
    }
    for (n, total) in [(" 1\n", 6), (" -1\n", 0)] {
        for (name, hosts) in PASSED {
            let lines: String = hosts.iter().map(|host| format!("{host}{n}")).collect();
            mesh.feed(name, &["load", "inbound_cidr"], &lines).ok();
            mesh.feed(name, &["load", "outbound_cidr"], &lines).ok();
        }
        for object in ["inbound_cidr", "outbound_cidr"] {
            mesh.counts("relay-0-3", object, "10.0.0.0/8", total, SOON);
        }
    }
    for (name, lines) in INBOUND {
        mesh.feed(name, &["load", "inbound_cidr"], lines).ok();
        mesh.feed(name, &["load", "outbound_cidr", "-"], lines).ok();
    }
    for (name, lines) in OUTBOUND {
        mesh.feed(name, &["load", "outbound_domains"], lines).ok();
    }
    for name in names {
        mesh.answers(name, &["cluster", "shared", "show", "inbound_cidr"], GLOBAL);
        mesh.answers(name, &["cluster", "shared", "show", "inbound_cidr", "from", "relay-0-1"], FROM_1);
        mesh.answers(name, &["shared", "show", "inbound", "--from", "relay-0-2"], FROM_2);
        mesh.answers(name, &["cluster", "shared", "show", "outbound_cidr"], &GLOBAL.replace("inbound", "outbound"));
        mesh.answers(name, &["cluster", "shared", "show", "outbound_domain"], DOMAINS);
        mesh.answers(name, &["shared", "show", "outbound_domain", "from", "relay-0-1"], DOMAINS_FROM_1);
        mesh.answers(name, &["cluster", "shared", "list"], LIST);
        mesh.answers(name, &["shared", "list"], LIST);
    }
    let verified = mesh.ask("relay-0-2", &["verify"]).ok();
    let compared = "converged: objects 46, actors 3, copies 414, on relay-0-1, relay-0-2, relay-0-3\n";
    assert_eq!(verified, compared);
    other_formats(&mesh);
}

/// The same views for programs.
fn other_formats(mesh: &Mesh) {
    let csv = mesh.ask("relay-0-3", &["--output", "csv", "shared", "show", "inbound", "from", "relay-0-2"]).ok();
    let mut expected = "prefix,count\n".to_owned();
    for line in FROM_2.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (count, prefix) = (words.next().unwrap(), words.next().unwrap());
        expected += &format!("{prefix},{count}\n");
    }
    assert_eq!(csv, expected);

    let json = mesh.ask("relay-0-3", &["--output", "json", "shared", "show", "outbound_domains", "from", "relay-0-1"]);
    let json: serde_json::Value = serde_json::from_str(&json.ok()).unwrap();
    let expected = serde_json::json!({
        "object": "outbound_domains", "class": "outbound_domains", "kind": "gauge table", "snapshots": true,
        "view": "#ec1-12137#relay-0-1", "node": "relay-0-1", "incarnation": 12137,
        "rows": [
            { "key": "aol.com", "count": 1 },
            { "key": "bellsouth.net", "count": 4 },
            { "key": "hotmail.com", "count": 26 },
            { "key": "yahoo.com", "count": 30 },
        ],
    });
    assert_eq!(json, expected);

    let count = mesh.count("relay-0-1", "inbound_cidr", "10.0.0.160/27");
    assert_eq!((&count["total"], &count["local"], &count["actors"]), (&27.into(), &5.into(), &3.into()));
    assert!(count["stalest_ms"].is_u64(), "{count}");
    let from = mesh.ask("relay-0-1", &["--output", "json", "count", "inbound", "10.0.0.0/8", "from", "relay-0-2"]);
    let from: serde_json::Value = serde_json::from_str(&from.ok()).unwrap();
    assert_eq!((&from["total"], &from["actors"]), (&7.into(), &1.into()));
}
