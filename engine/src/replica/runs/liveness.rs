//! Liveness of nodes. The liveness filter hides the rows of a dead node from reads and never changes stored rows (I4). Only two
//! final facts change stored rows: a newer run supersedes an older run, and a tombstone voids the runs of a forgotten node.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId};

use crate::canary::{self, Canary};
use crate::counter::structure::Structure;
use crate::limiter::reach::Reach;
use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::Noted;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::runs::tombstone::DropReason;
use crate::replica::stream::StreamId;
use crate::replica::timers::Timer;
use crate::time::Now;

/// Commands and input from the membership.
impl Replica {
    /// The membership reports the state of a node. It holds one run per name, so this replaces its report about another run.
    pub fn handle_member(&mut self, now: Now, node: &NodeName, incarnation: Incarnation, life: Life) {
        self.note_member(now, &Actor::new(node.clone(), incarnation), life, node);
    }

    /// As [`Replica::handle_member`], for a node that has never said hello to this one: the membership knows it only from
    /// `reporter`.
    pub fn handle_introduced(
        &mut self,
        now: Now,
        node: &NodeName,
        incarnation: Incarnation,
        life: Life,
        reporter: &NodeName,
    ) {
        self.note_member(now, &Actor::new(node.clone(), incarnation), life, reporter);
    }

    fn note_member(&mut self, now: Now, actor: &Actor, life: Life, reporter: &NodeName) {
        let Actor { node, incarnation } = actor;
        if *node == self.runs.actor.node {
            if *incarnation > self.runs.actor.incarnation {
                self.conflict(now, *incarnation, node);
            }
            return;
        }
        let status = self.note_run(now, actor, reporter);
        let Some(known) = self.runs.nodes.get_mut(node) else { return };
        if status < RunStatus::Current {
            // Another process uses the name in an earlier run. The membership no longer reports the latest run as alive.
            if *incarnation < known.incarnation {
                known.reported = (*incarnation, life);
                self.end_unlinked(now, node);
            }
            return self.update_life(now);
        }
        known.reported = (*incarnation, life);
        if reporter == node {
            known.reported_by = None;
        }
        // A goodbye is the node's own statement. A later report that the node is gone adds nothing. A report that it is alive
        // counts once the link that carried the goodbye is down.
        let leaves = self.peers.links.get(node).is_some_and(|link| link.heard_goodbye);
        if known.life != Life::Left || (life == Life::Alive && !leaves) {
            self.set_life(now, node, life);
        }
        self.update_life(now);
    }

    /// A peer leaves. The goodbye is of the run that the peer stated on this link; a later run may have begun elsewhere.
    pub(crate) fn handle_goodbye(&mut self, now: Now, peer: &NodeName) {
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        if link.incarnation().is_some_and(|run| self.runs.is_current(&Actor::new(peer.clone(), run))) {
            link.heard_goodbye = true;
            self.set_life(now, peer, Life::Left);
        }
    }

    /// How many nodes this node reaches, as the membership reports.
    pub fn reach(&self) -> Reach {
        self.runs.reach()
    }

    /// The nodes that spoke to this node or that the membership reported: name, latest run, life. A name that appears only in
    /// digests of other members is not included.
    pub fn members(&self) -> impl Iterator<Item = (&NodeName, Incarnation, Life)> {
        let members = self.runs.nodes.iter().filter(|(_, node)| node.reported_by.is_none());
        members.map(|(name, node)| (name, node.incarnation, node.life))
    }

