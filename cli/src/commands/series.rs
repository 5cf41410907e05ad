//! `tally series`: events in windows of time.

use serde_json::{Value, json};
use tallymesh_schemas::Kind;
use tallymesh_schemas::admin::{Answer, Request, SeriesInfo, SeriesRef, Windows};
use time::OffsetDateTime;

use crate::args::{FromNode, Series, SeriesCount, SeriesName};
use crate::client::Target;
use crate::commands::count as counting;
use crate::commands::flush;
use crate::failure::Failure;
use crate::output::{Format, Out, json};
use crate::style;

/// Columns of the longest bar of a plot.
const BAR: usize = 50;

/// Runs a command of `tally series`.
pub(crate) fn run(command: Series, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Series::List => list(target, format),
        Series::Show { series, key, from } => show(&series, key, &from, target, format),
        Series::Plot { series, key, from } => plot(&series, key, &from, target, format),
        Series::Count(args) => count(args, target, format),
        Series::Add { series, key, n, wait } => {
            add(&series, key, n, target, format)?;
            flush::wait(&wait, target)
        }
        Series::Remove { series, key } => remove(&series, key, target, format),
    }
}

fn named(series: &SeriesName) -> SeriesRef {
    SeriesRef { name: series.name.clone(), metric: series.audit, interval: series.interval, windows: None }
}

/// Lists the series.
fn list(target: &Target, format: Format) -> Result<(), Failure> {
    let list = target.connect()?.one(&Request::SeriesList, |answer| match answer {
        Answer::SeriesList(list) => Some(list),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&list)?,
        Format::Csv => {
            out.csv(&["name", "audit", "type", "interval", "windows", "shared", "keys", "bytes"])?;
            for series in &list {
                let numbers = [series.interval.into(), series.windows.into(), series.keys, series.bytes];
                let [interval, windows, keys, bytes] = numbers.map(|n: u64| n.to_string());
                let (audit, shared) = (series.metric.to_string(), series.replicate.to_string());
                out.csv(&[&series.name, &audit, kind(series), &interval, &windows, &shared, &keys, &bytes])?;
            }
        }
        Format::Text if list.is_empty() => out.line("this node keeps no series")?,
        Format::Text => {
            let head = format!(
                "{:>30}  {:<7}{:>10}{:>9}{:>9}{:>12}",
                "series", "type", "seconds", "windows", "shared", "keys"
            );
            out.line(style::strong(&head))?;
            for series in &list {
                let name = if series.metric { format!("audit {}", series.name) } else { series.name.clone() };
                let shared = if series.replicate { "yes" } else { "no" };
                let (kind, SeriesInfo { interval, windows, keys, .. }) = (kind(series), series);
                out.line(format!("{name:>30}  {kind:<7}{interval:>10}{windows:>9}{shared:>9}{keys:>12}"))?;
            }
        }
    }
    out.flush()
}

fn kind(series: &SeriesInfo) -> &'static str {
    match series.kind {
        Kind::CidrTree => "cidr",
        _ => "string",
    }
}

fn windows(series: &SeriesName, key: String, from: &FromNode, target: &Target) -> Result<Windows, Failure> {
    let request = Request::SeriesWindows { series: named(series), key, from: from.node()? };
    target.connect()?.one(&request, |answer| match answer {
        Answer::Windows(windows) => Some(windows),
        _ => None,
    })
}

/// Shows the windows of one key, or of all.
fn show(
    series: &SeriesName,
    key: Option<String>,
    from: &FromNode,
    target: &Target,
    format: Format,
) -> Result<(), Failure> {
    // What looks like a key may be the beginning of `from NODE`.
    let (key, from) = match key {
        Some(word) if word == "from" && from.words.len() == 1 => {
            let words = [vec![word], from.words.clone()].concat();
            (None, &FromNode { words, from: None })
        }
        key => (key, from),
    };
    let Some(key) = key else { return show_all(series, from, target, format) };
    let windows = windows(series, key.clone(), from, target)?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&as_json(&windows, &key))?,
        Format::Csv => {
            out.csv(&["window", "began", "count"])?;
            for (age, count) in windows.counts.iter().enumerate() {
                out.csv(&[&age.to_string(), &began(&windows, age).to_string(), &count.to_string()])?;
            }
        }
        Format::Text => {
            out.line(style::strong(&heading(&windows.series)))?;
            for (age, count) in windows.counts.iter().enumerate() {
                out.line(format!("{age:>7}  {}{count:>14}", moment(began(&windows, age))))?;
            }
            out.line(format!("{:>7}  {:<20}{:>14.1}", "", "sliding", sliding(&windows)))?;
        }
    }
    out.flush()
}

