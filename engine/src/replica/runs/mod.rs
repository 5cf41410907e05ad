//! The runs of all nodes: which are alive, which have ended or are forgotten, and which run this node is.

pub(crate) mod contact;
mod empty;
mod forget;
mod identity;
pub(crate) mod life;
mod liveness;
pub(crate) mod node;
pub(crate) mod succession;
pub(crate) mod tombstone;
mod word;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use tallymesh_schemas::message::{DigestEntry, Tombstone};
use tallymesh_schemas::saved::{Facts, SavedNode};
use tallymesh_schemas::{Actor, Incarnation, NoSuchRun, NodeName, OnDead, UnixMs, bounds};

use crate::canary::{self, Canary};
use crate::limiter::reach::Reach;
use crate::replica::runs::contact::Contact;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::runs::node::Node;
use crate::replica::runs::succession::Succession;
use crate::replica::runs::tombstone::Received;
use crate::replica::stream::StreamId;
use crate::time::{Now, Time};

/// The known nodes and their runs.
#[derive(Debug)]
pub(crate) struct Runs {
    /// This run of this node.
    pub(crate) actor: Actor,
    /// The other nodes.
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    /// The runs that nodes state over connections that are up.
    hellos: BTreeMap<NodeName, Incarnation>,
    /// Tombstones that wait because their node states a run that they cover.
    contested: BTreeMap<NodeName, Received>,
    /// By node and the first run that is void.
    tombstones: BTreeMap<(NodeName, Incarnation), Tombstone>,
    /// When claims of peers may make this node renew as another run.
    succession: Succession,
    /// There is no later run for this node, and this was reported.
    last_run: bool,
    /// Nodes that are new or whose life changed: whether their rows count has to be updated.
    changed: BTreeSet<NodeName>,
    /// A link went down: from now on the membership decides whether its node is alive.
    unlinked: bool,
    /// The time of the last update of which rows count.
    updated: Time,
    /// Copies of ended runs that are empty, and that a peer can fill.
    pub(crate) unfilled: BTreeSet<StreamId>,
    /// The last of them that a sweep has looked at.
    unfilled_swept: Option<StreamId>,
}

/// What a report about a run changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// Nothing.
    Nothing(RunStatus),
    /// The node of the run was added.
    NewNode,
    /// There is no place for the node of the run.
    NoPlace,
    /// Nothing yet: the node is in a later run than the known one.
    LaterRun,
}

impl Runs {
    pub(crate) fn new(actor: Actor) -> Self {
        Self {
            actor,
            nodes: BTreeMap::new(),
            hellos: BTreeMap::new(),
            contested: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            succession: Succession::default(),
            last_run: false,
            changed: BTreeSet::new(),
            unlinked: false,
            updated: Time(0),
            unfilled: BTreeSet::new(),
            unfilled_swept: None,
        }
    }

    /// Whether a run is void: an operator has forgotten it, or a later run has taken over its counts. O(log tombstones) plus
    /// the tombstones of the node.
    pub(crate) fn is_void(&self, actor: &Actor) -> bool {
        let tombstones = (actor.node.clone(), Incarnation(0))..=(actor.node.clone(), actor.incarnation);
        let mut candidates = self.tombstones.range(tombstones);
        candidates.any(|(_, tombstone)| tombstone.incarnation >= actor.incarnation)
    }

    /// Whether the actor is the current run of its node, as far as this node knows.
    pub(crate) fn is_current(&self, actor: &Actor) -> bool {
        *actor == self.actor || self.nodes.get(&actor.node).is_some_and(|known| known.incarnation == actor.incarnation)
    }

    /// Whether the actor is the current run of a node that is alive or suspect, so that it may still send rows.
    pub(crate) fn lives(&self, actor: &Actor) -> bool {
        let known = self.nodes.get(&actor.node).filter(|known| known.incarnation == actor.incarnation);
        known.is_some_and(Node::lives)
    }

    /// Whether a node that is not this node is unknown, dead, or has left.
    pub(crate) fn is_gone(&self, node: &NodeName) -> bool {
        !self.nodes.get(node).is_some_and(Node::lives)
    }

    /// Whether a run has ended for good: it is forgotten, or its node is in a later run.
    pub(crate) fn is_over(&self, actor: &Actor) -> bool {
        self.is_superseded(actor) || self.is_void(actor)
    }

