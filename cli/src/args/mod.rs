//! The command line: what may be said, and the help that teaches it.

mod caches;
mod cluster;
mod counts;
mod from_node;
mod hold;
mod local;
mod permits;
mod series;
mod setup;
mod state;
#[cfg(test)]
mod taught;
mod throttle;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub(crate) use crate::args::caches::{Cache, CacheKey, CacheSet, Gauge, GaugeKey};
pub(crate) use crate::args::cluster::{Cluster, Shared};
pub(crate) use crate::args::counts::{Add, Count, Load, Watch};
pub(crate) use crate::args::from_node::{FromNode, node_name};
pub(crate) use crate::args::hold::{Guarded, Hold, OnLost};
pub(crate) use crate::args::local::{Bench, Demo};
pub(crate) use crate::args::permits::Permits;
pub(crate) use crate::args::series::{
    AuditAdd, AuditCount, AuditKey, InboundAudit, Series, SeriesCount, SeriesName, ShowAudit,
};
pub(crate) use crate::args::setup::{Config, Init, Node};
pub(crate) use crate::args::state::State;
pub(crate) use crate::args::throttle::{Throttle, ThrottleName, ThrottleTake};
use crate::maelstrom::Workload;
use crate::output::Format;

/// Counts across a cluster without a server in the middle
///
/// Every node counts what it sees itself; the nodes exchange their counts; what the cluster as a whole has counted is
/// computed when it is read, on any node. `tally` makes a cluster, runs its nodes, and asks them.
///
/// Exit codes: 0 done; 1 the answer is no; 2 bad usage or input; 3 the node cannot be reached or cannot do its work; 4 a node
/// ended before it had left, because a second signal or the deadline of 20 s ended it; 5 not everything could be compared in
/// time.
/// `tally hold` ends with the exit code of the command that it runs.
#[derive(Debug, Parser)]
#[command(
    name = "tally",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  tally demo                                          see a cluster count, break and heal
  tally init --dir mesh --nodes relay-0-1,relay-0-2   make a cluster
  tally node --config mesh/relay-0-1.hcl              run a node of it
  tally --at mesh/relay-0-1.sock shared show inbound_cidr
  tally help hold                                     more about a command, as tally hold --help

Words in capitals stand for your own: OBJECT is the name of a replicated object, as `tally shared list` lists them; KEY is what is
counted in it, an address, a domain or a name; NODE is the name of a node; N is a whole number.
Arguments come in one order: the object, the key, and then what is to be done with it. The examples use the samples that `tally
init` writes into the configuration of a node: logins, sessions, retries and campaign."
)]
pub(crate) struct Cli {
    /// What every command that asks a node takes.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The admin socket of the node to ask
    ///
    /// The path of the Unix socket that `admin` names in the node's configuration. Its file mode is 0600: only the node's
    /// own user may ask.
    #[arg(long, global = true, value_name = "SOCKET", env = "TALLY_AT")]
    pub(crate) at: Option<PathBuf>,
    /// How the answer is written
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Seconds to wait for each part of an answer
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster: its authority, and certificate, key and configuration of each node
    ///
    /// Writes into DIR an authority of its own (ca.pem, ca.key), and for each node a certificate (NODE.pem), a key
    /// (NODE.key) and a configuration (NODE.hcl). The configuration has all classes of objects, samples of a series, a cache, a
    /// gauge cache and a throttle, and a folder for what outlives a run (NODE.state). Keys have file mode 0600.
    /// The first node listens on the base port, the next on the port after it, and so on; each has all others as seeds.
    ///
    /// Nothing that exists is overwritten: when a file is in the way, nothing is written at all.
    ///
    /// With --add, the authority in DIR makes further nodes of its cluster. Whoever has ca.key can make nodes: keep it
    /// away from the machines that run them.
    #[command(after_help = "\
Examples:
  tally init --dir mesh --nodes relay-0-1,relay-0-2,relay-0-3
  tally init --dir mesh --add relay-0-4")]
    Init(Init),
    /// Run a node, in the foreground
    ///
    /// Prints one line on stdout once it serves; what happens goes to stderr. Ctrl-C, SIGTERM and SIGQUIT make it leave: it
    /// sets its counts to zero at the others and says goodbye. A second one ends it at once, with exit code 4. SIGHUP reloads;
    /// there is nothing to reload yet. A service manager that sets NOTIFY_SOCKET is told when the node is ready.
    #[command(after_help = "\
Examples:
  tally node --config mesh/relay-0-1.hcl
  tally node --config mesh/relay-0-1.hcl --log tallymesh=debug")]
    Node(Node),
    /// Check a configuration
    #[command(subcommand, after_help = "Example:\n  tally config check mesh/relay-0-1.hcl")]
    Config(Config),
    /// Ask a node about its cluster, as on Momentum's console
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally cluster membership
  tally cluster shared show inbound_cidr from relay-0-1"
    )]
    Cluster(Cluster),
    /// List and show the replicated objects: `cluster shared` for short
    #[command(subcommand, after_help = "Example:\n  tally shared show outbound_domains")]
    Shared(Shared),
    /// Add to what a node counts
    ///
    /// Adds N to the node's own part of a key. Without -- a negative N is understood as well.
    #[command(after_help = "\
