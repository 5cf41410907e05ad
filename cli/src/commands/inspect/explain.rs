//! `tally explain`: why a count is what it is, in words.

use serde_json::{Value, json};
use tallymesh_schemas::OnDead;
use tallymesh_schemas::inspect::{KeyView, LimitView, RowView, RunState, Subject, View};

use crate::args;
use crate::client::Target;
use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::words::{name, time};
use crate::commands::inspect::{json as views, key_text, text};
use crate::commands::series::moment;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// A run with at least this number is named after the wall clock at its beginning, in milliseconds.
const CLOCK: u64 = 1_000_000_000_000;

/// Asks a node, and explains its answer.
pub(crate) fn run(args: &args::Explain, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("explain")?;
    let found = Inspection::ask(target, args.which.of(&args.object), View::Key(args.key.clone()))?;
    let mut out = Out::open();
    match format {
        Format::Json => {
            let mut all = views::of(&found);
            if let Value::Object(fields) = &mut all {
                fields.insert("words".to_owned(), json!(lines(&found)));
            }
            out.json(&all)?;
        }
        _ => lines(&found).iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()
}

/// The explanation, one statement a line.
fn lines(found: &Inspection) -> Vec<String> {
    let Inspection { subject, keys, entries, limits, .. } = found;
    let mut lines: Vec<_> = keys.iter().flat_map(|view| key_lines(subject, view)).collect();
    lines.extend(entries.iter().flat_map(|entry| {
        let text = text::entry_text(subject, entry);
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        lines
    }));
    lines.extend(limits.iter().flat_map(limit_lines));
    lines
}

fn key_lines(subject: &Subject, view: &KeyView) -> Vec<String> {
    let node = &subject.viewer.node;
    let mut lines = vec![format!("{node} reads {} for {} in {}.", view.total, view.key, subject.object)];
    lines.extend(view.rows.iter().map(|row| row_line(subject, view, row)));
    if view.pending != 0 {
        lines.push(format!("{node} has counted {} more that it has not written into its row yet.", view.pending));
    }
    for reset in &view.resets {
        let (by, of, added, removed) = (&reset.by.node, &reset.of, reset.added, reset.removed);
        lines.push(format!(
            "{by} has reset the row of {of} up to {added} added and {removed} removed: only what came later counts."
        ));
    }
    if view.expired {
        lines.push(
            "The counter has expired, because no node has updated it for its time to live. A read finds none."
                .to_owned(),
        );
    }
    lines.push(key_text::sum(subject, view).lines().next().unwrap_or_default().to_owned());
    lines
}

fn row_line(subject: &Subject, view: &KeyView, row: &RowView) -> String {
    let who = name(&row.actor, view.rows.iter().map(|row| &row.actor));
    let run = row.actor.incarnation.0;
    let began = if run >= CLOCK { format!(" that began {}", moment(run / 1000)) } else { String::new() };
    let what = match row.rows {
        1 => format!("added {} and removed {}", row.added, row.removed),
        rows => format!("added {} and removed {}, in {rows} rows", row.added, row.removed),
    };
    let counted =
        if row.counts { format!("{who} counts {}", row.value) } else { format!("{who} does not count {}", row.value) };
    let heard = match (row.standing.state, row.heard_ms) {
        (RunState::Own, _) => "this is the asked node itself".to_owned(),
        (_, Some(ms)) => format!("last heard {} ago", time(ms)),
        (_, None) => "never confirmed as current".to_owned(),
    };
    let why = reason(subject, row).map(|why| format!(" {why}")).unwrap_or_default();
    format!("{counted}: in its run {run}{began} it {what}; {heard}.{why}")
}

/// Why a row counts although its node does not live in its run, or does not count.
fn reason(subject: &Subject, row: &RowView) -> Option<String> {
    let lasts = row.standing.for_ms.map(|ms| format!(" for {}", time(ms))).unwrap_or_default();
    let stays = "Events stay counted after the run that counted them.";
    match (row.standing.state, row.counts, subject.on_dead) {
        (RunState::Own | RunState::Alive | RunState::Saved, ..) => None,
        (RunState::Suspect, ..) => {
            Some(format!("It has not answered{lasts}; its rows count until it is declared dead."))
        }
        (RunState::Ended, true, None) => Some(format!("This run has ended. {stays}")),
        (RunState::Dead, true, None) => Some(format!("The node is dead{lasts}. {stays}")),
        (RunState::Left, true, None) => Some(format!("The node has left. {stays}")),
        (RunState::Dead, true, Some(OnDead::Hold)) => Some(format!(
            "The node is dead{lasts}, and on_dead = \"hold\" keeps its rows until it returns or is forgotten."
        )),
        (RunState::Dead, true, Some(OnDead::Drop(after))) => {
            Some(format!("The node is dead{lasts}; its rows stop counting after {after:?}."))
        }
        (RunState::Dead, false, _) => {
            Some(format!("The node is dead{lasts}, so its rows do not count until it returns."))
        }
        (RunState::Left, false, _) => Some("The node has left, so its rows do not count.".to_owned()),
        (RunState::Ended, false, _) => Some("The node is in a later run, which supersedes this one.".to_owned()),
        (RunState::Unknown, ..) | (RunState::Left, true, _) | (RunState::Ended, true, _) => {
            Some("The asked node knows nothing of this node but its rows.".to_owned())
        }
    }
}

fn limit_lines(limit: &LimitView) -> Vec<String> {
    let LimitView { name, limit: words, admits, why, share } = limit;
    let decides = if *admits { "admit" } else { "refuse" };
    let mut lines = vec![format!("The limit {name} ({words}) would {decides} one more: {why}.")];
    lines.extend(share.iter().flat_map(key_text::share_lines).map(|line| format!("  {line}")));
    lines
}
