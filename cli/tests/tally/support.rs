//! Clusters of processes, with a folder and free ports of their own, and functions that wait for conditions.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

/// How long a short operation may take.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// How long the death of a node and its consequences may take.
pub(crate) const DEATH: Duration = Duration::from_secs(40);

/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(25);

/// The exit code and the output of a command.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Stdout of a command that had to succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// Stderr of a command that had to end with `code`.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stderr
    }
}

/// The command, without the environment variables that it reads.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tally"));
    for variable in ["TALLY_AT", "TALLY_LOG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the command to its end.
pub(crate) fn tally(arguments: &[&str]) -> Ended {
    ended(command().args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// Runs the command with `input` on stdin.
pub(crate) fn tally_with(arguments: &[&str], input: &[u8]) -> Ended {
    let mut child =
        command().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A command may close its stdin early. That is no error here.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    ended(output)
}

fn ended(output: std::process::Output) -> Ended {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Waits until `look` succeeds. When the time is over, the panic names its last error.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > patience => panic!("not within {patience:?}: {what}; at last:\n{last}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// A process that is killed when the test ends, also when the test fails.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) lines: Receiver<String>,
    /// Its first line, if the test waited for it.
    pub(crate) said: String,
}

impl Process {
    /// Starts a command, its stdout read line by line.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: String::new() }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end, and gives the exit code, or 128 and the signal.
    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = eventually("the process ends", SOON, || match self.child.try_wait().unwrap() {
            Some(status) => Ok(status),
            None => Err("it runs".to_owned()),
        });
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that no other test uses. The system gives its ports to nobody who asks for any free port, so a node that
/// restarts finds its port free.
#[derive(Debug)]
struct Host {
    address: Ipv4Addr,
    /// Tells other tests that the address is taken.
    _taken: UdpSocket,
}

impl Host {
    fn take() -> Self {
        let first = std::process::id() << 6;
        let take = |number: u32| {
            let [_, a, b, c] = (first.wrapping_add(number) | 1).to_be_bytes();
            let address = Ipv4Addr::new(127, a, b, c);
            let taken = UdpSocket::bind((address, TAKEN)).ok()?;
            Some(Self { address, _taken: taken })
        };
        // 127.0.0.0/16 is left to others.
        let free = (0..1 << 20).filter(|number| (first.wrapping_add(*number) >> 16) & 0xff != 0);
        free.into_iter().find_map(take).expect("a loopback address is free")
    }
}

/// The port whose use means that an address is taken. It is none that the system gives to those who ask for any.
const TAKEN: u16 = 4800;

/// A cluster in a folder and on a loopback address of its own, made by `tally init`.
pub(crate) struct Mesh {
    dir: TempDir,
    host: Host,
    nodes: Vec<(String, Option<Process>)>,
}

impl Mesh {
    /// Makes the cluster, without the samples and the data_dir that `tally init` writes: each test adds what it is about.
    /// Nothing runs yet.
    pub(crate) fn new(names: &[&str]) -> Self {
        let mesh = Self::made_by(names, |mesh| {
            let folder = mesh.path("mesh");
            tally(&["init", "--dir", folder.to_str().unwrap(), "--nodes", &names.join(",")]).ok();
        });
        for name in names {
            mesh.edit(name, |text| {
                let (own, _) = text.split_once("\n# Samples").expect("init writes samples");
                own.replacen("  data_dir = ", "  # data_dir = ", 1)
            });
        }
        mesh
    }

    /// The cluster as `init` makes it in the folder `mesh` of the test's own folder, moved to an address of its own. Nothing runs
    /// yet.
    pub(crate) fn made_by(names: &[&str], init: impl FnOnce(&Self)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mesh =
            Self { dir, host: Host::take(), nodes: names.iter().map(|name| ((*name).to_owned(), None)).collect() };
        init(&mesh);
        for name in names {
            mesh.edit(name, |text| text.replace("\"127.0.0.1:48", &format!("\"{}:48", mesh.host.address)));
        }
        mesh
    }

    /// An address of this cluster that no node of it uses.
    pub(crate) fn spare(&self) -> SocketAddr {
        (self.host.address, 4999).into()
    }

    /// Makes the cluster and starts all of it.
    pub(crate) fn running(names: &[&str]) -> Self {
        let mut mesh = Self::new(names);
        for name in names {
            mesh.start(name, &[]);
        }
        mesh.wait_for_links();
        mesh
    }

    /// A path in the test's own folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, suffix: &str) -> PathBuf {
        self.path("mesh").join(format!("{name}.{suffix}"))
    }

    /// Changes a node's configuration.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.file(name, "hcl");
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    }

    /// Starts a node and waits until it serves.
    #[track_caller]
    pub(crate) fn start(&mut self, name: &str, arguments: &[&str]) {
        let mut node = self.node(name);
        node.args(arguments);
        let process = self.serving(name, &mut node);
        let text = fs::read_to_string(self.file(name, "hcl")).unwrap();
        let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen = \"")).unwrap();
        let (listen, admin) = (listen.trim_end_matches('"'), self.file(name, "sock"));
        assert_eq!(process.said, format!("{name} serving on {listen}, admin {}", admin.display()));
        self.nodes.iter_mut().find(|node| node.0 == name).unwrap().1 = Some(process);
    }

    /// The command that runs a node; it logs to the node's file.
    pub(crate) fn node(&self, name: &str) -> Command {
        let log = File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut node = command();
        node.args(["node", "--config", self.file(name, "hcl").to_str().unwrap()]).stderr(log);
        node
    }

    /// Starts the command that runs a node, and waits until the node serves.
    #[track_caller]
    pub(crate) fn serving(&self, name: &str, node: &mut Command) -> Process {
        let mut process = Process::start(node);
        let Ok(line) = process.lines.recv_timeout(SOON) else { panic!("{name} does not serve:\n{}", self.log(name)) };
        process.said = line;
        process
    }

    /// The log of a node so far.
    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("{name}.log"))).unwrap()
    }

    /// Waits until a node has logged a text.
    #[track_caller]
    pub(crate) fn logs(&self, name: &str, text: &str) {
        eventually(&format!("{name} logs {text:?}"), SOON, || {
            let log = self.log(name);
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// The running process of a node.
    #[track_caller]
    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        self.nodes.iter_mut().find(|node| node.0 == name).unwrap().1.as_mut().unwrap()
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, name: &str) {
        self.nodes.iter_mut().find(|node| node.0 == name).unwrap().1 = None;
    }

    /// Asks a node.
    pub(crate) fn ask(&self, name: &str, arguments: &[&str]) -> Ended {
        tally(&[&["--at", self.file(name, "sock").to_str().unwrap()], arguments].concat())
    }

    /// Asks a node, with `input` on stdin.
    pub(crate) fn feed(&self, name: &str, arguments: &[&str], input: &str) -> Ended {
        tally_with(&[&["--at", self.file(name, "sock").to_str().unwrap()], arguments].concat(), input.as_bytes())
    }

    /// A command that asks a node, to be started by the test.
    pub(crate) fn asking(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = command();
        command.arg("--at").arg(self.file(name, "sock")).args(arguments);
        command
    }

    /// Waits until a node gives exactly this answer.
    #[track_caller]
    pub(crate) fn answers(&self, name: &str, arguments: &[&str], expected: &str) {
        eventually(&format!("{name} answers {arguments:?} with\n{expected}"), SOON, || {
            let said = self.ask(name, arguments);
            if said.code == Some(0) && said.stdout == expected { Ok(()) } else { Err(format!("{said:?}")) }
        });
    }

    /// The count of a key on a node, as JSON.
    #[track_caller]
    pub(crate) fn count(&self, name: &str, object: &str, key: &str) -> serde_json::Value {
        let text = self.ask(name, &["--output", "json", "count", object, key]).ok();
        serde_json::from_str(&text).unwrap()
    }

    /// The cluster's count of a key, in the view of a node.
    #[track_caller]
    pub(crate) fn total(&self, name: &str, object: &str, key: &str) -> i64 {
        self.count(name, object, key)["total"].as_i64().unwrap()
    }

    /// Waits until a node's view of the cluster's count is `total`.
    #[track_caller]
    pub(crate) fn counts(&self, name: &str, object: &str, key: &str, total: i64, patience: Duration) {
        eventually(&format!("{name} counts {total} for {key} in {object}"), patience, || {
            let count = self.count(name, object, key);
            if count["total"] == total { Ok(()) } else { Err(count.to_string()) }
        });
    }

    /// A node's view of another one: its line of `membership` as fields.
    #[track_caller]
    pub(crate) fn sees(&self, name: &str, other: &str) -> Vec<String> {
        let members = self.ask(name, &["--output", "csv", "cluster", "membership"]).ok();
        let line = members.lines().find(|line| line.starts_with(&format!("{other},")));
        line.map(|line| line.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The UDP address that a node listens on.
    #[track_caller]
    pub(crate) fn listens(&self, name: &str) -> SocketAddr {
        let text = fs::read_to_string(self.file(name, "hcl")).unwrap();
        let listen = text.lines().find_map(|line| line.trim().strip_prefix("listen = \"")).unwrap();
        listen.trim_end_matches('"').parse().unwrap()
    }

    /// One of the counters of `cluster info`.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str, counter: &str) -> u64 {
        let info = self.ask(name, &["--output", "json", "cluster", "info"]).ok();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["counters"][counter].as_u64().unwrap_or_else(|| panic!("no {counter} in {info}"))
    }

    /// Waits until every running node has a link to every other one.
    #[track_caller]
    pub(crate) fn wait_for_links(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.1.is_some()).map(|node| node.0.as_str()).collect();
        for name in &running {
            for other in running.iter().filter(|other| *other != name) {
                eventually(&format!("{name} is linked to {other}"), SOON, || {
                    let seen = self.sees(name, other);
                    let linked = seen.get(4).is_some_and(|s| s == "alive") && seen.get(5).is_some_and(|s| s == "true");
                    if linked { Ok(()) } else { Err(format!("{seen:?}")) }
                });
            }
        }
    }
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
