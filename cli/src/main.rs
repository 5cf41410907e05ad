//! The `tally` command: makes a cluster, runs its nodes, and queries them.
//!
//! `args` defines the command line. Each command has a file in `commands`. `client` speaks the admin protocol, `output` writes
//! answers, and `failure` defines the exit codes.

mod args;
mod authority;
mod bench;
mod client;
mod commands;
mod demo;
mod failure;
mod local;
mod maelstrom;
mod output;
mod samples;
mod signals;
mod style;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command, Config};
use crate::client::Target;
use crate::commands::reload::Mode;
use crate::failure::Failure;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(Cli { global, command }: Cli) -> Result<(), Failure> {
    let format = global.output;
    let target = Target { at: global.at, timeout: global.timeout };
    match command {
        Command::Init(args) => commands::init::run(&args, format),
        Command::Node(args) => commands::node::run(&args, format),
        Command::Config(Config::Check { file }) => commands::check::run(&file, format),
        Command::Config(Config::Reload { dry_run }) => {
            commands::reload::run(&target, if dry_run { Mode::DryRun } else { Mode::Apply }, format)
        }
        Command::Config(Config::Diff) => commands::reload::diff(&target, format),
        Command::Cluster(command) => commands::cluster::run(command, &target, format),
        Command::Shared(command) => commands::cluster::shared(command, &target, format),
        Command::Add(args) => commands::add::run(args, &target, format),
        Command::Flush(args) => commands::flush::run(args, &target, format),
        Command::Count(args) => commands::count::run(args, &target, format),
        Command::Load(args) => commands::load::run(&args, &target, format),
        Command::Hold(args) => commands::hold::run(args, &target, format),
        Command::Guarded(args) => commands::hold::guarded::run(&args),
        Command::Verify(args) => commands::verify::run(&args, &target, format),
        Command::Watch(args) => commands::watch::run(args, &target, format),
        Command::Inspect(args) => commands::inspect::run(&args, &target, format),
        Command::Explain(args) => commands::inspect::explain::run(&args, &target, format),
        Command::Diff(args) => commands::inspect::diff::run(&args, &target, format),
        Command::InboundAudit(command) => commands::audit::run(command, &target, format),
        Command::Throttle(command) => commands::throttle::run(command, &target, format),
        Command::Permits(command) => commands::permits::run(command, &target, format),
        Command::Limits => commands::throttle::limits(&target, format),
        Command::Series(command) => commands::series::run(command, &target, format),
        Command::Cache(command) => commands::caches::run(command, &target, format),
        Command::Gauge(command) => commands::gauges::run(command, &target, format),
        Command::State(command) => commands::state::run(command, format),
        Command::Bench(args) => bench::run(&args, format),
        Command::Demo(args) => demo::run(&args, format),
        Command::Maelstrom { workload } => maelstrom::run(workload).map_err(|error| Failure::Input(error.to_string())),
        Command::Completions { shell } => commands::completions::run(shell),
        Command::Man { folder } => commands::man::run(&folder),
    }
}
