//! `tally cluster info`, `nodename`, `nodeaddr`: the asked node's report about itself.

use serde_json::{Map, Value, json};
use tallymesh_schemas::admin::{
    Answer, BoundInfo, BudgetInfo, CertificateInfo, ClockInfo, ConvergenceInfo, Info, Outcome, PeerClock, Request,
    RolledBack, StateInfo,
};

use crate::client::Target;
use crate::commands::series::moment;
use crate::failure::Failure;
use crate::output::{Format, Out};

/// Writes the node's report about itself, and its counters.
pub(crate) fn info(target: &Target, format: Format) -> Result<(), Failure> {
    let info = ask(target, format.no_csv("cluster info")?)?;
    let mut out = Out::open();
    if format == Format::Json {
        out.json(&as_json(&info))?;
        return out.flush();
    }
    let about = about(&info);
    let widest = info.counters.iter().map(|(name, _)| name.len()).chain(about.iter().map(|(label, _)| label.len()));
    let width = widest.max().unwrap_or(0) + 2;
    for (label, value) in about {
        out.line(format!("{label:width$}{value}"))?;
    }
    for peer in &info.clocks.peers {
        out.line(format!("{:width$}{}", "", off(peer)))?;
    }
    for (name, value) in &info.counters {
        out.line(format!("{name:width$}{value}"))?;
    }
    for budget in &info.budgets {
        out.line(format!("{:width$}{}", "budget", used(budget)))?;
    }
    for bound in &info.bounds {
        out.line(format!("{:width$}{}", "bound reached", reached(bound)))?;
    }
    out.flush()
}

fn as_json(info: &Info) -> Value {
    let counters: Map<String, Value> = info.counters.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "node": info.node,
        "incarnation": info.incarnation,
        "version": info.version,
        "protocol": info.protocol,
        "listen": info.listen,
        "advertised": info.advertised,
        "uptime_s": info.uptime_s,
        "alive": info.alive,
        "links": info.links,
        "state": info.state.as_ref().map(|state| json!({
            "saved_ms": state.saved_ms,
            "age_s": state.age.as_secs_f64(),
            "trouble": state.trouble,
            "rolled_back": state.rolled_back,
        })),
        "certificate": json!({
            "valid_until_ms": info.certificate.valid_until_ms,
            "days": info.certificate.left.as_secs() / 86_400,
            "trouble": info.certificate.trouble,
        }),
        "bounds": info.bounds.iter().map(|bound| json!({
            "name": bound.name,
            "object": bound.object,
            "limit": bound.limit,
            "times": bound.times,
            "first_s": bound.first.as_secs(),
            "last_s": bound.last.as_secs(),
            "effect": bound.effect,
        })).collect::<Vec<_>>(),
        "clocks": json!({
            "bound_s": info.clocks.bound.map(|bound| bound.as_secs_f64()),
            "windows_ahead_s": info.clocks.windows_ahead.as_secs_f64(),
            "peers": info.clocks.peers.iter().map(|peer| json!({
                "node": peer.node,
                "ahead_ms": peer.ahead_ms,
                "beyond": peer.beyond,
            })).collect::<Vec<_>>(),
        }),
        "convergence": json!({
            "converged_s": info.convergence.converged.map(|ago| ago.as_secs_f64()),
            "ended_s": info.convergence.ended.map(|(ago, _)| ago.as_secs_f64()),
            "outcome": info.convergence.ended.map(|(_, outcome)| outcome.word()),
            "findings": info.convergence.findings,
        }),
        "counters": counters,
        "budgets": info.budgets.iter().map(|budget| json!({
            "object": budget.object,
            "keys": budget.keys,
            "max_keys": budget.max_keys,
            "bytes": budget.bytes,
            "max_bytes": budget.max_bytes,
        })).collect::<Vec<_>>(),
    })
}

/// The lines about the node itself: label and value.
fn about(info: &Info) -> Vec<(&'static str, String)> {
    let mut about = vec![
        ("node", info.node.to_string()),
        ("incarnation", info.incarnation.to_string()),
        ("version", info.version.clone()),
        ("protocol", info.protocol.to_string()),
        ("listens on", info.listen.to_string()),
        ("reached by", info.advertised.to_string()),
        ("has run for", duration(info.uptime_s)),
        ("alive", format!("{} nodes", info.alive)),
        ("links", info.links.to_string()),
        ("state", state(info.state.as_ref())),
        ("certificate", certificate(&info.certificate)),
        ("clock", clock(&info.clocks)),
        ("convergence", convergence(&info.convergence)),
    ];
    about.extend(
        info.state
            .as_ref()
            .and_then(|state| state.rolled_back.as_ref())
            .map(|commit| ("state is older", older(commit))),
    );
    about
}

