//! Nodes that are killed, restarted and stopped, as processes.

use crate::support::{DEATH, Mesh, SOON, eventually};
use rustix::process::Signal;

const NAMES: [&str; 3] = ["relay-0-1", "relay-0-2", "relay-0-3"];
const SENDER: &str = "192.0.2.7";
const DOMAIN: &str = "example.com";

/// A cluster that drops the inbound counts of dead nodes soon.
fn mesh() -> Mesh {
    let mut mesh = Mesh::new(&NAMES);
    for name in NAMES {
        let (from, to) = ("\"inbound_cidr\" {}", "\"inbound_cidr\" {\n    on_dead = \"drop 500ms\"\n  }");
        mesh.edit(name, |text| text.replace(from, to));
        mesh.start(name, &[]);
    }
    mesh.wait_for_links();
    mesh
}

fn add(mesh: &Mesh, name: &str, n: &str) {
    mesh.ask(name, &["add", "inbound_cidr", SENDER, n]).ok();
    mesh.ask(name, &["add", "outbound_domains", DOMAIN, n]).ok();
}

fn see(mesh: &Mesh, names: &[&str], inbound: i64, outbound: i64) {
    for name in names {
        mesh.counts(name, "inbound_cidr", SENDER, inbound, DEATH);
        mesh.counts(name, "outbound_domains", DOMAIN, outbound, DEATH);
    }
}

#[test]
fn a_killed_nodes_inbound_counts_are_dropped_and_nothing_counts_twice_when_it_returns() {
    let mut mesh = mesh();
    add(&mesh, "relay-0-1", "1");
    add(&mesh, "relay-0-2", "20");
    see(&mesh, &NAMES, 21, 21);
    mesh.kill("relay-0-2");
    // Its inbound counts are dropped once it is dead, and its outbound counts stay.
    see(&mesh, &["relay-0-1", "relay-0-3"], 1, 21);
    let silent = mesh.ask("relay-0-1", &["count", "inbound_cidr", SENDER, "from", "relay-0-2"]).ok();
    assert!(silent.contains("20"), "its own view is still there: {silent}");
    let old = mesh.sees("relay-0-1", "relay-0-2")[1].clone();

    // The same name again: the old run is superseded at once.
    mesh.start("relay-0-2", &[]);
    let allowed = [21, 1];
    eventually("the old run is superseded", SOON, || {
        let (inbound, outbound) =
            (mesh.total("relay-0-1", "inbound_cidr", SENDER), mesh.total("relay-0-1", "outbound_domains", DOMAIN));
        assert_eq!(inbound, 1, "the old run's inbound counts came back");
        assert!(allowed.contains(&outbound), "{outbound} is neither with the old run nor without it");
        if outbound == 1 { Ok(()) } else { Err(format!("outbound {outbound}")) }
    });
    assert_ne!(mesh.sees("relay-0-1", "relay-0-2")[1], old);
    add(&mesh, "relay-0-2", "5");
    see(&mesh, &NAMES, 6, 6);

    // Killed and back before a node declares it dead.
    mesh.kill("relay-0-2");
    mesh.start("relay-0-2", &[]);
    eventually("the run before is superseded", SOON, || {
        let inbound = mesh.total("relay-0-3", "inbound_cidr", SENDER);
        assert!([6, 1].contains(&inbound), "{inbound}");
        if inbound == 1 { Ok(()) } else { Err(format!("inbound {inbound}")) }
    });
    add(&mesh, "relay-0-2", "7");
    see(&mesh, &NAMES, 8, 8);
    mesh.wait_for_links();
    mesh.ask("relay-0-3", &["verify"]).ok();
}

#[test]
fn a_stopped_node_is_exact_again_without_a_restart() {
    let mut mesh = mesh();
    add(&mesh, "relay-0-1", "1");
    add(&mesh, "relay-0-3", "30");
    see(&mesh, &NAMES, 31, 31);
    let run = mesh.sees("relay-0-1", "relay-0-3")[1].clone();
    mesh.process("relay-0-3").signal(Signal::STOP);
    see(&mesh, &["relay-0-1", "relay-0-2"], 1, 31);
    // A stopped node does not answer, and a command does not wait for ever.
    let mute = mesh.ask("relay-0-3", &["--timeout", "0.3", "cluster", "nodename"]).fails(3);
    assert!(mute.contains("did not answer within 0.3 s"), "{mute}");
    // The other nodes have the same rows, and the dead one was not asked.
    let lonely = mesh.ask("relay-0-1", &["verify", "--patience", "1"]);
    assert_eq!(lonely.code, Some(1), "{lonely:?}");
    let (compared, dead) = lonely.stdout.split_once('\n').unwrap();
    assert!(compared.starts_with("not converged: ") && compared.ends_with("on relay-0-1, relay-0-2"), "{compared}");
    let forget = "if it does not come back, `tally cluster forget` it";
    assert_eq!(dead, format!("  relay-0-3 is dead and was not asked: {forget}\n"));
    let json = mesh.ask("relay-0-1", &["--output", "json", "verify", "--patience", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["converged"], &json["dead"][0]), (&false.into(), &"relay-0-3".into()));
    eventually("the death is a warning", SOON, || {
        let log = mesh.log("relay-0-1");
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains("the node is dead"));
        if warned { Ok(()) } else { Err(log) }
    });
    add(&mesh, "relay-0-1", "-1");
    add(&mesh, "relay-0-2", "4");
    see(&mesh, &["relay-0-1", "relay-0-2"], 4, 34);

    mesh.process("relay-0-3").signal(Signal::CONT);
    see(&mesh, &NAMES, 34, 34);
    mesh.wait_for_links();
    for name in NAMES {
        mesh.ask(name, &["verify", "--patience", "10"]).ok();
    }
    assert_eq!(mesh.sees("relay-0-1", "relay-0-3")[1], run, "it is still the same run");
}

#[test]
fn a_forgotten_node_no_longer_counts_on_any_node() {
    let mut mesh = mesh();
    add(&mesh, "relay-0-2", "20");
    see(&mesh, &NAMES, 20, 20);
    mesh.kill("relay-0-2");
    assert_eq!(mesh.ask("relay-0-1", &["cluster", "forget", "relay-0-2"]).ok(), "relay-0-2 is forgotten\n");
    see(&mesh, &["relay-0-1", "relay-0-3"], 0, 0);
    let unknown = mesh.ask("relay-0-3", &["cluster", "forget", "relay-0-9"]).fails(1);
    assert!(unknown.contains("nothing is known of relay-0-9"), "{unknown}");
    let itself = mesh.ask("relay-0-3", &["cluster", "forget", "relay-0-3"]).fails(2);
    assert!(itself.contains("relay-0-3 is the node that you ask, and it cannot forget itself"), "{itself}");
    // A forgotten node is not missing.
    mesh.ask("relay-0-1", &["verify"]).ok();
}
