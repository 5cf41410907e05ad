//! Anti-entropy: a node reports in digests how far its copies reach, and finds from its peers' digests what it lacks or has
//! wrong.

use std::collections::BTreeSet;

use tallymesh_schemas::message::{Digest, DigestEntry, Message, StructureDigest, Tombstone, Want};
use tallymesh_schemas::{Actor, NodeName, StructureId, bounds};

use crate::canary::{self, Canary};
use crate::counter::sync::Start;
use crate::replica::Replica;
use crate::replica::peer::encode::send;
use crate::replica::peer::link::{Behind, DigestRun, Feed, Link, PATIENCE, PeerProgress, TRIES};
use crate::replica::report::Event;
use crate::replica::runs::life::{Life, RunStatus};
use crate::replica::stream::StreamId;
use crate::rows::span::Span;
use crate::time::{Now, Time, millis};

/// Digest intervals before this node asks another peer than a linked owner.
const PATIENCE_WITH_OWNER: u32 = 5;

/// A node without links to all live nodes announces a new actor within a digest interval divided by this number.
const SPREAD: u32 = 10;

impl Replica {
    /// Appends the next message of a digest to `buf`.
    pub(crate) fn transmit_digest(&mut self, link: &mut Link, run: &DigestRun, buf: &mut Vec<u8>) {
        let mut left = bounds::DIGEST_ENTRIES;
        let mut last = run.last.clone();
        let mut structures = Vec::new();
        let from = run.last.as_ref().map_or(StructureId(0), |(id, _)| *id);
        for (id, held) in self.structures.range(from..).filter(|(_, held)| held.shared) {
            let mut entries = Vec::new();
            let mut tell = |entry: DigestEntry| {
                if self.keeps_to_itself(&entry) {
                    return true;
                }
                if left == 0 {
                    return false;
                }
                left -= 1;
                entries.push(entry);
                true
            };
            if run.full {
                let after = run.last.as_ref().filter(|(last, _)| last == id).map(|(_, actor)| actor);
                if after.is_none() {
                    // Changes from now on are reported again.
                    link.digest_marks.insert(*id, held.structure.last_change());
                }
                held.structure.digest(after, self.now, &mut tell);
            } else {
                let mark = link.digest_marks.entry(*id).or_default();
                *mark = held.structure.changes(*mark, self.now, &mut tell);
            }
            if let Some(entry) = entries.last() {
                last = run.full.then(|| (*id, entry.actor.clone()));
                let name = held.structure.spec().name.as_str();
                structures.push(StructureDigest { structure: *id, name, kind: held.structure.kind(), entries });
            }
            if left == 0 {
                break;
            }
        }
        let done = left > 0;
        let mut tombstones = Vec::new();
        if done && (run.full || link.new_tombstone) {
            link.new_tombstone = false;
            tombstones.extend(self.tombstones.values().cloned());
        }
        if done && let Some(untold) = link.unsent_tombstone.take().filter(|_| tombstones.len() < bounds::TOMBSTONES) {
            tombstones.push(untold);
        }
        let (answers, incarnation) = (run.answers, self.actor.incarnation);
        let complete = done && run.full;
        let digest = Digest { incarnation, clock_ms: self.clock.unix_ms(), answers, complete, structures, tombstones };
        if done {
            self.schedule_seen(link, run.full);
        } else {
            link.digest = Some(DigestRun { last, ..run.clone() });
        }
        self.counters.digests_out += 1;
        send(&Message::Digest(digest), buf);
    }