    /// Whether the node of a run is in a later run.
    pub(crate) fn is_superseded(&self, actor: &Actor) -> bool {
        let ours = (actor.node == self.actor.node).then_some(self.actor.incarnation);
        let latest = self.nodes.get(&actor.node).map(|known| known.incarnation).or(ours);
        latest.is_some_and(|latest| actor.incarnation < latest)
    }

    /// The tombstones in order of node.
    pub(crate) fn tombstones(&self) -> impl Iterator<Item = &Tombstone> {
        self.tombstones.values()
    }

    /// The tombstone that waits until its node has heard of it.
    pub(crate) fn contested(&self, node: &NodeName) -> Option<&Tombstone> {
        self.contested.get(node).map(|received| &received.tombstone)
    }

    /// The latest run of another node.
    pub(crate) fn latest(&self, node: &NodeName) -> Option<Actor> {
        self.nodes.get(node).map(|known| Actor::new(node.clone(), known.incarnation))
    }

    /// Whether an actor is a later run of this node's name, which another process has begun.
    pub(crate) fn is_later_run(&self, actor: &Actor) -> bool {
        actor.node == self.actor.node && actor.incarnation > self.actor.incarnation
    }

    /// Whether this node accepts a run from members other than its node: the node may have begun it, or is in it (I6).
    pub(crate) fn can_be_reported(&self, actor: &Actor) -> bool {
        let known = self.nodes.get(&actor.node).map(|known| known.incarnation);
        known.is_some_and(|known| actor.incarnation <= known) || actor.incarnation.0 <= bounds::INCARNATION_REPORTED
    }

    /// Whether this node believes other members' reports about a run of its name.
    pub(crate) fn is_credible(&self, now: Now, by: Incarnation) -> bool {
        by <= self.actor.incarnation || by.is_credible(now.unix_ms)
    }

    /// The run that a node states over a link or connection that is up.
    pub(crate) fn speaks(&self, node: &NodeName, contact: Contact) -> Option<Incarnation> {
        contact.stated().or_else(|| self.hellos.get(node).copied())
    }

    /// Whether a member may report one more unknown node. This bound keeps room for nodes that speak for themselves.
    fn may_report_another(&self, reporter: &NodeName) -> bool {
        self.reported_by(reporter).count() < bounds::NODES_TOLD
    }

