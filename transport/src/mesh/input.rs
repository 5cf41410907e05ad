//! What the mesh receives from the endpoint's other tasks.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::closing::ending::{Ending, Failure};
use crate::greet::Greeted;
use crate::link::{Link, LinkId};
use crate::mesh::plan::Origin;

/// Messages from the endpoint's other tasks to the mesh.
#[derive(Debug)]
pub(crate) enum Input {
    /// The ends of a connection have exchanged hellos.
    Greeted { greeted: Box<Greeted>, origin: Origin },
    /// A connection failed before that.
    Failed { origin: Origin, addr: SocketAddr, failure: Failure },
    /// A seed's addresses, or why they could not be resolved.
    Resolved { seed: usize, addrs: Result<Vec<SocketAddr>, String> },
    /// A membership datagram.
    Datagram { link: LinkId, data: Bytes },
    /// A link's connection has ended.
    Ended { link: Link, ending: Ending },
}
