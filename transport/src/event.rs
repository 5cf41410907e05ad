//! What an endpoint reports.

use std::net::SocketAddr;

use bytes::Bytes;
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::{Link, LinkId, MemberState, Refusal};

/// What an endpoint reports.
///
/// `Up`, `Frame` and `Down` of a peer come in the order in which they happened, and a frame is never lost between two
/// frames of one link. The others are notices: they may overtake, and a reader that falls behind sees the latest
/// `Member` or `Dropped` of a name only.
#[derive(Debug, Clone)]
pub enum Event {
    /// A link is up. There is one link a name: the `Down` of an earlier one has been reported.
    Up(Link),
    /// A frame arrived.
    Frame {
        /// Who sent it.
        peer: NodeName,
        /// On which link.
        link: LinkId,
        /// What it carries.
        payload: Bytes,
    },
    /// A link of which [`Link::has_room`] said no has room again.
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
        /// Why, for people.
        reason: String,
        /// Whether the peer said goodbye: every frame that it had queued has been reported.
        goodbye: bool,
    },
    /// The membership sees a member differently than before.
    Member {
        /// The member.
        name: NodeName,
        /// How it is now.
        state: MemberState,
        /// Its run.
        incarnation: Incarnation,
        /// The address that it gives as its own.
        addr: SocketAddr,
        /// Who alone has told of it, if it has never said hello to this node.
        teller: Option<NodeName>,
    },
    /// The membership does not hold a member any more: it was forgotten, or it is dead and this node has never met it.
    Dropped {
        /// The member.
        name: NodeName,
    },
    /// A newer run with this node's name is known: this run is refused until it [renews](crate::Endpoint::renew).
    Superseded {
        /// The run.
        by: Incarnation,
        /// Who says so: a member, whose word it is; or this node's own name, when another process has proven to have its
        /// key, and is that run.
        peer: NodeName,
        /// The address of that run, if it is known.
        addr: Option<SocketAddr>,
    },
    /// A connection was refused, by this node or by the other.
    Refused {
        /// The address of the other.
        addr: SocketAddr,
        /// Its name, as far as known.
        name: Option<NodeName>,
        /// Why.
        reason: Refusal,
    },
}
