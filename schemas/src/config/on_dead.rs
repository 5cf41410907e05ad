//! Parses `on_dead`: what happens to a dead node's counts.

use std::time::Duration;

use crate::bounds;
use crate::config::report::{Report, quoted};
use crate::config::value::Setting;
use crate::structure::OnDead;

/// The time that `drop` alone stands for.
const DROP: Duration = Duration::from_secs(10);

/// Reads `hold`, `drop`, or `drop` and a time.
pub(super) fn read(setting: Setting<'_>, report: &mut Report<'_>) -> Option<OnDead> {
    let text = setting.text(report, "on_dead = \"drop 10s\"")?;
    parse(text.text).map_err(|help| report.add(setting.at(), format!("bad on_dead {}", quoted(text.text)), help)).ok()
}

fn parse(text: &str) -> Result<OnDead, String> {
    match text.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["hold"] => Ok(OnDead::Hold),
        ["drop"] => Ok(OnDead::Drop(DROP)),
        ["drop", after] => time(after).map(OnDead::Drop),
        _ => Err("write \"hold\", \"drop\" or \"drop 10s\"".to_owned()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "" => return Err(format!("add the unit, as in \"drop {number}s\"")),
        _ => return Err("write a whole number and ms, s, m or h, as in \"drop 10s\"".to_owned()),
    };
    let too_long =
        || format!("the longest is \"drop {}h\"; \"hold\" keeps them for good", bounds::DROP_AFTER.as_secs() / 3600);
    let number: u64 = match number {
        "" => return Err("write a whole number and ms, s, m or h, as in \"drop 10s\"".to_owned()),
        number => number.parse().map_err(|_| too_long())?,
    };
    let after = Duration::from_millis(number.checked_mul(millis).ok_or_else(too_long)?);
    if after > bounds::DROP_AFTER { Err(too_long()) } else { Ok(after) }
}
