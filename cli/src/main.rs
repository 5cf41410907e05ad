//! The `tally` command: makes a cluster, runs its nodes, and asks them.
//!
//! `args` says what may be asked; each command has its file in `commands`; `client` speaks the admin protocol, `output`
//! writes answers, and `failure` knows the exit codes.

mod args;
mod authority;
mod client;
mod commands;
mod demo;
mod failure;
mod maelstrom;
mod output;
mod style;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Cluster, Command, Config, Shared};
use client::Target;
use failure::Failure;

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
        Command::Cluster(Cluster::Shared(shared)) | Command::Shared(shared) => match shared {
            Shared::List => commands::list::run(&target, format),
            Shared::Show { object, from } => commands::show::run(object, &from, &target, format),
        },
        Command::Cluster(Cluster::Membership) => commands::membership::run(&target, format),
        Command::Cluster(Cluster::Info) => commands::info::info(&target, format),
        Command::Cluster(Cluster::Nodename) => commands::info::nodename(&target, format),
        Command::Cluster(Cluster::Nodeaddr) => commands::info::nodeaddr(&target, format),
        Command::Cluster(Cluster::Forget { node }) => commands::forget::run(&node, &target, format),
        Command::Add(args) => commands::add::run(args, &target, format),
        Command::Count(args) => commands::count::run(args, &target, format),
        Command::Load(args) => commands::load::run(&args, &target, format),
        Command::Hold(args) => commands::hold::run(args, &target, format),
        Command::Verify(args) => commands::verify::run(&args, &target, format),
        Command::Watch(args) => commands::watch::run(args, &target, format),
        Command::Demo(args) => demo::run(&args, format),
        Command::Maelstrom { workload } => maelstrom::run(workload).map_err(|error| Failure::Input(error.to_string())),
        Command::Completions { shell } => commands::completions::run(shell),
    }
}
