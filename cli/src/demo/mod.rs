//! `tally demo`: a cluster in one process that counts, is partitioned and heals.
//!
//! The acts are in `story`. `cluster` runs the nodes, `limits` shows their limits, `traffic` simulates mail traffic, `truth` is
//! the ground truth, `probe` measures how long changes take, and `views` and `screen` show the results.

mod cluster;
mod limits;
mod member;
mod probe;
mod screen;
mod story;
mod traffic;
mod truth;
mod views;

use std::time::Duration;

use crate::args;
use crate::demo::screen::{Display, Screen};
use crate::demo::story::{Plan, Story};
use crate::failure::Failure;
use crate::output::Format;

/// Runs the demonstration. Returns an error if in the end a node disagrees with the ground truth.
pub(crate) fn run(args: &args::Demo, format: Format) -> Result<(), Failure> {
    if format != Format::Text {
        return Err(Failure::Input("`tally demo` writes text only: leave --output out, or use --plain".to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Node(format!("cannot start the runtime: {error}")))?;
    runtime.block_on(async {
        let plan = Plan::of(Duration::from_secs(args.seconds.into()));
        let display = if args.plain { Display::Plain } else { Display::of_stdout() };
        let mut story = Story::begin(usize::from(args.nodes), Screen::open(display)).await?;
        story.run(&plan).await
    })
}