    /// Compares a peer's digest with the state of this node.
    pub(crate) fn handle_digest(&mut self, now: Now, peer: &NodeName, digest: &Digest<'_>) {
        let run = self.actor.clone();
        let sender = Actor::new(peer.clone(), digest.incarnation);
        let before = self.links.get_mut(peer).and_then(|link| link.incarnation.replace(digest.incarnation));
        let standing = match before {
            Some(before) if before >= digest.incarnation => self.note_run(now, &sender, peer),
            _ => self.introduce(now, peer, digest.incarnation),
        };
        if standing < RunStatus::Current {
            self.correct(peer, digest);
        }
        self.ask_about_reported_run(peer, digest);
        self.compare_clocks(now, peer, digest.clock_ms);
        let longest = self.cluster_ms(now).saturating_add(millis(self.config.tombstone_life).saturating_mul(2));
        for tombstone in &digest.tombstones {
            let until_ms = tombstone.until_ms.min(longest);
            self.add_tombstone(now, Tombstone { until_ms, ..tombstone.clone() }, peer);
        }
        for part in &digest.structures {
            let Some(held) = self.structures.get(&part.structure).filter(|held| held.shared) else { continue };
            let spec = held.structure.spec();
            if spec.name.as_str() != part.name || spec.class.kind() != part.kind {
                let here = format!("{} ({})", spec.name, spec.class.kind().label());
                let there = format!("{} ({})", part.name, part.kind.label());
                let event = Event::KindMismatch { peer: peer.clone(), structure: spec.name.clone(), here, there };
                let first = self.links.get_mut(peer).is_some_and(|link| link.mismatched.insert(part.structure));
                if first {
                    self.event(event);
                }
                continue;
            }
            for entry in &part.entries {
                self.handle_entry(now, peer, (part.structure, digest.answers), entry);
                if self.actor != run {
                    // This node is another run now. The remaining entries refer to the old run, and the peer will send them
                    // again.
                    return self.update_life(now);
                }
            }
        }
        self.confirm(now, &sender);
        if let Some(link) = self.links.get_mut(peer)
            && digest.complete
        {
            link.answered = link.answered.max(digest.answers);
            link.completes = link.completes.saturating_add(1);
            for (id, _) in link.peer_progress.keys() {
                if let Some(held) = self.structures.get_mut(id) {
                    held.joining = false;
                }
            }
        }
        if digest.complete {
            self.meet(peer);
        }
        self.update_life(now);
    }

    /// The peer does not know that its run is superseded or forgotten. This node may hold no rows of the newer run and so may
    /// never have reported it. It now reports that run, and at once.
    fn correct(&mut self, peer: &NodeName, digest: &Digest<'_>) {
        let latest = self.nodes.get(peer).map(|known| Actor::new(peer.clone(), known.incarnation));
        // If that run is void itself, its tombstone is enough.
        let latest = latest.filter(|latest| latest.incarnation > digest.incarnation && !self.is_void(latest));
        let Some(link) = self.links.get_mut(peer) else { return };
        for part in &digest.structures {
            if let (Some(held), Some(latest)) = (self.structures.get(&part.structure), &latest) {
                if held.structure.admit(latest, 0) {
                    self.life_changed.insert(peer.clone());
                }
                held.structure.list_again(latest);
            }
        }
        link.new_tombstone = true;
        link.hurry();
    }

    /// The peer has rows of a superseded run. If no node has rows of the later run, no digest has named it to the peer. This
    /// node names it, as a run of which nothing is known yet.
    fn name_latest(&mut self, peer: &NodeName, id: StructureId, node: &NodeName) {
        let (Some(held), Some(known)) = (self.structures.get(&id), self.nodes.get(node)) else { return };
        let latest = Actor::new(node.clone(), known.incarnation);
        if !self.is_void(&latest) && held.structure.admit(&latest, 0) {
            self.life_changed.insert(node.clone());
            if let Some(link) = self.links.get_mut(peer) {
                link.hurry();
            }
        }
    }

    /// A peer reports a later run of a node that states an earlier run itself. The node may not know that another process has
    /// used its name, so this node asks it for the rows of that run.
    fn ask_which_run(&mut self, structure: StructureId, actor: &Actor) {
        if self.is_void(actor) || !self.can_be_reported(actor) {
            return;
        }
        if let Some(link) = self.links.get_mut(&actor.node) {
            link.ask_about_run(structure, actor.clone());
        }
    }

    /// There is a new actor: sends digests early, for the nodes that have no link to it.
    fn spread(&mut self, now: Now) {
        let alive = self.nodes.values().filter(|node| matches!(node.life, Life::Alive | Life::Suspect));
        if alive.count() > self.links.len() {
            let at = now.mono.after(self.config.digest_interval / SPREAD);
            self.links.values_mut().for_each(|link| link.hurry_by(at));
        }
    }

