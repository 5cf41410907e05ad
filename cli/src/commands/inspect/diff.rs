//! `tally diff`: what two nodes hold, row by row. Both send their keys in order, so that the memory is that of two pages.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use tallymesh_schemas::inspect::{EntryView, KeyView, RowView, View};

use crate::args;
use crate::client::Target;
use crate::commands::inspect::fetch::{Page, Pages};
use crate::commands::inspect::sockets;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// A key as a node holds it: its bytes, its text, and its parts.
struct Held {
    raw: Vec<u8>,
    key: String,
    /// What is shown of each actor's row, or of the entry.
    parts: BTreeMap<String, String>,
}

/// The keys of one node, in order.
struct Keys {
    pages: Pages,
    ahead: VecDeque<Held>,
    is_over: bool,
}

/// Compares two nodes.
pub(crate) fn run(args: &args::Diff, target: &Target, format: Format) -> Result<(), Failure> {
    let names = [&args.one, &args.other];
    let [mut one, mut other] = {
        let open = |name: &str| -> Result<Keys, Failure> {
            let node = sockets::one(target, name)?;
            let pages = Pages::ask(&node.target, args.which.of(&args.object), View::Keys(None))?;
            Ok(Keys { pages, ahead: VecDeque::new(), is_over: false })
        };
        [open(&args.one)?, open(&args.other)?]
    };
    let mut out = Out::open();
    if format == Format::Csv {
        out.csv(&["key", "part", names[0], names[1]])?;
    }
    let (mut compared, mut differing) = (0_u64, 0_u64);
    loop {
        let (left, right) = match (one.raw()?, other.raw()?) {
            (None, None) => break,
            (Some(left), Some(right)) => match left.cmp(&right) {
                Ordering::Less => (one.take(), None),
                Ordering::Greater => (None, other.take()),
                Ordering::Equal => (one.take(), other.take()),
            },
            (Some(_), None) => (one.take(), None),
            (None, Some(_)) => (None, other.take()),
        };
        compared += 1;
        let found = differences(left.as_ref(), right.as_ref());
        differing += u64::from(!found.is_empty());
        for (key, part, left, right) in found {
            match format {
                Format::Text => out.line(format!("{key}  {part}\n  {}: {left}\n  {}: {right}", names[0], names[1]))?,
                Format::Csv => out.csv(&[&key, &part, &left, &right])?,
                Format::Json => out.json(&as_json(&key, &part, [(names[0], &left), (names[1], &right)]))?,
            }
        }
    }
    if format == Format::Text {
        out.line(match differing {
            0 => format!("{compared} keys compared, none differs"),
            n => format!("{compared} keys compared, {n} differ; while nodes count, a difference may be on its way"),
        })?;
    }
    out.flush()?;
    if differing == 0 { Ok(()) } else { Err(Failure::Exit(1)) }
}

fn as_json(key: &str, part: &str, nodes: [(&String, &String); 2]) -> Value {
    let nodes: Vec<_> = nodes.into_iter().map(|(node, held)| json!({ "node": node, "held": held })).collect();
    json!({ "key": key, "part": part, "nodes": nodes })
}

/// The parts of a key that differ: the key, the part, and what each node holds.
fn differences(left: Option<&Held>, right: Option<&Held>) -> Vec<(String, String, String, String)> {
    let none = BTreeMap::new();
    let [a, b] = [left, right].map(|held| held.map_or(&none, |held| &held.parts));
    let key = left.or(right).map(|held| held.key.clone()).unwrap_or_default();
    let mut parts: Vec<_> = a.keys().chain(b.keys()).collect();
    parts.sort_unstable();
    parts.dedup();
    let of = |held: &BTreeMap<String, String>, part: &String| {
        held.get(part).cloned().unwrap_or_else(|| "nothing".to_owned())
    };
    let pairs = parts.into_iter().map(|part| (key.clone(), part.clone(), of(a, part), of(b, part)));
    pairs.filter(|(_, _, left, right)| left != right).collect()
}

impl Keys {
    /// The bytes of the next key; `None` at the end.
    fn raw(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        while self.ahead.is_empty() && !self.is_over {
            match self.pages.next()? {
                Some(Page::Keys(keys)) => self.ahead.extend(keys.into_iter().map(Held::from)),
                Some(Page::Entries(entries)) => self.ahead.extend(entries.into_iter().map(Held::from)),
                Some(Page::Log(_)) => {}
                None => self.is_over = true,
            }
        }
        Ok(self.ahead.front().map(|held| held.raw.clone()))
    }

    fn take(&mut self) -> Option<Held> {
        self.ahead.pop_front()
    }
}

impl From<KeyView> for Held {
    fn from(view: KeyView) -> Self {
        let part = |row: &RowView| {
            let counts = if row.counts { "counts" } else { "does not count" };
            let reset = match row.reset {
                (0, 0) => String::new(),
                (added, removed) => format!(", reset up to {added} − {removed}"),
            };
            let text = format!("{} − {}{reset}, version {}, {counts}", row.added, row.removed, row.version);
            (row.actor.to_string(), text)
        };
        Self { parts: view.rows.iter().map(part).collect(), raw: view.raw, key: view.key }
    }
}

impl From<EntryView> for Held {
    fn from(entry: EntryView) -> Self {
        let what = if entry.removed { "removed".to_owned() } else { format!("{} bytes", entry.bytes) };
        let text = format!("{what}, stamp {}, hash {:016x}", entry.stamp, entry.hash.unwrap_or_default());
        Self { parts: BTreeMap::from([("winner".to_owned(), text)]), raw: entry.raw, key: entry.key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_one_node_lacks_differ() {
        let held = |parts: &[(&str, &str)]| Held {
            raw: vec![1],
            key: "k".to_owned(),
            parts: parts.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        let (a, b) = (held(&[("x", "1"), ("y", "2")]), held(&[("x", "1"), ("y", "3"), ("z", "4")]));
        let found: Vec<_> = differences(Some(&a), Some(&b)).into_iter().map(|found| found.1).collect();
        assert_eq!(found, ["y", "z"]);
        assert!(differences(Some(&a), Some(&a)).is_empty());
        assert_eq!(differences(None, Some(&b)).len(), 3);
    }
}
