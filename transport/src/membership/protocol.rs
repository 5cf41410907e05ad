//! The interface of a membership protocol: its inputs, its outputs and its events.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tallymesh_schemas::actor::{Incarnation, NodeName};

use crate::member::MemberState;

/// Time since the endpoint's start.
pub(crate) type Time = Duration;

/// A node at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) name: NodeName,
    pub(crate) addr: SocketAddr,
    pub(crate) incarnation: Incarnation,
}

/// An event of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MembershipEvent {
    /// The view of a member has changed. If it has never said hello to this node, only `introduced_by` has reported it.
    Changed { peer: Peer, state: MemberState, introduced_by: Option<NodeName> },
    /// A member was dropped: it was forgotten, or it was dead and its place was needed.
    Dropped(NodeName),
    /// A newer run of this node is known, or this run cannot continue; and the address of that run, if it is another process.
    Superseded { by: Incarnation, addr: Option<SocketAddr> },
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DatagramError {
    #[error("the datagram cannot be read: {0}")]
    Malformed(String),
    #[error("the datagram says that it is from {said}, which is not the run at the other end of the link")]
    Sender { said: String },
    #[error("the table of members is full and does not hold the sender")]
    Full,
}

/// A membership protocol. It gets the time only as an argument of its inputs.
///
/// Order of use: feed inputs, then drain [`transmit`](Membership::poll_transmit) and [`event`](Membership::poll_event), then
/// wait until [`timeout`](Membership::poll_timeout).
pub(crate) trait Membership: Send {
    /// A peer is reachable: join it, if it is not a member yet.
    fn link_up(&mut self, now: Time, peer: Peer);
    /// A peer is no longer reachable directly.
    fn link_down(&mut self, now: Time, name: &NodeName);
    /// A reachable peer has sent a datagram.
    fn handle_datagram(&mut self, now: Time, from: &NodeName, data: &[u8]) -> Result<(), DatagramError>;
    /// Time has passed.
    fn handle_timeout(&mut self, now: Time);
    /// A peer has said goodbye on its link.
    fn handle_goodbye(&mut self, now: Time, name: &NodeName, incarnation: Incarnation);
    /// This node continues as a new run.
    fn renew(&mut self, now: Time, incarnation: Incarnation);
    /// Drops a member.
    fn forget(&mut self, now: Time, name: &NodeName);
    /// Announces to the other nodes that this node leaves. It answers nothing after that.
    fn leave(&mut self, now: Time);
    /// The next datagram to send to a reachable peer.
    fn poll_transmit(&mut self) -> Option<(NodeName, Bytes)>;
    /// The next event.
    fn poll_event(&mut self) -> Option<MembershipEvent>;
    /// When [`handle_timeout`](Membership::handle_timeout) is due.
    fn poll_timeout(&self) -> Option<Time>;
    /// Datagrams dropped so far because no link leads to their receiver.
    fn unreachable(&self) -> u64;
    /// Names that found no place in the table since the last call, because the reporting members have introduced too many.
    fn take_not_introduced(&mut self) -> u64;
}
