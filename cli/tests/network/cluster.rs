//! Five nodes in a lab, the ground truth, and the comparison of the nodes with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tallymesh_schemas::NodeName;
use tempfile::TempDir;

use crate::admin::Admin;
use crate::lab::{self, Lab};
use crate::process::{Process, tail};
use crate::truth::{Load, OBJECTS, Truth, View};
use crate::wait::{PATIENCE, until};

/// Nodes of every cluster.
pub(crate) const NODES: usize = 5;

/// A further machine without a node, which has a certificate of the cluster as well.
pub(crate) const STRANGER: usize = NODES;

/// How long a dead node's inbound counts stay, in the configuration of the nodes.
pub(crate) const DROP_AFTER: Duration = Duration::from_secs(3);

/// Five nodes.
#[derive(Debug)]
pub(crate) struct Cluster {
    nodes: Vec<Option<Process>>,
    truth: Truth,
    seeds: u64,
    dir: TempDir,
    /// The network. It is dropped after the nodes that run in it.
    pub(crate) lab: Lab,
}

impl Cluster {
    /// Five nodes that reach each other by their own addresses; `None` if no lab can be made.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let lab = Lab::open(test, NODES + 1)?;
        Some(Self::start_in(lab, lab::address))
    }

    /// Five nodes in a lab that reach each other by the addresses given.
    pub(crate) fn start_in(lab: Lab, reached: fn(usize) -> SocketAddr) -> Self {
        let dir = tempfile::tempdir().expect("a folder for the cluster");
        let names: Vec<_> = (0..=NODES).map(|node| name(node).to_string()).collect();
        let mesh = dir.path().join("mesh").display().to_string();
        lab::run(env!("CARGO_BIN_EXE_tally"), &["init", "--dir", &mesh, "--nodes", &names.join(",")])
            .expect("tally init makes the cluster");
        let truth = Truth::new(NODES);
        let mut cluster = Self { nodes: (0..NODES).map(|_| None).collect(), truth, seeds: 0, dir, lab };
        for node in 0..NODES {
            cluster.configure(node, reached);
            cluster.launch(node);
        }
        cluster.all_linked();
        cluster
    }

    /// Replaces the addresses that `tally init` chose, and removes its samples and the data_dir.
    fn configure(&self, node: usize, reached: fn(usize) -> SocketAddr) {
        let path = self.file(node, "hcl");
        let text = std::fs::read_to_string(&path).expect("tally init has written it");
        let seeds: Vec<_> = (0..NODES).filter(|other| *other != node).map(|i| format!("\"{}\"", reached(i))).collect();
        let (own, _) = text.split_once("\n# Samples").expect("tally init writes samples");
        let lines = own.lines().map(|line| match line.split_whitespace().next() {
            Some("listen") => {
                format!("listen = \"{}\"\nadvertise = \"{}\"", lab::address(node), reached(node))
            }
            Some("data_dir") => String::new(),
            Some("seeds") => format!("seeds = [{}]", seeds.join(", ")),
            Some("Replicate") if line.contains("inbound_cidr") => {
                format!("Replicate \"inbound_cidr\" {{ on_dead = \"drop {}s\" }}", DROP_AFTER.as_secs())
            }
            _ => line.to_owned(),
        });
        std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("it can be written");
    }

    /// A file of a node, by its ending.
    pub(crate) fn file(&self, node: usize, ending: &str) -> PathBuf {
        self.dir.path().join("mesh").join(format!("{}.{ending}", name(node)))
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.dir.path().join("mesh/ca.pem")
    }

    /// Starts a node, as a new run.
    pub(crate) fn launch(&mut self, node: usize) {
        self.truth.begin(node);
        let namespace = self.lab.namespace(node);
        self.nodes[node] = Some(Process::start(&namespace, &self.file(node, "hcl"), &self.file(node, "log")));
    }

    /// The process of a node.
    pub(crate) fn process(&self, node: usize) -> &Process {
        self.nodes[node].as_ref().expect("the node runs")
    }

    /// Kills a node.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].take().expect("the node runs").kill();
    }

    /// A connection to a node's admin socket.
    pub(crate) fn admin(&self, node: usize) -> Admin {
        Admin::connect(&self.file(node, "sock")).unwrap_or_else(|error| panic!("{}: {error}", name(node)))
    }

    /// Adds to a key on a node.
    pub(crate) fn add(&self, node: usize, object: &'static str, key: &str, n: i64) {
        let lines = [(key.to_owned(), n)];
        self.admin(node).load(object, &lines).expect("the node answers");
        self.truth.note(node, object, &lines);
    }

    /// The total of a key as a node sees it.
    pub(crate) fn total(&self, node: usize, object: &str, key: &str) -> i64 {
        self.admin(node).count(object, key).expect("the node answers").total
    }

    /// Begins to count on these nodes.
    pub(crate) fn load(&mut self, nodes: impl IntoIterator<Item = usize>) -> Vec<Load> {
        let loads = nodes.into_iter().map(|node| {
            self.seeds += 1;
            Load::begin(&self.truth, node, self.file(node, "sock"), self.seeds)
        });
        loads.collect()
    }

    /// The other nodes that are linked and alive in a node's view.
    pub(crate) fn linked(&self, node: usize) -> Vec<usize> {
        let members = self.admin(node).members().expect("the node answers");
        let alive = |name: &NodeName| members.iter().any(|m| m.node == *name && m.linked && m.state == "alive");
        (0..NODES).filter(|other| alive(&name(*other))).collect()
    }

    /// The state of a node in the view of another one.
    pub(crate) fn state(&self, node: usize, of: usize) -> String {
        let members = self.admin(node).members().expect("the node answers");
        members.into_iter().find(|member| member.node == name(of)).map_or("unknown".to_owned(), |member| member.state)
    }

    /// Waits until every node has a live link to every other one, and returns how long that took.
    pub(crate) fn all_linked(&self) -> Duration {
        until("all nodes are linked", PATIENCE, || {
            for node in 0..NODES {
                let linked = self.linked(node);
                if linked.len() < NODES - 1 {
                    return Err(format!("{} has live links to {linked:?} only", name(node)));
                }
            }
            Ok(())
        })
        .1
    }

    /// A node's view of an object: the cluster's counts or those of one node.
    pub(crate) fn view(&self, node: usize, object: &str, from: Option<usize>) -> Result<View, String> {
        let view = self.admin(node).view(object, from.map(name).as_ref());
        view.map(|view| view.into_iter().collect()).map_err(|error| format!("{}, {object}: {error}", name(node)))
    }

    /// Checks that a node's view of an object is exactly what these nodes have counted.
    pub(crate) fn shows(&self, node: usize, object: &str, counted: &[usize]) -> Result<(), String> {
        let truth = self.truth.view(counted.iter().copied(), object);
        same(&self.view(node, object, None)?, &truth).map_err(|lack| format!("{}, {object}: {lack}", name(node)))
    }

    /// Waits until every node's view of every object is exact, and returns how long that took.
    fn shown(&self) -> Duration {
        let all: Vec<_> = (0..NODES).collect();
        let look =
            || all.iter().try_for_each(|node| OBJECTS.iter().try_for_each(|object| self.shows(*node, object, &all)));
        until("every node shows what was counted", PATIENCE, look).1
    }

    /// Like [`Cluster::shown`]. Then checks that every node's view of each node is exact, and that `tally verify` reports
    /// convergence on every node.
    pub(crate) fn exact(&self) -> Duration {
        let all: Vec<_> = (0..NODES).collect();
        let took = self.shown();
        for (node, from) in all.iter().flat_map(|node| all.iter().map(move |from| (*node, *from))) {
            for object in OBJECTS {
                let view = self.view(node, object, Some(from)).expect("the node answers");
                let counted = same(&view, &self.truth.view([from], object));
                counted.unwrap_or_else(|lack| panic!("{}, {object} from {}: {lack}", name(node), name(from)));
            }
        }
        self.verify();
        took
    }

    /// Checks that `tally verify` reports convergence on every node.
    fn verify(&self) {
        for node in 0..NODES {
            let said = self.tally(node, &["verify", "--patience", "20"]).expect("the nodes have converged");
            assert!(said.starts_with("converged: "), "{said}");
        }
    }

    /// The answer of a node to a `tally` command.
    pub(crate) fn tally(&self, node: usize, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(env!("CARGO_BIN_EXE_tally"))
            .arg("--at")
            .arg(self.file(node, "sock"))
            .args(arguments)
            .env("NO_COLOR", "1")
            .output()
            .expect("tally runs");
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        if output.status.success() { Ok(stdout) } else { Err(format!("{}: {stdout}{stderr}", output.status)) }
    }

    /// The named figures of `tally cluster info`.
    pub(crate) fn counter(&self, node: usize, counter: &str) -> u64 {
        let said = self.tally(node, &["--output", "json", "cluster", "info"]).expect("the node answers");
        let info: serde_json::Value = serde_json::from_str(&said).expect("the answer is JSON");
        info["counters"][counter].as_u64().unwrap_or_else(|| panic!("no counter {counter} in {said}"))
    }

    /// Checks that every node runs and none has panicked. Returns the peak memory of the largest one, in MiB.
    pub(crate) fn sound(&mut self) -> u64 {
        for node in 0..NODES {
            let log = self.file(node, "log");
            let runs = self.nodes[node].as_mut().is_some_and(Process::is_running);
            assert!(runs, "{} has ended by itself: {}", name(node), tail(&log));
            let text = std::fs::read_to_string(&log).expect("it has a log");
            assert!(!text.contains("panicked"), "{} panicked: {}", name(node), tail(&log));
        }
        let peaks = (0..NODES).map(|node| self.process(node).memory().1 >> 10);
        peaks.max().unwrap_or(0)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 0..NODES {
                println!("--- {}\n{}", name(node), tail(&self.file(node, "log")));
            }
        }
    }
}

/// The name of a machine.
pub(crate) fn name(machine: usize) -> NodeName {
    let name = if machine == STRANGER { "stranger".to_owned() } else { format!("node-{machine}") };
    NodeName::new(&name).expect("it is a node's name")
}

/// Reports the first difference between two views.
fn same(view: &View, truth: &View) -> Result<(), String> {
    let keys = truth.keys().chain(view.keys());
    let differs = keys.filter(|key| view.get(*key) != truth.get(*key)).min();
    let Some(key) = differs else { return Ok(()) };
    let (shown, counted) = (view.get(key).copied().unwrap_or(0), truth.get(key).copied().unwrap_or(0));
    Err(format!("{key} is {shown} and was counted {counted}"))
}
