//! The audit and named series, from three running nodes.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Mesh, SOON, eventually};

const NODES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];

/// As on Momentum's console.
const LISTING: &str = "\
Connections 300/0: 30
Connections 300/1: 0
Connections 300/2: 0
Connections 300/3: 0
Connections 300/4: 0
Connections 300/5: 0
Receptions 300/0: 1697
Receptions 300/1: 0
Receptions 300/2: 0
Receptions 300/3: 0
Receptions 300/4: 0
Receptions 300/5: 0
Rejections 300/0: 0
Rejections 300/1: 0
Rejections 300/2: 0
Rejections 300/3: 0
Rejections 300/4: 0
Rejections 300/5: 0
";

/// The number of the current window of five minutes.
fn window() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 300
}

/// Runs `f`, which has to begin and end in one window. If a window ended meanwhile, runs it again with another number.
fn in_one_window(mut f: impl FnMut(u8)) {
    for number in 1.. {
        let began = window();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(number)));
        match done {
            Err(panic) if window() == began => std::panic::resume_unwind(panic),
            Ok(()) if window() == began => return,
            _ => assert!(number < 4, "windows pass faster than the test"),
        }
    }
}

/// A cluster that audits Momentum's default metrics, and keeps two named series.
fn mesh(names: &[&str]) -> Mesh {
    let mut mesh = Mesh::new(names);
    for name in names {
        mesh.edit(name, |text| {
            let metrics = "connect;reception;rejection;delivery;transfail;permfail;audit_series";
            assert!(text.contains(metrics));
            text.replace(metrics, "connect;reception;rejection;audit_series")
                + "audit_series \"logins\" {\n  type = \"string\"\n  interval = 300\n  windows = 3\n}\n"
                + "audit_series \"spam\" {\n  type = \"cidr\"\n  interval = 300\n  windows = 2\n  replicate = \"none\"\n}\n"
        });
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    mesh
}

#[test]
fn the_audit_of_three_nodes_is_shown_exactly() {
    let mesh = mesh(&NODES);
    in_one_window(|number| {
        let ip = |host: u8| format!("10.0.{number}.{host}");
        let block = format!("10.0.{number}.0/24");
        let add = |node: &str, metric: &str, host: u8, n: &str| {
            mesh.ask(node, &["inbound_audit", "add", metric, "300,6", &ip(host), n]).ok();
        };
        add("relay-0-1", "connect", 1, "12");
        add("relay-0-2", "connect", 1, "10");
        add("relay-0-3", "connect", 200, "8");
        add("relay-0-1", "reception", 1, "1600");
        add("relay-0-3", "reception", 7, "100");
        mesh.ask("relay-0-3", &["inbound_audit", "subtract", "reception", "300,6", &ip(7), "3"]).ok();
        for node in NODES {
            mesh.answers(node, &["inbound_audit", "show", "ip", &block], LISTING);
        }
        let of_2 = LISTING.replace("300/0: 30", "300/0: 10").replace("1697", "0");
        mesh.answers("relay-0-1", &["inbound_audit", "show", "ip", &block, "from", "relay-0-2"], &of_2);

        let count = ["--output", "csv", "inbound_audit", "count_cidr", &ip(1), "connect", "300,6", "0", "5"];
        let counted = mesh.ask("relay-0-2", &count).ok();
        assert!(counted.lines().nth(1).unwrap().starts_with("22,10,"), "{counted}");

        // A removal on one node removes the counts of the other nodes everywhere.
        mesh.ask("relay-0-3", &["inbound_audit", "delete_ip", &ip(1), "connect", "300,6"]).ok();
        let left = LISTING.replace("300/0: 30", "300/0: 8");
        for node in NODES {
            mesh.answers(node, &["inbound_audit", "show", "ip", &block], &left);
        }
        let all = mesh.ask("relay-0-1", &["inbound_audit", "show", "all"]).ok();
        let of_block: Vec<_> = all.lines().filter(|line| line.contains(&format!("10.0.{number}."))).collect();
        let expected = [
            format!("connect,300,0,{},8", ip(200)),
            format!("reception,300,0,{},1600", ip(1)),
            format!("reception,300,0,{},97", ip(7)),
        ];
        assert_eq!(all.lines().next(), Some("metric,interval,window,prefix,count"));
        assert_eq!(of_block, expected);
    });
    assert!(mesh.ask("relay-0-1", &["verify"]).ok().starts_with("converged"));
}

#[test]
fn named_series_are_shared_or_local_and_stay_counted_after_a_restart() {
    let mut mesh = mesh(&NODES);
    let total = |mesh: &Mesh, node: &str, key: &str| -> i64 {
        let text = mesh.ask(node, &["--output", "json", "series", "count", "logins", key, "--windows", "0-2"]).ok();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()["total"].as_i64().unwrap()
    };
    let counts = |mesh: &Mesh, node: &str, key: &str, n: i64| {
        eventually(&format!("{node} counts {n} for {key}"), SOON, || match total(mesh, node, key) {
            total if total == n => Ok(()),
            total => Err(total.to_string()),
        });
    };
    mesh.ask("relay-0-1", &["series", "add", "logins", "alice", "5"]).ok();
    mesh.ask("relay-0-2", &["series", "add", "logins", "alice", "2"]).ok();
    mesh.ask("relay-0-2", &["series", "add", "spam", "192.0.2.7"]).ok();
    for node in NODES {
        counts(&mesh, node, "alice", 7);
    }
    // Killed and back as another run: the other nodes still have its earlier counts.
    mesh.kill("relay-0-1");
    counts(&mesh, "relay-0-3", "alice", 7);
    mesh.start("relay-0-1", &[]);
    mesh.ask("relay-0-1", &["series", "add", "logins", "alice", "1"]).ok();
    for node in NODES {
        counts(&mesh, node, "alice", 8);
    }
    let json =
        mesh.ask("relay-0-3", &["--output", "json", "series", "show", "logins", "alice", "from", "relay-0-1"]).ok();
    let shown: serde_json::Value = serde_json::from_str(&json).unwrap();
    let windows = shown["windows"].as_array().unwrap();
    assert_eq!(windows.iter().map(|window| window["count"].as_i64().unwrap()).sum::<i64>(), 6, "{json}");
    assert_eq!((windows.len(), shown["series"]["interval"].as_i64()), (3, Some(300)));

    mesh.ask("relay-0-2", &["series", "remove", "logins", "alice"]).ok();
    for node in NODES {
        counts(&mesh, node, "alice", 0);
    }
    let spam = |node: &str| mesh.ask(node, &["--output", "csv", "series", "show", "spam"]).ok().lines().count() - 1;
    assert_eq!(NODES.map(spam), [0, 1, 0], "a series that is not replicated is a node's own");
}

#[test]
fn a_node_alone_keeps_series_as_a_cluster_does() {
    let mesh = mesh(&["relay-0-1"]);
    let ask = |arguments: &[&str]| mesh.ask("relay-0-1", arguments);
    in_one_window(|number| {
        let (ip, block) = (format!("10.0.{number}.1"), format!("10.0.{number}.0/24"));
        ask(&["inbound_audit", "add", "connect", "300,6", &ip, "30"]).ok();
        ask(&["audit", "add", "reception", "300,6", &ip, "1697"]).ok();
        assert_eq!(ask(&["inbound_audit", "show", "ip", &block]).ok(), LISTING);
        let user = format!("user{number}");
        ask(&["series", "add", "logins", &user, "8"]).ok();
        let plot = ask(&["series", "plot", "logins", &user]).ok();
        let lines: Vec<_> = plot.lines().collect();
        assert_eq!(lines[0], format!("{user} in series 'logins', 3 windows of 300 s, shared by the cluster"));
        assert!(lines[3].ends_with(&format!("           8 {}", "█".repeat(50))), "{plot}");
        assert!(lines[2].ends_with("           0 "), "{plot}");
    });
    let list = ask(&["series", "list"]).ok();
    let names: Vec<_> = list.lines().skip(1).map(|line| line[..30].trim_start()).collect();
    assert_eq!(names, ["audit connect", "audit reception", "audit rejection", "logins", "spam"]);
    assert!(ask(&["series", "add", "login", "bob"]).code == Some(0), "a beginning of the name is enough");
    for (arguments, says) in [
        (&["series", "add", "nothing", "bob"][..], "no object \"nothing\"; this node replicates logins, spam"),
        (&["series", "add", "spam", "bob"], "\"bob\" is not an address or CIDR block"),
        (&["inbound_audit", "add", "connect", "300,5", "10.0.0.1"], "has 6 windows of 300 s, not 5: write 300,6"),
        (&["inbound_audit", "add", "connect", "60,5", "10.0.0.1"], "no object \"connect\""),
        (&["inbound_audit", "count_cidr", "10.0.0.1", "connect", "300,6", "3", "1"], "windows 3 to 1"),
        (&["series", "count", "logins", "bob", "--windows", "x"], "write windows as 0-5"),
    ] {
        let said = ask(arguments).fails(2);
        assert!(said.contains(says), "{arguments:?} says {said}");
    }
}
