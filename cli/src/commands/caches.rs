//! `tally cache`, `tally gauge`, and what `cluster shared show` shows of a cache.

use std::io::{self, Read, Write};

use serde_json::{Value, json};
use tallymesh_schemas::admin::{Answer, CacheInfo, CacheItem, GaugeInfo, Request};
use tallymesh_schemas::{bounds, key};

use crate::args::{CacheKey, CacheSet, GaugeKey};
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Lists the caches.
pub(crate) fn list(target: &Target, format: Format) -> Result<(), Failure> {
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

/// Prints a value: its bytes and nothing else, or with who wrote it when.
pub(crate) fn get(at: CacheKey, target: &Target, format: Format) -> Result<(), Failure> {
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
pub(crate) fn set(args: CacheSet, target: &Target) -> Result<(), Failure> {
    let CacheSet { at, value, ttl } = args;
    let value = if value == "-" { from_stdin()? } else { value.into_bytes() };
    target.connect()?.order(&Request::CacheSet { cache: at.cache, key: at.key, value, ttl })
}

/// One byte more than allowed is enough to be told that it is too much.
fn from_stdin() -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    let read = io::stdin().lock().take(bounds::VALUE_BYTES as u64 + 1).read_to_end(&mut value);
    read.map(|_| value).map_err(|error| Failure::Input(format!("cannot read the value from stdin: {error}")))
}

/// Removes a key.
pub(crate) fn del(at: CacheKey, target: &Target) -> Result<(), Failure> {
    target.connect()?.order(&Request::CacheRemove { cache: at.cache, key: at.key })
}

/// Shows the entries.
pub(crate) fn show(cache: String, target: &Target, format: Format) -> Result<(), Failure> {
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

/// An entry as JSON: what of its value is shown, as text where it is text.
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

/// Lists the gauge caches.
pub(crate) fn gauges(target: &Target, format: Format) -> Result<(), Failure> {
    let list = target.connect()?.one(&Request::GaugeList, |answer| match answer {
        Answer::GaugeList(list) => Some(list),
        _ => None,
    })?;
    let mut out = Out::open();
    let size = |size: Option<u64>, none: &str| size.map_or(none.to_owned(), |size| size.to_string());
    match format {
        Format::Json => {
            let rows = list.iter().map(|GaugeInfo { name, entries, max_size, ttl, replicate }| {
                json!({
                    "name": name, "entries": entries, "max_size": max_size, "ttl": ttl.as_secs(), "shared": replicate,
                })
            });
            out.json(&rows.collect::<Vec<_>>())?;
        }
        Format::Csv => {
            out.csv(&["name", "entries", "max_size", "ttl", "shared"])?;
            for GaugeInfo { name, entries, max_size, ttl, replicate } in &list {
                let (entries, ttl, shared) = (entries.to_string(), ttl.as_secs().to_string(), replicate.to_string());
                out.csv(&[name, &entries, &size(*max_size, "-1"), &ttl, &shared])?;
            }
        }
        Format::Text if list.is_empty() => out.line("this node keeps no gauge caches")?,
        Format::Text => {
            let head =
                format!("{:>30}{:>12}{:>12}{:>10}{:>9}", "gauge cache", "entries", "max_size", "seconds", "shared");
            out.line(style::strong(&head))?;
            for GaugeInfo { name, entries, max_size, ttl, replicate } in &list {
                let (ttl, shared) = (ttl.as_secs(), if *replicate { "yes" } else { "no" });
                out.line(format!("{name:>30}{entries:>12}{:>12}{ttl:>10}{shared:>9}", size(*max_size, "none")))?;
            }
        }
    }
    out.flush()
}

/// Prints what a key counts.
pub(crate) fn gauge_get(at: GaugeKey, target: &Target, format: Format) -> Result<(), Failure> {
    counted(&Request::GaugeGet { gauge: at.gauge, key: at.key }, target, format)
}

/// Adds to a key.
pub(crate) fn gauge_add(at: GaugeKey, n: i64, target: &Target, format: Format) -> Result<(), Failure> {
    counted(&Request::GaugeAdd { gauge: at.gauge, key: at.key, n }, target, format)
}

fn counted(request: &Request, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("gauge get")?;
    let entries = target.connect()?.one(request, |answer| match answer {
        Answer::Entries(entries) => Some(entries),
        _ => None,
    })?;
    let mut out = Out::open();
    for (key, count) in &entries {
        match format {
            Format::Json => out.json(&json!({ "key": key, "count": count }))?,
            _ => out.line(count.to_string())?,
        }
    }
    out.flush()
}

/// Removes a key.
pub(crate) fn gauge_del(at: GaugeKey, target: &Target) -> Result<(), Failure> {
    target.connect()?.order(&Request::GaugeRemove { gauge: at.gauge, key: at.key })
}

/// Shows the entries.
pub(crate) fn gauge_show(gauge: String, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.send(&Request::GaugeShow { gauge })?;
    let mut out = Out::open();
    let mut rows: Vec<Value> = Vec::new();
    if format == Format::Csv {
        out.csv(&["key", "count"])?;
    }
    loop {
        match client.receive()? {
            Answer::Entries(entries) => {
                for (key, count) in &entries {
                    match format {
                        Format::Json => rows.push(json!({ "key": key, "count": count })),
                        Format::Csv => out.csv(&[key, &count.to_string()])?,
                        Format::Text => out.line(format!("{key:>60}:{count:>13}"))?,
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
