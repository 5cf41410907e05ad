//! The nodes of the demonstration, each with its own certificate, port and switch.

use std::time::{Duration, Instant};

use tallymesh::{
    Cidr, Class, Domains, EngineConfig, Gate, Identity, Life, Node, NodeName, OnDead, StructureSpec, Timings,
};

use crate::authority::{Authority, Issued};
use crate::failure::Failure;

/// How long the nodes may take to find each other.
const LINK_DEADLINE: Duration = Duration::from_secs(15);

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// When a dead node's inbound connections stop counting, in the demonstration.
pub(super) const DROP_AFTER: Duration = Duration::from_secs(1);

/// A node with its handles.
pub(super) struct Member {
    pub(super) node: Node,
    pub(super) gate: Gate,
    pub(super) inbound: Cidr,
    pub(super) outbound: Domains,
}

impl Member {
    pub(super) fn name(&self) -> &NodeName {
        self.node.name()
    }
}

/// How links behave in the demonstration: as ever, in a fraction of the time.
pub(super) fn timings() -> Timings {
    Timings {
        keep_alive: Duration::from_millis(300),
        idle: Duration::from_millis(1500),
        backoff_max: Duration::from_millis(500),
        ..Timings::default()
    }
}

/// Starts the nodes. Each but the first is told of the first one only.
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
    let Issued { certificate, key } = authority.issue(&NodeName::new(name)?)?;
    let identity = Identity::from_pem(authority.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes())?;
    let gate = Gate::default();
    let inbound = StructureSpec { on_dead: OnDead::Drop(DROP_AFTER), ..Class::InboundCidr.into() };
    let engine = EngineConfig { digest_interval: Duration::from_millis(250), ..EngineConfig::default() };
    let mut builder = Node::builder(name)
        .identity(identity)
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

fn trouble(what: &str, error: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::Node(format!("cannot {what}: {error}"))
}

/// Waits until every node is linked to every other one.
pub(super) async fn all_linked(members: &[Member]) -> Result<Duration, Failure> {
    let start = Instant::now();
    loop {
        let mut linked = true;
        for member in members {
            let known = member.node.members().await;
            let alive = known.iter().filter(|other| other.linked && other.life == Life::Alive).count();
            linked &= alive + 1 == members.len();
        }
        if linked {
            return Ok(start.elapsed());
        }
        if start.elapsed() > LINK_DEADLINE {
            let seconds = LINK_DEADLINE.as_secs();
            return Err(Failure::Node(format!("the nodes have not found each other within {seconds} s")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
