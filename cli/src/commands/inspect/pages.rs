//! Views of any length: the rows of all keys, and the version log. They are written page by page.

use serde_json::Value;
use tallymesh_schemas::Version;
use tallymesh_schemas::inspect::{EntryView, KeyView, LogView, RowView, View};

use crate::args;
use crate::args::node_name;
use crate::client::Target;
use crate::commands::inspect::fetch::{Page, Pages};
use crate::commands::inspect::{json, key_text, words};
use crate::failure::Failure;
use crate::output::{Format, Out, json as as_json};
use crate::style;

/// The columns of a log as CSV.
const LOG_COLUMNS: [&str; 9] =
    ["version", "node", "incarnation", "number", "key", "reset_of", "added", "removed", "gone"];

/// What is written one by one.
enum Item<'a> {
    Key(&'a KeyView),
    Entry(&'a EntryView),
    Change(&'a LogView),
}

/// Where items are written.
struct Writer {
    out: Out,
    format: Format,
    /// Whether the items are values of their own and not a list.
    follows: bool,
    /// Nothing was written yet.
    first: bool,
    /// How many more items to write.
    left: u64,
    /// The key or the version of the last item.
    last: Option<String>,
}

/// Shows the rows of all keys, or the log.
pub(super) fn run(args: &args::Inspect, target: &Target, format: Format) -> Result<(), Failure> {
    let of = args.of.as_deref().map(node_name).transpose()?;
    let subject = || args.which.of(&args.object);
    let Some(mut after) = args.log else {
        let after = args.rows.clone().filter(|after| !after.is_empty());
        return all(Pages::ask(target, subject(), View::Keys(after))?, args, format).map(drop);
    };
    loop {
        let view = View::Log { of: of.clone(), after: Version(after) };
        let last = all(Pages::ask(target, subject(), view)?, args, format)?;
        let Some(every) = args.watch else { return Ok(()) };
        after = last.and_then(|last| last.parse().ok()).unwrap_or(after);
        std::thread::sleep(every);
    }
}

/// Writes all pages. Returns the key or the version of the last item.
fn all(mut pages: Pages, args: &args::Inspect, format: Format) -> Result<Option<String>, Failure> {
    let (follows, left) = (args.watch.is_some(), args.limit.unwrap_or(u64::MAX));
    let mut writer = Writer { out: Out::open(), format, follows, first: true, left, last: None };
    if !follows {
        writer.begin(&pages, args)?;
    }
    while writer.left > 0
        && let Some(page) = pages.next()?
    {
        match &page {
            Page::Keys(keys) => keys.iter().try_for_each(|key| writer.item(&Item::Key(key)))?,
            Page::Entries(entries) => entries.iter().try_for_each(|entry| writer.item(&Item::Entry(entry)))?,
            Page::Log(log) => log.iter().try_for_each(|change| writer.item(&Item::Change(change)))?,
        }
        writer.out.flush()?;
    }
    if writer.left == 0 {
        let option = if args.log.is_some() { "--log" } else { "--rows" };
        let last = writer.last.as_deref().unwrap_or_default();
        style::complain("note", &format!("there may be more: continue with {option} {last}"));
    }
    if !follows && format == Format::Json {
        writer.out.line("]}")?;
    }
    writer.out.flush()?;
    Ok(writer.last)
}

impl Writer {
    fn begin(&mut self, pages: &Pages, args: &args::Inspect) -> Result<(), Failure> {
        let (name, columns) = match (args.log.is_some(), pages.subject.is_cache) {
            (true, _) => ("log", &LOG_COLUMNS[..]),
            (false, true) => ("entries", &key_text::ENTRY_COLUMNS[..]),
            (false, false) => ("keys", &key_text::ROW_COLUMNS[..]),
        };
        match self.format {
            Format::Text => self.out.line(style::strong(&words::heading(&pages.subject, None))),
            Format::Csv => self.out.csv(columns),
            Format::Json => {
                let object = as_json(&json::subject(&pages.subject))?;
                self.out.raw(object.strip_suffix('}').unwrap_or(&object))?;
                self.out.raw(format!(",\"{name}\":["))
            }
        }
    }

    fn item(&mut self, item: &Item<'_>) -> Result<(), Failure> {
        if self.left == 0 {
            return Ok(());
        }
        self.left -= 1;
        match self.format {
            Format::Text => self.out.text(item.text())?,
            Format::Csv => {
                for cells in item.cells() {
                    self.out.csv(&cells.iter().map(String::as_str).collect::<Vec<_>>())?;
                }
            }
            Format::Json if self.follows => self.out.json(&item.json())?,
            Format::Json => {
                if !std::mem::take(&mut self.first) {
                    self.out.raw(",")?;
                }
                self.out.raw(as_json(&item.json())?)?;
            }
        }
        self.last = Some(item.place());
        Ok(())
    }
}

impl Item<'_> {
    fn json(&self) -> Value {
        match self {
            Self::Key(view) => json::key(view),
            Self::Entry(entry) => json::entry(entry),
            Self::Change(change) => json::change(change),
        }
    }

    fn cells(&self) -> Vec<Vec<String>> {
        match self {
            Self::Key(view) => key_text::row_cells(view),
            Self::Entry(entry) => vec![key_text::entry_cells(entry)],
            Self::Change(change) => vec![change_cells(change)],
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Key(view) => key_line(view),
            Self::Entry(entry) => entry_line(entry),
            Self::Change(change) => change_line(change),
        }
    }

    /// Where the next page begins.
    fn place(&self) -> String {
        match self {
            Self::Key(view) => view.key.clone(),
            Self::Entry(entry) => entry.key.clone(),
            Self::Change(change) => change.version.to_string(),
        }
    }
}

/// A key with its total, and below it a line for each row.
fn key_line(view: &KeyView) -> String {
    let row = |row: &RowView| {
        let counts = if row.counts { "" } else { "  does not count" };
        let (actor, added, removed) = (&row.actor, row.added, row.removed);
        let reset = match row.reset {
            (0, 0) => String::new(),
            (added, removed) => format!(", reset up to {added} − {removed}"),
        };
        format!("{:>13}  {actor}: {added} − {removed}{reset}, version {}{counts}\n", row.value, row.version)
    };
    let rows: String = view.rows.iter().map(row).collect();
    format!("{}: {}\n{rows}", view.key, view.total)
}

fn entry_line(entry: &EntryView) -> String {
    let state = match (entry.removed, entry.readable) {
        (true, _) => "removed".to_owned(),
        (_, false) => "expired".to_owned(),
        _ => format!("{} bytes", entry.bytes),
    };
    format!("{}: {state}, write {} of {}, stamp {}\n", entry.key, entry.number, entry.actor, entry.stamp)
}

fn change_line(change: &LogView) -> String {
    let LogView { version, slot, actor, key, resets, added, removed, gone, is_write } = change;
    let what = match (resets, *is_write, *gone) {
        (Some(of), ..) => format!("reset of {of}'s row of {key} up to {added} − {removed}"),
        (None, true, true) => format!("{key} removed, write {slot} of {actor}"),
        (None, true, false) => format!("{key}, write {slot} of {actor}"),
        (None, false, true) => format!("row {slot} retired"),
        (None, false, false) => format!("{key}: {added} − {removed}"),
    };
    format!("{:>12}  {what}\n", version.to_string())
}

fn change_cells(change: &LogView) -> Vec<String> {
    vec![
        change.version.to_string(),
        change.actor.node.to_string(),
        change.actor.incarnation.to_string(),
        change.slot.to_string(),
        change.key.clone(),
        change.resets.as_ref().map(ToString::to_string).unwrap_or_default(),
        change.added.to_string(),
        change.removed.to_string(),
        change.gone.to_string(),
    ]
}
