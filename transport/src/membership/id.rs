//! The identity of a member in the membership protocol.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::hello::can_be_dialed;
use crate::membership::protocol::Peer;

/// Highest generation that can be decoded. No member of this build gives itself such a high one.
const GENERATION: u32 = 1 << 30;

/// Highest generation of a member that other nodes may report, and the last life of a run. A run that needs a later life
/// continues as a new run instead. So the member itself can always exceed what other nodes report.
pub(super) const GENERATION_REPORTED: u32 = 1 << 29;

/// One life of a run, as other nodes see it. A run that was declared dead by mistake continues with the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) name: NodeName,
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: u32,
    /// Whether the life ended with a goodbye.
    pub(crate) left: bool,
}

impl Id {
    /// The first life of a run.
    pub(crate) fn first(peer: &Peer) -> Self {
        Self { name: peer.name.clone(), addr: peer.addr, incarnation: peer.incarnation, generation: 0, left: false }
    }

    /// The part of the identity that the rest of this crate uses.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: self.name.clone(), addr: self.addr, incarnation: self.incarnation }
    }

    /// Whether an identity from outside is valid.
    pub(crate) fn is_possible(&self) -> bool {
        self.incarnation.checked().is_ok() && self.generation <= GENERATION && can_be_dialed(self.addr)
    }

    /// The run, life and address: the parts of the identity that only its own node decides.
    pub(super) fn life(&self) -> (Incarnation, u32, SocketAddr) {
        (self.incarnation, self.generation, self.addr)
    }

    /// A total order, so that any two nodes agree: the newer run, then its later life, then the end of the life. The address
    /// only breaks the tie between two processes that claim the same identity.
    fn order(&self) -> (Incarnation, u32, bool, SocketAddr) {
        (self.incarnation, self.generation, self.left, self.addr)
    }

    /// Whether this identity is newer than another one of the same name.
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        self.order() > other.order()
    }
}

impl foca::Identity for Id {
    type Addr = NodeName;

    fn renew(&self) -> Option<Self> {
        if self.left {
            return None;
        }
        Some(Self { generation: self.generation.checked_add(1)?, ..self.clone() })
    }

    fn addr(&self) -> NodeName {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.is_newer_than(adversary)
    }
}
