//! One node: a process on a machine of the lab.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Longer than a start takes.
const START: Duration = Duration::from_secs(20);

/// A running node; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a node in a namespace and waits until it serves. Its log is appended to `log`.
    pub(crate) fn start(namespace: &str, config: &Path, log: &Path) -> Self {
        let stderr = File::options().create(true).append(true).open(log).expect("a log can be written");
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, env!("CARGO_BIN_EXE_tally"), "node", "--config"])
            .arg(config)
            .env("TALLY_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the node starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let node = Self { child };
        let (said, says) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = said.send(line);
        });
        let line = says.recv_timeout(START).unwrap_or_default();
        assert!(line.contains(" serving on "), "the node does not serve: {line:?}; {}", tail(log));
        node
    }

    fn pid(&self) -> Pid {
        // `ip netns exec` becomes the node, so this is the process id of the node.
        Pid::from_child(&self.child)
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Stops it, as a machine that hangs.
    pub(crate) fn stop(&self) {
        kill_process(self.pid(), Signal::STOP).expect("it runs");
    }

    /// Continues it.
    pub(crate) fn resume(&self) {
        kill_process(self.pid(), Signal::CONT).expect("it runs");
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its current and its peak memory, in KiB.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let path = PathBuf::from(format!("/proc/{}/status", self.pid()));
        let status = std::fs::read_to_string(&path).expect("it runs");
        let field = |name| {
            let line = status.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("the kernel says how much")
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The warnings and errors of a log, and its end.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let (before, end) = lines.split_at(lines.len().saturating_sub(15));
    let bad = before.iter().filter(|line| ["panicked", "ERROR", "WARN"].iter().any(|word| line.contains(word)));
    bad.take(25).chain(end).map(|line| format!("{line}\n")).collect()
}
