//! The process of a node: signals, service manager, log and exit code.

use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::support::{Mesh, SOON, eventually};

/// The service manager's end of the notification socket.
struct Manager(UnixDatagram);

impl Manager {
    fn new(mesh: &Mesh) -> Self {
        let socket = UnixDatagram::bind(mesh.path("notify")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self(socket)
    }

    /// The next message that is no keep-alive.
    #[track_caller]
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    #[track_caller]
    fn any(&self) -> String {
        let mut message = [0; 256];
        let len = self.0.recv(&mut message).expect("the node notifies its manager");
        String::from_utf8(message[..len].to_vec()).unwrap()
    }
}

/// A node under a service manager.
fn managed(mesh: &Mesh, name: &str) -> Command {
    let mut node = mesh.node(name);
    node.env("NOTIFY_SOCKET", mesh.path("notify")).env("WATCHDOG_USEC", "100000");
    node
}

#[test]
fn signals_without_a_meaning_do_not_end_a_node_and_quit_leaves() {
    let mut mesh = Mesh::running(&["relay-0-1"]);
    let sent = [
        (Signal::HUP, "the configuration is reloaded"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::ALARM, "ALRM"),
        (Signal::PIPE, "PIPE"),
        (Signal::VTALARM, "VTALRM"),
        (Signal::XFSZ, "XFSZ"),
    ];
    for (signal, logged) in sent {
        mesh.process("relay-0-1").signal(signal);
        mesh.logs("relay-0-1", logged);
    }
    mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
    mesh.process("relay-0-1").signal(Signal::QUIT);
    assert_eq!(mesh.process("relay-0-1").code(), 0);
    assert!(mesh.log("relay-0-1").contains(": left"), "{}", mesh.log("relay-0-1"));
}

#[test]
fn a_node_notifies_its_service_manager() {
    let mut mesh = Mesh::new(&["relay-0-1", "relay-0-2"]);
    let manager = Manager::new(&mesh);
    mesh.start("relay-0-1", &[]);
    let node = mesh.serving("relay-0-2", &mut managed(&mesh, "relay-0-2"));
    assert_eq!(manager.next(), "READY=1");
    // It is ready when it has joined, and not before.
    assert_eq!(mesh.sees("relay-0-2", "relay-0-1").get(5).map(String::as_str), Some("true"));
    while manager.any() != "WATCHDOG=1" {}
    node.signal(Signal::HUP);
    let reloading = manager.next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.next(), "READY=1");
    node.signal(Signal::TERM);
    assert_eq!(manager.next(), "STOPPING=1");
}

#[test]
fn a_node_that_reaches_no_seed_is_ready_and_reports_that_it_is_alone() {
    let mut mesh = Mesh::new(&["relay-0-1", "relay-0-2"]);
    let manager = Manager::new(&mesh);
    let _node = mesh.serving("relay-0-1", &mut managed(&mesh, "relay-0-1"));
    let count = ["count", "inbound_cidr", "192.0.2.7"];
    assert_eq!(manager.next(), "READY=1");
    mesh.logs("relay-0-1", "this node has not joined its cluster");
    let log = mesh.log("relay-0-1");
    let warning = log.lines().find(|line| line.contains("has not joined")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("tried=\"127."), "{warning}");
    let said = mesh.ask("relay-0-1", &count);
    assert!(said.stderr.contains("warning: the node has no link to another node"), "{said:?}");
    assert_eq!(mesh.count("relay-0-1", "inbound_cidr", "192.0.2.7")["alone"], true);
    let verified = mesh.ask("relay-0-1", &["verify"]);
    assert_eq!(verified.code, Some(5), "{verified:?}");
    assert!(
        verified.stdout.starts_with("not compared:") && verified.stdout.contains("seeds do not answer"),
        "{verified:?}"
    );

    // The warnings end when it has joined.
    mesh.start("relay-0-2", &[]);
    eventually("the node has joined", SOON, || match mesh.ask("relay-0-1", &count) {
        said if said.stderr.is_empty() => Ok(()),
        said => Err(said.stderr),
    });
    assert_eq!(mesh.count("relay-0-1", "inbound_cidr", "192.0.2.7").get("alone"), None);
}

#[test]
fn a_reader_that_stalls_stderr_does_not_stop_the_node() {
    let mut mesh = Mesh::new(&["relay-0-1", "relay-0-2"]);
    mesh.start("relay-0-1", &[]);
    let mut node = mesh.node("relay-0-2");
    node.env("TALLY_LOG", "trace").stderr(Stdio::piped());
    let mut node = mesh.serving("relay-0-2", &mut node);
    let stderr = node.child.stderr.take().unwrap();
    // A page of slack: the kernel takes no line that does not fit completely.
    eventually("the pipe is full", SOON, || match rustix::io::ioctl_fionread(stderr.as_fd()).unwrap() {
        full if full > 60 << 10 => Ok(()),
        bytes => Err(bytes.to_string()),
    });
    for key in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        mesh.ask("relay-0-2", &["add", "inbound_cidr", key]).ok();
        mesh.counts("relay-0-1", "inbound_cidr", key, 1, SOON);
    }
    node.signal(Signal::TERM);
    assert_eq!(node.code(), 0);
    drop(stderr);
}

#[test]
fn a_reader_that_closes_stderr_does_not_end_the_node() {
    let mesh = Mesh::new(&["relay-0-1"]);
    let mut node = mesh.node("relay-0-1");
    let mut node = mesh.serving("relay-0-1", node.env("TALLY_LOG", "debug").stderr(Stdio::piped()));
    drop(node.child.stderr.take());
    for _ in 0..3 {
        mesh.ask("relay-0-1", &["cluster", "nodename"]).ok();
    }
    node.signal(Signal::TERM);
    assert_eq!(node.code(), 0);
}

#[test]
fn a_second_signal_ends_a_node_that_waits_for_others() {
    let mut mesh = Mesh::running(&["relay-0-1", "relay-0-2"]);
    // The stopped node acknowledges nothing, so that leaving takes as long as it may.
    mesh.process("relay-0-2").signal(Signal::STOP);
    mesh.ask("relay-0-1", &["add", "inbound_cidr", "192.0.2.7"]).ok();
    mesh.process("relay-0-1").signal(Signal::TERM);
    mesh.logs("relay-0-1", "leaving; a second signal");
    mesh.process("relay-0-1").signal(Signal::INT);
    assert_eq!(mesh.process("relay-0-1").code(), 4);
}

#[test]
fn a_node_raises_its_soft_limit_of_open_files() {
    let mesh = Mesh::new(&["relay-0-1"]);
    let node = mesh.node("relay-0-1");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 64; exec \"$@\"", "sh"]).arg(node.get_program()).args(node.get_args());
    let node = mesh.serving("relay-0-1", &mut limited);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    assert_eq!(fields[3], fields[4], "{line}");
}
