//! Nodes in this process, on free loopback ports, with new certificates.

use std::error::Error;
use std::fmt::Display;
use std::time::{Duration, Instant};

use tallymesh::{Builder, Identity, Life, Node, NodeName};

use crate::authority::{Authority, Issued};
use crate::failure::Failure;

/// How long nodes may take to find each other.
const LINK_DEADLINE: Duration = Duration::from_secs(15);

/// The pause between two checks of a condition.
const LOOK: Duration = Duration::from_millis(5);

/// A builder for a node with a certificate of the authority, without objects and seeds.
pub(crate) fn builder(name: &str, authority: &Authority) -> Result<Builder, Box<dyn Error>> {
    let Issued { certificate, key } = authority.issue(&NodeName::new(name)?)?;
    let identity = Identity::from_pem(authority.certificate.as_bytes(), certificate.as_bytes(), key.as_bytes())?;
    Ok(Node::builder(name).identity(identity))
}

/// The failure of an operation on a node of this process.
pub(crate) fn trouble(what: &str, error: &(impl Display + ?Sized)) -> Failure {
    Failure::Node(format!("cannot {what}: {error}"))
}

/// Waits until every node is linked to every other node, and returns how long that took.
pub(crate) async fn all_linked<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<Duration, Failure> {
    let start = Instant::now();
    let nodes: Vec<_> = nodes.collect();
    loop {
        let mut linked = true;
        for node in &nodes {
            let known = node.members().await.map_err(|error| trouble("ask a node for its members", &error))?;
            let alive = known.iter().filter(|other| other.linked && other.life == Life::Alive).count();
            linked &= alive + 1 == nodes.len();
        }
        if linked {
            return Ok(start.elapsed());
        }
        if start.elapsed() > LINK_DEADLINE {
            let seconds = LINK_DEADLINE.as_secs();
            return Err(Failure::Node(format!("the nodes were not all linked within {seconds} s")));
        }
        tokio::time::sleep(LOOK).await;
    }
}
