//! Anti-entropy: a node reports in digests how far its copies reach, and finds from its peers' digests what it lacks or has
//! wrong.

use tallymesh_schemas::message::{Digest, StructureDigest, Tombstone};
use tallymesh_schemas::{Actor, NodeName, Version};

use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::runs::life::RunStatus;
use crate::time::Now;

impl Replica {
    /// Compares a peer's digest with the state of this node.
    pub(crate) fn handle_digest(&mut self, now: Now, peer: &NodeName, digest: &Digest<'_>) {
        self.peers.reported += 1;
        let run = self.runs.actor.clone();
        let sender = Actor::new(peer.clone(), digest.incarnation);
        let before = self.peers.links.get_mut(peer).and_then(|link| link.state_run(digest.incarnation));
        let status = match before {
            Some(before) if before >= digest.incarnation => self.note_run(now, &sender, peer),
            _ => self.introduce(now, peer, digest.incarnation),
        };
        if status < RunStatus::Current {
            self.correct(peer, digest);
        }
        self.ask_about_reported_run(peer, digest);
        self.compare_clocks(now, peer, digest.clock_ms);
        self.take_tombstones(now, peer, &digest.tombstones);
        for part in &digest.structures {
            if !self.has_same_kind(peer, part) {
                continue;
            }
            for entry in self.news(now, peer, part) {
                self.handle_entry(now, peer, (part.structure, digest.answers), entry);
                if self.runs.actor != run {
                    // This node is another run now. The remaining entries refer to the old run, and the peer will send them
                    // again.
                    return self.update_life(now);
                }
            }
        }
        if let Some(link) = self.peers.links.get_mut(peer) {
            // Copies that are complete up to the heads that the peer has stated are confirmed as current.
            link.heartbeat.beat(now.mono);
        }
        if digest.complete {
            self.note_complete_digest(peer, digest.answers);
        }
        self.update_life(now);
    }

    /// Takes a peer's tombstones, which last at most twice as long as this node's own ones.
    fn take_tombstones(&mut self, now: Now, peer: &NodeName, tombstones: &[Tombstone]) {
        let longest = self.peers.clocks.cluster_ms(now).after(self.config.tombstone_life.saturating_mul(2));
        for tombstone in tombstones {
            let until_ms = tombstone.until_ms.min(longest);
            self.add_tombstone(now, Tombstone { until_ms, ..tombstone.clone() }, peer.clone());
        }
    }

    /// Whether this node shares a structure that a peer reports, and it is the same on both. Reports a different one once.
    fn has_same_kind(&mut self, peer: &NodeName, part: &StructureDigest<'_>) -> bool {
        let structure = self.structures.get(&part.structure).filter(|held| held.shared);
        let cache = self.caches.get(part.structure).filter(|held| held.shared);
        let spec = structure.map(|held| held.structure.spec()).or(cache.map(|held| held.cache.spec()));
        let Some(spec) = spec else { return false };
        if spec.name.as_str() == part.name && spec.class.kind() == part.kind {
            if let Some(link) = self.peers.links.get_mut(peer) {
                link.structures.insert(part.structure);
            }
            return true;
        }
        if self.peers.links.get_mut(peer).is_some_and(|link| link.mismatched.insert(part.structure)) {
            let here = format!("{} ({})", spec.name, spec.class.kind().label());
            let there = format!("{} ({})", part.name, part.kind.label());
            let structure = spec.name.clone();
            self.event(Event::KindMismatch { peer: peer.clone(), structure, here, there });
        }
        false
    }

    /// The peer does not know that its run is superseded or forgotten. This node may hold no rows of the newer run and so may
    /// never have reported it. It now reports that run, and at once.
    fn correct(&mut self, peer: &NodeName, digest: &Digest<'_>) {
        // If that run is void itself, its tombstone is enough.
        let later = |latest: &Actor| latest.incarnation > digest.incarnation && !self.runs.is_void(latest);
        let latest = self.runs.latest(peer).filter(later);
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        for part in &digest.structures {
            if let (Some(held), Some(latest)) = (self.structures.get(&part.structure), &latest) {
                if held.structure.admit(latest, Version::ZERO) {
                    self.runs.note_changed(peer);
                }
                held.structure.list_again(latest);
            }
        }
        link.new_tombstone = true;
        link.hurry();
    }

    /// A peer has listed everything that it has, in answer to the probe `answers`.
    fn note_complete_digest(&mut self, peer: &NodeName, answers: u64) {
        if let Some(link) = self.peers.links.get_mut(peer) {
            link.answered = link.answered.max(answers);
            link.completes = link.completes.saturating_add(1);
            for id in &link.structures {
                if let Some(held) = self.structures.get_mut(id) {
                    held.joining = false;
                }
            }
        }
    }
}
