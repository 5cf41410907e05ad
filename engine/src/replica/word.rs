//! A node's own word about itself, which goes before what others say of it (I12).
//!
//! A node says in its hello, and in the first digest of a link, which run it is in. Others also tell of its runs, and their word is
//! taken where the node does not speak: somebody has to say that a node that is not linked has begun another run. When the node
//! speaks again, its word takes the place of theirs, also where theirs is of a later run. The node is then asked about that run:
//! if another process has had its name, it goes on as a later run itself.
//!
//! The same holds for tombstones: that a node is forgotten waits as long as the node speaks as a run that is said to be. The node
//! is told, comes back as a new run, and then the earlier ones are forgotten.
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

use std::collections::BTreeSet;

use tallymesh_schemas::message::{Digest, DigestEntry, Tombstone, Want};
use tallymesh_schemas::{Actor, Incarnation, NodeName, limits};

use super::Replica;
use super::liveness::{Life, Node, RunStatus};
use crate::time::Now;

/// A tombstone of a node that speaks: it waits for the node's next run or its end.
#[derive(Debug, Clone)]
pub(super) struct Contested {
    pub(super) tombstone: Tombstone,
    pub(super) teller: NodeName,
    /// This node was away when it heard of it.
    pub(super) away: bool,
}

/// What comes in from connections.
impl Replica {
    /// A node says over its own connection which run it is in. Its word goes before what others say of it, until
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

    /// The run that a node says it is in, over a link or connection that is up.
    pub(super) fn speaks(&self, node: &NodeName) -> Option<Incarnation> {
        let linked = self.links.get(node).and_then(|link| link.incarnation);
        linked.or_else(|| self.hellos.get(node).copied())
    }

    /// A link or connection begins with a node's word of which run it is in. A later run that only others have told of gives way.
    pub(super) fn introduce(&mut self, now: Now, node: &NodeName, run: Incarnation) -> RunStatus {
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

    /// Asks a peer about the later run of its name that others have told of, by one of the structures that it has.
    pub(super) fn ask_about_reported_run(&mut self, peer: &NodeName, digest: &Digest<'_>) {
        let rumour =
            self.nodes.get(peer).and_then(|known| known.reported_run).filter(|rumour| *rumour > digest.incarnation);
        let ids = digest.structures.iter().map(|part| part.structure);
        let structure = ids.into_iter().find(|id| self.structures.get(id).is_some_and(|held| held.shared));
        let (Some(rumour), Some(structure), Some(link)) = (rumour, structure, self.links.get_mut(peer)) else { return };
        let actor = Actor::new(peer.clone(), rumour);
        link.want(Want { structure, actor, since: 0, after: 0, snapshot: false });
    }

    /// Whether a tombstone that a peer tells of has to wait, because the node that it is of says over its link to this node that
    /// it is in such a run, and lives. Without a link this node could not tell the node of the tombstone, so it passes the
    /// tombstone on instead.
    pub(super) fn contest(&mut self, contested: &Contested) -> bool {
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

    /// A node has gone on as another run, or is gone: what was said of its earlier runs need not wait any more.
    pub(super) fn end_contest(&mut self, now: Now, node: &NodeName) {
        if let Some(Contested { tombstone, teller, away }) = self.contested.remove(node) {
            self.apply_tombstone(now, tombstone, &teller, away);
        }
    }

    /// The membership has dropped a node: nobody has reached it. If only others have told of it, and nothing that it counts is here,
    /// this node does not know it any more (I13).
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

    /// An operator forgets a node: this node does not know the names any more that only that one has told of, and of which nothing
    /// is here (I13). A node that has one of these names is heard of again when it speaks, or when others tell of it.
    pub(super) fn forget_names_told_by(&mut self, teller: &NodeName) {
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
            self.structures.values().for_each(|held| drop(held.structure.drop_runs(name, &all, false)));
        }
        self.forget_parts(|(_, actor)| names.contains(&actor.node));
    }

    /// Whether to keep a run from the others: only one member has told of its node, and nothing that it counts is here. So a name
    /// that a member makes up goes no further than to those whom it tells it.
    pub(super) fn keeps_to_itself(&self, entry: &DigestEntry) -> bool {
        let hearsay = |known: &Node| known.reported_by.is_some();
        entry.applied <= entry.since && self.nodes.get(&entry.actor.node).is_some_and(hearsay)
    }

    /// Whether a member may tell of one more node that nobody has heard of, so that made-up names leave room for those who speak.
    pub(super) fn may_report_another(&self, teller: &NodeName) -> bool {
        let named = self.nodes.values().filter(|known| known.reported_by.as_ref() == Some(teller));
        named.count() < limits::NODES_TOLD
    }
}
