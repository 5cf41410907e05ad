//! `tally permits`.

use tallymesh_schemas::admin::{Answer, PermitsInfo, Request};

use crate::args::Permits;
use crate::client::Target;
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Runs a command of `tally permits`.
pub(crate) fn run(command: Permits, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Permits::List => table(&Request::PermitsList, target, format),
        Permits::Show { name } => table(&Request::PermitsShow { name }, target, format),
    }
}

fn table(request: &Request, target: &Target, format: Format) -> Result<(), Failure> {
    let list = target.connect()?.all(request, |answer| match answer {
        Answer::Permits(list) => Some(list),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&list)?,
        Format::Csv => {
            out.csv(&["name", "maximum", "open", "here", "in_use"])?;
            for PermitsInfo { name, maximum, open, here, in_use } in &list {
                let [maximum, open] = [maximum.to_string(), open.to_string()];
                out.csv(&[name, &maximum, &open, &here.to_string(), &in_use.to_string()])?;
            }
        }
        Format::Text if list.is_empty() => out.line("this node has no permits")?,
        Format::Text => {
            let head = format!("{:>30}{:>12}{:>12}{:>12}{:>12}", "permits", "maximum", "open", "here", "in use");
            out.line(style::strong(&head))?;
            for PermitsInfo { name, maximum, open, here, in_use } in &list {
                out.line(format!("{name:>30}{maximum:>12}{open:>12}{here:>12}{in_use:>12}"))?;
            }
        }
    }
    out.flush()
}