    /// The nodes that only a member has reported.
    pub(crate) fn reported_by<'a>(&'a self, reporter: &NodeName) -> impl Iterator<Item = &'a NodeName> {
        let named = self.nodes.iter().filter(move |(_, known)| known.reported_by.as_ref() == Some(reporter));
        named.map(|(name, _)| name)
    }

    /// Whether to leave a run out of digests. Case 1: only another member reported its node, and no rows of it are here. So an
    /// invented name spreads no further than to the receivers of the member that invented it. Case 2: the run has ended, and
    /// there is nothing of it here.
    pub(crate) fn keeps_to_itself(&self, entry: &DigestEntry) -> bool {
        let hearsay = |known: &Node| known.reported_by.is_some();
        let is_hearsay = entry.applied <= entry.since && self.nodes.get(&entry.actor.node).is_some_and(hearsay);
        is_hearsay || self.is_about_nothing(entry)
    }

    /// Whether the rows of an actor count at a time.
    pub(crate) fn counts(&self, actor: &Actor, on_dead: OnDead, now: Time) -> bool {
        actor.node == self.actor.node || self.nodes.get(&actor.node).is_some_and(|node| now < node.hidden_at(on_dead))
    }

    /// The next time, after the last update, when the rows of one of the nodes stop counting. `names` are the nodes to look at;
    /// `None` stands for all. O(nodes x structures).
    pub(crate) fn next_death(
        &self,
        names: Option<&BTreeSet<NodeName>>,
        structures: impl Iterator<Item = OnDead>,
    ) -> Time {
        let nodes: Vec<&Node> = match names {
            Some(names) => names.iter().filter_map(|name| self.nodes.get(name)).collect(),
            None => self.nodes.values().collect(),
        };
        let hidden = |on_dead: OnDead| nodes.iter().map(move |node| node.hidden_at(on_dead));
        structures.flat_map(hidden).filter(|at| *at > self.updated).min().unwrap_or(Time::NEVER)
    }

    /// How many nodes this node reaches, as the membership reports.
    pub(crate) fn reach(&self) -> Reach {
        let mut reach = Reach::ALONE;
        for node in self.nodes.values() {
            match node.life {
                Life::Left => {}
                _ if node.is_only_heard_of() => reach.heard_of = reach.heard_of.saturating_add(1),
                Life::Dead => reach.known = reach.known.saturating_add(1),
                Life::Alive | Life::Suspect => {
                    (reach.alive, reach.known) = (reach.alive.saturating_add(1), reach.known.saturating_add(1));
                }
            }
        }
        reach
    }

    /// Nodes that an operator has forgotten and of which no later run is known.
    pub(crate) fn forgotten(&self) -> Vec<NodeName> {
        let known = |node: &NodeName| *node == self.actor.node || self.nodes.contains_key(node);
        let whole = self.tombstones.keys().filter(|(_, from)| *from == Incarnation(0)).map(|(node, _)| node);
        whole.filter(|node| !known(node)).cloned().collect()
    }

    /// Saved facts that are not rows: this run, the known nodes, and the tombstones.
    pub(crate) fn facts(&self) -> Facts {
        let nodes = self.nodes.iter().map(|(name, node)| SavedNode {
            name: name.clone(),
            incarnation: node.incarnation,
            left: node.life == Life::Left,
        });
        let nodes = nodes.collect();
        let tombstones = self.tombstones().cloned().collect();
        Facts { incarnation: self.actor.incarnation, nodes, tombstones }
    }

    /// Whether a tombstone has to wait: its node is alive and states, over its link to this node, a run that the tombstone
    /// covers. Without such a link this node cannot send the tombstone to that node, so it applies it and passes it on.
    pub(crate) fn has_to_wait(&self, received: &Received, contact: Contact) -> bool {
        let Received { tombstone, reporter, .. } = received;
        let node = &tombstone.node;
        let lives = self.nodes.get(node).is_some_and(Node::lives);
        let run = contact.stated().filter(|_| lives && reporter != node && *reporter != self.actor.node);
        run.is_some_and(|run| (tombstone.from..=tombstone.incarnation).contains(&run))
    }

    /// Whether a tombstone voids more runs than a known one, at a time when it has not expired, and is credible.
    pub(crate) fn is_news(&self, tombstone: &Tombstone, expiry_ms: UnixMs) -> bool {
        let key = (tombstone.node.clone(), tombstone.from);
        let new = self.tombstones.get(&key).is_none_or(|known| known.incarnation < tombstone.incarnation);
        let credible = || self.can_be_reported(&Actor::new(tombstone.node.clone(), tombstone.incarnation));
        new && tombstone.until_ms > expiry_ms && (tombstone.node == self.actor.node || credible())
    }
}

/// Changes.
impl Runs {
    /// Records a run of another node, or checks an earlier run of this node. `reporter` is the source of the report, `contact`
    /// the link to the actor's node.
    pub(crate) fn note(&mut self, now: Time, actor: &Actor, reporter: &NodeName, contact: Contact) -> Noted {
        if self.is_void(actor) && void_runs_are_refused() {
            return Noted::Nothing(RunStatus::Refused);
        }
        if actor.node == self.actor.node {
            let earlier = actor.incarnation < self.actor.incarnation;
            return Noted::Nothing(if earlier { RunStatus::Earlier } else { RunStatus::Refused });
        }
        let hearsay = *reporter != actor.node;
        if hearsay && !self.can_be_reported(actor) {
            return Noted::Nothing(RunStatus::Refused);
        }
        let Some(known) = self.nodes.get(&actor.node) else { return self.add(now, actor, reporter, contact) };
        if actor.incarnation < known.incarnation {
            Noted::Nothing(RunStatus::Earlier)
        } else if actor.incarnation == known.incarnation {
            Noted::Nothing(RunStatus::Current)
        } else if hearsay && self.speaks(&actor.node, contact).is_some() {
            // While a node states its own run, this node accepts no other source for it (I6).
            Noted::Nothing(RunStatus::Refused)
        } else {
            Noted::LaterRun
        }
    }

