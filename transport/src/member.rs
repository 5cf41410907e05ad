//! A node's knowledge of another node.

use std::net::SocketAddr;
use std::time::Duration;

use tallymesh_schemas::actor::{Incarnation, NodeName};

/// The state of a member, as the membership protocol sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It answers this node or another one.
    Alive,
    /// It did not answer recently; it has some seconds to refute the suspicion.
    Suspect,
    /// It did not refute the suspicion. Nodes dial it until it answers or is forgotten.
    Dead,
    /// It said goodbye. Nodes do not dial it; it may return by itself.
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

/// Whether this node has found other nodes of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Joining {
    /// It has not tried every seed yet.
    Trying,
    /// It has a link to another node.
    Linked,
    /// There is no node to join: it has no seeds, or they all lead to itself.
    Nobody,
    /// It has no link, and no seed or member that it dialed answered. It continues to try.
    Unreachable,
}

/// A member as [`Endpoint::members`](crate::Endpoint::members) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// The address that it advertises.
    pub addr: SocketAddr,
    /// Its latest known run.
    pub incarnation: Incarnation,
    /// Its state.
    pub state: MemberState,
    /// Whether a link to it is up.
    pub linked: bool,
    /// The round trip time of the link.
    pub rtt: Option<Duration>,
    /// The traffic of the link since it came up.
    pub traffic: Option<Traffic>,
    /// The frames of the link since it came up.
    pub frames: Option<FrameTraffic>,
}

/// The frames of a link: the messages of the replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct FrameTraffic {
    /// Frames handed to QUIC.
    pub frames_out: u64,
    /// Bytes of their payload.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes of their payload.
    pub bytes_in: u64,
    /// Bytes that wait to be handed to QUIC, with the cost of their places.
    pub queued: u64,
}

/// The traffic of a link at the UDP level: frames, membership, acknowledgements and QUIC's overhead.
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
