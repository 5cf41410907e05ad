//! The command line: its commands and options, and their help.

mod caches;
mod cluster;
mod counts;
mod from_node;
mod hold;
mod inspect;
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
pub(crate) use crate::args::counts::{Add, Count, Flush, Load, Wait, Watch};
pub(crate) use crate::args::from_node::{FromNode, node_name};
pub(crate) use crate::args::hold::{Guarded, Hold, OnLost};
pub(crate) use crate::args::inspect::{Diff, Explain, Inspect};
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
/// Every node counts its own events. The nodes replicate their counts to each other, and a node computes the sum over the
/// cluster when it is read. `tally` makes a cluster, runs its nodes, and queries them.
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

Words in capitals are placeholders: OBJECT is the name of a replicated object, as `tally shared list` shows it; KEY is an address, a
domain or a name that the object counts; NODE is the name of a node; N is an integer.
Arguments have one order: the object, the key, and then the rest. The examples use the samples that `tally init` writes into the
configuration of a node: logins, sessions, retries and campaign."
)]
pub(crate) struct Cli {
    /// Options of every command that queries a node.
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
    /// own user may connect.
    #[arg(long, global = true, value_name = "SOCKET", env = "TALLY_AT")]
    pub(crate) at: Option<PathBuf>,
    /// The format of the answer
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Seconds to wait for each part of an answer
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    pub(crate) timeout: Duration,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a cluster: its certificate authority, and the certificate, key and configuration of each node
    ///
    /// Writes into DIR a certificate authority (ca.pem, ca.key) and, for each node, a certificate (NODE.pem), a key (NODE.key)
    /// and a configuration (NODE.hcl). The configuration has an object of each class, samples of a series, a cache, a gauge
    /// cache and a throttle, and a folder for the saved state (NODE.state). Keys have file mode 0600.
    /// The first node listens on the base port, the next on the port after it, and so on; each has all others as seeds.
    ///
    /// Existing files are never overwritten: if one of the files exists, nothing is written.
    ///
    /// With --add, makes further nodes for the cluster in DIR. With --renew, makes a new certificate and key for nodes that are
    /// in DIR, and replaces these two files only. Anyone who has ca.key can add nodes: do not keep it on machines
    /// that run nodes.
    #[command(after_help = "\
Examples:
  tally init --dir mesh --nodes relay-0-1,relay-0-2,relay-0-3
  tally init --dir mesh --add relay-0-4
  tally init --dir mesh --renew relay-0-1
  tally init --dir mesh --renew --all")]
    Init(Init),
    /// Run a node, in the foreground
    ///
    /// Prints one line on stdout when it serves, and logs to stderr. On Ctrl-C, SIGTERM or SIGQUIT the node leaves: it sets its
    /// gauges to zero on the other nodes and says goodbye. A second signal ends it at once, with exit code 4. On SIGHUP it
    /// uses its configuration file as it is then: see `tally config reload`. If a service manager sets NOTIFY_SOCKET, the node notifies it
    /// when it is ready.
    #[command(after_help = "\
Examples:
  tally node --config mesh/relay-0-1.hcl
  tally node --config mesh/relay-0-1.hcl --log tallymesh=debug")]
    Node(Node),
    /// Check a configuration
    #[command(subcommand, after_help = "Example:\n  tally config check mesh/relay-0-1.hcl")]
    Config(Config),
    /// Query a node about its cluster, as on Momentum's console
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
    /// Add to a count
    ///
    /// Adds N to the node's own count of a key. N may be negative, also without --.
    #[command(after_help = "\
Examples:
  tally add inbound_cidr 192.0.2.7
  tally add outbound_domains example.com -2
  tally add outbound_domains example.com --wait 2")]
    Add(Add),
    /// Wait until other nodes hold all changes of the asked node
    ///
    /// Prints the position of the changes: `tally count --after POSITION` on another node waits until that node holds them. Ends
    /// with 1 if fewer than NODES other nodes hold them within the --timeout.
    #[command(after_help = "\
Examples:
  tally flush 2
  tally count outbound_domains example.com --after $POSITION")]
    Flush(Flush),
    /// Show the count of a key, or under an address block
    ///
    /// Shows the count of the cluster, the count of the asked node alone, how many nodes count, and how long ago the stalest of
    /// them was last confirmed as current.
    #[command(after_help = "\
Examples:
  tally count inbound_cidr 192.0.2.0/24
  tally count outbound_domains example.com from relay-0-2
  tally --output json count inbound_cidr 192.0.2.7")]
    Count(Count),
    /// Add many keys from a file or from stdin
    ///
    /// Each line is a key and, after a blank, a number (1 by default; may be negative). Empty lines and lines that begin with #
    /// are skipped. With --format, load reads access logs, HAProxy's tables, and the output of --output csv. A bad line ends the
    /// load, and its number is reported; the lines before it are counted.
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
    /// The count is released when COMMAND ends. With --limit, COMMAND runs only if the counts that the asked node knows leave
    /// room for it; otherwise tally ends with 1, or with the --conflict-exit-code. All signals are passed on to COMMAND. tally
    /// ends with COMMAND's exit code, or with 128 plus the number of the signal that ended COMMAND.
    ///
    /// If the node stops, COMMAND continues, and tally retries until the node is back and counts it again. This second hold has
    /// no limit, because COMMAND runs already. With --on-lost kill, tally ends COMMAND instead (SIGTERM, and SIGKILL after 10
    /// seconds). If tally itself is killed, the count is released, and on Linux COMMAND is killed too; processes that COMMAND
    /// has started are not.
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
    /// Become the command of `tally hold`; for internal use
    #[command(hide = true)]
    Guarded(Guarded),
    /// Compare the copies of all nodes
    ///
    /// Asks every member for the fingerprints of all rows, and compares each copy with its owner's rows. Waits for copies that
    /// lag, at most as long as --patience says. Ends with 1 if a copy differs or still lags, if a member is dead, does not
    /// answer or has no link to this node, or if this node lacks rows because a bound was reached. Ends with 5 if no fault was
    /// found but not everything could be compared in time.
    #[command(after_help = "Example:\n  tally verify --patience 10")]
    Verify(Verify),
    /// Print every key whose count changes
    ///
    /// Prints a line for each changed key with its count, until Ctrl-C. If a key changes faster than lines can be written, one
    /// line stands for several changes.
    #[command(after_help = "Example:\n  tally watch inbound_cidr")]
    Watch(Watch),
    /// Show replicated state as the asked node holds it
    ///
    /// Without KEY: the version vector of the object, that is each actor with its state, applied version, fingerprint, and what the
    /// peers have reported. With KEY: every actor's row, which of them count, and how the total follows; of a cache the write that
    /// won; of a throttle or of permits also the node's share, leases and loans. docs/inspect.md explains every column and every
    /// field of --output json.
    ///
    /// With --on, tally asks several nodes over their sockets, which have to be on this machine (`ssh -L` brings a socket here). It
    /// ends with 1 if they differ, and with 3 if one of them cannot be reached. Without --on it ends with 1 if the node holds
    /// nothing of the key.
    #[command(after_help = "\
Examples:
  tally inspect inbound_cidr
  tally inspect inbound_cidr 192.0.2.7
  tally inspect sessions user:7
  tally inspect inbound_cidr --links
  tally inspect inbound_cidr --log 100 --limit 20
  tally inspect inbound_cidr --rows 192.0.2.7 --limit 20
  tally inspect inbound_cidr 192.0.2.7 --on all
  tally inspect logins alice --window 1 --watch")]
    Inspect(Inspect),
    /// Explain a count in words
    ///
    /// Says who counted what, in which run and when the node last heard of it, which actors do not count and why, and what the
    /// limits of which the key is a part would decide now. Ends with 1 if the node holds nothing of the key.
    #[command(after_help = "\
Examples:
  tally explain inbound_cidr 192.0.2.7
  tally explain shared_named_throttles campaign")]
    Explain(Explain),
    /// Compare what two nodes hold, row by row
    ///
    /// Asks both nodes over their sockets, which have to be on this machine, and prints each row, or each entry of a cache, that
    /// differs. Ends with 0 if none does, and with 1 otherwise. While nodes count, a difference may be a change that is on its
    /// way: repeat the command, or ask `tally verify`.
    #[command(after_help = "Example:\n  tally diff inbound_cidr relay-0-1 relay-0-2")]
    Diff(Diff),
    /// Query the audit of addresses, as on Momentum's console
    ///
    /// The audit counts connections, receptions and other events by address, in time windows; window 0 is the current one.
    /// `inbound_audit` and `Replicate "metrics"` in the configuration define the metrics and the windows.
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
    /// Query throttles, and take tokens from them
    ///
    /// A throttle is a limit of a rate that all nodes share. `limits` in the configuration declares throttles.
    #[command(
        subcommand,
        after_help = "Examples:
  tally throttle list
  tally throttle explain campaign
  tally throttle take campaign 10"
    )]
    Throttle(Throttle),
    /// Query permits
    ///
    /// Permits limit how many things may be open at a time in the cluster, also during a partition. `limits` in the
    /// configuration declares permits; the nodes that `founders` names get the initial shares.
    #[command(
        subcommand,
        after_help = "Examples:
  tally permits list
  tally permits show uploads"
    )]
    Permits(Permits),
    /// List the limits of the asked node
    #[command(after_help = "Example:\n  tally limits")]
    Limits,
    /// Query series of events, and add to them
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally series list
  tally series plot logins alice
  tally series plot --audit connect 192.0.2.0/24"
    )]
    Series(Series),
    /// Read caches, and write to them
    ///
    /// A cache is a replicated map of keys to values; the last write of a key wins. `Replicate "NAME" { type = "cache" }` and
    /// `Datasource "NAME" {}` in the configuration declare one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally cache list
  tally cache set sessions user:7 Ada --ttl 5M
  tally cache get sessions user:7"
    )]
    Cache(Cache),
    /// Read gauge caches, and count in them
    ///
    /// A gauge cache holds counters by name. A counter expires when no node has updated it for the `ttl`. `gauge_cache "NAME"
    /// {}` in the configuration declares one.
    #[command(
        subcommand,
        after_help = "\
Examples:
  tally gauge list
  tally gauge inc retries alice
  tally gauge get retries alice"
    )]
    Gauge(Gauge),
    /// Inspect and copy the saved state of a node
    ///
    /// A node with a `data_dir` keeps its saved state there. The node has to be stopped.
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
    /// Runs a cluster in one process, over QUIC on free loopback ports, with new certificates. Counts synthetic mail traffic,
    /// shows the views, measures how long a change takes to reach all nodes, cuts one node off and heals the cut. A separate
    /// tally of the traffic is the ground truth: the exit code is 0 only if every node agrees with it in the end.
    #[command(after_help = "\
