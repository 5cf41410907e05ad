//! The identity of a member as the membership protocol sees it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tallymesh_schemas::actor::{Incarnation, NodeName};

use super::Peer;
use crate::hello::can_be_dialed;

/// Highest generation that can be read. No member of this build says so high a one of itself.
const GENERATION: u32 = 1 << 30;

/// Highest generation of a member that others may state, and the last that a run lives: a run that would need a later one
/// goes on as a new run instead. So no statement of others is ever beyond what the member itself can outbid.
pub(super) const GENERATION_REPORTED: u32 = 1 << 29;

/// One life of a run in the eyes of the others: a run that was declared dead and is not goes on with the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Id {
    pub(crate) name: NodeName,
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Incarnation,
    pub(crate) generation: u32,
    /// The life ends by goodbye.
    pub(crate) left: bool,
}

impl Id {
    /// The first life of a run.
    pub(crate) fn first(peer: &Peer) -> Self {
        Self { name: peer.name.clone(), addr: peer.addr, incarnation: peer.incarnation, generation: 0, left: false }
    }

    /// What of it the rest of this crate knows.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: self.name.clone(), addr: self.addr, incarnation: self.incarnation }
    }

    /// Whether an identity that came from outside can be one.
    pub(crate) fn is_possible(&self) -> bool {
        self.incarnation.checked().is_ok() && self.generation <= GENERATION && can_be_dialed(self.addr)
    }

    /// Which life of which run, where: what of the identity only its own node decides.
    pub(super) fn life(&self) -> (Incarnation, u32, SocketAddr) {
        (self.incarnation, self.generation, self.addr)
    }

    /// Total, so that any two nodes agree: the newer run, its later life, its end. The address only breaks the tie of two
    /// processes that both claim to be the same.
    fn order(&self) -> (Incarnation, u32, bool, SocketAddr) {
        (self.incarnation, self.generation, self.left, self.addr)
    }

    /// Whether this is the newer of two identities of one name.
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
