//! The events of an endpoint.

use std::net::SocketAddr;

use bytes::Bytes;
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::counters::Refusal;
use crate::link::{Link, LinkId};
use crate::member::MemberState;

/// An event of an endpoint.
///
/// `Up`, `Frame` and `Down` of a peer come in the order in which they happened, and no frame is lost between two frames of one
/// link. The other events are notices: they may overtake, and a reader that falls behind sees only the latest `Member` or
/// `Dropped` of a name.
#[derive(Debug, Clone)]
pub enum Event {
    /// A link is up. Each name has at most one link: the `Down` of an earlier one has been reported before.
    Up(Link),
    /// A frame arrived.
    Frame {
        /// The sender.
        peer: NodeName,
        /// The link.
        link: LinkId,
        /// Its payload.
        payload: Bytes,
    },
    /// A link has room again, after [`Link::has_room`] returned false.
    Writable {
        /// The peer.
        peer: NodeName,
        /// The link.
        link: LinkId,
    },
    /// A link is down.
    Down {
        /// The peer.
        peer: NodeName,
        /// The link.
        link: LinkId,
        /// The reason, as text for people.
        reason: String,
        /// Whether the peer said goodbye: every frame that it had queued has been reported.
        goodbye: bool,
    },
    /// The membership's view of a member has changed.
    Member {
        /// The member.
        name: NodeName,
        /// Its current state.
        state: MemberState,
        /// Its run.
        incarnation: Incarnation,
        /// The address that it advertises.
        addr: SocketAddr,
        /// The only member that has reported it, if it has never said hello to this node.
        introduced_by: Option<NodeName>,
    },
    /// The membership has dropped a member: it was forgotten, or it is dead and this node never had a link to it.
    Dropped {
        /// The member.
        name: NodeName,
    },
    /// A newer run with this node's name is known. Peers refuse this run until it [renews](crate::Endpoint::renew).
    Superseded {
        /// The run.
        by: Incarnation,
        /// The source: a member that reports it; or this node's own name, when another process with that run has proven that it
        /// has this node's key.
        peer: NodeName,
        /// The address of that run, if it is known.
        addr: Option<SocketAddr>,
    },
    /// This node or the peer refused a connection.
    Refused {
        /// The address of the peer.
        addr: SocketAddr,
        /// Its name, as far as known.
        name: Option<NodeName>,
        /// The reason.
        reason: Refusal,
    },
}