Examples:
  tally demo
  tally demo --nodes 5 --seconds 30
  tally demo --plain --seconds 8 > demo.log")]
    Demo(Demo),
    /// Measure the performance of a cluster on this machine, end to end
    ///
    /// Runs nodes in one process over QUIC on free loopback ports, and measures: the delay until another node sees a change, how
    /// many changed rows arrive per second and in how many bytes, the cost of an increment for its caller, how fast a joining
    /// node receives all rows, and the cost of an idle cluster.
    ///
    /// With --against-redis, measures the same on a Redis primary with one replica. It starts both servers and ends them;
    /// redis-server has to be on the PATH. The figures depend on the other load of the machine: compare ratios within one run.
    #[command(after_help = "\
Examples:
  tally bench
  tally bench --against-redis
  tally bench --seconds 1 --rows 100000 --output json >> history.jsonl")]
    Bench(Bench),
    /// Run a node of the Maelstrom test bench, over stdin and stdout
    #[command(after_help = "\
Example:
  maelstrom test -w pn-counter --bin tally-pn-counter
where tally-pn-counter is a script that runs `tally maelstrom pn-counter`")]
    Maelstrom {
        /// The workload that the node serves
        workload: Workload,
    },
    /// Write the completion script of a shell
    #[command(after_help = "Example:\n  tally completions bash > ~/.local/share/bash-completion/completions/tally")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a folder
    ///
    /// Writes a page for each command: tally.1, tally-add.1 and so on. Makes the folder if there is none.
    #[command(after_help = "Example:\n  tally man ~/.local/share/man/man1")]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// `tally verify`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Seconds to wait for copies that lag and members that do not answer
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    pub(crate) patience: Duration,
}

/// Parses seconds, which may have a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds, such as 5 or 0.5".to_owned())?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("from 0.001 to 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}