    fn handle_entry(&mut self, now: Now, peer: &NodeName, (id, answers): (StructureId, u64), entry: &DigestEntry) {
        let Some(keeps_runs) = self.structures.get(&id).map(|held| held.structure.keeps_runs()) else { return };
        let earlier = entry.actor.incarnation < self.actor.incarnation;
        if entry.actor.node == self.actor.node && !(earlier && (keeps_runs || canary::broken(Canary::OwnRunsTaken))) {
            return self.handle_entry_of_ours(now, peer, id, entry);
        }
        let standing = self.note_run(now, &entry.actor, peer);
        if standing
            < if keeps_runs || canary::broken(Canary::OwnRunsTaken) { RunStatus::Earlier } else { RunStatus::Current }
        {
            match standing {
                RunStatus::Earlier => self.name_latest(peer, id, &entry.actor.node),
                _ => self.ask_which_run(id, &entry.actor),
            }
            return;
        }
        let Some(held) = self.structures.get(&id) else { return };
        let current = standing == RunStatus::Current;
        let owner = current && entry.actor.node == *peer;
        let part = (id, entry.actor.clone());
        let since = if held.joining { entry.applied } else { 0 };
        let new = held.structure.admit(&entry.actor, since);
        let Some(have) = held.structure.progress(&entry.actor) else {
            return self.has_no_place(id, &entry.actor);
        };
        self.unheld.parts.remove(&part);
        let owner_linked = owner || (current && self.links.contains_key(&entry.actor.node));
        if new {
            self.life_changed.insert(entry.actor.node.clone());
        }
        let gone = |life: Life| matches!(life, Life::Dead | Life::Left);
        let ended = !current || self.nodes.get(&entry.actor.node).is_none_or(|node| gone(node.life));
        if new {
            self.spread(now);
        }
        let Some(held) = self.structures.get(&id) else { return };
        let Some(link) = self.links.get_mut(peer) else { return };
        link.peer_progress.insert(part.clone(), PeerProgress::from(entry));
        if new {
            held.structure.inherit(&entry.actor, entry.applied);
            link.hurry();
        }
        let follows = have.have == have.since || entry.low_water <= have.have.max(have.floor);
        let cannot_help = entry.applied > have.have && entry.since > if follows { have.have } else { have.since };
        if cannot_help && (owner_linked || ended) {
            // The peer's copy begins after the version that this node has reached.
            link.behind.remove(&part);
            return;
        }
        if entry.applied > have.have {
            let behind = Behind { noticed: now.mono, progress: have, target: entry.applied, tries: 0 };
            let known = link.behind.contains_key(&part);
            link.behind.entry(part.clone()).or_insert(behind).target = entry.applied;
            // If the owner or the parent already sends these rows, this node does not ask. Otherwise it asks the peer, if the
            // peer can help. If the peer cannot, `chase` asks it later, and the peer then fetches the earlier rows itself.
            let fed = owner_linked || (self.needs_parent(&part.1) && self.parent(&part).is_some());
            if !known && !fed && !cannot_help {
                self.want(peer, &part, have.since, have.have, false);
            }
            return;
        }
        link.behind.remove(&part);
        let stuck = ended && have.staging.is_some();
        if stuck && !self.links.values().any(|link| link.said_have(id, &entry.actor) > have.have) {
            held.structure.give_up_snapshot(&entry.actor);
        }
        if let Some(age) = entry.age_ms.filter(|_| !owner) {
            let at = Time(now.mono.0.saturating_sub(age.saturating_mul(1000)));
            held.structure.note_head_at(&entry.actor, entry.applied, at);
        } else if !current
            && held.structure.is_cache()
            && (entry.applied, entry.fingerprint) == (have.have, have.fingerprint)
        {
            // The owner of a run that has ended reports nothing any more. The rows stay until its node is forgotten.
            held.structure.note_same_at(&entry.actor, now.mono);
        }
        self.find_parent(peer, &part, &have);
        let (Some(held), Some(link)) = (self.structures.get(&id), self.links.get_mut(peer)) else { return };
        let comparable = !canary::broken(Canary::FingerprintUnchecked)
            && owner
            && entry.applied == have.have
            && entry.since == 0
            && have.since == 0;
        if comparable && entry.fingerprint != have.fingerprint {
            return self.contradicted(peer, part, answers);
        }
        if comparable {
            held.structure.note_complete(&entry.actor, entry.applied, entry.fingerprint);
        }
        // Copies with the same applied version can differ. Case 1: events that ended below the owner's head, and no peer will
        // send more. Case 2: a run that was begun twice, and only nodes linked to its owner learn from it which rows are right.
        let whole = entry.applied == have.have && entry.since == 0 && have.since == 0;
        let differs = whole && !owner_linked && entry.fingerprint != have.fingerprint;
        let passes_on = self.parents.get(&part) == Some(peer) && entry.age_ms.is_some();
        if differs && if ended { keeps_runs } else { passes_on } {
            let compared = link.compared.entry(part.clone()).or_default();
            if compared.asks((have.fingerprint, entry.fingerprint)) && (ended || compared.again()) {
                if !ended {
                    held.structure.distrust(&entry.actor);
                }
                self.want(peer, &part, 0, 0, !ended);
            }
        } else {
            link.compared.remove(&part);
        }
    }

