//! A member of the cluster.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tallymesh_engine::Life;
use tallymesh_schemas::Actor;
use tallymesh_transport::Traffic;

/// A member of the cluster as this node sees it.
///
/// ```no_run
/// # async fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// use tallymesh::Life;
///
/// let members = node.members().await?;
/// let dead = members.iter().filter(|member| member.life == Life::Dead);
/// dead.for_each(|member| println!("{} was at {:?}", member.actor, member.addr));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Member {
    /// The member's actor: its node name and incarnation.
    pub actor: Actor,
    /// The state that the failure detector assigns. For this node itself: alive.
    pub life: Life,
    /// The address at which other nodes reach it; `None` when unknown.
    pub addr: Option<SocketAddr>,
    /// Whether there is a link to it.
    pub linked: bool,
    /// The link's round trip time.
    pub rtt: Option<Duration>,
    /// The traffic over the link since it came up.
    pub traffic: Option<Traffic>,
    /// The member's software build; empty when unknown.
    pub build: String,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { actor, life, addr, linked, rtt, .. } = self;
        write!(f, "{} {life}", actor.node)?;
        if let Some(addr) = addr {
            write!(f, " at {addr}")?;
        }
        match (linked, rtt) {
            (false, _) => Ok(()),
            (true, None) => f.write_str(", linked"),
            (true, Some(rtt)) => write!(f, ", linked, round trip {:.3} ms", rtt.as_secs_f64() * 1000.0),
        }
    }
}