/// Writes the node's name.
pub(crate) fn nodename(target: &Target, format: Format) -> Result<(), Failure> {
    let info = ask(target, format.no_csv("cluster nodename")?)?;
    say(format, "node", info.node.as_str())
}

/// Writes the address at which other nodes reach the node.
pub(crate) fn nodeaddr(target: &Target, format: Format) -> Result<(), Failure> {
    let info = ask(target, format.no_csv("cluster nodeaddr")?)?;
    say(format, "address", &info.advertised.to_string())
}

fn ask(target: &Target, _: Format) -> Result<Info, Failure> {
    target.connect()?.one(&Request::Info, |answer| match answer {
        Answer::Info(info) => Some(*info),
        _ => None,
    })
}

fn say(format: Format, name: &str, value: &str) -> Result<(), Failure> {
    let mut out = Out::open();
    match format {
        Format::Json => out.json(&json!({ name: value }))?,
        _ => out.line(value)?,
    }
    out.flush()
}

/// Formats a reached bound: its name, how often and when it was reached, and its effect.
fn reached(bound: &BoundInfo) -> String {
    let BoundInfo { name, object, limit, times, first, last, effect } = bound;
    let object = object.as_ref().map(|object| format!(" of {object}")).unwrap_or_default();
    let (first, last) = (duration(first.as_secs()), duration(last.as_secs()));
    format!("{name}{object}, {limit}: {times} times, first {first} ago, last {last} ago: {effect}")
}

/// Formats what an object, or the node, holds, and what it may hold: `inbound_cidr: 12 of 1000 keys`.
fn used(budget: &BudgetInfo) -> String {
    let BudgetInfo { object, keys, max_keys, bytes, max_bytes } = budget;
    let of = |used: u64, max: &Option<u64>, unit: &str| match max {
        Some(max) => format!("{used} of {max} {unit}"),
        None => format!("{used} {unit}"),
    };
    let object = object.as_deref().unwrap_or("this node");
    let bytes = bytes.map(|bytes| format!(", {}", of(bytes, max_bytes, "bytes"))).unwrap_or_default();
    format!("{object}: {}{bytes}", of(*keys, max_keys, "keys"))
}

/// Formats when the state was saved, or why it was not.
fn state(state: Option<&StateInfo>) -> String {
    match state {
        None => "nothing is saved: there is no data_dir".to_owned(),
        Some(StateInfo { trouble: None, age, .. }) => format!("saved {} ago", duration(age.as_secs())),
        Some(StateInfo { trouble: Some(trouble), age, .. }) => {
            format!("not saved for {}: {trouble}", duration(age.as_secs()))
        }
    }
}

/// Formats how long peers accept the certificate, and why the one in the files is not used.
fn certificate(CertificateInfo { valid_until_ms, left, trouble }: &CertificateInfo) -> String {
    let mut text = match valid_until_ms {
        Some(until) if !left.is_zero() => {
            format!("valid for {} d, until {}", left.as_secs() / 86_400, moment(until / 1000))
        }
        Some(until) => format!("expired at {}: peers refuse it", moment(until / 1000)),
        None => "peers refuse it".to_owned(),
    };
    if let Some(trouble) = trouble {
        text += &format!("; the one in its files is not used: {trouble}");
    }
    text
}

/// Formats the commit that the node started with, and the later commits that it could not read.
fn older(RolledBack { restored_ms, last_ms, commits }: &RolledBack) -> String {
    let (restored, last) = (moment(restored_ms / 1000), moment(last_ms / 1000));
    format!("started with the commit of {restored}; {commits} later ones up to {last} are damaged or missing")
}

/// Formats how the clock compares with the peers' clocks.
fn clock(clocks: &ClockInfo) -> String {
    let beyond = clocks.peers.iter().filter(|peer| peer.beyond).count();
    let mut text = match (clocks.bound, clocks.peers.len()) {
        (_, 0) => "no peer's clock is known".to_owned(),
        (None, peers) => format!("{peers} peers' clocks are known; no limit of this node depends on clocks"),
        (Some(bound), peers) if beyond == 0 => {
            format!("agrees with {peers} peers: an offset of {} is allowed", duration(bound.as_secs()))
        }
        (Some(bound), peers) => {
            format!("differs from {beyond} of {peers} peers by more than {}: set the clocks", duration(bound.as_secs()))
        }
    };
    if !clocks.windows_ahead.is_zero() {
        let by = clocks.windows_ahead.as_secs_f64();
        text += &format!("; was set back: windows are {by:.1} s ahead of it and wait");
    }
    text
}

