//! Views of several nodes side by side.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tallymesh_schemas::Actor;
use tallymesh_schemas::inspect::{SubjectRef, View};

use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::found::Found;
use crate::commands::inspect::json as views;
use crate::commands::inspect::sockets::Named;
use crate::commands::inspect::table::Table;
use crate::commands::inspect::words::{counts, hex};
use crate::failure::Failure;

/// The mark of a line on which nodes differ.
const DIFFERS: &str = "differs";

/// What a node says of each actor, or of the winner of a key: what is shown, and what is compared.
type Said = BTreeMap<String, (String, String)>;

/// Asks all nodes, and compares what they say.
pub(super) fn look(nodes: &[Named], subject: &SubjectRef, view: &View) -> Result<Found, Failure> {
    let mut asked = Vec::new();
    for node in nodes {
        match Inspection::ask(&node.target, subject.clone(), view.clone()) {
            Ok(found) => asked.push((&node.name, Ok(found))),
            // A wrong name is wrong for all nodes.
            Err(Failure::Input(why)) => return Err(Failure::Input(format!("{}: {why}", node.name))),
            Err(failure) => asked.push((&node.name, Err(failure))),
        }
    }
    let said: Vec<_> = asked.iter().map(|(_, found)| said(found)).collect();
    let lines: BTreeSet<&String> = said.iter().flatten().flat_map(BTreeMap::keys).collect();
    let mut table = Table::new(&[match view {
        View::Key(_) => "row",
        _ => "actor",
    }]);
    asked.iter().for_each(|(name, _)| table.column((*name).clone()));
    table.column(String::new());
    let mut differing = Vec::new();
    for line in lines {
        let of_nodes = said.iter().map(|said| said.as_ref().map(|said| said.get(line)));
        let compared: BTreeSet<_> = of_nodes.clone().flatten().map(|cell| cell.map(|cell| &cell.1)).collect();
        let cells = of_nodes
            .map(|cell| cell.map_or("?".to_owned(), |cell| cell.map_or("-", |cell| cell.0.as_str()).to_owned()));
        let mut row: Vec<_> = [line.clone()].into_iter().chain(cells).collect();
        if compared.len() > 1 {
            differing.push(line.clone());
            row.push(DIFFERS.to_owned());
        }
        table.row(row);
    }
    let missing: Vec<_> = asked.iter().filter_map(|(name, found)| Some((name, trouble(found)?))).collect();
    let mut text = table.text();
    missing.iter().for_each(|(name, why)| text += &format!("{name} was not asked: {why}\n"));
    text += &match (differing.len(), missing.len()) {
        (0, 0) => "the nodes agree\n".to_owned(),
        (0, n) => format!("the nodes that answered agree; {n} did not answer\n"),
        (n, _) => format!("{n} lines differ; while nodes count, a difference may be on its way\n"),
    };
    let end = end(differing.len(), missing.len());
    let nodes: Vec<_> = asked.iter().map(|(name, found)| as_json(name, found)).collect();
    Ok(Found { text, json: json!({ "nodes": nodes, "differences": differing }), csv: None, end })
}

fn end(differing: usize, missing: usize) -> Result<(), Failure> {
    match (differing, missing) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Failure::Exit(1)),
        _ => Err(Failure::Exit(3)),
    }
}

/// Why a node has not answered. A node that holds nothing of the key has answered.
fn trouble(found: &Result<Inspection, Failure>) -> Option<String> {
    match found {
        Err(Failure::No(_)) | Ok(_) => None,
        Err(failure) => Some(failure.message().unwrap_or_default().to_owned()),
    }
}

/// What a node says; `None` when it was not reached.
fn said(found: &Result<Inspection, Failure>) -> Option<Said> {
    let found = match found {
        Ok(found) => found,
        Err(Failure::No(_)) => return Some(Said::new()),
        Err(_) => return None,
    };
    let subject = &found.subject;
    // A run's own node says of it what the others cannot know.
    let state = |of: &Actor, counts: String| if *of == subject.viewer { "yes".to_owned() } else { counts };
    let actors = found.actors.iter().map(|view| {
        let fingerprint = view.fingerprint.map(hex).unwrap_or_default();
        let shown = format!("{}, {} rows, {}", view.applied, view.rows, state(&view.actor, counts(view, subject)));
        (view.actor.to_string(), (shown, format!("{} {fingerprint} {}", view.applied, view.counts)))
    });
    let rows = found.keys.iter().flat_map(|key| &key.rows).map(|row| {
        let shown = format!("{}, version {}, {}", row.value, row.version, state(&row.actor, counts(row, subject)));
        let compared = format!("{} {} {} {:?} {}", row.added, row.removed, row.version, row.reset, row.counts);
        (row.actor.to_string(), (shown, compared))
    });
    let totals = found.keys.iter().map(|key| ("total".to_owned(), (key.total.to_string(), key.total.to_string())));
    let winners = found.entries.iter().map(|entry| {
        let shown = format!("write {} of {}", entry.number, entry.actor);
        ("winner".to_owned(), (shown, format!("{} {:?} {}", entry.stamp, entry.hash, entry.removed)))
    });
    let all = subject.fingerprint.filter(|_| found.view == View::Actors).map(hex);
    let whole = all.map(|all| ("all entries".to_owned(), (all.clone(), all)));
    Some(actors.chain(rows).chain(totals).chain(winners).chain(whole).collect())
}

fn as_json(name: &str, found: &Result<Inspection, Failure>) -> Value {
    let (view, error) = match found {
        Ok(found) => (views::of(found), Value::Null),
        Err(failure) => (Value::Null, json!(failure.message())),
    };
    json!({ "node": name, "view": view, "error": error })
}