Examples:
  tally add inbound_cidr 192.0.2.7
  tally add outbound_domains example.com -2")]
    Add(Add),
    /// Show the count of a key, or under an address block
    ///
    /// Shows what the whole cluster counts, what the asked node counts itself, how many nodes count, and how long ago the
    /// stalest of them was last known to be up to date.
    #[command(after_help = "\
Examples:
  tally count inbound_cidr 192.0.2.0/24
  tally count outbound_domains example.com from relay-0-2
  tally --output json count inbound_cidr 192.0.2.7")]
    Count(Count),
    /// Add many keys from a file or from stdin
    ///
    /// Each line is a key and, after a blank, how much (1 unless it is said; may be negative). Empty lines and lines that
    /// begin with # are passed over. With --format, load reads access logs, HAProxy's tables, and what --output csv writes.
    /// A bad line ends the loading with its number; what stands before it has been counted.
    #[command(after_help = "\
Examples:
  tally load inbound_cidr addresses.txt
  zcat addresses.gz | tally load inbound_cidr --skip-bad
  tally load inbound_cidr --format log access.log
  echo 'show table per_ip' | socat - /run/haproxy.sock | tally load inbound_cidr --format haproxy
  tally --output csv shared show inbound_cidr | tally load further_cidr")]
    Load(Load),
    /// Count one while a command runs, like flock
    ///
    /// The count is let go when COMMAND ends. With --limit, COMMAND runs only if the cluster has room for it, as far as the
    /// asked node knows; otherwise tally ends with 1, or with the --conflict-exit-code. All signals are passed on to COMMAND.
    /// Ends with COMMAND's exit code, or with 128 and the number of the signal that ended it.
    ///
    /// When the node goes, COMMAND goes on, and tally tries until the node is back and holds again. This second hold has no
    /// limit, since COMMAND runs already. With --on-lost kill, COMMAND is told to end instead (SIGTERM, and SIGKILL after 10
    /// seconds). When tally itself is killed, the count is let go, and on Linux COMMAND is killed too; a process that COMMAND
    /// has started itself is not.
    ///
    /// In an object of addresses the key is an address. It is counted once, and --limit may be given several times: N limits
    /// the address, and /MASK=N limits the block around it that has MASK bits. Masks of up to 32 bits concern IPv4 addresses
    /// and longer ones IPv6 addresses; ipv6/32=N names a short IPv6 mask.
    #[command(after_help = "\