    /// All known nodes: name, latest run, life. Includes nodes that only other members reported.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, Incarnation, Life)> {
        self.runs.nodes.iter().map(|(name, node)| (name, node.incarnation, node.life))
    }

    /// Records a run of another node, or checks an earlier run of this node. `reporter` is the source of the report.
    pub(crate) fn note_run(&mut self, now: Now, actor: &Actor, reporter: &NodeName) -> RunStatus {
        match self.runs.note(now.mono, actor, reporter, self.peers.contact(&actor.node)) {
            Noted::Nothing(status) => status,
            Noted::NoPlace => {
                self.output.note_unheld_node(&actor.node, reporter);
                RunStatus::Refused
            }
            Noted::NewNode => {
                self.output.unheld.nodes.remove(&actor.node);
                RunStatus::Current
            }
            Noted::LaterRun => {
                let earlier = Incarnation(0)..=Incarnation(actor.incarnation.0.saturating_sub(1));
                self.change_run(now, actor, &earlier);
                RunStatus::Current
            }
        }
    }

    /// A node is in a run other than the known one: the new run supersedes the gauges of the `others`.
    pub(crate) fn change_run(&mut self, now: Now, actor: &Actor, others: &RangeInclusive<Incarnation>) {
        self.runs.change_run(now.mono, actor);
        if later_runs_supersede() {
            self.drop_runs(&actor.node, others, DropReason::Superseded);
        }
        if self.peers.is_linked(&actor.node) {
            self.set_life(now, &actor.node, Life::Alive);
        }
    }

    /// Drops the rows of some runs of a node.
    pub(crate) fn drop_runs(&mut self, node: &NodeName, runs: &RangeInclusive<Incarnation>, reason: DropReason) {
        let forgotten = reason != DropReason::Superseded;
        let mut dropped = Vec::new();
        for held in self.structures.values().filter(|held| forgotten || is_superseded(&held.structure)) {
            dropped.extend(held.structure.drop_runs(node, runs));
        }
        dropped.sort();
        dropped.dedup();
        for actor in dropped {
            self.event(Event::Superseded { actor });
        }
        let kept = self.structures.iter().filter(|(_, held)| !forgotten && held.structure.keeps_runs());
        let kept: BTreeSet<StructureId> = kept.map(|(id, _)| *id).collect();
        let empty = if forgotten { BTreeSet::new() } else { self.drop_empty_runs(node, runs) };
        let of_node = |actor: &Actor| actor.node == *node && runs.contains(&actor.incarnation);
        self.forget_streams(|part| of_node(&part.1) && (!kept.contains(&part.0) || empty.contains(part)));
        self.runs.note_changed(node);
    }

    /// Removes all bookkeeping about these streams except their rows.
    pub(crate) fn forget_streams(&mut self, gone: impl Fn(&StreamId) -> bool) {
        self.peers.forget(&gone);
        self.relay.forget(&gone);
        self.crowded.forget(&gone);
        self.output.unheld.forget(gone);
    }

    pub(crate) fn set_life(&mut self, now: Now, node: &NodeName, life: Life) {
        if !self.runs.set_life(now.mono, node, life) {
            return;
        }
        self.event(Event::Life { node: node.clone(), life });
        if matches!(life, Life::Dead | Life::Left) {
            self.end_contest(now, node);
        }
        self.update_life(now);
    }

    /// A node counts as alive while a link to it is up. After that, the report of the membership decides. The membership may
    /// have sent that report before the link was up, and does not repeat it.
    pub(crate) fn apply_membership(&mut self, now: Now) {
        if !self.runs.take_unlinked() {
            return;
        }
        let names: Vec<_> = self.runs.nodes.keys().cloned().collect();
        names.iter().for_each(|name| self.end_unlinked(now, name));
    }

    /// A node without a link takes the state that the membership reports.
    fn end_unlinked(&mut self, now: Now, name: &NodeName) {
        if !self.peers.is_linked(name)
            && let Some(reported) = self.runs.life_without_link(name)
        {
            self.set_life(now, name, reported);
        }
    }

    /// Updates which rows count, from the life of their nodes: for the nodes that changed, or for all nodes when a time is due.
    pub(crate) fn update_life(&mut self, now: Now) {
        let due = self.timers.is_due(&Timer::Death, now.mono);
        if !due && !self.runs.has_changed() {
            return;
        }
        let changed = self.runs.begin_update(now.mono);
        let changed = (!due).then_some(&changed);
        for held in self.structures.values() {
            let on_dead = held.structure.spec().on_dead;
            held.structure.set_counts(changed, |actor| self.runs.counts(actor, on_dead, now.mono));
        }
        let on_dead = self.structures.values().map(|held| held.structure.spec().on_dead);
        let next = self.runs.next_death(changed, on_dead);
        if due {
            self.timers.set(Timer::Death, next);
        } else {
            self.timers.hurry(Timer::Death, next);
        }
    }
}

/// Whether a later run of a node supersedes its earlier runs.
fn later_runs_supersede() -> bool {
    !canary::broken(Canary::IncarnationIgnored)
}

/// Whether a later run of a node supersedes the rows of its earlier runs in a structure.
fn is_superseded(structure: &Structure) -> bool {
    !structure.keeps_runs() || canary::broken(Canary::EventsSuperseded)
}
