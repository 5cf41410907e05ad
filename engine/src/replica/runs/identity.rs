//! The run that a node is in under its name, and how it renews as another run.

use tallymesh_schemas::{Actor, Incarnation, NoSuchRun, NodeName};

use crate::counter::keep::Keep;
use crate::counter::structure::Structure;
use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::succession::Claim;
use crate::replica::stream::StreamId;
use crate::time::Now;

impl Replica {
    /// Renews this node as another run, `at_least` or later. The node states its gauges and events again under it. An earlier
    /// process of this node may have been in any run that this one does not know. The clock keeps this process from beginning
    /// the same run: see [`Incarnation::successor`].
    ///
    /// # Errors
    /// [`NoSuchRun`] when the last possible run has been reached: no run is ever begun twice. Nothing is changed then.
    pub fn renew(&mut self, now: Now, at_least: Incarnation) -> Result<Actor, NoSuchRun> {
        self.renew_with(now, at_least, Structure::renew)
    }

    fn renew_with(
        &mut self,
        now: Now,
        at_least: Incarnation,
        renew: impl Fn(&Structure, Actor),
    ) -> Result<Actor, NoSuchRun> {
        let heard_of = self.actor.incarnation.max(Incarnation(at_least.0.saturating_sub(1)));
        let incarnation = heard_of.successor(now.unix_ms)?;
        let run = Actor::new(self.actor.node.clone(), incarnation);
        let was = std::mem::replace(&mut self.actor, run);
        for held in self.structures.values_mut() {
            // Another node cannot have retired rows of a structure that is not shared.
            let renew: &dyn Fn(&Structure, Actor) = if held.shared { &renew } else { &Structure::renew };
            renew(&held.structure, self.actor.clone());
            held.round = None;
            held.flushed = held.structure.head();
        }
        let earlier = |(_, actor): &StreamId| actor.node == was.node && actor.incarnation < incarnation;
        for link in self.links.values_mut() {
            link.forget(earlier);
            link.start_over(&was.node);
        }
        if self.structures.values().any(|held| held.structure.keeps_runs()) {
            // Other nodes keep the events of earlier runs. These events count in the new run now. Runs between the two may
            // belong to another process, so only the previous run becomes void.
            self.void_runs(now, &was.node, was.incarnation, was.incarnation);
        }
        Ok(self.actor.clone())
    }

    /// Whether an actor is a later run of this node's name, which another process has begun.
    pub(crate) fn is_later_run(&self, actor: &Actor) -> bool {
        actor.node == self.actor.node && actor.incarnation > self.actor.incarnation
    }

    /// Another process runs under this node's name, as `by`. If `by` is not earlier than this run, this node renews as a later
    /// run (I1). `peer` reports it: a member, which is credible within bounds, or this node's own name, if the process holds
    /// its key.
    pub fn handle_superseded(&mut self, now: Now, by: Incarnation, peer: &NodeName) {
        if by >= self.actor.incarnation {
            let credible = if *peer == self.actor.node { by.next().is_ok() } else { self.is_credible(now, by) };
            self.claim(now, credible, Claim { by, peer: peer.clone(), forgotten: None });
        }
    }

    /// Another process writes under this node's name: reports it and renews as a higher run (I1).
    pub(crate) fn conflict(&mut self, now: Now, by: Incarnation, peer: &NodeName) {
        self.claim(now, self.is_credible(now, by), Claim { by, peer: peer.clone(), forgotten: None });
    }

    /// Another node has forgotten this node, which is alive. Its caches start over, because the others retired rows without
    /// waiting for it. A run that is later than the forgotten ones keeps what it has written.
    pub(crate) fn renew_after_forget(&mut self, now: Now, by: Incarnation, peer: &NodeName) {
        self.claim(now, self.is_credible(now, by), Claim { by, peer: peer.clone(), forgotten: Some(by) });
    }

    /// Whether this node believes other members' reports about a run of its name.
    pub(crate) fn is_credible(&self, now: Now, by: Incarnation) -> bool {
        by <= self.actor.incarnation || by.is_credible(now.unix_ms)
    }

    /// The only way in which others make this node renew as another run.
    fn claim(&mut self, now: Now, credible: bool, claim: Claim) {
        let pause = self.succession.pause(now.mono);
        if !credible {
            self.refuse_claim(now, claim);
        } else if pause.is_zero() {
            let claim = self.succession.take_with(claim);
            self.supersede(now, claim);
        } else {
            self.counters.claims_delayed += 1;
            let (by, peer) = (claim.by, claim.peer.clone());
            if self.succession.wait(now.mono, claim) {
                self.event(Event::ConflictWaits { by, peer, pause });
            }
        }
    }

    /// Acts on a claim that has waited long enough.
    pub(crate) fn handle_succession(&mut self, now: Now) {
        if now.mono >= self.succession.due()
            && let Some(claim) = self.succession.take()
            && (claim.by >= self.actor.incarnation || claim.forgotten.is_some())
        {
            self.supersede(now, claim);
        }
    }

    fn supersede(&mut self, now: Now, claim: Claim) {
        let was = self.actor.clone();
        let at_least = Incarnation(claim.by.0.saturating_add(1));
        let renewed = match claim.forgotten {
            None => self.renew_with(now, at_least, Structure::renew),
            Some(forgotten) => {
                let keep = if was.incarnation > forgotten { Keep::OwnWrites } else { Keep::Nothing };
                self.renew_with(now, at_least, |structure, actor| {
                    if structure.is_cache() { structure.start_over(actor, keep) } else { structure.renew(actor) }
                })
            }
        };
        match renewed {
            Ok(run) => {
                self.succession.changed(now.mono);
                self.counters.conflicts += 1;
                self.event(Event::Conflict { was, now: run, peer: claim.peer });
            }
            Err(_) => self.refuse_claim(now, claim),
        }
    }

    fn refuse_claim(&mut self, now: Now, claim: Claim) {
        self.counters.claims_refused += 1;
        if self.succession.refuse(now.mono) {
            self.event(Event::ClaimRefused { by: claim.by, peer: claim.peer });
        }
    }
}
