//! `tally watch`: prints a line for every key whose count changes.

use serde_json::json;
use tallymesh_schemas::admin::{Answer, Request};

use crate::args::Watch;
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Watches an object until the node stops or stdout is closed.
pub(crate) fn run(Watch { object }: Watch, target: &Target, format: Format) -> Result<(), Failure> {
    let mut client = target.connect()?;
    client.send(&Request::Watch { object })?;
    client.wait_at_most(None)?;
    let mut out = Out::open();
    if format == Format::Csv {
        out.csv(&["key", "count"])?;
        out.flush()?;
    }
    loop {
        let Answer::Changed { keys, lost } = client.receive()? else { return Err(client.unexpected()) };
        if lost > 0 {
            style::complain(
                "warning",
                &format!("{lost} changes were skipped: they came faster than they could be sent"),
            );
        }
        for (key, count) in keys {
            match format {
                Format::Text => out.line(format!("{key} {count}"))?,
                Format::Json => out.json(&json!({ "key": key, "count": count }))?,
                Format::Csv => out.csv(&[&key, &count.to_string()])?,
            }
        }
        out.flush()?;
    }
}
