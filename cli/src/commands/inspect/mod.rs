//! `tally inspect`: replicated state as a node holds it.

mod compare;
pub(crate) mod diff;
pub(crate) mod explain;
mod fetch;
mod found;
mod json;
mod key_text;
mod pages;
pub(crate) mod saved;
mod sockets;
mod table;
mod text;
mod words;

use std::time::Duration;

use tallymesh_schemas::inspect::View;

use crate::args;
use crate::client::Target;
use crate::commands::inspect::fetch::Inspection;
use crate::commands::inspect::found::Found;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Shows a view once, or again whenever it has changed.
pub(crate) fn run(args: &args::Inspect, target: &Target, format: Format) -> Result<(), Failure> {
    if args.rows.is_some() || args.log.is_some() {
        return pages::run(args, target, format);
    }
    if !args.on.is_empty() {
        format.no_csv("inspect --on")?;
    }
    let Some(every) = args.watch else { return look(args, target, format)?.write(format) };
    follow(every, format, || look(args, target, format))
}

fn look(args: &args::Inspect, target: &Target, format: Format) -> Result<Found, Failure> {
    let view = match (&args.key, args.links) {
        (Some(key), _) => View::Key(key.clone()),
        (None, true) => View::Links,
        (None, false) => View::Actors,
    };
    let subject = args.which.of(&args.object);
    if !args.on.is_empty() {
        return compare::look(&sockets::all(target, &args.on)?, &subject, &view);
    }
    if args.links {
        format.no_csv("inspect --links")?;
    }
    Ok(Found::of(&Inspection::ask(target, subject, view)?))
}

/// Prints what is found whenever something has changed but ages.
fn follow(every: Duration, format: Format, look: impl Fn() -> Result<Found, Failure>) -> Result<(), Failure> {
    let mut last = None;
    loop {
        let found = look()?;
        let now = json::without_ages(&found.json);
        if last.as_ref() != Some(&now) {
            if last.is_some() && format == Format::Text {
                let mut out = Out::open();
                out.line("")?;
                out.flush()?;
            }
            found.print(format)?;
            last = Some(now);
        }
        std::thread::sleep(every);
    }
}
