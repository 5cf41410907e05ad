//! The entries of a peer's digest: each one is compared with this node's copy of the run, and then acted on.

use tallymesh_schemas::message::DigestEntry;
use tallymesh_schemas::{Actor, NodeName, StructureId, Version};

use crate::canary::{self, Canary};
use crate::counter::structure::Structure;
use crate::counter::sync::Start;
use crate::replica::Replica;
use crate::replica::peer::compare::{Comparison, Position};
use crate::replica::peer::link::{Behind, Feed, PeerProgress};
use crate::replica::peer::request::Request;
use crate::replica::runs::life::RunStatus;
use crate::replica::timers::Timer;
use crate::rows::heartbeat::Statement;
use crate::time::{Now, Time};

/// A node without links to all live nodes announces a new actor within a digest interval divided by this number.
const SPREAD: u32 = 10;

impl Replica {
    /// Acts on one entry of a digest that answers the probe `answers`.
    pub(crate) fn handle_entry(
        &mut self,
        now: Now,
        peer: &NodeName,
        (id, answers): (StructureId, u64),
        entry: &DigestEntry,
    ) {
        let Some(least) = self.structures.get(&id).map(|held| least_status(&held.structure)) else { return };
        if entry.actor.node == self.runs.actor.node {
            let earlier = entry.actor.incarnation < self.runs.actor.incarnation;
            if !earlier || least == RunStatus::Current {
                return self.handle_entry_of_ours(now, peer, id, entry);
            }
        }
        match self.note_run(now, &entry.actor, peer) {
            status if status >= least => {
                if self.is_empty_run(id, status, entry) {
                    // The peer may not know of the later run.
                    return self.name_latest(peer, id, &entry.actor.node);
                }
                if let Some(seen) = self.admit_entry(now, peer, id, status, entry) {
                    self.handle_comparison(now, peer, answers, &seen);
                }
            }
            RunStatus::Earlier => self.name_latest(peer, id, &entry.actor.node),
            _ => self.ask_which_run(id, &entry.actor),
        }
    }

