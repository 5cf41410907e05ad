//! Which run of its name a node is in, and how it goes on as another one.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

use tallymesh_schemas::{Actor, Incarnation, NodeName, limits};

use super::link::Part;
use super::{Event, Replica};
use crate::structure::Structure;
use crate::time::Now;

impl Replica {
    /// Goes on as another run, `at_least` or later: what is open, and what has happened, is told anew under it. In the last
    /// run that there is, it stays: no run is ever begun twice.
    pub fn renew(&mut self, now: Now, at_least: Incarnation) -> Actor {
        self.renew_with(now, at_least, Structure::renew)
    }

    fn renew_with(&mut self, now: Now, at_least: Incarnation, renew: impl Fn(&Structure, Actor)) -> Actor {
        let incarnation = Incarnation(at_least.0.max(self.actor.incarnation.0 + 1).min(limits::INCARNATION));
        if incarnation == self.actor.incarnation {
            return self.actor.clone();
        }
        let run = Actor::new(self.actor.node.clone(), incarnation);
        let was = std::mem::replace(&mut self.actor, run);
        for held in self.structures.values_mut() {
            // What is this node's own nobody else can have retired.
            let renew: &dyn Fn(&Structure, Actor) = if held.shared { &renew } else { &Structure::renew };
            renew(&held.structure, self.actor.clone());
            held.round = None;
            held.flushed = held.structure.head();
        }
        let earlier = |(_, actor): &Part| actor.node == was.node && actor.incarnation < incarnation;
        for link in self.links.values_mut() {
            link.forget(earlier);
            link.start_over(&was.node);
        }
        if self.structures.values().any(|held| held.structure.keeps_runs()) {
            // Others keep the events of earlier runs. These count in the new run now.
            self.bury_runs(now, &was.node, self.begun, was.incarnation);
        }
        if incarnation.0 > was.incarnation.0 + 1 {
            // What lies between may be another process's.
            self.begun = incarnation;
        }
        self.actor.clone()
    }

    /// Whether an actor is a later run of our own name, which somebody else has begun.
    pub(super) fn is_later_run(&self, actor: &Actor) -> bool {
        actor.node == self.actor.node && actor.incarnation > self.actor.incarnation && self.can_be_reported(actor)
    }

    /// Somebody else writes under our name: report it and go on as a higher run (I1).
    pub(super) fn conflict(&mut self, now: Now, other: Incarnation, peer: &NodeName) {
        self.conflict_with(now, other, peer, Structure::renew);
    }

    /// We were forgotten, and live: the caches start over, because the others have not waited for us with what they retire.
    /// A run that is later than those that were forgotten keeps what it has written.
    pub(super) fn come_back(&mut self, now: Now, forgotten: Incarnation, peer: &NodeName) {
        let keep = self.actor.incarnation > forgotten;
        self.conflict_with(now, forgotten, peer, |structure, actor| {
            if structure.is_cache() { structure.start_over(actor, keep) } else { structure.renew(actor) }
        });
    }

    fn conflict_with(&mut self, now: Now, other: Incarnation, peer: &NodeName, renew: impl Fn(&Structure, Actor)) {
        let was = self.actor.clone();
        let run = self.renew_with(now, Incarnation(other.0.saturating_add(1)), renew);
        if run == was {
            return;
        }
        self.counters.conflicts += 1;
        self.event(Event::Conflict { was, now: run, peer: peer.clone() });
    }
}
