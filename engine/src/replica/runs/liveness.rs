//! Liveness of nodes. The liveness filter hides the rows of a dead node from reads and never changes stored rows (I4). Only two
//! final facts change stored rows: a newer run supersedes an older run, and a tombstone voids the runs of a forgotten node.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::message::Tombstone;
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, bounds};

use crate::canary::{self, Canary};
use crate::counter::runs::Dropped;
use crate::limiter::reach::Reach;
use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::runs::node::Node;
use crate::replica::runs::tombstone::{Contested, FORGOTTEN_BEFORE};
use crate::replica::stream::StreamId;
use crate::time::{Now, Time, millis};

/// The reason why this node drops runs of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DropReason {
    /// A later run supersedes them: this node drops their gauges.
    Superseded,
    /// They are forgotten: this node drops all their rows and republishes the visible values of their caches as its own.
    Forgotten,
    /// They were forgotten while this node was away. Other nodes already republished the visible cache values of that time.
    /// This node republishes only the values that came since.
    ForgottenBefore,
}

/// Commands and input from the membership.
impl Replica {
    /// The membership reports the state of a node. It holds one run per name, so this replaces its report about another run.
    pub fn handle_member(&mut self, now: Now, node: &NodeName, incarnation: Incarnation, life: Life) {
        self.note_member(now, node, incarnation, life, node);
    }

    /// As [`Replica::handle_member`], for a node that has never said hello to this one: the membership knows it only from
    /// `teller`.
    pub fn handle_introduced(
        &mut self,
        now: Now,
        node: &NodeName,
        incarnation: Incarnation,
        life: Life,
        teller: &NodeName,
    ) {
        self.note_member(now, node, incarnation, life, teller);
    }

    fn note_member(&mut self, now: Now, node: &NodeName, incarnation: Incarnation, life: Life, teller: &NodeName) {
        if *node == self.actor.node {
            if incarnation > self.actor.incarnation {
                self.conflict(now, incarnation, node);
            }
            return;
        }
        let actor = Actor::new(node.clone(), incarnation);
        let standing = self.note_run(now, &actor, teller);
        let Some(known) = self.nodes.get_mut(node) else { return };
        if standing < RunStatus::Current {
            // Another process uses the name in an earlier run. The membership no longer reports the latest run as alive.
            if incarnation < known.incarnation {
                known.reported = (incarnation, life);
                self.end_unlinked(now, node);
            }
            return self.update_life(now);
        }
        known.reported = (incarnation, life);
        if teller == node {
            known.reported_by = None;
        }
        // A goodbye is the node's own statement. A later report that the node is gone adds nothing. A report that it is alive
        // counts once the link that carried the goodbye is down.
        let leaves = self.links.get(node).is_some_and(|link| link.heard_goodbye);
        if known.life != Life::Left || (life == Life::Alive && !leaves) {
            self.set_life(now, node, life);
        }
        self.update_life(now);
    }

    /// A peer leaves. The goodbye is of the run that the peer stated on this link; a later run may have begun elsewhere.
    pub(crate) fn handle_goodbye(&mut self, now: Now, peer: &NodeName) {
        let speaks = self.links.get(peer).and_then(|link| link.incarnation);
        if speaks.is_some_and(|run| self.is_current(&Actor::new(peer.clone(), run))) {
            if let Some(link) = self.links.get_mut(peer) {
                link.heard_goodbye = true;
            }
            self.set_life(now, peer, Life::Left);
        }
    }

    /// Forgets a node: its runs so far stop counting on all nodes, and no node accepts them again. If the node is alive, it
    /// renews as a new run. Returns whether this node knew anything about it.
    pub fn forget(&mut self, now: Now, node: &NodeName) -> bool {
        let before = || self.tombstones.get(&(node.clone(), FORGOTTEN_BEFORE)).map(|tombstone| tombstone.incarnation);
        let known = self.nodes.get(node).map(|known| known.incarnation);
        let Some(incarnation) = known.or_else(before) else { return false };
        self.void_runs(now, node, Incarnation(0), incarnation);
        true
    }

    pub(crate) fn void_runs(&mut self, now: Now, node: &NodeName, from: Incarnation, incarnation: Incarnation) {
        let clock_ms = self.cluster_ms(now);
        let until_ms = clock_ms.saturating_add(millis(self.config.tombstone_life));
        let peer = self.actor.node.clone();
        self.add_tombstone(now, Tombstone { node: node.clone(), from, incarnation, until_ms }, &peer);
    }

