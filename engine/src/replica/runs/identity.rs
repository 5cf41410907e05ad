//! The run that a node is in under its name, and how it renews as another run.

use tallymesh_schemas::{Actor, Incarnation, NoSuchRun, NodeName};

use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::succession::{Cause, Claim};
use crate::replica::stream::StreamId;
use crate::replica::timers::Timer;
use crate::time::Now;

impl Replica {
    /// Renews this node as another run, `at_least` or later. The node states its gauges and events again under it. An earlier
    /// process of this node may have been in any run that this one does not know. The clock keeps this process from beginning
    /// the same run: see [`Incarnation::successor`].
    ///
    /// # Errors
    /// [`NoSuchRun`] when the last possible run has been reached: no run is ever begun twice. Nothing is changed then.
    pub fn renew(&mut self, now: Now, at_least: Incarnation) -> Result<Actor, NoSuchRun> {
        self.renew_because(now, at_least, Cause::Shared)
    }

    fn renew_because(&mut self, now: Now, at_least: Incarnation, cause: Cause) -> Result<Actor, NoSuchRun> {
        let was = self.runs.begin_run(now, at_least)?;
        let actor = &self.runs.actor;
        for held in self.structures.values_mut() {
            held.structure.renew(actor.clone());
            held.flushed = held.structure.head();
        }
        let actor = actor.clone();
        self.renew_caches(&actor, cause);
        let begun = actor.incarnation;
        let earlier = |(_, actor): &StreamId| actor.node == was.node && actor.incarnation < begun;
        for link in self.peers.links.values_mut() {
            link.forget(earlier);
            link.start_over(&was.node);
        }
        if self.structures.values().any(|held| held.structure.keeps_runs()) {
            // Other nodes keep the events of earlier runs. These events count in the new run now. Runs between the two may
            // belong to another process, so only the previous run becomes void.
            self.void_runs(now, &was.node, was.incarnation, was.incarnation);
        }
        Ok(self.runs.actor.clone())
    }

    /// Another process runs under this node's name, as `by`. If `by` is not earlier than this run, this node renews as a later
    /// run (I1). `peer` reports it: a member, which is credible within bounds, or this node's own name, if the process holds
    /// its key.
    pub fn handle_superseded(&mut self, now: Now, by: Incarnation, peer: &NodeName) {
        if by < self.runs.actor.incarnation {
            return;
        }
        let claim = Claim { cause: Cause::Shared, by, peer: peer.clone() };
        if *peer != self.runs.actor.node {
            self.claim(now, claim);
        } else if by.next().is_ok() {
            self.accept_claim(now, claim);
        } else {
            self.refuse_claim(now, claim);
        }
    }

    /// Another process writes under this node's name: reports it and renews as a higher run (I1).
    pub(crate) fn conflict(&mut self, now: Now, by: Incarnation, peer: &NodeName) {
        self.claim(now, Claim { cause: Cause::Shared, by, peer: peer.clone() });
    }

    /// An operator has forgotten this node, with all runs up to `last`: it renews as a higher run.
    pub(crate) fn renew_forgotten(&mut self, now: Now, last: Incarnation, peer: &NodeName) {
        self.claim(now, Claim { cause: Cause::Forgotten, by: last, peer: peer.clone() });
    }

    /// The only way in which other members make this node renew as another run.
    fn claim(&mut self, now: Now, claim: Claim) {
        if self.runs.is_credible(now, claim.by) {
            self.accept_claim(now, claim);
        } else {
            self.refuse_claim(now, claim);
        }
    }

    /// Acts on a credible claim, or keeps it until the pause is over.
    fn accept_claim(&mut self, now: Now, claim: Claim) {
        let pause = self.runs.succession.pause(now.mono);
        if pause.is_zero() {
            let claim = self.runs.succession.take_with(claim);
            self.supersede(now, claim);
        } else {
            self.output.counters.claims_delayed += 1;
            let (by, peer) = (claim.by, claim.peer.clone());
            if self.runs.succession.wait(now.mono, claim) {
                self.event(Event::ConflictWaits { by, peer, pause });
            }
        }
        self.timers.set(Timer::Succession, self.runs.succession.due());
    }

    /// Acts on a claim that has waited long enough.
    pub(crate) fn handle_succession(&mut self, now: Now) {
        if !self.timers.is_due(&Timer::Succession, now.mono) {
            return;
        }
        if let Some(claim) = self.runs.succession.take()
            && claim.by >= self.runs.actor.incarnation
        {
            self.supersede(now, claim);
        }
        self.timers.set(Timer::Succession, self.runs.succession.due());
    }

    fn supersede(&mut self, now: Now, claim: Claim) {
        let was = self.runs.actor.clone();
        let at_least = Incarnation(claim.by.0.saturating_add(1));
        match self.renew_because(now, at_least, claim.cause) {
            Ok(run) => {
                self.runs.succession.changed(now.mono);
                self.output.counters.conflicts += 1;
                self.event(Event::Conflict { was, now: run, peer: claim.peer });
            }
            Err(_) => self.refuse_claim(now, claim),
        }
    }

    fn refuse_claim(&mut self, now: Now, claim: Claim) {
        self.output.counters.claims_refused += 1;
        if self.runs.succession.refuse(now.mono) {
            self.event(Event::ClaimRefused { by: claim.by, peer: claim.peer });
        }
    }
}
