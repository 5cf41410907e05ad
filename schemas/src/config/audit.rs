//! `inbound_audit { monitors = … }`: the windows that the inbound audit keeps.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use hcl::edit::structure::Block;

use crate::bounds;
use crate::config::model::Monitor;
use crate::config::report::{Report, quoted};
use crate::config::scope::{Scope, no_label};
use crate::config::value::{Setting, Text};

const EXAMPLE: &str = "\"300,6\"";

/// The stanza.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) monitors: Vec<Monitor>,
    /// The most keys of each series of the audit.
    pub(super) max_keys: Option<NonZeroU64>,
}

pub(super) fn read(block: &Block, report: &mut Report<'_>) -> Audit {
    no_label(block, report);
    let mut scope = Scope::block("inbound_audit".to_owned(), block);
    let setting = scope.require("monitors", report, EXAMPLE);
    let max_keys = scope.take("max_keys");
    scope.finish(report, "the keys of inbound_audit are");
    let max_keys = max_keys.and_then(|setting| setting.bound(report, &bounds::MAX_KEYS));
    let monitors = setting.map_or(Vec::new(), |setting| monitors(setting, report));
    Audit { monitors, max_keys }
}

fn monitors(setting: Setting<'_>, report: &mut Report<'_>) -> Vec<Monitor> {
    let texts = setting.texts(report, "monitors = [\"300,6\", \"3600,24\"]");
    if texts.len() > bounds::MONITORS {
        let message = format!("{} monitors, there may be {}", texts.len(), bounds::MONITORS);
        report.add(setting.at(), message, "keep those that are asked for");
        return Vec::new();
    }
    let mut monitors = Vec::new();
    for text in texts {
        match parse(text) {
            Err(help) => report.add(text.at - 1, format!("bad monitor {}", quoted(text.text)), help),
            Ok(monitor) if monitors.contains(&monitor) => {
                report.add(text.at - 1, format!("the monitor {} stands twice", quoted(text.text)), "keep one of them");
            }
            Ok(monitor) => monitors.push(monitor),
        }
    }
    monitors
}

fn parse(text: Text<'_>) -> Result<Monitor, String> {
    let Some((interval, windows)) = text.text.split_once(',') else {
        return Err(format!("write the seconds of a window and how many are kept: {EXAMPLE}"));
    };
    Ok(Monitor {
        interval: number("the seconds of a window", interval, &bounds::MONITOR_INTERVAL)?,
        windows: number("how many windows are kept", windows, &bounds::MONITOR_WINDOWS)?,
    })
}

fn number(what: &str, text: &str, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let wrong = || format!("{what}: a whole number from {} to {}, as in {EXAMPLE}", range.start(), range.end());
    let text = text.trim();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten().ok_or_else(wrong)?;
    if range.contains(&number) { Ok(number) } else { Err(wrong()) }
}