    /// How many nodes this node reaches, as the membership reports.
    pub fn reach(&self) -> Reach {
        let known = self.nodes.values().filter(|node| node.life != Life::Left);
        let count = |alive: bool| known.clone().filter(|node| !alive || node.life != Life::Dead).count();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1);
        Reach { alive: number(count(true)), known: number(count(false)), founders: true }
    }

    /// Nodes that an operator has forgotten and of which no later run is known. A node that has renewed as a later run is not
    /// in the list.
    pub fn forgotten(&self) -> Vec<NodeName> {
        let known = |node: &NodeName| *node == self.actor.node || self.nodes.contains_key(node);
        let whole = self.tombstones.keys().filter(|(_, from)| *from == Incarnation(0)).map(|(node, _)| node);
        whole.filter(|node| !known(node)).cloned().collect()
    }

    /// The nodes that spoke to this node or that the membership reported: name, latest run, life. A name that appears only in
    /// digests of other members is not included.
    pub fn members(&self) -> impl Iterator<Item = (&NodeName, Incarnation, Life)> {
        let members = self.nodes.iter().filter(|(_, node)| node.reported_by.is_none());
        members.map(|(name, node)| (name, node.incarnation, node.life))
    }

    /// All known nodes: name, latest run, life. Includes nodes that only other members reported.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, Incarnation, Life)> {
        self.nodes.iter().map(|(name, node)| (name, node.incarnation, node.life))
    }

    pub(crate) fn add_tombstone(&mut self, now: Now, tombstone: Tombstone, peer: &NodeName) {
        let away = self.was_away(peer);
        self.apply_tombstone(now, tombstone, peer, away);
    }

    pub(crate) fn apply_tombstone(&mut self, now: Now, tombstone: Tombstone, peer: &NodeName, away: bool) {
        let expiry_ms = self.expiry_ms(now);
        let whole = tombstone.from <= FORGOTTEN_BEFORE;
        let grave = (tombstone.node.clone(), tombstone.from);
        let known = self.tombstones.get(&grave).map(|known| known.incarnation);
        let new = known.is_none_or(|known| known < tombstone.incarnation);
        let ours = tombstone.node == self.actor.node;
        let credible = || self.can_be_reported(&Actor::new(tombstone.node.clone(), tombstone.incarnation));
        if !new || tombstone.until_ms <= expiry_ms || !(ours || credible()) {
            return;
        }
        let contested = Contested { tombstone, teller: peer.clone(), away };
        if self.contest(&contested) {
            return;
        }
        let tombstone = contested.tombstone;
        let forgotten = ours && whole && away && self.was_forgotten(&tombstone);
        if ours && (forgotten || tombstone.incarnation >= self.actor.incarnation) {
            if whole {
                self.renew_after_forget(now, tombstone.incarnation, peer);
            } else {
                self.conflict(now, tombstone.incarnation, peer);
            }
            if tombstone.incarnation >= self.actor.incarnation {
                // Not applied yet: the sender repeats the tombstone.
                return;
            }
        }
        if known.is_none() && self.tombstones.len() >= bounds::TOMBSTONES {
            self.tally.reached(Bound::Tombstones);
            return;
        }
        let (node, runs) = (tombstone.node.clone(), tombstone.from..=tombstone.incarnation);
        self.tombstones.insert(grave, tombstone);
        self.drop_runs(&node, &runs, if away { DropReason::ForgottenBefore } else { DropReason::Forgotten });
        // A node that has renewed as another run keeps its life.
        if whole && self.nodes.get(&node).is_some_and(|known| runs.contains(&known.incarnation)) {
            self.nodes.remove(&node);
        }
        for link in self.links.values_mut() {
            link.new_tombstone = true;
            link.hurry();
        }
        if whole {
            self.unheld.forget_reporter(&node);
            self.forget_names_reported_by(&node);
            self.event(Event::Forgotten { node });
        }
    }

    /// Whether a run is void: an operator has forgotten it, or a later run has taken over its counts.
    pub fn is_void(&self, actor: &Actor) -> bool {
        let graves = (actor.node.clone(), Incarnation(0))..=(actor.node.clone(), actor.incarnation);
        let mut candidates = self.tombstones.range(graves);
        candidates.any(|(_, tombstone)| tombstone.incarnation >= actor.incarnation)
    }

    /// Whether the actor is the current run of its node, as far as this node knows.
    pub(crate) fn is_current(&self, actor: &Actor) -> bool {
        *actor == self.actor || self.nodes.get(&actor.node).is_some_and(|known| known.incarnation == actor.incarnation)
    }

    /// Whether the actor is the current run of a node that is alive or suspect, so that it may still send rows.
    pub(crate) fn lives(&self, actor: &Actor) -> bool {
        let known = self.nodes.get(&actor.node).filter(|known| known.incarnation == actor.incarnation);
        known.is_some_and(|known| matches!(known.life, Life::Alive | Life::Suspect))
    }

    /// Whether a run has ended for good: it is forgotten, or its node is in a later run.
    pub(crate) fn is_over(&self, actor: &Actor) -> bool {
        let ours = (actor.node == self.actor.node).then_some(self.actor.incarnation);
        let latest = self.nodes.get(&actor.node).map(|known| known.incarnation).or(ours);
        latest.is_some_and(|latest| actor.incarnation < latest) || self.is_void(actor)
    }

    /// Records a run of another node, or checks an earlier run of this node. `teller` is the source of the report.
    pub(crate) fn note_run(&mut self, now: Now, actor: &Actor, teller: &NodeName) -> RunStatus {
        if self.is_void(actor) && !canary::broken(Canary::TombstoneIgnored) {
            return RunStatus::Refused;
        }
        if actor.node == self.actor.node {
            return if actor.incarnation < self.actor.incarnation { RunStatus::Earlier } else { RunStatus::Refused };
        }
        if *teller != actor.node && !self.can_be_reported(actor) {
            return RunStatus::Refused;
        }
        let Some(known) = self.nodes.get_mut(&actor.node) else {
            // Some places are reserved for nodes with a link: these have proved their names. No member can fill all the other
            // places.
            let linked = self.links.contains_key(&actor.node) || self.hellos.contains_key(&actor.node);
            let reported = *teller != actor.node && *teller != self.actor.node;
            let full = self.nodes.len() >= if linked { bounds::NODES } else { bounds::NODES_HEARD_OF };
            if full || (reported && !linked && !self.may_report_another(teller)) {
                self.note_unheld_node(&actor.node, teller);
                return RunStatus::Refused;
            }
            self.unheld.nodes.remove(&actor.node);
            let life = if self.links.contains_key(&actor.node) { Life::Alive } else { Life::Dead };
            let node =
                Node { reported_by: reported.then(|| teller.clone()), ..Node::new(actor.incarnation, life, now.mono) };
            self.nodes.insert(actor.node.clone(), node);
            self.life_changed.insert(actor.node.clone());
            return RunStatus::Current;
        };
        if actor.incarnation < known.incarnation {
            return RunStatus::Earlier;
        }
        if actor.incarnation == known.incarnation {
            return RunStatus::Current;
        }
        // While a node states its own run, this node accepts no other source for it (I6).
        let speaks = self.speaks(&actor.node).is_some();
        if speaks && *teller != actor.node {
            return RunStatus::Refused;
        }
        let earlier = Incarnation(0)..=Incarnation(actor.incarnation.0.saturating_sub(1));
        self.change_run(now, actor, &earlier);
        RunStatus::Current
    }

    /// A node is in a run other than the known one: the new run supersedes the gauges of the `others`.
    fn change_run(&mut self, now: Now, actor: &Actor, others: &RangeInclusive<Incarnation>) {
        let Some(known) = self.nodes.get_mut(&actor.node) else { return };
        known.incarnation = actor.incarnation;
        // The life of one run does not apply to another run.
        (known.life, known.at) = (known.reported_life(), now.mono);
        self.life_changed.insert(actor.node.clone());
        if !canary::broken(Canary::IncarnationIgnored) {
            self.drop_runs(&actor.node, others, DropReason::Superseded);
        }
        if self.links.contains_key(&actor.node) {
            self.set_life(now, &actor.node, Life::Alive);
        }
    }

    /// A node states its own run, and other members have reported a `later` one.
    pub(crate) fn follow_own_statement(&mut self, now: Now, actor: &Actor, later: Incarnation) {
        let rumoured = Incarnation(actor.incarnation.0.saturating_add(1))..=later;
        self.change_run(now, actor, &rumoured);
        if let Some(known) = self.nodes.get_mut(&actor.node) {
            known.reported_run = known.reported_run.max(Some(later));
        }
    }

    /// Whether this node accepts a run from members other than its node: the node may have begun it, or is in it (I6).
    pub(crate) fn can_be_reported(&self, actor: &Actor) -> bool {
        let known = self.nodes.get(&actor.node).map(|known| known.incarnation);
        known.is_some_and(|known| actor.incarnation <= known) || actor.incarnation.0 <= bounds::INCARNATION_REPORTED
    }

    /// Drops the rows of some runs of a node.
    fn drop_runs(&mut self, node: &NodeName, runs: &RangeInclusive<Incarnation>, drop: DropReason) {
        let forgotten = drop != DropReason::Superseded;
        let when = if drop == DropReason::ForgottenBefore { Dropped::WhileAway } else { Dropped::Now };
        let mut dropped = Vec::new();
        for held in self
            .structures
            .values()
            .filter(|held| forgotten || !held.structure.keeps_runs() || canary::broken(Canary::EventsSuperseded))
        {
            dropped.extend(held.structure.drop_runs(node, runs, when));
        }
        dropped.sort();
        dropped.dedup();
        for actor in dropped {
            self.event(Event::Superseded { actor });
        }
        let kept = self.structures.iter().filter(|(_, held)| !forgotten && held.structure.keeps_runs());
        let kept: BTreeSet<StructureId> = kept.map(|(id, _)| *id).collect();
        let gone =
            |(id, actor): &StreamId| actor.node == *node && runs.contains(&actor.incarnation) && !kept.contains(id);
        self.forget_streams(gone);
        self.life_changed.insert(node.clone());
    }

    /// Removes all bookkeeping about these streams except their rows.
    pub(crate) fn forget_streams(&mut self, gone: impl Fn(&StreamId) -> bool) {
        for link in self.links.values_mut() {
            link.forget(&gone);
        }
        self.parents.retain(|part, _| !gone(part));
        self.forwarded.retain(|part| !gone(part));
        self.wanted_history.retain(|part| !gone(part));
        self.awaiting_values.retain(|part, _| !gone(part));
        self.unheld.forget(gone);
    }

    pub(crate) fn set_life(&mut self, now: Now, node: &NodeName, life: Life) {
        let known = self.nodes.entry(node.clone()).or_insert(Node::new(Incarnation(0), Life::Dead, now.mono));
        if known.life == life {
            return;
        }
        (known.life, known.at) = (life, now.mono);
        self.life_changed.insert(node.clone());
        self.event(Event::Life { node: node.clone(), life });
        if matches!(life, Life::Dead | Life::Left) {
            self.end_contest(now, node);
        }
        self.update_life(now);
    }

    /// A node counts as alive while a link to it is up. After that, the report of the membership decides. The membership may
    /// have sent that report before the link was up, and does not repeat it.
    pub(crate) fn apply_membership(&mut self, now: Now) {
        if !std::mem::take(&mut self.unlinked) {
            return;
        }
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        names.iter().for_each(|name| self.end_unlinked(now, name));
    }

    /// A node without a link takes the state that the membership reports.
    fn end_unlinked(&mut self, now: Now, name: &NodeName) {
        let Some(known) = self.nodes.get(name).filter(|_| !self.links.contains_key(name)) else { return };
        let reported = known.reported_life();
        if matches!(known.life, Life::Alive | Life::Suspect) && known.life != reported {
            self.set_life(now, name, reported);
        }
    }

    /// Updates which rows count, from the life of their nodes: for the nodes that changed, or for all nodes when a time is due.
    pub(crate) fn update_life(&mut self, now: Now) {
        let due = now.mono >= self.death_at;
        if self.life_changed.is_empty() && !due {
            return;
        }
        let changed = std::mem::take(&mut self.life_changed);
        self.life_updated = now.mono;
        for held in self.structures.values() {
            let on_dead = held.structure.spec().on_dead;
            let counts = |actor: &Actor| {
                let hidden_at = |node: &Node| node.hidden_at(on_dead);
                actor.node == self.actor.node
                    || self.nodes.get(&actor.node).is_some_and(|node| now.mono < hidden_at(node))
            };
            held.structure.set_counts((!due).then_some(&changed), counts);
        }
        self.death_at = if due { self.next_death(self.nodes.values()) } else { self.death_at };
        let changed = changed.iter().filter_map(|name| self.nodes.get(name));
        self.death_at = self.death_at.min(self.next_death(changed));
    }

    /// The next time when the rows of one of these nodes stop counting.
    fn next_death<'a>(&self, nodes: impl Iterator<Item = &'a Node> + Clone) -> Time {
        let deaths = self.structures.values().flat_map(|held| {
            let on_dead = held.structure.spec().on_dead;
            nodes.clone().map(move |node| node.hidden_at(on_dead))
        });
        deaths.filter(|at| *at > self.life_updated).min().unwrap_or(Time::NEVER)
    }
}
