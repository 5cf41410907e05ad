//! `tally gauge`.

use serde_json::{Value, json};
use tallymesh_schemas::admin::{Answer, GaugeInfo, Request};

use crate::args::{Gauge, GaugeKey};
use crate::client::Target;
use crate::commands::show::entry_line;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Runs a command of `tally gauge`.
pub(crate) fn run(command: Gauge, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Gauge::List => list(target, format),
        Gauge::Show { gauge } => show(gauge, target, format),
        Gauge::Get(at) => get(at, target, format),
        Gauge::Inc { at, n } => add(at, n, target, format),
        Gauge::Dec { at, n } => add(at, -n, target, format),
        Gauge::Del(at) => del(at, target),
    }
}

/// Lists the gauge caches.
fn list(target: &Target, format: Format) -> Result<(), Failure> {
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

/// Prints the count of a key.
fn get(at: GaugeKey, target: &Target, format: Format) -> Result<(), Failure> {
    counted(&Request::GaugeGet { gauge: at.gauge, key: at.key }, target, format)
}

/// Adds to a key.
fn add(at: GaugeKey, n: i64, target: &Target, format: Format) -> Result<(), Failure> {
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
fn del(at: GaugeKey, target: &Target) -> Result<(), Failure> {
    target.connect()?.order(&Request::GaugeRemove { gauge: at.gauge, key: at.key })
}

/// Shows the entries.
fn show(gauge: String, target: &Target, format: Format) -> Result<(), Failure> {
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
                        Format::Text => out.line(entry_line(key, *count))?,
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
