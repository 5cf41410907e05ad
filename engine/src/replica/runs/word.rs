//! A node's own statement about itself takes precedence over hearsay, the statements of other members about it (I12).
//!
//! A node states its run in its hello and in the first digest of a link. Other members also report its runs. This node accepts
//! their reports while it has no connection to the node: another member must report that an unlinked node has begun another
//! run. When the node speaks again, its statement replaces theirs, even if they reported a later run. This node then asks the
//! node about that later run. If another process has used its name, the node renews as a still later run.
//!
//! The same holds for tombstones. A tombstone waits while the node states a run that the tombstone covers. This node sends the
//! tombstone to the node, the node renews as a new run, and then this node forgets the earlier runs.

use std::collections::BTreeSet;

use tallymesh_schemas::message::{Digest, DigestEntry, Want};
use tallymesh_schemas::{Actor, Incarnation, NodeName, bounds};

use crate::counter::runs::Dropped;
use crate::replica::Replica;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::runs::node::Node;
use crate::replica::runs::tombstone::Contested;
use crate::time::Now;

/// Input from connections.
impl Replica {
    /// A node states its run over its own connection. Its statement takes precedence over hearsay until
    /// [`Replica::handle_hangup`].
    pub fn handle_hello(&mut self, now: Now, node: &NodeName, incarnation: Incarnation) {
        if *node == self.actor.node {
            return;
        }
        self.hellos.insert(node.clone(), incarnation);
        self.introduce(now, node, incarnation);
        self.update_life(now);
    }

    /// The connection to a node has ended.
    pub fn handle_hangup(&mut self, node: &NodeName) {
        self.hellos.remove(node);
    }

    /// The run that a node states over a link or connection that is up.
    pub(crate) fn speaks(&self, node: &NodeName) -> Option<Incarnation> {
        let linked = self.links.get(node).and_then(|link| link.incarnation);
        linked.or_else(|| self.hellos.get(node).copied())
    }

    /// A link or connection begins with the node's statement of its run. It replaces a later run that only other members
    /// reported.
    pub(crate) fn introduce(&mut self, now: Now, node: &NodeName, run: Incarnation) -> RunStatus {
        let actor = Actor::new(node.clone(), run);
        let named = self.nodes.get(node).map(|known| (known.incarnation, known.said));
        if let Some((later, said)) = named
            && run < later
            && said.is_none_or(|said| said <= run)
            && !self.is_void(&actor)
        {
            self.follow_own_statement(now, &actor, later);
        }
        let standing = self.note_run(now, &actor, node);
        if standing == RunStatus::Current
            && let Some(known) = self.nodes.get_mut(node)
        {
            known.said = known.said.max(Some(run));
            known.reported_by = None;
            if known.reported_run.is_some_and(|rumour| rumour <= run) {
                known.reported_run = None;
            }
        }
        self.end_contest(now, node);
        standing
    }

    /// Asks a peer about the later run of its name that other members reported. Uses one of the structures that the peer has.
    pub(crate) fn ask_about_reported_run(&mut self, peer: &NodeName, digest: &Digest<'_>) {
        let rumour =
            self.nodes.get(peer).and_then(|known| known.reported_run).filter(|rumour| *rumour > digest.incarnation);
        let ids = digest.structures.iter().map(|part| part.structure);
        let structure = ids.into_iter().find(|id| self.structures.get(id).is_some_and(|held| held.shared));
        let (Some(rumour), Some(structure), Some(link)) = (rumour, structure, self.links.get_mut(peer)) else { return };
        let actor = Actor::new(peer.clone(), rumour);
        link.want(Want { structure, actor, since: 0, after: 0, snapshot: false });
    }

    /// Whether a peer's tombstone has to wait: its node is alive and states, over its link to this node, a run that the
    /// tombstone covers. Without such a link this node cannot send the tombstone to that node, so it applies it and passes it
    /// on.
    pub(crate) fn contest(&mut self, contested: &Contested) -> bool {
        let Contested { tombstone, teller, .. } = contested;
        let node = &tombstone.node;
        let lives = self.nodes.get(node).is_some_and(|known| matches!(known.life, Life::Alive | Life::Suspect));
        let Some(link) = self.links.get_mut(node) else { return false };
        let run = link.incarnation.filter(|_| lives && teller != node && *teller != self.actor.node);
        if !run.is_some_and(|run| (tombstone.from..=tombstone.incarnation).contains(&run)) {
            return false;
        }
        link.unsent_tombstone = Some(tombstone.clone());
        link.hurry();
        self.contested.insert(node.clone(), contested.clone());
        true
    }

    /// A node has renewed as another run, or is gone: the waiting tombstone of its earlier runs takes effect.
    pub(crate) fn end_contest(&mut self, now: Now, node: &NodeName) {
        if let Some(Contested { tombstone, teller, away }) = self.contested.remove(node) {
            self.apply_tombstone(now, tombstone, &teller, away);
        }
    }

    /// The membership has dropped a node that no member reached. If only other members reported the node and no rows of it are
    /// here, this node removes it from the known nodes.
    pub fn handle_dropped(&mut self, now: Now, node: &NodeName) {
        if self.nodes.get(node).is_none_or(|known| known.reported_by.is_none()) {
            return;
        }
        if self.has_nothing_of(node) {
            self.forget_names(&BTreeSet::from([node.clone()]));
        } else {
            self.set_life(now, node, Life::Dead);
        }
    }

    /// An operator forgets a node: this node removes the names that only that node reported and of which it holds no rows
    ///. A node with such a name is added again when it speaks or when other members report it.
    pub(crate) fn forget_names_reported_by(&mut self, teller: &NodeName) {
        let named =
            self.nodes.iter().filter(|(_, known)| known.reported_by.as_ref() == Some(teller)).map(|(name, _)| name);
        let empty: BTreeSet<_> = named.filter(|name| self.has_nothing_of(name)).cloned().collect();
        self.forget_names(&empty);
    }

    fn has_nothing_of(&self, node: &NodeName) -> bool {
        self.structures.values().all(|held| held.structure.has_nothing_of(node))
    }

    fn forget_names(&mut self, names: &BTreeSet<NodeName>) {
        if names.is_empty() {
            return;
        }
        let all = Incarnation(0)..=Incarnation(u64::MAX);
        for name in names {
            self.nodes.remove(name);
            self.life_changed.insert(name.clone());
            self.structures.values().for_each(|held| drop(held.structure.drop_runs(name, &all, Dropped::Now)));
        }
        self.forget_streams(|(_, actor)| names.contains(&actor.node));
    }

    /// Whether to leave a run out of digests: only another member reported its node, and no rows of it are here. So an invented
    /// name spreads no further than to the receivers of the member that invented it.
    pub(crate) fn keeps_to_itself(&self, entry: &DigestEntry) -> bool {
        let hearsay = |known: &Node| known.reported_by.is_some();
        entry.applied <= entry.since && self.nodes.get(&entry.actor.node).is_some_and(hearsay)
    }

    /// Whether a member may report one more unknown node. This bound keeps room for nodes that speak for themselves.
    pub(crate) fn may_report_another(&self, teller: &NodeName) -> bool {
        let named = self.nodes.values().filter(|known| known.reported_by.as_ref() == Some(teller));
        named.count() < bounds::NODES_TOLD
    }
}
