//! A network for each test: one namespace per machine, each connected by a cable to a switch in a further namespace.
//!
//! It changes nothing outside these namespaces, and uses only the addresses of [`address`] and [`relayed`].

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The UDP port of every node.
pub(crate) const PORT: u16 = 4801;

/// The prefix of the names of all namespaces of these tests.
const PREFIX: &str = "tally-net-";

/// Numbers the labs of this process.
static LABS: AtomicU32 = AtomicU32::new(0);

/// The address of a machine.
pub(crate) fn address(machine: usize) -> SocketAddr {
    addressed(machine, 1)
}

/// The address of a machine at the relay, if the lab has one.
pub(crate) fn relayed(machine: usize) -> SocketAddr {
    addressed(machine, 101)
}

fn addressed(machine: usize, base: u8) -> SocketAddr {
    let host = base + u8::try_from(machine).expect("a lab has a few machines");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, host)), PORT)
}

/// Namespaces with the cables between them. They are removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    stem: String,
    machines: usize,
}

impl Lab {
    /// A lab with this number of machines. If it cannot be made, `None`, and a line on stderr says why.
    pub(crate) fn open(test: &str, machines: usize) -> Option<Self> {
        if let Err(why) = possible() {
            // Not by eprintln, which the test runner hides when a test passes.
            let _ = writeln!(std::io::stderr(), "network test \"{test}\" skipped: {why}");
            return None;
        }
        sweep();
        let serial = LABS.fetch_add(1, Ordering::Relaxed);
        let lab = Self { stem: format!("{PREFIX}{}-{serial}", std::process::id()), machines };
        lab.wire();
        Some(lab)
    }

    fn wire(&self) {
        let hub = self.hub();
        ip(&format!("netns add {hub}"));
        for switch in ["near", "far"] {
            ip(&format!("-n {hub} link add name {switch} type bridge"));
            ip(&format!("-n {hub} link set {switch} up"));
        }
        ip(&format!("-n {hub} link set lo up"));
        for machine in 0..self.machines {
            let namespace = self.namespace(machine);
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add name eth0 netns {namespace} type veth peer name port{machine} netns {hub}"));
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", address(machine).ip()));
            ip(&format!("-n {namespace} link set lo up"));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {hub} link set port{machine} master near up"));
            // Makes room for rules that are evaluated before the local table.
            ip(&format!("-n {namespace} rule add pref 10 lookup local"));
            ip(&format!("-n {namespace} rule del pref 0"));
        }
    }

    /// The namespace of the switch.
    pub(crate) fn hub(&self) -> String {
        format!("{}-hub", self.stem)
    }

    /// The namespace of a machine.
    pub(crate) fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.stem)
    }

    /// Plugs the cables of these machines into another switch: they reach only each other.
    pub(crate) fn part(&self, machines: &[usize]) {
        self.plug(machines, "far");
    }

    /// Plugs the cables of these machines back.
    pub(crate) fn join(&self, machines: &[usize]) {
        self.plug(machines, "near");
    }

    fn plug(&self, machines: &[usize], switch: &str) {
        for machine in machines {
            ip(&format!("-n {} link set port{machine} master {switch}", self.hub()));
        }
    }

    /// Everything that `from` sends to `to` is silently lost. The other direction works.
    pub(crate) fn block_direction(&self, to: usize, from: usize) {
        self.rule("add", to, &format!("from {}", address(from).ip()));
    }

    /// `to` receives from `from` again.
    pub(crate) fn open_direction(&self, to: usize, from: usize) {
        self.rule("del", to, &format!("from {}", address(from).ip()));
    }

    /// Everything for the node's UDP port is silently lost, as with a firewall's rule.
    pub(crate) fn block_port(&self, machine: usize) {
        self.rule("add", machine, &format!("ipproto udp dport {PORT}"));
    }

    /// The port is open again.
    pub(crate) fn open_port(&self, machine: usize) {
        self.rule("del", machine, &format!("ipproto udp dport {PORT}"));
    }

    /// A routing rule of the machine for packets from its cable.
    fn rule(&self, verb: &str, machine: usize, selector: &str) {
        ip(&format!("-n {} rule {verb} pref 1 iif eth0 {selector} blackhole", self.namespace(machine)));
    }

    /// Runs `work` in a thread that is on the machine.
    pub(crate) fn on<T: Send + 'static>(
        &self,
        machine: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        within(self.namespace(machine), work)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in (0..self.machines).map(|machine| self.namespace(machine)).chain([self.hub()]) {
            // It does not exist if an earlier step failed.
            let _ = run("ip", &["netns", "del", &namespace]);
        }
    }
}

/// Runs `work` in a thread of its own in a namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let path = format!("/run/netns/{namespace}");
        let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let moved = move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network));
        moved.unwrap_or_else(|error| panic!("cannot enter {namespace}: {error}"));
        work()
    })
}

/// Whether namespaces and cables can be made here.
fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root, to make network namespaces".to_owned());
    }
    let probe = format!("{PREFIX}{}-probe{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
    let made = run("ip", &["netns", "add", &probe])
        .and_then(|_| run("ip", &["-n", &probe, "link", "add", "name", "a", "type", "veth", "peer", "name", "b"]))
        .and_then(|_| run("ip", &["-n", &probe, "link", "add", "name", "c", "type", "bridge"]));
    let _ = run("ip", &["netns", "del", &probe]);
    made.map(|_| ())
        .map_err(|error| format!("it needs iproute2, and a kernel with namespaces, veth and bridges: {error}"))
}

/// Removes the leftovers of killed test runs: their namespaces, and the nodes in them.
fn sweep() {
    let Ok(list) = run("ip", &["netns", "list"]) else { return };
    for namespace in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(run_of) = namespace.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()) else { continue };
        if std::path::Path::new("/proc").join(run_of).exists() {
            continue;
        }
        for pid in run("ip", &["netns", "pids", namespace]).unwrap_or_default().lines() {
            let pid = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw);
            // It may have ended in the meantime.
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        let _ = run("ip", &["netns", "del", namespace]);
    }
}

/// Runs `ip`, which has to succeed.
pub(crate) fn ip(arguments: &str) {
    let words: Vec<&str> = arguments.split_whitespace().collect();
    run("ip", &words).unwrap_or_else(|error| panic!("ip {arguments}: {error}"));
}

/// Runs a command, and returns its output or why it failed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}
