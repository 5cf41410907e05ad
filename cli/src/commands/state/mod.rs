//! `tally state`: the saved state of a stopped node.

mod lines;

use std::io::{self, BufRead};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tallymesh::StateError;
use tallymesh::state::{Archive, FORMAT, Header, PartInfo};
use tallymesh_schemas::bounds;
use tallymesh_schemas::saved::Part;

use crate::args::State;
use crate::commands::info::duration;
use crate::commands::state::lines::Line;
use crate::failure::Failure;
use crate::output::{Format, Out, json};
use crate::style;

/// Runs a command of `tally state`.
pub(crate) fn run(command: State, format: Format) -> Result<(), Failure> {
    match command {
        State::Inspect { dir } => inspect(&dir, format),
        State::Export { dir } => export(&dir, format),
        State::Import { dir } => import(&dir, format),
    }
}

fn refused(error: StateError) -> Failure {
    Failure::Input(error.to_string())
}

/// Shows the contents of a saved state.
fn inspect(dir: &Path, format: Format) -> Result<(), Failure> {
    let archive = Archive::open(dir).map_err(refused)?;
    let header = archive.header().map_err(refused)?;
    let facts = archive.facts().map_err(refused)?;
    let parts = archive.parts().map_err(refused)?;
    let file = archive.path().display().to_string();
    let file_bytes = std::fs::metadata(archive.path()).map_or(0, |file| file.len());
    let age = age(&header);
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({
            "file": file,
            "file_bytes": file_bytes,
            "node": header.node,
            "incarnation": facts.incarnation,
            "format": header.format,
            "protocol": header.protocol,
            "saved_ms": header.saved_ms,
            "age_s": age,
            "nodes": facts.nodes,
            "tombstones": facts.tombstones,
            "parts": parts.iter().map(as_json).collect::<Vec<_>>(),
        }))?,
        Format::Csv => {
            out.csv(&["structure", "class", "node", "incarnation", "have", "rows", "bytes"])?;
            for PartInfo { shape, actor, extent, rows, bytes } in &parts {
                let [run, have] = [actor.incarnation.0, extent.applied.0].map(|number| number.to_string());
                let [rows, bytes] = [rows, bytes].map(ToString::to_string);
                out.csv(&[&shape.name, shape.class.name(), actor.node.as_str(), &run, &have, &rows, &bytes])?;
            }
        }
        Format::Text => {
            let rows: u64 = parts.iter().map(|part| part.rows).sum();
            let saved = match header.saved_ms {
                0 => "nothing yet".to_owned(),
                _ => format!("{} ago", duration(age)),
            };
            for (label, value) in [
                ("file", format!("{file}, {file_bytes} bytes")),
                ("node", header.node.to_string()),
                ("incarnation", facts.incarnation.to_string()),
                ("format", format!("{}, of protocol {}", header.format, header.protocol)),
                ("saved", saved),
                ("knows", format!("{} other nodes, {} forgotten", facts.nodes.len(), facts.tombstones.len())),
                ("has", format!("{rows} rows in {} parts", parts.len())),
            ] {
                out.line(format!("{label:<14}{value}"))?;
            }
            table(&mut out, &parts)?;
        }
    }
    out.flush()
}

fn table(out: &mut Out, parts: &[PartInfo]) -> Result<(), Failure> {
    if parts.is_empty() {
        return Ok(());
    }
    let width = parts.iter().map(|part| part.shape.name.len()).max().unwrap_or(0).max(9);
    let actors: Vec<_> = parts.iter().map(|part| part.actor.to_string()).collect();
    let actor = actors.iter().map(String::len).max().unwrap_or(0).max(5);
    out.line(style::strong(&format!(
        "\n{:<width$}  {:<actor$}  {:>10}  {:>12}",
        "structure", "actor", "rows", "bytes"
    )))?;
    for (PartInfo { shape, rows, bytes, .. }, name) in parts.iter().zip(&actors) {
        out.line(format!("{:<width$}  {name:<actor$}  {rows:>10}  {bytes:>12}", shape.name))?;
    }
    Ok(())
}

