//! What this node knows about another node.

use tallymesh_schemas::{Incarnation, NodeName, OnDead};

use crate::canary::{self, Canary};
use crate::replica::runs::life::Life;
use crate::time::Time;

/// What this node knows about another node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The latest known run of the node.
    pub(crate) incarnation: Incarnation,
    pub(crate) life: Life,
    /// The last report of the membership, and the run that it is about.
    pub(crate) reported: (Incarnation, Life),
    /// The latest run that the node itself stated.
    pub(crate) said: Option<Incarnation>,
    /// The latest run that only other members reported and that the node itself did not state.
    pub(crate) reported_run: Option<Incarnation>,
    /// The member that reported the node first; `None` once the node itself or the membership has reported it.
    pub(crate) reported_by: Option<NodeName>,
    /// The time since when `life` holds.
    pub(crate) at: Time,
}

impl Node {
    pub(crate) fn new(incarnation: Incarnation, life: Life, at: Time) -> Self {
        Self {
            incarnation,
            life,
            reported: (incarnation, Life::Dead),
            said: None,
            reported_run: None,
            reported_by: None,
            at,
        }
    }

    /// The last report of the membership about the latest run; dead until there is a report.
    pub(crate) fn reported_life(&self) -> Life {
        if self.reported.0 == self.incarnation { self.reported.1 } else { Life::Dead }
    }

    /// The time when the node's rows stop counting; [`Time::NEVER`] while no such time is set.
    pub(crate) fn hidden_at(&self, on_dead: OnDead) -> Time {
        match (self.life, on_dead) {
            _ if canary::broken(Canary::DeadCounted) => Time::NEVER,
            (Life::Left, _) => Time(0),
            (Life::Dead, OnDead::Drop(after)) => self.at.after(after),
            _ => Time::NEVER,
        }
    }
}
