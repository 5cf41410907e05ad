//! `tally cache`, and the entries of a cache in `cluster shared show`.

use std::io::{self, Read, Write};

use serde_json::{Value, json};
use tallymesh_schemas::admin::{Answer, CacheInfo, CacheItem, Request};
use tallymesh_schemas::{bounds, key};

use crate::args::{Cache, CacheKey, CacheSet};
use crate::client::Target;
use crate::commands::flush;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Runs a command of `tally cache`.
pub(crate) fn run(command: Cache, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Cache::List => list(target, format),
        Cache::Get(at) => get(at, target, format),
        Cache::Set(args) => set(args, target),
        Cache::Del(at) => del(at, target),
        Cache::Show { cache } => show(cache, target, format),
    }
}

/// Lists the caches.
fn list(target: &Target, format: Format) -> Result<(), Failure> {
    let list = target.connect()?.one(&Request::CacheList, |answer| match answer {
        Answer::CacheList(list) => Some(list),
        _ => None,
    })?;
    let mut out = Out::open();
    let bound = |bound: Option<u64>, none: &str| bound.map_or(none.to_owned(), |bound| bound.to_string());
    match format {
        Format::Json => out.json(&list)?,
        Format::Csv => {
            out.csv(&["name", "snapshots", "entries", "bytes", "max_size", "max_bytes"])?;
            for CacheInfo { name, snapshot, entries, bytes, max_size, max_bytes } in &list {
                let (snapshot, entries, bytes) = (snapshot.to_string(), entries.to_string(), bytes.to_string());
                out.csv(&[name, &snapshot, &entries, &bytes, &bound(*max_size, "-1"), &bound(*max_bytes, "-1")])?;
            }
        }
        Format::Text if list.is_empty() => out.line("this node has no caches")?,
        Format::Text => {
            let head = format!("{:>30}{:>12}{:>14}{:>12}{:>14}", "cache", "entries", "bytes", "max_size", "max_bytes");
            out.line(style::strong(&head))?;
            for CacheInfo { name, entries, bytes, max_size, max_bytes, .. } in &list {
                let (size, most) = (bound(*max_size, "none"), bound(*max_bytes, "none"));
                out.line(format!("{name:>30}{entries:>12}{bytes:>14}{size:>12}{most:>14}"))?;
            }
        }
    }
    out.flush()
}

/// Prints a value: its bytes only, or as JSON with its writer and its times.
fn get(at: CacheKey, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("cache get")?;
    let request = Request::CacheGet { cache: at.cache, key: at.key };
    let items = target.connect()?.one(&request, |answer| match answer {
        Answer::CacheItems(items) => Some(items),
        _ => None,
    })?;
    let mut out = Out::open();
    for item in &items {
        match format {
            Format::Json => out.json(&as_json(item))?,
            _ => {
                out.flush()?;
                let written = io::stdout().lock().write_all(&item.value);
                written.map_err(|error| Failure::Input(format!("cannot write the value: {error}")))?;
            }
        }
    }
    out.flush()
}

/// Writes a value.
fn set(args: CacheSet, target: &Target) -> Result<(), Failure> {
    let CacheSet { at, value, ttl, wait } = args;
    let value = if value == "-" { from_stdin()? } else { value.into_bytes() };
    target.connect()?.order(&Request::CacheSet { cache: at.cache, key: at.key, value, ttl })?;
    flush::wait(&wait, target)
}

/// Reads a value from stdin, but no more than one byte beyond the bound, so that the node can refuse it.
fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let read = io::stdin().lock().take(bounds::VALUE_BYTES as u64 + 1).read_to_end(&mut value);
    read.map(|_| value).map_err(|error| Failure::Input(format!("cannot read the value from stdin: {error}")))
}

/// Removes a key.
fn del(at: CacheKey, target: &Target) -> Result<(), Failure> {
    target.connect()?.order(&Request::CacheRemove { cache: at.cache, key: at.key })
}

/// Shows the entries.
fn show(cache: String, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.send(&Request::CacheShow { cache })?;
    let mut out = Out::open();
    let mut rows: Vec<Value> = Vec::new();
    if format == Format::Csv {
        out.csv(&COLUMNS)?;
    }
    loop {
        match client.receive()? {
            Answer::CacheItems(items) => {
                for item in &items {
                    match format {
                        Format::Json => rows.push(as_json(item)),
                        Format::Csv => csv(&mut out, item)?,
                        Format::Text => out.line(line(item))?,
                    }
                }
            }
            Answer::Done => break,
            _ => return Err(client.unexpected()),
        }
    }
    if format == Format::Json {
        out.json(&rows)?;
    }
    out.flush()
}

/// The columns of entries as CSV.
pub(super) const COLUMNS: [&str; 6] = ["key", "value", "bytes", "written_ms", "expires_ms", "node"];

/// An entry as CSV.
pub(super) fn csv(out: &mut Out, item: &CacheItem) -> Result<(), Failure> {
    let numbers = [item.bytes, item.written_ms, item.expires_ms].map(|n| n.to_string());
    let [bytes, written, expires] = &numbers;
    out.csv(&[&item.key, &key::display_bytes(&item.value), bytes, written, expires, item.actor.node.as_str()])
}

/// An entry as JSON. The value is shown as text, and may be cut.
pub(super) fn as_json(item: &CacheItem) -> Value {
    json!({
        "key": item.key,
        "value": key::display_bytes(&item.value),
        "bytes": item.bytes,
        "written_ms": item.written_ms,
        "expires_ms": item.expires_ms,
        "node": item.actor.node.as_str(),
    })
}

/// An entry as a line: the key ends in column 40.
pub(super) fn line(item: &CacheItem) -> String {
    let cut = if (item.value.len() as u64) < item.bytes { format!("… {} bytes", item.bytes) } else { String::new() };
    format!("{:>40}: {}{cut}", item.key, key::display_bytes(&item.value))
}