fn as_json(part: &PartInfo) -> serde_json::Value {
    json!({
        "structure": part.shape.name,
        "class": part.shape.class.name(),
        "node": part.actor.node,
        "incarnation": part.actor.incarnation,
        "since": part.extent.since,
        "have": part.extent.applied,
        "complete": part.extent.fingerprint.is_some(),
        "rows": part.rows,
        "bytes": part.bytes,
    })
}

/// Seconds since the state was saved, by this machine's clock.
fn age(header: &Header) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(header.saved_ms) / 1000
}

/// Writes a saved state as lines of JSON.
fn export(dir: &Path, format: Format) -> Result<(), Failure> {
    format.no_csv("state export")?;
    let archive = Archive::open(dir).map_err(refused)?;
    let Header { node, format, protocol, saved_ms } = archive.header().map_err(refused)?;
    let facts = archive.facts().map_err(refused)?;
    let mut out = Out::open();
    out.json(&Line::State { format, node, protocol, saved_ms, facts })?;
    let mut failed = None;
    let read = archive.each_part(|part| {
        if failed.is_none() {
            failed = write_part(&mut out, part).err();
        }
        Ok(())
    });
    failed.map_or(Ok(()), Err)?;
    read.map_err(refused)?;
    out.flush()
}

fn write_part(out: &mut Out, part: Part) -> Result<(), Failure> {
    let rows = lines::rows(&part).map_err(Failure::Input)?;
    let Part { shape, actor, extent, .. } = part;
    out.line(json(&Line::Part { structure: shape.name, class: shape.class, actor, extent })?)?;
    rows.iter().try_for_each(|row| out.json(row))
}

/// Why a state was not made.
enum Bad {
    State(StateError),
    Line(usize, String),
}

impl From<StateError> for Bad {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// Makes a saved state from lines of JSON.
fn import(dir: &Path, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("state import")?;
    let mut from = io::stdin().lock();
    let imported = read_all(&mut from, dir).map_err(|bad| match bad {
        Bad::State(error) => refused(error),
        Bad::Line(at, what) => Failure::Input(format!("line {at}: {what}; nothing was written")),
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ "parts": imported.0, "rows": imported.1 }))?,
        _ => out.line(format!("{} rows in {} parts", imported.1, imported.0))?,
    }
    out.flush()
}

fn read_all(from: &mut impl BufRead, dir: &Path) -> Result<(u64, u64), Bad> {
    let (mut text, mut at) = (String::new(), 1);
    let first = lines::next(from, &mut text).map_err(|what| Bad::Line(at, what))?;
    let Some(Line::State { format, node, protocol, saved_ms, facts }) = first else {
        return Err(Bad::Line(
            1,
            "the first line has to describe the state: use the output of `tally state export`".to_owned(),
        ));
    };
    if format > FORMAT || protocol > bounds::PROTOCOL_VERSION {
        return Err(Bad::Line(
            1,
            format!("format {format} is later than this version's, {FORMAT}: use a later version"),
        ));
    }
    let mut count = (0, 0);
    Archive::create(dir, &node, |filling| {
        filling.facts(&facts, saved_ms)?;
        let mut open: Option<(usize, Part)> = None;
        loop {
            at += 1;
            let line = lines::next(from, &mut text).map_err(|what| Bad::Line(at, what))?;
            match line {
                Some(Line::Row(row)) => {
                    let (_, part) = open.as_mut().ok_or_else(|| Bad::Line(at, "a row before any part".to_owned()))?;
                    part.rows.push(lines::to_row(part.shape.class, &row).map_err(|what| Bad::Line(at, what))?);
                    count.1 += 1;
                    continue;
                }
                Some(Line::State { .. }) => return Err(Bad::Line(at, "a second state".to_owned())),
                _ => {}
            }
            if let Some((at, part)) = open.take() {
                filling.part(part).map_err(|error| Bad::Line(at, error.to_string()))?;
                count.0 += 1;
            }
            let Some(Line::Part { structure, class, actor, extent }) = line else { return Ok(()) };
            if actor.node == node && actor.incarnation > facts.incarnation {
                return Err(Bad::Line(at, format!("a run of {node} that comes after the state's own")));
            }
            open = Some((at, lines::part(structure, class, actor, extent).map_err(|what| Bad::Line(at, what))?));
        }
    })?;
    Ok(count)
}
