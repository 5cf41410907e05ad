//! `tally count`: a count and how stale it is.

use std::time::Duration;

use serde::Serialize;
use tallymesh_schemas::admin::{Answer, Count, Request};

use crate::args;
use crate::client::Target;
use crate::commands::flush;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Asks a node for a count, and writes it.
pub(crate) fn run(args: args::Count, target: &Target, format: Format) -> Result<(), Failure> {
    let request = Request::Count { object: args.object, key: args.key, from: args.from.node()? };
    if let Some(position) = args.after {
        flush::reach(position, target)?;
    }
    let count = ask(&request, target, format)?;
    let stalest = Duration::from_millis(count.stalest_ms);
    match args.fresh {
        Some(allowed) if stalest > allowed => Err(Failure::No(format!(
            "the stalest part of the count was confirmed as current {:.1} s ago, and {:.1} s are allowed",
            stalest.as_secs_f64(),
            allowed.as_secs_f64()
        ))),
        _ => Ok(()),
    }
}

/// Sends a request whose answer is a count, writes the count, and returns it.
pub(super) fn ask(request: &Request, target: &Target, format: Format) -> Result<Count, Failure> {
    let count = target.connect()?.one(request, |answer| match answer {
        Answer::Count(count) => Some(count),
        _ => None,
    })?;
    let mut out = Out::open();
    let Count { total, local, actors, stalest_ms, alone } = count;
    if alone && format != Format::Json {
        style::complain(
            "warning",
            "the node has no link to another node: the counts of other nodes are missing or stale",
        );
    }
    match format {
        Format::Text => out.text(text(&count))?,
        Format::Json => out.json(&AsJson { total, local, actors, stalest_ms, alone })?,
        Format::Csv => {
            out.csv(&["total", "local", "actors", "stalest_ms"])?;
            let fields = [total.to_string(), local.to_string(), actors.to_string(), stalest_ms.to_string()];
            out.csv(&fields.each_ref().map(String::as_str))?;
        }
    }
    out.flush()?;
    Ok(count)
}

/// A count as JSON shows it.
#[derive(Serialize)]
struct AsJson {
    total: i64,
    local: i64,
    actors: u32,
    stalest_ms: u64,
    /// Written only if it is true: existing programs expect the other four only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    alone: bool,
}

fn text(Count { total, local, actors, stalest_ms, .. }: &Count) -> String {
    let heading = format!("{:>13}{:>13}{:>10}{:>12}", "total", "this node", "actors", "stalest");
    let stalest = format!("{:.1} s", *stalest_ms as f64 / 1000.0);
    format!("{heading}\n{total:>13}{local:>13}{actors:>10}{stalest:>12}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_their_headings() {
        let count = Count { total: 31, local: 5, actors: 3, stalest_ms: 840, alone: false };
        let expected =
            "        total    this node    actors     stalest\n           31            5         3       0.8 s\n";
        assert_eq!(text(&count), expected);
    }
}
