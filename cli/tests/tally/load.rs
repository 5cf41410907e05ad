//! The formats that `tally load` reads, and its reports about skipped lines.

use std::fs;

use crate::support::{Mesh, tally, tally_with};

const NODE: &str = "relay-0-1";

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_key() {
    let mut mesh = Mesh::new(&[NODE]);
    mesh.edit(NODE, |text| format!("\u{feff}{text}"));
    tally(&["config", "check", mesh.file(NODE, "hcl").to_str().unwrap()]).ok();
    mesh.start(NODE, &[]);
    mesh.feed(NODE, &["load", "inbound_cidr"], "\u{feff}192.0.2.7 3\n192.0.2.8\n").ok();
    mesh.feed(NODE, &["load", "outbound_domains"], "\u{feff}example.com 2\r\n").ok();
    mesh.feed(NODE, &["load", "inbound_cidr"], "\u{feff}prefix,count\r\n192.0.2.9,5\r\n").ok();
    assert_eq!(mesh.total(NODE, "inbound_cidr", "192.0.2.7"), 3);
    assert_eq!(mesh.total(NODE, "inbound_cidr", "192.0.2.9"), 5);
    assert_eq!(mesh.total(NODE, "outbound_domains", "example.com"), 2);
}

#[test]
fn skipped_lines_are_reported_with_the_reason() {
    let mesh = Mesh::running(&[NODE]);
    let text = "192.0.2.1 x\n192.0.2.1\nnobody 3\n192.0.2.2 4 4\n192.0.2.3 2\n";
    let ended = mesh.feed(NODE, &["load", "inbound_cidr", "--skip-bad"], text);
    for part in [
        "warning: stdin:1: \"x\" is not a whole number",
        "warning: stdin:3: \"nobody\" is not an address or CIDR block",
        "warning: stdin:4: \"4\" is one word too many",
    ] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    let said = ended.ok();
    assert!(said.starts_with("2 lines in ") && said.ends_with("3 bad lines skipped\n"), "{said}");

    // Of many bad lines, the first are reported in the order of the file, and all are counted.
    let text: String = (0..3000).map(|n| if n % 2 == 0 { "nobody\n" } else { "192.0.2.1 x\n" }).collect();
    let ended = mesh.feed(NODE, &["--output", "json", "load", "inbound_cidr", "--skip-bad"], &text);
    let warned: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(warned.len(), 21, "{warned:?}");
    assert!(warned[0].starts_with("warning: stdin:1: \"nobody\"") && warned[1].starts_with("warning: stdin:2: \"x\""));
    assert_eq!(warned[20], "warning: 2980 more bad lines");
    let said = json(&ended.ok());
    assert_eq!((&said["bad"], said["bad_lines"].as_array().unwrap().len()), (&3000.into(), 20));
    assert_eq!((&said["bad_lines"][19]["line"], said["bad_lines"][19]["reason"].is_string()), (&20.into(), true));
}

/// A node can load the CSV output of another one.
#[test]
fn csv_output_can_be_loaded() {
    let mesh = Mesh::running(&[NODE]);
    let other = Mesh::running(&[NODE]);
    mesh.feed(NODE, &["load", "inbound_cidr"], "192.0.2.7 3\n198.51.100.0/24 -2\n2001:db8::1 9\n").ok();
    mesh.feed(NODE, &["load", "outbound_binding_domains"], "b\"1,2/example.com 4\nb2/example.com 5\n").ok();
    for (object, arguments) in [
        ("inbound_cidr", vec!["load", "inbound_cidr"]),
        ("outbound_binding_domains", vec!["load", "outbound_binding_domains", "--format", "csv"]),
    ] {
        let show = ["--output", "csv", "shared", "show", object];
        let written = mesh.ask(NODE, &show).ok();
        assert!(written.lines().count() >= 3, "{written}");
        other.feed(NODE, &arguments, &written).ok();
        assert_eq!(other.ask(NODE, &show).ok(), written);
    }
    let said = mesh.feed(NODE, &["load", "inbound_cidr", "--format", "csv"], "10.0.0.0/8,7\n").fails(2);
    assert!(said.contains("stdin:1: the heading is \"10.0.0.0/8,7\""), "{said}");
    let said = mesh.feed(NODE, &["load", "inbound_cidr"], "prefix,count\n192.0.2.9,1\n192.0.2.9\n").fails(2);
    assert!(said.contains("stdin:3: it has 1 fields") && said.contains("1 line before it has been counted"), "{said}");
}

#[test]
fn logs_and_tables_of_haproxy_are_loaded() {
    let mesh = Mesh::running(&[NODE]);
    let log = mesh.path("access.log");
    let line = |address: &str, more: &str| {
        format!("{address} - - [10/Oct/2026:13:55:36 +0000] \"GET /{more} HTTP/1.1\" 200 1\n")
    };
    let text = line("192.0.2.7", "") + &line("2001:db8::1", &"x".repeat(9000)) + &line("192.0.2.7", "a") + "- - -\n";
    fs::write(&log, text).unwrap();
    let log = log.to_str().unwrap();
    let said = mesh.ask(NODE, &["load", "inbound_cidr", "--format", "log", log]).fails(2);
    assert!(said.contains(&format!("{log}:4: \"-\" is not an address")), "{said}");
    assert_eq!(mesh.total(NODE, "inbound_cidr", "192.0.2.7"), 2);
    assert_eq!(mesh.total(NODE, "inbound_cidr", "2001:db8::1"), 1);

    let table = "# table: per_ip, type: ip, size:1048576, used:2\n\
        0x55d1: key=203.0.113.7 use=0 exp=9000 gpc0=0 conn_cnt=7 conn_cur=2\n\
        0x55d2: key=203.0.113.8 use=0 exp=9000 shard=0 conn_rate(30000)=1 conn_cnt=5\n\n";
    mesh.feed(NODE, &["load", "inbound_cidr", "--format", "haproxy"], table).ok();
    assert_eq!(mesh.total(NODE, "inbound_cidr", "203.0.113.7"), 2);
    assert_eq!(mesh.total(NODE, "inbound_cidr", "203.0.113.0/24"), 7);
    let counter = ["load", "outbound_cidr", "--format", "haproxy", "--counter", "conn_cnt"];
    mesh.feed(NODE, &counter, table).ok();
    assert_eq!(mesh.total(NODE, "outbound_cidr", "203.0.113.0/24"), 12);
    let said = tally_with(&["load", "inbound_cidr", "--format", "xml"], b"").fails(2);
    assert!(said.contains("lines, csv, log, haproxy"), "{said}");
}
