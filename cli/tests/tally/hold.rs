//! `tally hold`: what happens to the command when its node or tally ends, and which signals reach it.

use std::process::Stdio;

use rustix::process::{Pid, Signal};

use crate::support::{DEATH, Mesh, Process, SOON, eventually};

const KEY: [&str; 2] = ["outbound_domains", "example.com"];

/// Holds on a node while a shell runs a script.
fn hold(mesh: &Mesh, node: &str, options: &[&str], script: &str) -> Process {
    let mut command = mesh.asking(node, &["hold"]);
    command.args(KEY).args(options).args(["--", "sh", "-c", script]);
    Process::start(command.stdin(Stdio::piped()))
}

#[test]
fn a_hold_survives_its_nodes_restart() {
    let mut mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    let counts = |mesh: &Mesh, total| mesh.counts("relay-0-2", KEY[0], KEY[1], total, DEATH);
    // The limit applies at the beginning only: a running command is counted again without it.
    let mut held = hold(&mesh, "relay-0-1", &["--limit", "1"], "read x; exit 7");
    counts(&mesh, 1);
    mesh.process("relay-0-1").signal(Signal::TERM);
    assert_eq!(mesh.process("relay-0-1").code(), 0);
    counts(&mesh, 0);
    let other = hold(&mesh, "relay-0-2", &[], "read x");
    counts(&mesh, 1);
    mesh.start("relay-0-1", &[]);
    counts(&mesh, 2);
    // Also after the node was killed.
    mesh.kill("relay-0-1");
    mesh.start("relay-0-1", &[]);
    mesh.counts("relay-0-1", KEY[0], KEY[1], 2, DEATH);
    counts(&mesh, 2);
    drop(held.child.stdin.take());
    assert_eq!(held.code(), 7);
    counts(&mesh, 1);
    drop(other);
}

#[test]
fn a_command_may_end_with_its_hold() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let mut held = hold(&mesh, "relay-0-1", &["--on-lost", "kill"], "echo ready; read x");
    assert_eq!(held.lines.recv_timeout(SOON).unwrap(), "ready");
    mesh.process("relay-0-1").signal(Signal::TERM);
    assert_eq!(held.code(), 143);
}

#[test]
fn a_command_ends_with_tally() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let held = hold(&mesh, "relay-0-1", &[], "echo $$; read x; read y");
    let pid: i32 = held.lines.recv_timeout(SOON).unwrap().parse().unwrap();
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat().contains("(sh)"), "{}", stat());
    held.signal(Signal::KILL);
    let died = std::panic::catch_unwind(|| {
        eventually("the command is dead", SOON, || match stat() {
            // Gone, or dead and not collected yet.
            stat if stat.is_empty() || stat.contains(") Z ") => Ok(()),
            stat => Err(stat),
        });
    });
    if died.is_err() {
        let _ = rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
    assert!(died.is_ok(), "the command outlives tally");
    mesh.counts("relay-0-1", KEY[0], KEY[1], 0, SOON);
}

#[test]
fn signals_reach_the_command() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let script = "for name in HUP INT QUIT USR1 USR2 ALRM WINCH URG; do trap \"echo $name\" $name; done
        trap 'echo TERM; exit 3' TERM
        echo ready
        while :; do sleep 0.02; done";
    let mut held = hold(&mesh, "relay-0-1", &[], script);
    assert_eq!(held.lines.recv_timeout(SOON).unwrap(), "ready");
    let sent = [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::WINCH, "WINCH"),
        (Signal::URG, "URG"),
        (Signal::TERM, "TERM"),
    ];
    for (signal, name) in sent {
        held.signal(signal);
        assert_eq!(held.lines.recv_timeout(SOON).as_deref(), Ok(name));
    }
    assert_eq!(held.code(), 3);
}

#[test]
fn a_hold_without_room_ends_with_the_chosen_exit_code() {
    let mesh = Mesh::running(&["relay-0-1"]);
    let arguments = ["hold", KEY[0], KEY[1], "--limit", "0", "--conflict-exit-code", "75", "--", "true"];
    let no = mesh.ask("relay-0-1", &arguments).fails(75);
    assert!(no.contains("no room: 0 are counted and 0 are allowed"), "{no}");
}
