//! The commands of the README, on the cluster that the README makes.

use std::fs;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Mesh, Process, SOON, command, eventually};

const README: &str = include_str!("../../../README.md");

/// The lines of the README with this beginning.
fn lines(start: &str) -> Vec<&'static str> {
    README.lines().filter(|line| line.starts_with(start)).collect()
}

/// The commands of the README's table.
fn table() -> Vec<Vec<&'static str>> {
    let rows = README.lines().skip_while(|line| !line.starts_with("| command |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("| `"));
    rows.map(|row| row.split('`').nth(1).unwrap().split(' ').collect()).collect()
}

/// A command of the README, in the folder of the cluster, with values in place of its placeholders.
fn run(mesh: &Mesh, words: &[&str]) -> Command {
    let file = mesh.path("addresses.txt");
    let words = words.iter().map(|word| match *word {
        "FILE" => file.to_str().unwrap().to_owned(),
        "COMMAND" => "true".to_owned(),
        word => {
            assert!(!word.chars().all(|c| c.is_ascii_uppercase()) || word.is_empty(), "{word} is not explained");
            word.to_owned()
        }
    });
    let mut command = command();
    command.current_dir(mesh.path("")).args(words).stdin(Stdio::null());
    command
}

#[track_caller]
fn succeeds(mesh: &Mesh, words: &[&str]) -> String {
    let output = run(mesh, words).env("TALLY_AT", "mesh/relay-0-1.sock").output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tally {}\n{stdout}\n{stderr}", words.join(" "));
    stdout
}

#[test]
fn every_command_of_the_readme_works_on_its_cluster() {
    let init = lines("tally init ");
    let mut mesh = Mesh::made_by(&["relay-0-1", "relay-0-2", "relay-0-3"], |mesh| {
        succeeds(mesh, &init[0].split(' ').skip(1).collect::<Vec<_>>());
    });
    for (line, node) in lines("tally node ").iter().zip(["relay-0-1", "relay-0-2", "relay-0-3"]) {
        assert_eq!(*line, format!("tally node --config mesh/{node}.hcl"));
        mesh.start(node, &[]);
    }
    mesh.wait_for_links();

    // Counted on two nodes, and asked on the third.
    let asked: Vec<_> = lines("tally --at ").iter().map(|line| line.split(' ').skip(1).collect::<Vec<_>>()).collect();
    let (last, counted) = asked.split_last().unwrap();
    counted.iter().for_each(|words| drop(succeeds(&mesh, words)));
    let shown = README.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    eventually("the third node shows what the README says", SOON, || {
        let said = succeeds(&mesh, last);
        if said == shown { Ok(()) } else { Err(said) }
    });

    fs::write(mesh.path("addresses.txt"), "192.0.2.11\n192.0.2.12 2\n").unwrap();
    let table = table();
    assert!(table.len() >= 20, "{table:?}");
    for words in table.iter().filter(|words| words[0] != "state") {
        if words[0] == "watch" {
            watches(&mesh, words);
            continue;
        }
        let said = succeeds(&mesh, words);
        match words.as_slice() {
            ["series", "plot", ..] => assert!(said.contains('1'), "{said}"),
            ["cache", "get", ..] => assert_eq!(said, "Ada"),
            ["throttle", "take", ..] => assert_eq!(said, "admitted\n"),
            ["throttle", "explain", ..] => assert!(said.starts_with("campaign: 100/1m"), "{said}"),
            ["verify"] => assert!(said.starts_with("converged"), "{said}"),
            _ => {}
        }
    }
    // A saved state is inspected when its node is stopped.
    mesh.process("relay-0-1").signal(Signal::TERM);
    assert_eq!(mesh.process("relay-0-1").code(), 0);
    let state = table.iter().find(|words| words[0] == "state").unwrap();
    let said = succeeds(&mesh, state);
    assert!(said.contains("relay-0-1"), "{said}");
}

/// Checks that a watch prints a change, and continues until it is ended.
fn watches(mesh: &Mesh, words: &[&str]) {
    let mut watch = run(mesh, words);
    let mut watch = Process::start(watch.env("TALLY_AT", "mesh/relay-0-1.sock"));
    eventually("the watch prints a change", SOON, || {
        succeeds(mesh, &["add", "inbound_cidr", "192.0.2.10"]);
        watch.lines.try_recv().map_err(|error| error.to_string())
    });
    watch.signal(Signal::TERM);
    watch.code();
}