fn show_all(series: &SeriesName, from: &FromNode, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.send(&Request::SeriesShow { series: named(series), from: from.node()? })?;
    let Answer::Windows(windows) = client.receive()? else { return Err(client.unexpected()) };
    let ages = 0..windows.series.windows as usize;
    let mut out = Out::open();
    match format {
        Format::Json => {
            let object = json(&json!({
                "series": windows.series, "began": ages.map(|age| began(&windows, age)).collect::<Vec<_>>(),
            }))?;
            out.raw(object.strip_suffix('}').unwrap_or(&object))?;
            out.raw(",\"rows\":[")?;
        }
        Format::Csv => {
            let ages: Vec<_> = ages.map(|age| age.to_string()).collect();
            let columns: Vec<_> = std::iter::once("key").chain(ages.iter().map(String::as_str)).collect();
            out.csv(&columns)?;
        }
        Format::Text => out.line(style::strong(&heading(&windows.series)))?,
    }
    let mut first = true;
    loop {
        let rows = match client.receive()? {
            Answer::SeriesRows(rows) => rows,
            Answer::Done => break,
            _ => return Err(client.unexpected()),
        };
        for (key, counts) in rows {
            let fields: Vec<_> = counts.iter().map(i64::to_string).collect();
            match format {
                Format::Json => {
                    out.raw(if std::mem::take(&mut first) { "" } else { "," })?;
                    out.raw(json(&json!({ "key": key, "counts": counts }))?)?;
                }
                Format::Csv => {
                    let row: Vec<_> = std::iter::once(key.as_str()).chain(fields.iter().map(String::as_str)).collect();
                    out.csv(&row)?;
                }
                Format::Text => {
                    let columns: String = fields.iter().map(|field| format!("{field:>10}")).collect();
                    out.line(format!("{key:>40}:{columns}"))?;
                }
            }
        }
    }
    if format == Format::Json {
        out.line("]}")?;
    }
    out.flush()
}

/// Plots the windows of a key.
fn plot(series: &SeriesName, key: String, from: &FromNode, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("series plot")?;
    let windows = windows(series, key.clone(), from, target)?;
    let mut out = Out::open();
    if format == Format::Json {
        out.json(&as_json(&windows, &key))?;
        return out.flush();
    }
    out.line(style::strong(&format!("{key} in {}", heading(&windows.series))))?;
    let most = windows.counts.iter().copied().max().unwrap_or(0);
    for (age, count) in windows.counts.iter().enumerate().rev() {
        out.line(format!("{} {count:>12} {}", moment(began(&windows, age)), bar(*count, most)))?;
    }
    out.line(format!("sliding {:.1} in {} s", sliding(&windows), windows.series.interval))?;
    out.flush()
}

/// A bar of eighths, as long as the count is to the most.
fn bar(count: i64, most: i64) -> String {
    let (count, most) = (u128::try_from(count).unwrap_or(0), u128::try_from(most).unwrap_or(0).max(1));
    let eighths = usize::try_from(count * BAR as u128 * 8 / most).unwrap_or(0);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    // Where there is something, there is something to see.
    if eighths == 0 && count > 0 { "▏".to_owned() } else { "█".repeat(eighths / 8) + rest }
}

/// The sum over windows.
fn count(args: SeriesCount, target: &Target, format: Format) -> Result<(), Failure> {
    let (start, end) = args.windows;
    let request =
        Request::SeriesCount { series: named(&args.series), key: args.key, start, end, from: args.from.node()? };
    counting::ask(&request, target, format).map(|_| ())
}

/// Adds in the current window.
fn add(series: &SeriesName, key: String, n: i64, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("series add")?;
    target.connect()?.order(&Request::SeriesAdd { series: named(series), key, n })
}

/// Removes a key.
fn remove(series: &SeriesName, key: String, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("series remove")?;
    target.connect()?.order(&Request::SeriesRemove { series: named(series), key })
}

fn heading(series: &SeriesInfo) -> String {
    let SeriesInfo { name, interval, windows, replicate, .. } = series;
    let shared = if *replicate { "shared by the cluster" } else { "of this node alone" };
    let audit = if series.metric { "audit series" } else { "series" };
    format!("{audit} '{name}', {windows} windows of {interval} s, {shared}")
}

/// When a window began, in seconds since 1970.
fn began(windows: &Windows, age: usize) -> u64 {
    let back = u64::from(windows.series.interval).saturating_mul(age as u64);
    windows.began.saturating_sub(back)
}

/// A moment as people read it: `2026-11-22 14:05:00Z`.
pub(super) fn moment(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|unix| OffsetDateTime::from_unix_timestamp(unix).ok());
    time.map_or_else(
        || unix.to_string(),
        |time| format!("{} {:02}:{:02}:{:02}Z", time.date(), time.hour(), time.minute(), time.second()),
    )
}

/// The count over the last interval: the share of the window before that the interval still covers, and the current one.
fn sliding(windows: &Windows) -> f64 {
    let interval_ms = (u64::from(windows.series.interval) * 1000).max(1);
    let share = 1.0 - windows.into_ms.min(interval_ms) as f64 / interval_ms as f64;
    let count = |age: usize| windows.counts.get(age).copied().unwrap_or(0) as f64;
    count(0) + count(1) * share
}

fn as_json(windows: &Windows, key: &str) -> Value {
    let list: Vec<_> = windows
        .counts
        .iter()
        .enumerate()
        .map(|(age, count)| json!({ "window": age, "began": began(windows, age), "count": count }))
        .collect();
    json!({ "series": windows.series, "key": key, "sliding": sliding(windows), "windows": list })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_the_counts() {
        assert_eq!(bar(10, 10).chars().count(), BAR);
        assert_eq!(bar(5, 10).chars().count(), BAR / 2);
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!((bar(0, 10), bar(-5, 10), bar(0, 0)), (String::new(), String::new(), String::new()));
        assert_eq!(bar(i64::MAX, i64::MAX).chars().count(), BAR);
    }

    #[test]
    fn moments_are_read_in_utc() {
        assert_eq!(moment(1_763_820_300), "2025-11-22 14:05:00Z");
    }
}
