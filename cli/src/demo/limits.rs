//! The part of the demonstration that shows a limit, a throttle and the audit.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tallymesh::{Builder, Class, Decision, Hold, HoldError, Metric, Monitor, Rate, Strength, Throttle, ThrottleSpec};

use crate::demo::member::Member;
use crate::demo::screen::Screen;
use crate::failure::Failure;

/// How long a change may take to reach another node.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// The throttle's name.
const THROTTLE: &str = "campaign";

/// Open connections from one address, and from its block.
const LIMITS: [(u8, i64); 2] = [(32, 4), (24, 6)];

/// The windows of the audit.
const MONITOR: Monitor = Monitor { interval: 60, windows: 3 };

/// An address in a block that neither the traffic nor the probes of the demonstration use.
fn client(host: u8) -> IpAddr {
    [198, 18, 0, host].into()
}

/// Adds the throttle and the audit of this part to a node.
pub(super) fn configure(builder: Builder) -> Result<Builder, Box<dyn std::error::Error>> {
    let rate: Rate = "100/1m".parse()?;
    Ok(builder
        .replicate(Class::SharedNamedThrottles.into())
        .throttle(THROTTLE, ThrottleSpec::new(rate, Strength::Soft))
        .audit(&[Metric::Connect], MONITOR))
}

/// What the throttle does in a partition, as a node explains it.
pub(super) fn in_a_partition(member: &Member) -> Result<String, Failure> {
    let lines = throttle(member)?.explain();
    Ok(lines.into_iter().filter(|line| line.starts_with("in a partition")).collect())
}

/// Shows the limit and the throttle on the first two nodes, and the audit on all. No connection stays open.
pub(super) async fn show(screen: &mut Screen, members: &[Member]) -> Result<(), Failure> {
    let [first, second, ..] = members else { return Ok(()) };
    limit(screen, first, second).await?;
    rate(screen, first, second).await?;
    audit(screen, members).await
}

/// Waits until a change has reached another node.
async fn arrived(what: &str, mut holds: impl FnMut() -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > PATIENCE {
            return Err(Failure::No(format!("{what} did not reach the other node within {} s", PATIENCE.as_secs())));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// An address and its block, limited over two nodes.
async fn limit(screen: &mut Screen, first: &Member, second: &Member) -> Result<(), Failure> {
    screen.say("\n  A limit: 4 open connections from one address, 6 from its /24 block, in the cluster.")?;
    let failed = |error: HoldError| Failure::No(format!("a connection that has room was refused: {error}"));
    let mut open: Vec<Hold> = Vec::new();
    for _ in 0..3 {
        open.push(first.inbound.try_hold_within(client(7), &LIMITS).map_err(failed)?);
    }
    screen.say(format!("    {} opens 3 from {}", first.name(), client(7)))?;
    let host = client(7).into();
    arrived("a connection", || second.inbound.count(host).total == 3).await?;
    for host in [7, 8, 9] {
        let (opened, refused) = as_many_as_fit(second, client(host), &mut open);
        screen.say(format!("    {} opens {opened} from {}; then {refused}", second.name(), client(host)))?;
    }
    Ok(())
}

fn as_many_as_fit(member: &Member, client: IpAddr, open: &mut Vec<Hold>) -> (usize, HoldError) {
    let before = open.len();
    loop {
        match member.inbound.try_hold_within(client, &LIMITS) {
            Ok(hold) => open.push(hold),
            Err(refused) => return (open.len() - before, refused),
        }
    }
}

/// A rate, used on two nodes.
async fn rate(screen: &mut Screen, first: &Member, second: &Member) -> Result<(), Failure> {
    screen.say(format!("\n  A throttle: {THROTTLE} allows 100 in a minute, in the cluster."))?;
    let taken = throttle(first)?.take(60);
    screen.say(format!("    {} takes 60: {}", first.name(), decided(taken)))?;
    let other = throttle(second)?;
    arrived("what was taken", || other.state().admitted >= 60).await?;
    let mut tens = 0;
    let refused = loop {
        match other.take(10) {
            Decision::Admitted => tens += 10,
            refused => break refused,
        }
    };
    screen.say(format!("    {} has received that, and takes {tens} more; then {}", second.name(), decided(refused)))
}

fn throttle(member: &Member) -> Result<Throttle, Failure> {
    member.node.throttle(THROTTLE).map_err(|error| Failure::Node(error.to_string()))
}

fn decided(decision: Decision) -> String {
    match decision {
        Decision::Admitted => "admitted".to_owned(),
        Decision::Refused { reason, after: None } => format!("refused, {reason}"),
        Decision::Refused { reason, after: Some(after) } => {
            format!("refused, {reason}: ten more fit after {:.1} s", after.as_secs_f64())
        }
    }
}

/// Events by address, counted on all nodes and read on each.
async fn audit(screen: &mut Screen, members: &[Member]) -> Result<(), Failure> {
    let block: ipnet::IpNet = ipnet::IpNet::new(client(0), 24).map_err(|error| Failure::Node(error.to_string()))?;
    screen.say(
        "\n  The audit: connections by address in windows of a minute. They stay counted after they are closed.",
    )?;
    for (member, host) in members.iter().zip(1_u8..) {
        let audit = member.node.audit();
        for _ in 0..host {
            audit.record(Metric::Connect, client(host)).map_err(|error| Failure::Node(error.to_string()))?;
        }
    }
    let expected: i64 = (1..).take(members.len()).sum();
    for member in members {
        let audit = member.node.audit();
        let Some(series) = audit.series(Metric::Connect, MONITOR.interval) else { continue };
        let total = || series.count(block, 0..=1).map_or(0, |count| count.total);
        arrived("an audited connection", || total() == expected).await?;
        screen.say(format!("    {} reads {} connections from {block}", member.name(), total()))?;
    }
    Ok(())
}
