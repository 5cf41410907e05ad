//! `tally state`: the saved state of a stopped node.

mod import;
mod lines;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tallymesh::state::{Archive, Header, PartInfo};
use tallymesh_schemas::saved::{CacheContexts, Part, Shape};

use crate::args::State;
use crate::commands::info::duration;
use crate::commands::inspect::saved;
use crate::commands::state::lines::Line;
use crate::failure::Failure;
use crate::output::{Format, Out, json};
use crate::style;

/// Runs a command of `tally state`.
pub(crate) fn run(command: State, format: Format) -> Result<(), Failure> {
    match command {
        State::Inspect { dir, object: None, .. } => inspect(&dir, format),
        State::Inspect { dir, object: Some(object), key } => {
            let archive = Archive::open(&dir).map_err(Failure::state)?;
            saved::run(&archive, &object, key.as_deref(), format)
        }
        State::Export { dir } => export(&dir, format),
        State::Import { dir } => import::run(&dir, format),
    }
}

/// Shows the contents of a saved state.
fn inspect(dir: &Path, format: Format) -> Result<(), Failure> {
    let archive = Archive::open(dir).map_err(Failure::state)?;
    let header = archive.header().map_err(Failure::state)?;
    let facts = archive.facts().map_err(Failure::state)?;
    let parts = archive.parts().map_err(Failure::state)?;
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
            for PartInfo { shape, actor, applied, rows, bytes, .. } in &parts {
                let [run, have] = [actor.incarnation.0, applied.0].map(|number| number.to_string());
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
        "since": part.since,
        "have": part.applied,
        "complete": part.complete,
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
    let archive = Archive::open(dir).map_err(Failure::state)?;
    let Header { node, format, protocol, saved_ms } = archive.header().map_err(Failure::state)?;
    let facts = archive.facts().map_err(Failure::state)?;
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
    read.map_err(Failure::state)?;
    for (cache, contexts) in archive.caches().map_err(Failure::state)? {
        write_cache(&mut out, &archive, cache, contexts)?;
    }
    out.flush()
}

fn write_part(out: &mut Out, part: Part) -> Result<(), Failure> {
    let rows = lines::rows(&part).map_err(Failure::Input)?;
    let Part { shape, actor, extent, .. } = part;
    out.line(json(&Line::Part { structure: shape.name, class: shape.class, actor, extent })?)?;
    rows.iter().try_for_each(|row| out.json(row))
}

fn write_cache(out: &mut Out, archive: &Archive, cache: Shape, contexts: CacheContexts) -> Result<(), Failure> {
    let Shape { name, class } = cache.clone();
    out.json(&Line::Cache { structure: name, class, contexts })?;
    let mut failed = None;
    let read = archive.each_entry(&cache, |entry| {
        if failed.is_none() {
            failed = lines::entry(&entry).map_err(Failure::Input).and_then(|line| out.json(&line)).err();
        }
        Ok(())
    });
    failed.map_or(Ok(()), Err)?;
    read.map_err(Failure::state)
}
