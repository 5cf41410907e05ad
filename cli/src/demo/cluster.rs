//! The nodes of the demonstration, each with its own certificate, port and switch.

use std::time::Duration;

use tallymesh::{Class, EngineConfig, Gate, OnDead, StructureSpec, Timings};

use crate::authority::Authority;
use crate::demo::limits;
use crate::demo::member::Member;
use crate::failure::Failure;
use crate::local::{self, trouble};

/// When a dead node's inbound connections stop counting, in the demonstration.
pub(super) const DROP_AFTER: Duration = Duration::from_secs(1);

/// The timings of links in the demonstration: a fraction of the usual ones.
pub(super) fn timings() -> Timings {
    Timings {
        keep_alive: Duration::from_millis(300),
        idle: Duration::from_millis(1500),
        backoff_max: Duration::from_millis(500),
        ..Timings::default()
    }
}

/// Starts the nodes. The first node is the only seed of the others.
pub(super) async fn start(count: usize) -> Result<Vec<Member>, Failure> {
    let authority = Authority::new().map_err(|error| trouble("make an authority", &error))?;
    let mut members: Vec<Member> = Vec::new();
    for number in 1..=count {
        let name = format!("relay-0-{number}");
        let member = start_one(&name, &authority, members.first()).await;
        members.push(member.map_err(|error| trouble(&format!("start {name}"), &*error))?);
    }
    Ok(members)
}

async fn start_one(
    name: &str,
    authority: &Authority,
    seed: Option<&Member>,
) -> Result<Member, Box<dyn std::error::Error>> {
    let gate = Gate::default();
    let inbound = StructureSpec::from(Class::InboundCidr).with_on_dead(OnDead::Drop(DROP_AFTER));
    let engine = EngineConfig { digest_interval: Duration::from_millis(250), ..EngineConfig::default() };
    let mut builder = limits::configure(local::builder(name, authority)?)?
        .gate(gate.clone())
        .timings(timings())
        .engine(engine)
        .replicate(inbound)
        .replicate(Class::OutboundDomains.into());
    if let Some(seed) = seed {
        builder = builder.seed(seed.node.listen_addr().to_string());
    }
    let node = builder.start().await?;
    let (inbound, outbound) = (node.cidr("inbound_cidr")?, node.domains("outbound_domains")?);
    Ok(Member { node, gate, inbound, outbound })
}