    fn add(&mut self, now: Time, actor: &Actor, reporter: &NodeName, contact: Contact) -> Noted {
        // Some places are reserved for nodes with a link: these have proved their names. No member can fill all the other
        // places.
        let linked = contact.is_linked() || self.hellos.contains_key(&actor.node);
        let reported = *reporter != actor.node && *reporter != self.actor.node;
        let full = self.nodes.len() >= if linked { bounds::NODES } else { bounds::NODES_HEARD_OF };
        if full || (reported && !linked && !self.may_report_another(reporter)) {
            return Noted::NoPlace;
        }
        let life = if contact.is_linked() { Life::Alive } else { Life::Dead };
        let mut node = Node::new(actor.incarnation, life, now);
        node.reported_by = reported.then(|| reporter.clone());
        self.nodes.insert(actor.node.clone(), node);
        self.changed.insert(actor.node.clone());
        Noted::NewNode
    }

    /// Renews this node as another run, `at_least` or later. Returns the run before.
    ///
    /// # Errors
    /// [`NoSuchRun`] when the last possible run has been reached.
    pub(crate) fn begin_run(&mut self, now: Now, at_least: Incarnation) -> Result<Actor, NoSuchRun> {
        let heard_of = self.actor.incarnation.max(Incarnation(at_least.0.saturating_sub(1)));
        let run = Actor::new(self.actor.node.clone(), heard_of.successor(now.unix_ms)?);
        Ok(std::mem::replace(&mut self.actor, run))
    }

    /// A node is in a run other than the known one.
    pub(crate) fn change_run(&mut self, now: Time, actor: &Actor) {
        if let Some(known) = self.nodes.get_mut(&actor.node) {
            known.change_run(actor.incarnation, now);
            self.changed.insert(actor.node.clone());
        }
    }

    /// Sets the life of a node, and adds the node if it is unknown. Returns whether its life was another one.
    pub(crate) fn set_life(&mut self, now: Time, node: &NodeName, life: Life) -> bool {
        let known = self.nodes.entry(node.clone()).or_insert(Node::new(Incarnation(0), Life::Dead, now));
        if known.life == life {
            return false;
        }
        known.set_life(life, now);
        self.changed.insert(node.clone());
        true
    }

    /// The life that a node without a link takes from the membership, if it is another one.
    pub(crate) fn life_without_link(&self, node: &NodeName) -> Option<Life> {
        let known = self.nodes.get(node).filter(|known| known.lives())?;
        Some(known.reported_life()).filter(|reported| *reported != known.life)
    }

    /// An operator has forgotten these runs of a node. If the node is in one of them, it is not known any more. A node that has
    /// renewed as another run keeps its life.
    pub(crate) fn remove_node(&mut self, node: &NodeName, runs: &RangeInclusive<Incarnation>) {
        if self.nodes.get(node).is_some_and(|known| runs.contains(&known.incarnation)) {
            self.nodes.remove(node);
        }
    }

    /// Removes the tombstones that have expired.
    pub(crate) fn expire_tombstones(&mut self, expiry_ms: UnixMs) {
        self.tombstones.retain(|_, tombstone| tombstone.until_ms > expiry_ms);
    }

    /// Whether the rows of a node count has to be updated.
    pub(crate) fn note_changed(&mut self, node: &NodeName) {
        self.changed.insert(node.clone());
    }

    /// Whether the rows of all nodes count has to be updated.
    pub(crate) fn note_all_changed(&mut self) {
        self.changed.extend(self.nodes.keys().cloned());
    }

    /// Whether the rows of any node count has to be updated.
    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Begins an update of which rows count. Returns the nodes that have changed since the last one.
    pub(crate) fn begin_update(&mut self, now: Time) -> BTreeSet<NodeName> {
        self.updated = now;
        std::mem::take(&mut self.changed)
    }

    /// A link went down.
    pub(crate) fn note_unlinked(&mut self) {
        self.unlinked = true;
    }

    /// Whether a link went down since the last call.
    pub(crate) fn take_unlinked(&mut self) -> bool {
        std::mem::take(&mut self.unlinked)
    }

    /// There is no later run for this node. Returns whether this is new.
    pub(crate) fn note_last_run(&mut self) -> bool {
        !std::mem::replace(&mut self.last_run, true)
    }
}

/// Whether a run that is forgotten stays forgotten.
fn void_runs_are_refused() -> bool {
    !canary::broken(Canary::TombstoneIgnored)
}
