//! `tally node`: runs a node in the foreground until it is told to leave.

use std::io::{self, IsTerminal};
use std::path::Path;

use tallymesh::{Incarnation, Node, StartError};
use tallymesh_schemas::config::Config;
use tokio::signal::unix::{self, SignalKind};
use tracing_subscriber::EnvFilter;

use super::check;
use crate::args;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Runs the node.
pub(crate) fn run(args: &args::Node, format: Format) -> Result<(), Failure> {
    if format != Format::Text {
        return Err(Failure::Input("`tally node` writes its one line as text only: leave --output out".to_owned()));
    }
    log(args.log.as_deref())?;
    let config = configuration(&args.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Node(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(serve(config, args.incarnation.map(Incarnation)))
}

/// The checked configuration, its paths relative to its folder.
fn configuration(path: &Path) -> Result<Config, Failure> {
    let file = path.display().to_string();
    let mut config = Config::parse(&check::read(path)?, &file).map_err(|errors| check::wrong(&errors))?;
    config.resolve_paths(path.parent().unwrap_or(Path::new("")));
    Ok(config)
}

async fn serve(config: Config, incarnation: Option<Incarnation>) -> Result<(), Failure> {
    // Before the node serves: a signal that comes early is not lost.
    let mut leave = Leave::new().map_err(|error| Failure::Node(format!("cannot listen for signals: {error}")))?;
    let admin = config.node.as_ref().and_then(|node| node.admin.clone());
    let mut builder = tallymesh::Builder::from_config(&config).map_err(cannot_start)?;
    if let Some(incarnation) = incarnation {
        builder = builder.incarnation(incarnation);
    }
    let node = builder.start().await.map_err(cannot_start)?;
    if let Err(failure) = tell(&node, admin.as_deref()) {
        tracing::debug!(%failure, "nobody reads that this node serves; it serves all the same");
    }
    leave.asked().await;
    tracing::info!("leaving; ask again to leave at once");
    tokio::select! {
        () = node.shutdown() => (),
        () = leave.asked() => node.abort().await,
    }
    Ok(())
}

fn tell(node: &Node, admin: Option<&Path>) -> Result<(), Failure> {
    let admin = admin.map_or("no admin socket".to_owned(), |path| format!("admin {}", path.display()));
    let mut out = Out::open();
    out.line(format!("{} serving on {}, {admin}", node.name(), node.listen_addr()))?;
    out.flush()
}

/// SIGTERM and Ctrl-C.
struct Leave {
    term: unix::Signal,
    interrupt: unix::Signal,
}

impl Leave {
    fn new() -> io::Result<Self> {
        Ok(Self { term: unix::signal(SignalKind::terminate())?, interrupt: unix::signal(SignalKind::interrupt())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => (),
            _ = self.interrupt.recv() => (),
        }
    }
}

fn cannot_start(error: StartError) -> Failure {
    match error {
        StartError::Config(errors) => check::wrong(&errors),
        error => Failure::Input(format!("the node does not start: {error}")),
    }
}

/// Logs to stderr what the filter lets through: that of the command line or TALLY_LOG, or RUST_LOG, or else `info`.
fn log(filter: Option<&str>) -> Result<(), Failure> {
    let filter = match filter.map(str::to_owned).or_else(|| std::env::var("RUST_LOG").ok()) {
        Some(text) => EnvFilter::try_new(&text)
            .map_err(|error| Failure::Input(format!("\"{text}\" is not a log filter: {error}; try info or debug")))?,
        None => EnvFilter::new("info"),
    };
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        // Or else it would panic when stderr is gone; a node serves all the same.
        .log_internal_errors(false)
        .init();
    Ok(())
}
