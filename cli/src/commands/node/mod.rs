//! `tally node`: runs a node in the foreground until a signal makes it leave.

mod log;
mod notify;
mod signals;

use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tallymesh::{Builder, Incarnation, Node, ReadConfigError, ReloadMode, StartError, StateStanding, read_config};
use tallymesh_schemas::config::Config;

use crate::args;
use crate::commands::check;
use crate::commands::node::log::Log;
use crate::commands::node::notify::Notify;
use crate::commands::node::signals::{Meaning, Signals};
use crate::failure::Failure;
use crate::output::{Format, Out};

/// How long leaving may take in total. Each of its steps has a shorter deadline of its own.
const LEAVE: Duration = Duration::from_secs(20);

/// How long the runtime's threads may take to end after the node has left.
const THREADS: Duration = Duration::from_secs(1);

/// The exit code of a node that ended before it had left: a second signal or the deadline ended it.
const CUT_SHORT: u8 = 4;

/// How the node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It said goodbye to the cluster, and everything is saved.
    Left,
    /// A second signal or the deadline ended it.
    CutShort,
}

/// Runs the node.
pub(crate) fn run(args: &args::Node, format: Format) -> Result<(), Failure> {
    if format != Format::Text {
        return Err(Failure::Input("`tally node` writes its one line as text only: leave --output out".to_owned()));
    }
    let log = Log::start(args.log.as_deref())?;
    let end = run_logged(args, &log);
    let Err(failure) = end else { return Ok(()) };
    if let Some(message) = failure.message() {
        // Through the log's queue: stderr may have no reader.
        log.message("error", message);
    }
    Err(Failure::Exit(failure.code()))
}

fn run_logged(args: &args::Node, log: &Log) -> Result<(), Failure> {
    let config = configuration(&args.config)?;
    if let (Some(level), Some(to)) = (log.level(), config.node.as_ref().and_then(|node| node.log)) {
        level.set(to);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Node(format!("cannot start the runtime: {error}")))?;
    let end = runtime.block_on(serve(config, args, log));
    // A thread that hangs on a disk does not keep the process alive.
    match end {
        Ok(End::Left) => runtime.shutdown_timeout(THREADS),
        _ => runtime.shutdown_background(),
    }
    match end? {
        End::Left => Ok(()),
        End::CutShort => Err(Failure::Exit(CUT_SHORT)),
    }
}

/// The checked configuration, its paths relative to its folder.
fn configuration(path: &Path) -> Result<Config, Failure> {
    read_config(path).map_err(|error| match error {
        ReadConfigError::Mistakes(errors) => check::wrong(&errors),
        error => Failure::Input(error.to_string()),
    })
}

async fn serve(config: Config, args: &args::Node, log: &Log) -> Result<End, Failure> {
    raise_descriptors();
    // Before the node serves: a signal that comes early is not lost.
    let mut signals = Signals::new().map_err(|error| Failure::Node(format!("cannot listen for signals: {error}")))?;
    let notify = Notify::from_env();
    let admin = config.node.as_ref().and_then(|node| node.admin.clone());
    let mut builder = Builder::from_config(&config).map_err(cannot_start)?.config_file(&args.config);
    if let Some(incarnation) = args.incarnation.map(Incarnation) {
        builder = builder.incarnation(incarnation);
    }
    if let Some(level) = log.level() {
        builder = builder.on_log_level(move |to| level.set(to));
    }
    let node = tokio::select! {
        node = builder.start() => node.map_err(cannot_start)?,
        () = signals.leave() => {
            tracing::info!("asked to leave before the node served");
            return Ok(End::Left);
        }
    };
    announce(&node, admin.as_deref());
    attend(&node, &notify, &mut signals).await;
    notify.stopping();
    match leave(&node, &mut signals).await {
        End::Left => saved(&node).map(|()| End::Left),
        End::CutShort => Ok(End::CutShort),
    }
}

/// Checks that the last changes are saved, if the node has a saved state.
fn saved(node: &Node) -> Result<(), Failure> {
    match node.state() {
        Some(StateStanding { trouble: Some(trouble), age, .. }) => {
            Err(Failure::Node(format!("what was written in the last {} s is not saved: {trouble}", age.as_secs())))
        }
        _ => Ok(()),
    }
}

/// Raises the soft limit of open files to the hard one: connections and files need descriptors.
fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = ?current, to = ?maximum, "the limit of open files is raised"),
        Err(error) => tracing::warn!(%error, ?current, ?maximum, "the limit of open files cannot be raised"),
    }
}

/// Keeps the service manager informed until a signal makes the node leave.
async fn attend(node: &Node, notify: &Notify, signals: &mut Signals) {
    let manager = async {
        node.settled().await;
        notify.ready();
        notify.watch(node).await;
    };
    tokio::pin!(manager);
    loop {
        tokio::select! {
            meaning = signals.next() => match meaning {
                Meaning::Leave => return,
                Meaning::Reload => {
                    notify.reloading();
                    tokio::select! {
                        () = reload(node) => notify.ready(),
                        // The file may be on a disk that hangs.
                        () = signals.leave() => return,
                        () = &mut manager => {}
                    }
                }
                Meaning::Ignore => {}
            },
            () = &mut manager => {}
        }
    }
}

/// Uses the configuration file as it is now. The node goes on with what it has if the file has a mistake.
async fn reload(node: &Node) {
    if let Err(error) = node.reload_file(ReloadMode::Apply).await {
        tracing::error!("the configuration is not reloaded: {error}");
    }
}

/// Leaves the cluster. A second signal or the deadline ends it.
async fn leave(node: &Node, signals: &mut Signals) -> End {
    tracing::info!("leaving; a second signal ends the node at once");
    tokio::select! {
        () = node.shutdown() => End::Left,
        () = signals.leave() => {
            tracing::warn!("second signal: the node ends before it has left");
            End::CutShort
        }
        () = tokio::time::sleep(LEAVE) => {
            tracing::error!(seconds = LEAVE.as_secs(), "the node did not leave in time, and ends");
            End::CutShort
        }
    }
}

/// Prints that the node serves, from a thread of its own, because the reader of stdout may have stopped reading.
fn announce(node: &Node, admin: Option<&Path>) {
    let admin = admin.map_or("no admin socket".to_owned(), |path| format!("admin {}", path.display()));
    let line = format!("{} serving on {}, {admin}", node.name(), node.listen_addr());
    let print = move || {
        let mut out = Out::open();
        out.line(line).and_then(|()| out.flush())
    };
    let thread = std::thread::Builder::new().name("tally-stdout".to_owned()).spawn(move || {
        if let Err(failure) = print() {
            tracing::debug!(%failure, "stdout is closed: the line that reports that this node serves was not printed");
        }
    });
    if let Err(error) = thread {
        tracing::warn!(%error, "the line that reports that this node serves was not printed");
    }
}

fn cannot_start(error: StartError) -> Failure {
    match error {
        StartError::Config(errors) => check::wrong(&errors),
        error => Failure::Input(format!("the node does not start: {error}")),
    }
}
