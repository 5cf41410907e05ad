//! `tally inbound_audit`: the audit of addresses, as Momentum's console shows it.

use serde_json::json;
use tallymesh_schemas::admin::{Answer, Request, SeriesInfo, SeriesRef};

use crate::args::{AuditAdd, AuditCount, AuditKey, FromNode, InboundAudit, ShowAudit};
use crate::client::{Client, Target};
use crate::commands::count;
use crate::failure::Failure;
use crate::output::{Format, Out, json};

/// Runs a command of `tally inbound_audit`.
pub(crate) fn run(command: InboundAudit, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        InboundAudit::Show(ShowAudit::Ip { net, from }) => show_ip(&net, &from, target, format),
        InboundAudit::Show(ShowAudit::All { from }) => show_all(&from, target, format),
        InboundAudit::Add(args) => add(args, 1, target, format),
        InboundAudit::Subtract(args) => add(args, -1, target, format),
        InboundAudit::CountCidr(args) => count_cidr(args, target, format),
        InboundAudit::DeleteIp(args) => delete_ip(args, target, format),
    }
}

fn metric(name: String, (interval, windows): (u32, u32)) -> SeriesRef {
    SeriesRef { name, metric: true, interval: Some(interval), windows: Some(windows) }
}

/// The series of the audit, metric by metric.
fn audited(client: &mut Client) -> Result<Vec<SeriesInfo>, Failure> {
    let series = client.one(&Request::SeriesList, |answer| match answer {
        Answer::SeriesList(list) => Some(list),
        _ => None,
    })?;
    let audit: Vec<_> = series.into_iter().filter(|series| series.metric).collect();
    if audit.is_empty() {
        let help = "add inbound_audit { monitors = \"300,6\" } to the node's configuration";
        return Err(Failure::Input(format!("this node audits nothing: {help}")));
    }
    Ok(audit)
}

fn named(series: &SeriesInfo) -> SeriesRef {
    metric(series.name.clone(), (series.interval, series.windows))
}

/// The name of a metric on Momentum's console.
fn heading(metric: &str) -> &str {
    match metric {
        "connect" => "Connections",
        "reception" => "Receptions",
        "rejection" => "Rejections",
        "delivery" => "Deliveries",
        "transfail" => "Transient failures",
        "permfail" => "Permanent failures",
        other => other,
    }
}

/// Writes a line for each metric and window.
fn show_ip(net: &str, from: &FromNode, target: &Target, format: Format) -> Result<(), Failure> {
    let from = from.node()?;
    let mut client = target.connect()?;
    let mut out = Out::open();
    let mut all = Vec::new();
    for series in audited(&mut client)? {
        let request = Request::SeriesWindows { series: named(&series), key: net.to_owned(), from: from.clone() };
        let windows = client.one(&request, |answer| match answer {
            Answer::Windows(windows) => Some(windows),
            _ => None,
        })?;
        all.push((series, windows.counts));
    }
    if format == Format::Csv {
        out.csv(&["metric", "interval", "window", "count"])?;
    }
    for (series, counts) in &all {
        for (age, count) in counts.iter().enumerate() {
            match format {
                Format::Text => out.line(line(series, age, *count))?,
                Format::Csv => {
                    out.csv(&[&series.name, &series.interval.to_string(), &age.to_string(), &count.to_string()])?;
                }
                Format::Json => {}
            }
        }
    }
    if format == Format::Json {
        let list: Vec<_> = all
            .iter()
            .map(|(series, counts)| json!({ "metric": series.name, "interval": series.interval, "counts": counts }))
            .collect();
        out.json(&json!({ "key": net, "node": from, "series": list }))?;
    }
    out.flush()
}

/// `Connections 300/0: 30`.
fn line(series: &SeriesInfo, age: usize, count: i64) -> String {
    format!("{} {}/{age}: {count}", heading(&series.name), series.interval)
}

/// Writes every count that is not zero.
fn show_all(from: &FromNode, target: &Target, format: Format) -> Result<(), Failure> {
    let from = from.node()?;
    let mut client = target.connect()?;
    let mut out = Out::open();
    let audit = audited(&mut client)?;
    let mut first = true;
    match format {
        Format::Json => out.raw("[")?,
        Format::Text | Format::Csv => out.csv(&["metric", "interval", "window", "prefix", "count"])?,
    }
    for series in audit {
        client.send(&Request::SeriesShow { series: named(&series), from: from.clone() })?;
        loop {
            let rows = match client.receive()? {
                Answer::Windows(_) => continue,
                Answer::SeriesRows(rows) => rows,
                Answer::Done => break,
                _ => return Err(client.unexpected()),
            };
            for (prefix, counts) in rows {
                for (age, count) in counts.iter().enumerate().filter(|(_, count)| **count != 0) {
                    if format == Format::Json {
                        out.raw(if std::mem::take(&mut first) { "" } else { "," })?;
                        out.raw(json(&json!({
                            "metric": series.name, "interval": series.interval, "window": age, "prefix": prefix, "count": count,
                        }))?)?;
                        continue;
                    }
                    let (interval, age, count) = (series.interval.to_string(), age.to_string(), count.to_string());
                    out.csv(&[&series.name, &interval, &age, &prefix, &count])?;
                }
            }
        }
    }
    if format == Format::Json {
        out.line("]")?;
    }
    out.flush()
}

/// Adds, or subtracts if `sign` is -1.
fn add(args: AuditAdd, sign: i64, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("inbound_audit add")?;
    let (ip, name, monitor) = args.parts()?;
    let series = metric(name.to_owned(), monitor);
    target.connect()?.order(&Request::SeriesAdd { series, key: ip.to_owned(), n: args.n * sign })
}

/// Writes the sum over windows.
fn count_cidr(args: AuditCount, target: &Target, format: Format) -> Result<(), Failure> {
    let AuditCount { net, metric: name, monitor, start, end, from } = args;
    let request = Request::SeriesCount { series: metric(name, monitor), key: net, start, end, from: from.node()? };
    count::ask(&request, target, format).map(|_| ())
}

/// Removes an address.
fn delete_ip(args: AuditKey, target: &Target, format: Format) -> Result<(), Failure> {
    format.no_csv("inbound_audit delete_ip")?;
    target.connect()?.order(&Request::SeriesRemove { series: metric(args.metric, args.monitor), key: args.ip })
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::Kind;

    use super::*;

    #[test]
    fn lines_are_as_on_the_console() {
        let series = |name: &str| SeriesInfo {
            name: name.to_owned(),
            metric: true,
            kind: Kind::CidrTree,
            interval: 300,
            windows: 6,
            replicate: true,
            keys: 0,
            bytes: 0,
        };
        assert_eq!(line(&series("connect"), 0, 30), "Connections 300/0: 30");
        assert_eq!(line(&series("reception"), 0, 1697), "Receptions 300/0: 1697");
        assert_eq!(line(&series("rejection"), 5, 0), "Rejections 300/5: 0");
    }
}