/// Formats what the verification in the background has found.
fn convergence(ConvergenceInfo { converged, ended, findings }: &ConvergenceInfo) -> String {
    let ago = |ago: &std::time::Duration| duration(ago.as_secs());
    let last = converged.as_ref().map_or("never yet".to_owned(), |at| format!("as of {} ago", ago(at)));
    match ended {
        None => "not verified yet: the first time is within two minutes of a link".to_owned(),
        Some((_, Outcome::Converged)) => format!("converged {last}"),
        Some((at, outcome)) => {
            let findings = if *findings == 0 { String::new() } else { format!(", {findings} findings") };
            format!("{} {} ago{findings}; converged {last}: `tally verify` says more", outcome.word(), ago(at))
        }
    }
}

/// `n2 is 3600.0 s ahead of this node`.
pub(super) fn off(peer: &PeerClock) -> String {
    let way = if peer.ahead_ms < 0 { "behind" } else { "ahead of" };
    let seconds = std::time::Duration::from_millis(peer.ahead_ms.unsigned_abs()).as_secs_f64();
    format!("{} is {seconds:.1} s {way} this node", peer.node)
}

/// `3 d 4 h`, `5 min 6 s`, `7 s`.
pub(super) fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, ..) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_offsets_are_reported() {
        let peer = |name: &str, ahead_ms, beyond| {
            let node = tallymesh_schemas::NodeName::new(name).unwrap();
            PeerClock { node, ahead_ms, beyond }
        };
        let peers = vec![peer("n2", -3_600_000, true), peer("n3", 40, false)];
        let bound = Some(std::time::Duration::from_secs(60));
        let clocks = ClockInfo { bound, peers, ..ClockInfo::default() };
        assert_eq!(clock(&clocks), "differs from 1 of 2 peers by more than 1 min 0 s: set the clocks");
        assert_eq!(off(&clocks.peers[0]), "n2 is 3600.0 s behind this node");
        assert_eq!(off(&clocks.peers[1]), "n3 is 0.0 s ahead of this node");
        assert_eq!(clock(&ClockInfo::default()), "no peer's clock is known");
    }

    #[test]
    fn convergence_has_its_time() {
        let seconds = std::time::Duration::from_secs;
        let never = ConvergenceInfo { converged: None, ended: None, findings: 0 };
        assert!(convergence(&never).starts_with("not verified yet"));
        let now =
            ConvergenceInfo { converged: Some(seconds(12)), ended: Some((seconds(12), Outcome::Converged)), ..never };
        assert_eq!(convergence(&now), "converged as of 12 s ago");
        let lost = ConvergenceInfo { ended: Some((seconds(5), Outcome::NotConverged)), findings: 2, ..now };
        assert_eq!(
            convergence(&lost),
            "not converged 5 s ago, 2 findings; converged as of 12 s ago: `tally verify` says more"
        );
        let first = ConvergenceInfo { converged: None, findings: 0, ..lost };
        assert_eq!(convergence(&first), "not converged 5 s ago; converged never yet: `tally verify` says more");
    }

    #[test]
    fn certificates_are_shown_with_what_is_left() {
        let left = std::time::Duration::from_secs(86_400 * 12 + 5);
        let mut info = CertificateInfo { valid_until_ms: Some(86_400_000), left, trouble: None };
        assert!(certificate(&info).starts_with("valid for 12 d, until 1970-01-02"), "{}", certificate(&info));
        info = CertificateInfo { left: std::time::Duration::ZERO, trouble: Some("no key".to_owned()), ..info };
        let expired = certificate(&info);
        assert!(expired.starts_with("expired at 1970-01-02") && expired.ends_with("is not used: no key"), "{expired}");
    }

    #[test]
    fn budgets_are_shown_with_what_is_in_use() {
        let total = BudgetInfo { object: None, keys: 7, max_keys: Some(9), bytes: Some(30), max_bytes: None };
        assert_eq!(used(&total), "this node: 7 of 9 keys, 30 bytes");
        let object = BudgetInfo { object: Some("open".to_owned()), max_keys: None, bytes: None, ..total };
        assert_eq!(used(&object), "open: 7 keys");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        assert_eq!(duration(7), "7 s");
        assert_eq!(duration(306), "5 min 6 s");
        assert_eq!(duration(3600), "1 h 0 min");
        assert_eq!(duration(3 * 86_400 + 4 * 3600 + 59), "3 d 4 h");
    }
}
