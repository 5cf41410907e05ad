//! The larger run: a million distinct addresses on each of three nodes. It is ignored by default because it takes long:
//!
//!     cargo test --release -p tallymesh-cli --test tally -- --ignored --nocapture

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::support::{Mesh, eventually, tally_with};

const NAMES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];
const ADDRESSES: u32 = 1_000_000;

/// How long three million rows may take to reach all nodes.
const PATIENCE: Duration = Duration::from_secs(300);

#[test]
#[ignore = "takes a minute or more, and a few GB of memory; see the head of the file"]
fn a_million_addresses_on_each_of_three_nodes() {
    let mesh = Mesh::running(&NAMES);
    // Half of each node's addresses are also addresses of the next node.
    let addresses = |node: u32| {
        let first = 0x0a00_0000 + node * ADDRESSES / 2;
        let mut lines = String::new();
        for address in first..first + ADDRESSES {
            writeln!(lines, "{} {}", std::net::Ipv4Addr::from_bits(address), node + 1).unwrap();
        }
        lines
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (node, name) in (0..).zip(NAMES) {
            let (socket, lines) = (mesh.file(name, "sock"), addresses(node));
            scope.spawn(move || {
                let load = ["--at", socket.to_str().unwrap(), "load", "inbound_cidr"];
                print!("{name}: {}", tally_with(&load, lines.as_bytes()).ok());
            });
        }
    });
    println!("loaded after {:.1} s", begun.elapsed().as_secs_f64());
    let everything = i64::from(ADDRESSES) * (1 + 2 + 3);
    for name in NAMES {
        mesh.counts(name, "inbound_cidr", "0.0.0.0/0", everything, PATIENCE);
    }
    println!("every node counts all {everything} after {:.1} s", begun.elapsed().as_secs_f64());
    for name in NAMES {
        let verified = eventually("all have converged", PATIENCE, || {
            let verified = mesh.ask(name, &["--timeout", "120", "verify", "--patience", "60"]);
            if verified.code == Some(0) { Ok(verified.stdout) } else { Err(format!("{verified:?}")) }
        });
        print!("{name}: {verified}");
        // Addresses that one node counts, that two count, and none.
        let first = |n: u32| std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).to_string();
        assert_eq!(mesh.total(name, "inbound_cidr", &first(7)), 1);
        assert_eq!(mesh.total(name, "inbound_cidr", &first(ADDRESSES / 2 + 7)), 3);
        assert_eq!(mesh.total(name, "inbound_cidr", &first(ADDRESSES + 7)), 5);
        assert_eq!(mesh.total(name, "inbound_cidr", &first(2 * ADDRESSES + 7)), 0);
        let from = mesh.ask(name, &["--output", "json", "count", "inbound", "10.0.0.0/8", "from", "relay-0-3"]).ok();
        let from: serde_json::Value = serde_json::from_str(&from).unwrap();
        assert_eq!(from["total"], i64::from(ADDRESSES) * 3);
        let listed = mesh.ask(name, &["--output", "json", "shared", "list"]).ok();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        let object = listed.as_array().unwrap().iter().find(|object| object["name"] == "inbound_cidr").unwrap();
        assert_eq!(object["keys"], u64::from(ADDRESSES) * 2);
        let mib = object["bytes"].as_f64().unwrap() / f64::from(1 << 20);
        println!("{name}: {} keys in {mib:.0} MiB of rows, logs and indexes", object["keys"]);
    }
    println!("done after {:.1} s", begun.elapsed().as_secs_f64());
}
