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

use tallymesh_schemas::message::Digest;
use tallymesh_schemas::{Actor, Incarnation, NodeName};

use crate::replica::Replica;
use crate::replica::peer::request::Request;
use crate::replica::runs::life::{Life, RunStatus};
use crate::time::Now;

/// Input from connections.
impl Replica {
    /// A node states its run over its own connection. Its statement takes precedence over hearsay until
    /// [`Replica::handle_hangup`].
    pub fn handle_hello(&mut self, now: Now, node: &NodeName, incarnation: Incarnation) {
        if *node == self.runs.actor.node {
            return;
        }
        self.runs.hellos.insert(node.clone(), incarnation);
        self.introduce(now, node, incarnation);
        self.update_life(now);
    }

    /// The connection to a node has ended.
    pub fn handle_hangup(&mut self, node: &NodeName) {
        self.runs.hellos.remove(node);
    }

    /// A link or connection begins with the node's statement of its run. It replaces a later run that only other members
    /// reported.
    pub(crate) fn introduce(&mut self, now: Now, node: &NodeName, run: Incarnation) -> RunStatus {
        let actor = Actor::new(node.clone(), run);
        let later = self.runs.nodes.get(node).filter(|known| known.said.is_none_or(|said| said <= run));
        let later = later.map(|known| known.incarnation).filter(|later| run < *later);
        if let Some(later) = later.filter(|_| !self.runs.is_void(&actor)) {
            self.follow_own_statement(now, &actor, later);
        }
        let status = self.note_run(now, &actor, node);
        if status == RunStatus::Current
            && let Some(known) = self.runs.nodes.get_mut(node)
        {
            known.note_statement(run);
        }
        self.end_contest(now, node);
        status
    }

    /// A node states its own run, and other members have reported a `later` one.
    fn follow_own_statement(&mut self, now: Now, actor: &Actor, later: Incarnation) {
        let reported = Incarnation(actor.incarnation.0.saturating_add(1))..=later;
        self.change_run(now, actor, &reported);
        if let Some(known) = self.runs.nodes.get_mut(&actor.node) {
            known.reported_run = known.reported_run.max(Some(later));
        }
    }

    /// Asks a peer about the later run of its name that other members reported. Uses one of the structures that the peer has.
    pub(crate) fn ask_about_reported_run(&mut self, peer: &NodeName, digest: &Digest<'_>) {
        let reported = self.runs.nodes.get(peer).and_then(|known| known.reported_run);
        let Some(reported) = reported.filter(|reported| *reported > digest.incarnation) else { return };
        let ids = digest.structures.iter().map(|part| part.structure);
        let structure = ids.into_iter().find(|id| self.structures.get(id).is_some_and(|held| held.shared));
        let (Some(structure), Some(link)) = (structure, self.peers.links.get_mut(peer)) else { return };
        link.want(Request::FROM_START.want((structure, Actor::new(peer.clone(), reported))));
    }

    /// The membership has dropped a node that no member reached. If only other members reported the node and no rows of it are
    /// here, this node removes it from the known nodes.
    pub fn handle_dropped(&mut self, now: Now, node: &NodeName) {
        if self.runs.nodes.get(node).is_none_or(|known| known.reported_by.is_none()) {
            return;
        }
        if self.has_nothing_of(node) {
            self.forget_names(&BTreeSet::from([node.clone()]));
        } else {
            self.set_life(now, node, Life::Dead);
        }
    }

    /// An operator forgets a node: this node removes the names that only that node reported and of which it holds no
    /// rows. A node with such a name is added again when it speaks or when other members report it.
    pub(crate) fn forget_names_reported_by(&mut self, reporter: &NodeName) {
        let named = self.runs.reported_by(reporter);
        let empty: BTreeSet<_> = named.filter(|name| self.has_nothing_of(name)).cloned().collect();
        self.forget_names(&empty);
    }

    fn has_nothing_of(&self, node: &NodeName) -> bool {
        let of_caches = self.caches.iter().all(|(_, held)| held.cache.latest(node).is_none());
        of_caches && self.structures.values().all(|held| held.structure.has_nothing_of(node))
    }

    fn forget_names(&mut self, names: &BTreeSet<NodeName>) {
        if names.is_empty() {
            return;
        }
        let all = Incarnation(0)..=Incarnation(u64::MAX);
        for name in names {
            self.runs.nodes.remove(name);
            self.runs.note_changed(name);
            self.structures.values().for_each(|held| drop(held.structure.drop_runs(name, &all)));
        }
        self.forget_streams(|(_, actor)| names.contains(&actor.node));
    }
}
