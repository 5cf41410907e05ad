//! `tally bench`: the performance of a cluster on this machine, end to end, compared with Redis on request.
//!
//! `nodes` measures a cluster and `against` measures Redis, both in the same way. `redis` runs Redis servers and speaks their
//! protocol. `measure` defines the measurements, `report` writes them, and `machine` describes the machine.

mod against;
mod machine;
mod measure;
mod nodes;
mod plan;
mod redis;
mod report;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::args;
use crate::bench::plan::Plan;
use crate::bench::report::{Opponent, Report};
use crate::failure::Failure;
use crate::output::Format;
use crate::style;

/// Measures, and writes the table.
pub(crate) fn run(args: &args::Bench, format: Format) -> Result<(), Failure> {
    let plan = Plan { time: Duration::from_secs(args.seconds.into()), rows: args.rows as usize };
    let progress = spinner();
    let redis = match args.against_redis {
        true => match redis::version() {
            Some(version) => Some(Opponent { version, figures: against::measure(plan, &progress)? }),
            None => {
                style::complain("warning", "redis-server is not on the PATH: measured without it");
                None
            }
        },
        false => None,
    };
    let ours = nodes::measure(plan, &progress)?;
    progress.finish_and_clear();
    Report { plan, ours, redis }.write(format)
}

/// Shows the current measurement on stderr; nothing if stderr is no terminal.
fn spinner() -> ProgressBar {
    let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    progress.enable_steady_tick(Duration::from_millis(100));
    match ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
        Ok(style) => progress.with_style(style),
        Err(_) => progress,
    }
}