Examples:
  tally hold outbound_domains example.com -- ./deliver.sh
  tally hold outbound_domains example.com --limit 20 -- ./deliver.sh
  tally hold outbound_domains example.com --limit 20 -E 75 --on-lost kill -- ./deliver.sh
  tally hold inbound_cidr 192.0.2.7 --limit 10 --limit /24=30 -- ./serve.sh")]
    Hold(Hold),
    /// Become the command of `tally hold`; not for people
    #[command(hide = true)]
    Guarded(Guarded),
    /// Compare what all nodes hold
    ///
    /// Asks every member for fingerprints of all rows, and compares each copy with what its owner has. Copies that lag are
    /// given the patience to catch up. Ends with 1 if a copy differs or still lags, if a member is dead, does not answer or
    /// has no link to this node, or if this node does not hold something because a bound is reached. Ends with 5 if nothing
    /// is known to be wrong and not everything could be compared in time.
    #[command(after_help = "Example:\n  tally verify --patience 10")]
    Verify(Verify),
    /// Tell of every key whose count changes
    ///
    /// Prints a line for each changed key with its count, until Ctrl-C. A key that changes faster than it can be told is
    /// told less often.
    #[command(after_help = "Example:\n  tally watch inbound_cidr")]
    Watch(Watch),
    /// Look into the audit of addresses, as on Momentum's console
    ///
    /// The audit counts connections, receptions and other events by address, in windows of time; window 0 is the current
    /// one. `inbound_audit` and `Replicate "metrics"` in the configuration say what is audited, and in which windows.
    #[command(
        subcommand,
        name = "inbound_audit",
        visible_alias = "audit",
        after_help = "\
Examples:
  tally inbound_audit add 192.0.2.7 connect 300,6
  tally inbound_audit show ip 192.0.2.0/24
  tally inbound_audit count_cidr 192.0.2.7 reception 300,6 0 5
  tally inbound_audit show all > audit.csv"
    )]
    InboundAudit(InboundAudit),
    /// Look into throttles
    ///
    /// A throttle is a rate that the cluster keeps together. `limits` in the configuration declares throttles.
    #[command(
        subcommand,
        after_help = "Examples:
  tally throttle list
  tally throttle explain campaign
  tally throttle take campaign 10"
    )]
    Throttle(Throttle),
    /// Look into permits
    ///
    /// Permits limit how many may be open at a time in the whole cluster; no partition exceeds them. `limits` in the configuration
    /// declares them, for the nodes that it names as founders.
    #[command(
        subcommand,
        after_help = "Examples:
  tally permits list
  tally permits show uploads"
    )]
    Permits(Permits),
    /// List the limits that the asked node keeps
    #[command(after_help = "Example:\n  tally limits")]
    Limits,
    /// Look into series of events
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally series list
  tally series plot logins alice
  tally series plot --audit connect 192.0.2.0/24"
    )]
    Series(Series),
    /// Look into caches, and write to them
    ///
    /// A cache is keys and values that all nodes have; the last write of a key wins. `Replicate "NAME" { type = "cache" }`
    /// and `Datasource "NAME" {}` in the configuration make one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally cache list
  tally cache set sessions user:7 Ada --ttl 5M
  tally cache get sessions user:7"
    )]
    Cache(Cache),
    /// Look into gauge caches, and count in them
    ///
    /// A gauge cache is counters by name that go when nobody has changed them for long. `gauge_cache "NAME" {}` in the
    /// configuration makes one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally gauge list
  tally gauge inc retries alice
  tally gauge get retries alice"
    )]
    Gauge(Gauge),
    /// Look into what a node has saved, and copy it
    ///
    /// A node with a `data_dir` saves there what outlives a run. The node must not run meanwhile.
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally state inspect mesh/relay-0-1.state
  tally state export mesh/relay-0-1.state > relay-0-1.jsonl"
    )]
    State(State),
    /// See a cluster count, break and heal
    ///
    /// Runs a whole cluster in one process, over real QUIC on loopback ports that are free, with certificates made on the
    /// spot. Synthetic mail traffic is counted; the views are shown; how long a change takes to be seen everywhere is
    /// measured; one node is cut off and healed. A tally that is kept apart is the truth: the exit code is 0 only if in
    /// the end every node agrees with it.
    #[command(after_help = "\
Examples:
  tally demo
  tally demo --nodes 5 --seconds 30
  tally demo --plain --seconds 8 > demo.log")]
    Demo(Demo),
    /// Measure what a cluster does on this machine, end to end
    ///
    /// Runs real nodes in one process over QUIC on loopback ports that are free, and measures: how long a change takes to
    /// be seen on the other node, how many changed rows a second get there and in how many bytes, what an increment costs
    /// its caller, how fast a node that joins takes what there is, and what an idle cluster costs.
    ///
    /// With --against-redis the same is measured on a Redis primary with one replica, which are started for it and ended
    /// with it; redis-server has to be on the PATH. Figures depend on what else runs: compare ratios within one run.
    #[command(after_help = "\
Examples:
  tally bench
  tally bench --against-redis
  tally bench --seconds 1 --rows 100000 --output json >> history.jsonl")]
    Bench(Bench),
    /// Be a node of the Maelstrom test bench, over stdin and stdout
    #[command(after_help = "\
Example:
  maelstrom test -w pn-counter --bin tally-pn-counter
where tally-pn-counter is a script that runs `tally maelstrom pn-counter`")]
    Maelstrom {
        /// What the bench asks of the node
        workload: Workload,
    },
    /// Write the completions of a shell
    #[command(after_help = "Example:\n  tally completions bash > ~/.local/share/bash-completion/completions/tally")]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// `tally verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Seconds to wait for copies that lag and members that do not answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) patience: Duration,
}

/// Seconds, with a fraction if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, such as 5 or 0.5".to_owned())?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("from 0.001 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}
