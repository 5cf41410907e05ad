//! `tally config reload` and `tally config diff`: a running node and its configuration file.

use serde_json::json;
use tallymesh_schemas::admin::{Answer, ConfigChange, Request};

use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Whether the node changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It uses its file.
    Apply,
    /// It only says what would change.
    DryRun,
}

/// Lets the node use its file, or says what would change.
pub(crate) fn run(target: &Target, mode: Mode, format: Format) -> Result<(), Failure> {
    let changes = ask(target, mode)?;
    let mut out = Out::open();
    match format.no_csv("config reload")? {
        Format::Json => out.json(&json!({ "dry_run": mode == Mode::DryRun, "changes": listed(&changes) }))?,
        _ => {
            for change in &changes {
                out.line(line(change))?;
            }
            out.line(summary(&changes, mode))?;
        }
    }
    out.flush()
}

/// Shows how the node differs from its file.
pub(crate) fn diff(target: &Target, format: Format) -> Result<(), Failure> {
    let changes = ask(target, Mode::DryRun)?;
    let mut out = Out::open();
    match format.no_csv("config diff")? {
        Format::Json => out.json(&json!({ "changes": listed(&changes) }))?,
        _ => {
            for ConfigChange { what, before, after, .. } in &changes {
                out.line(format!("  {what}"))?;
                for (sign, value) in [("-", before), ("+", after)] {
                    if let Some(value) = value {
                        out.line(format!("{sign}   {value}"))?;
                    }
                }
            }
        }
    }
    out.flush()?;
    if changes.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn ask(target: &Target, mode: Mode) -> Result<Vec<ConfigChange>, Failure> {
    let request = Request::Reload { dry_run: mode == Mode::DryRun };
    target.connect()?.all(&request, |answer| match answer {
        Answer::Changes(changes) => Some(changes),
        _ => None,
    })
}

fn line(ConfigChange { what, before, after, needs_restart }: &ConfigChange) -> String {
    let change = match (before, after) {
        (None, Some(after)) => format!("added: {after}"),
        (Some(before), None) => format!("removed: {before}"),
        (Some(before), Some(after)) => format!("{before} becomes {after}"),
        (None, None) => "has other contents".to_owned(),
    };
    format!("{what}: {change}{}", if *needs_restart { "; needs a restart" } else { "" })
}

fn summary(changes: &[ConfigChange], mode: Mode) -> String {
    let waiting = changes.iter().filter(|change| change.needs_restart).count();
    let made = changes.len() - waiting;
    match mode {
        _ if changes.is_empty() => "nothing to change: the node runs with its file".to_owned(),
        Mode::Apply => format!("{made} changed, {waiting} need a restart"),
        Mode::DryRun => format!("{made} would change, {waiting} need a restart"),
    }
}

fn listed(changes: &[ConfigChange]) -> Vec<serde_json::Value> {
    let one = |change: &ConfigChange| {
        json!({
            "what": change.what,
            "before": change.before,
            "after": change.after,
            "needs_restart": change.needs_restart,
        })
    };
    changes.iter().map(one).collect()
}
