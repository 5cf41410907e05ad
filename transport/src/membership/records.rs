//! What this node records of each member.

use tallymesh_schemas::actor::NodeName;

use crate::member::MemberState;
use crate::membership::id::Id;
use crate::membership::protocol::{Peer, Time};

/// A member as this node last reported it.
#[derive(Debug, Clone)]
pub(super) struct ReportedMember {
    pub(super) id: Id,
    pub(super) state: MemberState,
    pub(super) since: Time,
    /// The member that named it first; `None` once it has said hello to this node.
    pub(super) introduced_by: Option<NodeName>,
}

/// A peer at the other end of a link.
#[derive(Debug, Clone)]
pub(super) struct Reachable {
    pub(super) peer: Peer,
    /// When this node last asked to join it.
    pub(super) asked: Time,
    /// Whether it has spoken: it knows this node, and this node knows its current life.
    pub(super) has_spoken: bool,
    /// Its latest statement about itself over this link: its life, and the number of its last refutation.
    pub(super) own: Option<(Id, u16)>,
    /// Hearsay about it, until it answers.
    pub(super) doubt: Option<Doubt>,
    /// Hearsay to pass on to it.
    pub(super) news: Option<foca::Member<Id>>,
    /// When hearsay was last passed on to it.
    pub(super) passed_on: Option<Time>,
}

impl Reachable {
    pub(super) fn new(now: Time, peer: Peer) -> Self {
        Self { peer, asked: now, has_spoken: false, own: None, doubt: None, news: None, passed_on: None }
    }
}

/// Hearsay about a linked member that the member has not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Doubt {
    pub(super) said: foca::Member<Id>,
    pub(super) since: Time,
}
