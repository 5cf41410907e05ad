//! The `tally` command: makes a cluster, runs its nodes, and asks them.
//!
//! `args` says what may be asked; each command has its file in `commands`; `client` speaks the admin protocol, `output`
//! writes answers, and `failure` knows the exit codes.

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

use crate::args::{
    Cache, Cli, Cluster, Command, Config, Gauge, InboundAudit, Permits, Series, Shared, ShowAudit, State, Throttle,
};
use crate::client::Target;
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
        Command::Guarded(args) => commands::hold::guarded::run(&args),
        Command::Verify(args) => commands::verify::run(&args, &target, format),
        Command::Watch(args) => commands::watch::run(args, &target, format),
        Command::InboundAudit(command) => match command {
            InboundAudit::Show(ShowAudit::Ip { net, from }) => commands::audit::show_ip(&net, &from, &target, format),
            InboundAudit::Show(ShowAudit::All { from }) => commands::audit::show_all(&from, &target, format),
            InboundAudit::Add(args) => commands::audit::add(args, 1, &target, format),
            InboundAudit::Subtract(args) => commands::audit::add(args, -1, &target, format),
            InboundAudit::CountCidr(args) => commands::audit::count_cidr(args, &target, format),
            InboundAudit::DeleteIp(args) => commands::audit::delete_ip(args, &target, format),
        },
        Command::Throttle(command) => match command {
            Throttle::List => commands::throttle::list(&target, format),
            Throttle::Show { name } => commands::throttle::show(name, &target, format),
            Throttle::Take(args) => commands::throttle::take(args, &target, format),
            Throttle::Check { name, n } => commands::throttle::check(name, n, &target, format),
            Throttle::Explain { name } => commands::throttle::explain(name, &target, format),
        },
        Command::Permits(command) => match command {
            Permits::List => commands::permits::list(&target, format),
            Permits::Show { name } => commands::permits::show(name, &target, format),
        },
        Command::Limits => commands::throttle::limits(&target, format),
        Command::Series(command) => match command {
            Series::List => commands::series::list(&target, format),
            Series::Show { series, key, from } => commands::series::show(&series, key, &from, &target, format),
            Series::Plot { series, key, from } => commands::series::plot(&series, key, &from, &target, format),
            Series::Count(args) => commands::series::count(args, &target, format),
            Series::Add { series, key, n } => commands::series::add(&series, key, n, &target, format),
            Series::Remove { series, key } => commands::series::remove(&series, key, &target, format),
        },
        Command::Cache(command) => match command {
            Cache::List => commands::caches::list(&target, format),
            Cache::Get(at) => commands::caches::get(at, &target, format),
            Cache::Set(args) => commands::caches::set(args, &target),
            Cache::Del(at) => commands::caches::del(at, &target),
            Cache::Show { cache } => commands::caches::show(cache, &target, format),
        },
        Command::Gauge(command) => match command {
            Gauge::List => commands::caches::gauges(&target, format),
            Gauge::Show { gauge } => commands::caches::gauge_show(gauge, &target, format),
            Gauge::Get(at) => commands::caches::gauge_get(at, &target, format),
            Gauge::Inc { at, n } => commands::caches::gauge_add(at, n, &target, format),
            Gauge::Dec { at, n } => commands::caches::gauge_add(at, -n, &target, format),
            Gauge::Del(at) => commands::caches::gauge_del(at, &target),
        },
        Command::State(state) => match state {
            State::Inspect { dir } => commands::state::inspect(&dir, format),
            State::Export { dir } => commands::state::export(&dir, format),
            State::Import { dir } => commands::state::import(&dir, format),
        },
        Command::Bench(args) => bench::run(&args, format),
        Command::Demo(args) => demo::run(&args, format),
        Command::Maelstrom { workload } => maelstrom::run(workload).map_err(|error| Failure::Input(error.to_string())),
        Command::Completions { shell } => commands::completions::run(shell),
    }
}
