//! What this node knows about another node.

use std::time::Duration;

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
    at: Time,
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

    /// Whether the node is alive or suspect, so that it may still send rows.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.life, Life::Alive | Life::Suspect)
    }

    /// Whether the node is only a name: another member has reported it, and the membership does not see it. It may be made up.
    pub(crate) fn is_only_heard_of(&self) -> bool {
        self.life == Life::Dead && self.reported_by.is_some()
    }

    /// The last report of the membership about the latest run; dead until there is a report.
    pub(crate) fn reported_life(&self) -> Life {
        if self.reported.0 == self.incarnation { self.reported.1 } else { Life::Dead }
    }

    /// The time since when its life holds.
    pub(crate) fn since(&self) -> Time {
        self.at
    }

    pub(crate) fn set_life(&mut self, life: Life, at: Time) {
        (self.life, self.at) = (life, at);
    }

    /// The node is in another run. The life of one run does not apply to another run.
    pub(crate) fn change_run(&mut self, incarnation: Incarnation, at: Time) {
        self.incarnation = incarnation;
        self.set_life(self.reported_life(), at);
    }

    /// The node has stated its current run itself.
    pub(crate) fn note_statement(&mut self, run: Incarnation) {
        self.said = self.said.max(Some(run));
        self.reported_by = None;
        if self.reported_run.is_some_and(|reported| reported <= run) {
            self.reported_run = None;
        }
    }

    /// Whether the node is dead or has left, and has been for a time.
    pub(crate) fn is_gone_for(&self, now: Time, time: Duration) -> bool {
        !self.lives() && now.since(self.at) >= time
    }

    /// The time when the node's rows stop counting; [`Time::NEVER`] while no such time is set.
    pub(crate) fn hidden_at(&self, on_dead: OnDead) -> Time {
        match (self.life, on_dead) {
            _ if dead_rows_count_for_ever() => Time::NEVER,
            (Life::Left, _) => Time(0),
            (Life::Dead, OnDead::Drop(after)) => self.at.after(after),
            _ => Time::NEVER,
        }
    }
}

fn dead_rows_count_for_ever() -> bool {
    canary::broken(Canary::DeadCounted)
}
