//! What a node knows about another.

use std::net::SocketAddr;
use std::time::Duration;

use tallymesh_schemas::actor::{Incarnation, NodeName};

/// How a member is, as the membership protocol sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It answers, to this node or to another.
    Alive,
    /// It did not answer lately; it has some seconds to say otherwise.
    Suspect,
    /// It did not say otherwise. It is dialed until it answers or is forgotten.
    Dead,
    /// It said goodbye. It is not dialed; it may come back by itself.
    Left,
}

impl MemberState {
    /// The state in one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }

    /// Whether the member counts as running.
    pub fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Suspect)
    }
}

impl std::fmt::Display for MemberState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether this node has found others of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Joining {
    /// It has not tried every seed yet.
    Trying,
    /// It has a link to another node.
    Linked,
    /// There is nobody to join: it has no seeds, or they all lead to itself.
    Nobody,
    /// It has no link, and whom it tried did not answer. It goes on trying.
    Unreachable,
}

/// A member as [`Endpoint::members`](crate::Endpoint::members) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// The address that it gives as its own.
    pub addr: SocketAddr,
    /// Its latest known run.
    pub incarnation: Incarnation,
    /// How it is.
    pub state: MemberState,
    /// Whether a link to it is up.
    pub linked: bool,
    /// The round trip time of the link.
    pub rtt: Option<Duration>,
    /// What has passed over the link since it came up.
    pub traffic: Option<Traffic>,
}

/// What has passed over a link, as UDP carries it: frames, membership, acknowledgements and what QUIC puts around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Traffic {
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Bytes of their payload.
    pub bytes_out: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes of their payload.
    pub bytes_in: u64,
}
