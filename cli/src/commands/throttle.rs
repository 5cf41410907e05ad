//! `tally throttle` and `tally limits`.

use std::time::{Duration, Instant};

use serde_json::json;
use tallymesh_schemas::admin::{Answer, Request, ThrottleInfo};

use crate::args::{Throttle, ThrottleName, ThrottleTake};
use crate::client::{Client, Target};
use crate::failure::Failure;
use crate::output::{Format, Out};
use crate::style;

/// Runs a command of `tally throttle`.
pub(crate) fn run(command: Throttle, target: &Target, format: Format) -> Result<(), Failure> {
    match command {
        Throttle::List => list(target, format),
        Throttle::Show { name } => show(name, target, format),
        Throttle::Take(args) => take(args, target, format),
        Throttle::Check { name, n } => check(name, n, target, format),
        Throttle::Explain { name } => explain(name, target, format),
    }
}

/// Lists throttles.
fn list(target: &Target, format: Format) -> Result<(), Failure> {
    table(&Request::ThrottleList, target, format)
}

/// Shows one throttle.
fn show(name: ThrottleName, target: &Target, format: Format) -> Result<(), Failure> {
    table(&Request::ThrottleShow { name: name.name }, target, format)
}

fn table(request: &Request, target: &Target, format: Format) -> Result<(), Failure> {
    let list = target.connect()?.all(request, |answer| match answer {
        Answer::Throttles(list) => Some(list),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&list)?,
        Format::Csv => {
            let head =
                ["name", "rate", "burst", "strength", "on_partition", "tokens", "share_ppm", "admitted", "local"];
            out.csv(&head)?;
            for throttle in &list {
                let ThrottleInfo { name, rate, strength, on_partition, .. } = throttle;
                let [burst, share] = [throttle.burst, throttle.share_ppm].map(|n| n.to_string());
                let [tokens, admitted, local] =
                    [throttle.tokens, throttle.admitted, throttle.local].map(|n| n.to_string());
                out.csv(&[name, rate, &burst, strength, on_partition, &tokens, &share, &admitted, &local])?;
            }
        }
        Format::Text if list.is_empty() => out.line("this node has no throttles")?,
        Format::Text => {
            let head = format!(
                "{:>30}  {:<12}{:>9}  {:<9}{:>10}{:>10}{:>14}",
                "throttle", "rate", "burst", "strength", "tokens", "share", "admitted"
            );
            out.line(style::strong(&head))?;
            for ThrottleInfo { name, rate, burst, strength, tokens, share_ppm, admitted, .. } in &list {
                let share = format!("{}.{} %", share_ppm / 10_000, share_ppm / 1000 % 10);
                out.line(format!(
                    "{name:>30}  {rate:<12}{burst:>9}  {strength:<9}{tokens:>10}{share:>10}{admitted:>14}"
                ))?;
            }
        }
    }
    out.flush()
}

/// The result of a request for tokens.
struct Taken {
    admitted: bool,
    after: Option<Duration>,
    reason: Option<String>,
}

fn taken(client: &mut Client, request: &Request) -> Result<Taken, Failure> {
    client.one(request, |answer| match answer {
        Answer::Taken { admitted, after, reason } => Some(Taken { admitted, after, reason }),
        _ => None,
    })
}

/// Takes tokens, once or repeatedly for a time.
fn take(args: ThrottleTake, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("throttle take")?;
    let request = Request::ThrottleTake { name: args.name.name, n: args.n };
    let mut client = target.connect()?;
    let Some(seconds) = args.seconds else {
        return say(taken(&mut client, &request)?, format);
    };
    let (start, mut admitted, mut refused) = (Instant::now(), 0_u64, 0_u64);
    let end = start + Duration::from_secs(seconds.into());
    for turn in 0_u32.. {
        let due = start + Duration::from_secs(1) * turn / args.rate;
        if due >= end {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let ok = taken(&mut client, &request)?.admitted;
        (admitted, refused) = (admitted + u64::from(ok), refused + u64::from(!ok));
    }
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ "admitted": admitted, "refused": refused }))?,
        _ => out.line(format!("{admitted} admitted, {refused} refused"))?,
    }
    out.flush()
}

/// Reports whether tokens would be admitted.
fn check(name: ThrottleName, n: u64, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv("throttle check")?;
    say(taken(&mut target.connect()?, &Request::ThrottleCheck { name: name.name, n })?, format)
}

fn say(Taken { admitted, after, reason }: Taken, format: Format) -> Result<(), Failure> {
    let mut out = Out::open();
    match format {
        Format::Json => {
            let after_us = after.map(|after| u64::try_from(after.as_micros()).unwrap_or(u64::MAX));
            out.json(&json!({ "admitted": admitted, "after_us": after_us, "reason": reason }))?;
        }
        _ if admitted => out.line("admitted")?,
        _ => {}
    }
    out.flush()?;
    match after {
        _ if admitted => Ok(()),
        Some(after) => Err(Failure::No(format!("refused: fits after {after:.3?}"))),
        None => {
            let reason = reason.unwrap_or_else(|| "they exceed what this node's share can hold".to_owned());
            Err(Failure::No(format!("refused: {reason}")))
        }
    }
}

/// Explains a throttle.
fn explain(name: ThrottleName, target: &Target, format: Format) -> Result<(), Failure> {
    lines(&Request::ThrottleExplain { name: name.name }, "throttle explain", "", target, format)
}

/// Lists the limits.
pub(crate) fn limits(target: &Target, format: Format) -> Result<(), Failure> {
    lines(&Request::Limits, "limits", "this node has no limits", target, format)
}

fn lines(request: &Request, command: &str, none: &str, target: &Target, format: Format) -> Result<(), Failure> {
    let format = format.no_csv(command)?;
    let lines = target.connect()?.all(request, |answer| match answer {
        Answer::Lines(lines) => Some(lines),
        _ => None,
    })?;
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&lines)?,
        _ if lines.is_empty() => out.line(none)?,
        _ => lines.iter().try_for_each(|line| out.line(line))?,
    }
    out.flush()
}