    /// Records what the peer has of a run, and makes room for the run if it is new. `None` if there is no room.
    fn admit_entry<'a>(
        &mut self,
        now: Now,
        peer: &NodeName,
        id: StructureId,
        status: RunStatus,
        entry: &'a DigestEntry,
    ) -> Option<Comparison<'a>> {
        let owner = &entry.actor.node;
        let part = (id, entry.actor.clone());
        let held = self.structures.get(&id)?;
        let new = held.structure.admit(&entry.actor, if held.joining { entry.applied } else { Version::ZERO });
        let Some(progress) = held.structure.progress(&entry.actor) else {
            self.output.note_unheld_run(part);
            return None;
        };
        self.output.unheld.parts.remove(&part);
        if new {
            self.runs.note_changed(owner);
            self.spread(now);
            if status == RunStatus::Earlier {
                self.runs.unfilled.insert(part.clone());
            }
        }
        let held = self.structures.get(&id)?;
        let link = self.peers.links.get_mut(peer)?;
        link.peer_progress.insert(part.clone(), PeerProgress::from(entry));
        if new {
            held.structure.inherit(&entry.actor, entry.applied);
            link.hurry();
        }
        let current = status == RunStatus::Current;
        let from_owner = current && owner == peer;
        let owner_linked = from_owner || (current && self.peers.is_linked(owner));
        let ended = !current || self.runs.is_gone(owner);
        Some(Comparison { part, entry, progress, from_owner, owner_linked, ended })
    }

    fn handle_comparison(&mut self, now: Now, peer: &NodeName, answers: u64, seen: &Comparison<'_>) {
        if seen.from_owner {
            self.note_statement(peer, seen);
        }
        let position = seen.position();
        if matches!(position, Position::Behind | Position::BehindBoth) {
            return self.note_behind(now, peer, position, seen);
        }
        if let Some(link) = self.peers.links.get_mut(peer) {
            link.behind.remove(&seen.part);
        }
        if position == Position::Level {
            self.note_complete_copy(seen);
            self.note_level(now, seen);
            self.find_parent(peer, &seen.part, &seen.progress);
            self.compare_rows(peer, answers, seen);
        }
    }

    /// The owner states how far its rows reach. Its next digests confirm that, until it states something else.
    fn note_statement(&self, owner: &NodeName, seen: &Comparison<'_>) {
        let Comparison { part: (id, actor), entry, .. } = seen;
        let link = self.peers.links.get(owner).filter(|link| link.incarnation() == Some(actor.incarnation));
        if let (Some(link), Some(held)) = (link, self.structures.get(id)) {
            let statement = Statement { heartbeat: link.heartbeat.clone(), head: entry.applied };
            held.structure.note_statement(actor, &statement);
        }
    }

    /// The peer has rows that are missing here.
    fn note_behind(&mut self, now: Now, peer: &NodeName, position: Position, seen: &Comparison<'_>) {
        let Comparison { part, entry, progress, .. } = seen;
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        let behind = Behind { noticed: now.mono, progress: *progress, target: entry.applied, tries: 0 };
        let known = link.behind.contains_key(part);
        link.behind.entry(part.clone()).or_insert(behind).target = entry.applied;
        // If the owner or the parent already sends these rows, this node does not ask. Otherwise it asks the peer, if the peer
        // can help. If the peer cannot, `chase` asks it later, and the peer then fetches the earlier rows itself.
        let fed = seen.owner_linked || (self.needs_parent(&part.1) && self.relay.parent(part).is_some());
        if !known && !fed && position == Position::Behind {
            self.want(peer, part, Request::Rows { since: progress.since, after: progress.applied });
        }
    }

    /// A peer has the same rows. If no peer has reported more of them, none waits for room here.
    fn note_complete_copy(&mut self, seen: &Comparison<'_>) {
        let Comparison { part, progress, .. } = seen;
        if !seen.is_same() || !self.crowded.contains(part) {
            return;
        }
        let mut reported = self.peers.links.values().map(|link| link.peer_applied(part.0, &part.1));
        if reported.all(|applied| applied <= progress.applied) {
            self.crowded.note_taken(part);
        }
    }

    /// The peer has no rows that are missing here.
    fn note_level(&mut self, now: Now, seen: &Comparison<'_>) {
        let Comparison { part, entry, progress, .. } = seen;
        let Some(held) = self.structures.get(&part.0) else { return };
        let stuck = seen.ended && progress.staging.is_some();
        if stuck && !self.peers.links.values().any(|link| link.peer_applied(part.0, &part.1) > progress.applied) {
            held.structure.give_up_snapshot(&part.1);
        }
        if let Some(age) = entry.age_ms.filter(|_| !seen.from_owner) {
            let at = Time(now.mono.0.saturating_sub(age.saturating_mul(1000)));
            held.structure.note_head_at(&part.1, entry.applied, at);
        }
    }

    /// Compares the copies by their fingerprints. Copies with the same applied version can differ. Case 1: events that ended
    /// below the owner's head, and no peer will send more. Case 2: a run that was begun twice, and only nodes linked to its
    /// owner learn from it which rows are right.
    fn compare_rows(&mut self, peer: &NodeName, answers: u64, seen: &Comparison<'_>) {
        let Comparison { part, entry, progress, .. } = seen;
        let Some(held) = self.structures.get(&part.0) else { return };
        if seen.is_stated_by_owner() {
            if !seen.is_same() {
                return self.contradicted(peer, part.clone(), answers);
            }
            held.structure.note_complete(&part.1, entry.applied, entry.fingerprint);
        }
        let passes_on = self.relay.parent(part) == Some(peer) && entry.age_ms.is_some();
        let asks = if seen.ended { held.structure.keeps_runs() } else { passes_on };
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        if !asks || !seen.differs_without_owner() {
            link.compared.remove(part);
            return;
        }
        let compared = link.compared.entry(part.clone()).or_default();
        if !compared.asks((progress.fingerprint, entry.fingerprint)) {
            return;
        }
        if seen.ended {
            self.want(peer, part, Request::FROM_START);
        } else if compared.again() {
            held.structure.distrust(&part.1);
            self.want(peer, part, Request::WHOLE);
        }
    }

    /// A peer's entry about this node's own rows: where to continue sending, or that another process writes them.
    fn handle_entry_of_ours(&mut self, now: Now, peer: &NodeName, id: StructureId, entry: &DigestEntry) {
        let Some(held) = self.structures.get(&id) else { return };
        let ahead = entry.actor == self.runs.actor && entry.applied > held.structure.head();
        if ahead || self.runs.is_later_run(&entry.actor) {
            return self.conflict(now, entry.actor.incarnation, peer);
        }
        if entry.actor != self.runs.actor {
            return;
        }
        let wanted = Start { cursor: entry.applied, snapshot: false };
        let start = held.structure.start(&entry.actor, entry.since, entry.low_water, wanted);
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        let part = (id, entry.actor.clone());
        link.peer_progress.insert(part.clone(), PeerProgress::from(entry));
        if let Some(start) = start {
            link.due.insert(part.clone());
            let current = link.feeds.entry(part).or_insert(Feed::new(entry.since, start));
            if !current.snapshot && entry.applied > current.cursor {
                current.cursor = entry.applied;
            }
        }
    }

    /// The peer has rows of a superseded run. If no node has rows of the later run, no digest has named it to the peer. This
    /// node names it, as a run of which nothing is known yet.
    fn name_latest(&mut self, peer: &NodeName, id: StructureId, node: &NodeName) {
        let (Some(held), Some(latest)) = (self.structures.get(&id), self.runs.latest(node)) else { return };
        if !self.runs.is_void(&latest) && held.structure.admit(&latest, Version::ZERO) {
            self.runs.note_changed(node);
            if let Some(link) = self.peers.links.get_mut(peer) {
                link.hurry();
            }
        }
    }

    /// A peer reports a later run of a node that states an earlier run itself. The node may not know that another process has
    /// used its name, so this node asks it for the rows of that run.
    fn ask_which_run(&mut self, structure: StructureId, actor: &Actor) {
        if self.runs.is_void(actor) || !self.runs.can_be_reported(actor) {
            return;
        }
        if let Some(link) = self.peers.links.get_mut(&actor.node) {
            link.ask_about_run(structure, actor.clone());
        }
    }

    /// There is a new actor: sends digests early, for the nodes that have no link to it.
    fn spread(&mut self, now: Now) {
        let alive = self.runs.nodes.values().filter(|node| node.lives());
        if alive.count() > self.peers.links.len() {
            let at = now.mono.after(self.config.digest_interval / SPREAD);
            for peer in self.peers.links.keys() {
                self.timers.hurry(Timer::Digest(peer.clone()), at);
            }
        }
    }
}

/// The least status of a run whose rows a structure takes from peers. In structures that keep the rows of earlier runs, this
/// node takes also the rows of its own earlier runs (I1).
fn least_status(structure: &Structure) -> RunStatus {
    let takes_earlier = structure.keeps_runs() || canary::broken(Canary::OwnRunsTaken);
    if takes_earlier { RunStatus::Earlier } else { RunStatus::Current }
}
