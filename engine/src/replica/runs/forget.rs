//! Forgetting: an operator's tombstone voids the runs of a node so far, and a renewal voids the run before it.

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::message::Tombstone;
use tallymesh_schemas::{Actor, Incarnation, NodeName, bounds};

use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::tombstone::{DropReason, FORGOTTEN_BEFORE, Received};
use crate::time::Now;

impl Replica {
    /// Forgets a node: its runs so far stop counting on all nodes, and no node accepts them again. If the node is alive, it
    /// renews as a new run. Returns whether this node knew anything about it.
    pub fn forget(&mut self, now: Now, node: &NodeName) -> bool {
        let key = (node.clone(), FORGOTTEN_BEFORE);
        let before = || self.runs.tombstones.get(&key).map(|tombstone| tombstone.incarnation);
        let known = self.runs.nodes.get(node).map(|known| known.incarnation);
        let Some(incarnation) = known.or_else(before) else { return false };
        self.void_runs(now, node, Incarnation(0), incarnation);
        true
    }

    /// Voids the runs of a node from one to another.
    pub(crate) fn void_runs(&mut self, now: Now, node: &NodeName, from: Incarnation, incarnation: Incarnation) {
        let clock_ms = self.peers.clocks.cluster_ms(now);
        let until_ms = clock_ms.after(self.config.tombstone_life);
        let reporter = self.runs.actor.node.clone();
        self.add_tombstone(now, Tombstone { node: node.clone(), from, incarnation, until_ms }, reporter);
    }

    /// Nodes that an operator has forgotten and of which no later run is known. A node that has renewed as a later run is not
    /// in the list.
    pub fn forgotten(&self) -> Vec<NodeName> {
        self.runs.forgotten()
    }

    /// Whether a run is void: an operator has forgotten it, or a later run has taken over its counts.
    pub fn is_void(&self, actor: &Actor) -> bool {
        self.runs.is_void(actor)
    }

    /// A tombstone has come from `reporter`.
    pub(crate) fn add_tombstone(&mut self, now: Now, tombstone: Tombstone, reporter: NodeName) {
        self.apply_tombstone(now, Received { tombstone, reporter });
    }

    pub(crate) fn apply_tombstone(&mut self, now: Now, received: Received) {
        let expiry_ms = self.peers.clocks.expiry_ms(now);
        if !self.runs.is_news(&received.tombstone, expiry_ms) || self.contest(&received) {
            return;
        }
        let (key, whole) = (received.key(), received.is_whole());
        let first = !self.runs.tombstones.contains_key(&key);
        self.renew_if_buried(now, &received);
        let Received { tombstone, .. } = received;
        if tombstone.node == self.runs.actor.node && tombstone.incarnation >= self.runs.actor.incarnation {
            // Not applied yet: the sender repeats the tombstone.
            return;
        }
        if first && self.runs.tombstones.len() >= bounds::TOMBSTONES {
            self.output.tally.reached(Bound::Tombstones);
            return;
        }
        let (node, runs) = (tombstone.node.clone(), tombstone.from..=tombstone.incarnation);
        self.runs.tombstones.insert(key, tombstone);
        self.drop_runs(&node, &runs, DropReason::Forgotten);
        if whole {
            self.runs.remove_node(&node, &runs);
        }
        self.peers.announce_tombstones();
        if whole {
            self.output.unheld.forget_reporter(&node);
            self.forget_names_reported_by(&node);
            self.event(Event::Forgotten { node });
        }
    }

    /// A tombstone of this node's own name: if it voids this run, this node renews as another run.
    fn renew_if_buried(&mut self, now: Now, received: &Received) {
        let Received { tombstone, reporter } = received;
        let us = &self.runs.actor;
        if tombstone.node == us.node && tombstone.incarnation >= us.incarnation {
            if received.is_whole() {
                self.renew_forgotten(now, tombstone.incarnation, reporter);
            } else {
                self.conflict(now, tombstone.incarnation, reporter);
            }
        }
    }

    /// A tombstone has to wait until its node, which has a link to this node, knows of it. Returns whether it waits.
    fn contest(&mut self, received: &Received) -> bool {
        let node = &received.tombstone.node;
        if !self.runs.has_to_wait(received, self.peers.contact(node)) {
            return false;
        }
        if let Some(link) = self.peers.links.get_mut(node) {
            link.unsent_tombstone = Some(received.tombstone.clone());
            link.hurry();
        }
        self.runs.contested.insert(node.clone(), received.clone());
        true
    }

    /// A node has renewed as another run, or is gone: the waiting tombstone of its earlier runs takes effect.
    pub(crate) fn end_contest(&mut self, now: Now, node: &NodeName) {
        if let Some(received) = self.runs.contested.remove(node) {
            self.apply_tombstone(now, received);
        }
    }
}