    /// A peer's entry about this node's own rows: where to continue sending, or that another process writes them.
    fn handle_entry_of_ours(&mut self, now: Now, peer: &NodeName, id: StructureId, entry: &DigestEntry) {
        let Some(held) = self.structures.get(&id) else { return };
        let ahead = entry.actor == self.actor && entry.applied > held.structure.head();
        if ahead || self.is_later_run(&entry.actor) {
            return self.conflict(now, entry.actor.incarnation, peer);
        }
        if entry.actor != self.actor {
            return;
        }
        let wanted = Start { cursor: entry.applied, snapshot: false };
        let start = held.structure.start(&entry.actor, entry.since, entry.low_water, wanted);
        let Some(link) = self.links.get_mut(peer) else { return };
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

    /// The owner states another fingerprint for the version that this node has. If this node's copy may be newer than that
    /// statement, it probes the owner again: the answer comes after all rows that the owner had when it answered.
    pub(crate) fn contradicted(&mut self, peer: &NodeName, part: StreamId, answers: u64) {
        let Some(held) = self.structures.get(&part.0) else { return };
        if held.structure.contradicted(&part.1, answers, self.nonce + 1) {
            let name = held.structure.spec().name.clone();
            self.diverged(peer, part, name);
        } else if let Some(link) = self.links.get_mut(peer) {
            self.nonce += 1;
            link.probe = Some(self.nonce);
        }
    }

    pub(crate) fn diverged(&mut self, peer: &NodeName, part: StreamId, structure: tallymesh_schemas::StructureName) {
        let repairing = self.links.get(peer).is_some_and(|link| link.wants(&part));
        if !repairing {
            self.counters.divergences += 1;
            self.event(Event::Diverged { structure, actor: part.1.clone() });
        }
        self.want(peer, &part, 0, 0, true);
    }

    /// Asks a peer for rows.
    pub(crate) fn want(&mut self, peer: &NodeName, part: &StreamId, since: u64, after: u64, snapshot: bool) {
        let (structure, actor) = part.clone();
        let owner = actor.node == *peer && self.is_current(&actor);
        let other_parent = !owner && self.parent(part).is_some_and(|parent| parent != peer);
        if other_parent && canary::broken(Canary::PrunedForGood) {
            return;
        }
        if let Some(link) = self.links.get_mut(peer) {
            if !owner {
                link.asked.insert(part.clone());
                link.pruned.remove(part);
                link.prunes.remove(part);
            }
            link.want(Want { structure, actor, since, after, snapshot });
        }
        if !owner && self.needs_parent(&part.1) {
            self.set_parent(peer, part);
        }
    }

    /// The owner of these rows has reported all its heads: copies that are complete up to the owner's head are confirmed as
    /// fresh.
    fn confirm(&mut self, now: Now, owner: &Actor) {
        let Some(link) = self.links.get(&owner.node) else { return };
        for (id, held) in &self.structures {
            let head = link.said_have(*id, owner);
            held.structure.confirm(owner, head, now.mono);
        }
    }

    /// Asks for rows that have been missing for too long.
    pub(crate) fn chase(&mut self, now: Time) {
        if canary::broken(Canary::NothingChased) {
            return;
        }
        let mut missing = Vec::new();
        let current = self.nodes.iter().filter(|(name, _)| self.links.contains_key(*name));
        let linked: BTreeSet<_> = current.map(|(name, node)| Actor::new(name.clone(), node.incarnation)).collect();
        for (peer, link) in &mut self.links {
            let structures = &self.structures;
            link.behind.retain(|part, behind| {
                let Some(have) = structures.get(&part.0).and_then(|held| held.structure.progress(&part.1)) else {
                    return false;
                };
                if have.have >= behind.target {
                    return false;
                }
                let other_is_owner = part.1.node != *peer && linked.contains(&part.1);
                let patience = if other_is_owner { PATIENCE_WITH_OWNER } else { PATIENCE };
                if have != behind.progress {
                    (behind.noticed, behind.progress, behind.tries) = (now, have, 0);
                } else if now.since(behind.noticed) >= self.config.digest_interval * patience {
                    behind.noticed = now;
                    behind.tries += 1;
                    missing.push((peer.clone(), part.clone(), have));
                }
                behind.tries < TRIES
            });
        }
        for (peer, part, have) in missing {
            // A snapshot that is stuck continues where it stopped.
            let Span { since, upto } = have.staging.unwrap_or(Span { since: have.since, upto: have.have });
            self.want(&peer, &part, since, upto, have.staging.is_some());
        }
    }
}
