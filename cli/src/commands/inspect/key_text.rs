//! The rows of a key as text: who counted what, and how the total follows.

use tallymesh_schemas::inspect::{EntryView, KeyView, LimitView, ResetView, RowView, ShareView, Subject};
use tallymesh_schemas::{NodeName, key};

use crate::commands::inspect::table::Table;
use crate::commands::inspect::words::{counts, heading, heard, name, time, why};

/// The columns of rows as CSV.
pub(super) const ROW_COLUMNS: [&str; 12] = [
    "key",
    "node",
    "incarnation",
    "added",
    "removed",
    "reset_added",
    "reset_removed",
    "value",
    "version",
    "counts",
    "state",
    "heard_ms",
];

/// The columns of entries as CSV.
pub(super) const ENTRY_COLUMNS: [&str; 9] =
    ["key", "node", "incarnation", "number", "stamp", "expires_ms", "removed", "bytes", "value"];

/// A key with its rows.
pub(super) fn of(subject: &Subject, view: &KeyView, limits: &[LimitView]) -> String {
    let mut text = format!("{}\n\n", heading(subject, Some(&view.key)));
    if !view.rows.is_empty() {
        text += &rows(subject, view);
        text.push('\n');
    }
    text += &sum(subject, view);
    text += &resets(view);
    if view.expired {
        text += "the counter has expired: a read finds none\n";
    }
    limits.iter().for_each(|limit| text += &limit_text(limit));
    text
}

fn rows(subject: &Subject, view: &KeyView) -> String {
    let is_block = view.rows.iter().any(|row| row.rows > 1);
    let is_reset = view.rows.iter().any(|row| row.reset != (0, 0));
    let mut table = Table::new(&["node", "run", "added", "removed"]);
    if is_reset {
        table.column("reset up to".to_owned());
    }
    ["value", "version"].iter().for_each(|heading| table.column((*heading).to_owned()));
    if is_block {
        table.column("rows".to_owned());
    }
    ["last heard", "counts"].iter().for_each(|heading| table.column((*heading).to_owned()));
    for row in &view.rows {
        let (node, run) = (row.actor.node.to_string(), row.actor.incarnation.to_string());
        let mut cells = vec![node, run, row.added.to_string(), row.removed.to_string()];
        if is_reset {
            cells.push(format!("{} − {}", row.reset.0, row.reset.1));
        }
        cells.extend([row.value.to_string(), row.version.to_string()]);
        if is_block {
            cells.push(row.rows.to_string());
        }
        cells.extend([heard(row.heard_ms), counts(row, subject)]);
        table.row(cells);
    }
    table.text()
}

/// The total as a sum that can be followed.
pub(super) fn sum(subject: &Subject, view: &KeyView) -> String {
    let name = |row: &RowView| name(&row.actor, view.rows.iter().map(|row| &row.actor));
    let term = |n: i64, of: String| format!("{} {} ({of})", if n < 0 { "−" } else { "+" }, n.unsigned_abs());
    let counting = view.rows.iter().filter(|row| row.counts).map(|row| term(row.value, name(row)));
    let pending = (view.pending != 0).then(|| term(view.pending, "counted here, not in a row yet".to_owned()));
    let terms: Vec<_> = counting.chain(pending).collect();
    let mut text = match terms.as_slice() {
        [] => format!("total {}\n", view.total),
        terms => format!("total {} = {}\n", view.total, terms.join(" ").trim_start_matches("+ ")),
    };
    for row in view.rows.iter().filter(|row| !row.counts) {
        text += &format!("left out: {} ({}: {})\n", row.value, name(row), why(row, subject));
    }
    text
}

fn resets(view: &KeyView) -> String {
    let line = |reset: &ResetView| {
        let ResetView { of, by, added, removed, version } = reset;
        format!("reset by {by}, version {version}: {of} up to {added} added and {removed} removed\n")
    };
    let more = if view.more_resets { "there are more resets\n" } else { "" };
    view.resets.iter().map(line).collect::<String>() + more
}

/// A limit, and what it would decide.
fn limit_text(limit: &LimitView) -> String {
    let LimitView { name, limit: words, admits, why, share } = limit;
    let decides = if *admits { "admitted" } else { "refused" };
    let mut text = format!("limit {name}: {words}; one more would be {decides}: {why}\n");
    for line in share.iter().flat_map(share_lines) {
        text += &format!("  {line}\n");
    }
    text
}

/// What a node has of a hard limit: its share, leases and loans.
pub(super) fn share_lines(share: &ShareView) -> Vec<String> {
    let part = |units: u64| match share.is_rate {
        true => format!("{:.2} % of the rate", units as f64 * 100.0 / share.whole as f64),
        false => format!("{units} of {} permits", share.whole),
    };
    let names = |nodes: &[NodeName]| nodes.iter().map(|node| node.as_str()).collect::<Vec<_>>().join(", ");
    let used = if share.in_use > 0 { format!(", {} in use", share.in_use) } else { String::new() };
    let mut lines = vec![format!("share of this node: {}{used}", part(share.units))];
    for (founder, left) in &share.holds {
        let lasts = left.map_or("for good".to_owned(), |ms| format!("for {} more if no founder is heard", time(ms)));
        lines.push(format!("lease: holds the initial share of {founder}, {lasts}"));
    }
    lines.extend(share.lent.iter().map(|(node, units)| format!("loan: has lent {} to {node}", part(*units))));
    lines.extend(share.borrowed.iter().map(|(node, units)| format!("loan: has borrowed {} from {node}", part(*units))));
    if !share.founders.is_empty() {
        let lasts = time(share.reclaim_after_ms);
        lines.push(format!("founders: {}; reclaim_after {lasts}", names(&share.founders)));
    }
    if !share.missing.is_empty() {
        lines.push(format!("waits for {}, or until an operator forgets them", names(&share.missing)));
    }
    lines
}

/// The rows of a key as CSV.
pub(super) fn row_cells(view: &KeyView) -> Vec<Vec<String>> {
    let cells = |row: &RowView| {
        vec![
            view.key.clone(),
            row.actor.node.to_string(),
            row.actor.incarnation.to_string(),
            row.added.to_string(),
            row.removed.to_string(),
            row.reset.0.to_string(),
            row.reset.1.to_string(),
            row.value.to_string(),
            row.version.to_string(),
            row.counts.to_string(),
            row.standing.state.name().to_owned(),
            row.heard_ms.map(|ms| ms.to_string()).unwrap_or_default(),
        ]
    };
    view.rows.iter().map(cells).collect()
}

/// An entry as CSV.
pub(super) fn entry_cells(entry: &EntryView) -> Vec<String> {
    vec![
        entry.key.clone(),
        entry.actor.node.to_string(),
        entry.actor.incarnation.to_string(),
        entry.number.to_string(),
        entry.stamp.to_string(),
        entry.expires_ms.to_string(),
        entry.removed.to_string(),
        entry.bytes.to_string(),
        key::display_bytes(&entry.value),
    ]
}
