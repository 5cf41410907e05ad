//! Asking peers for rows.

use std::collections::BTreeSet;

use tallymesh_schemas::{Actor, NodeName, StructureName};

use crate::canary::{self, Canary};
use crate::replica::Replica;
use crate::replica::peer::link::{PATIENCE, TRIES};
use crate::replica::peer::request::Request;
use crate::replica::relay::parents_are_replaced;
use crate::replica::report::Event;
use crate::replica::stream::StreamId;
use crate::time::Time;

/// Digest intervals before this node asks another peer than a linked owner.
const PATIENCE_WITH_OWNER: u32 = 5;

impl Replica {
    /// Asks a peer for rows, unless they wait for room.
    pub(crate) fn want(&mut self, peer: &NodeName, part: &StreamId, request: Request) {
        let room = self.structures.get(&part.0).map_or(0, |held| held.structure.room());
        if !self.crowded.ask(part, self.now, room) {
            return;
        }
        let owner = part.1.node == *peer && self.runs.is_current(&part.1);
        let other_parent = !owner && self.relay.parent(part).is_some_and(|parent| parent != peer);
        if other_parent && !parents_are_replaced() {
            return;
        }
        if let Some(link) = self.peers.links.get_mut(peer) {
            if !owner {
                link.asked.insert(part.clone());
                link.pruned.remove(part);
                link.prunes.remove(part);
            }
            link.want(request.want(part.clone()));
        }
        if !owner && self.needs_parent(&part.1) {
            self.set_parent(peer, part);
        }
    }

    /// The owner states another fingerprint for the version that this node has. If this node's copy may be newer than that
    /// statement, it probes the owner again: the answer comes after all rows that the owner had when it answered.
    pub(crate) fn contradicted(&mut self, peer: &NodeName, part: StreamId, answers: u64) {
        let Some(held) = self.structures.get(&part.0) else { return };
        if held.structure.contradicted(&part.1, answers, self.peers.next_nonce()) {
            let name = held.structure.spec().name.clone();
            self.diverged(peer, part, name);
        } else {
            self.peers.probe_one(peer);
        }
    }

    /// This node's copy of a run's rows is wrong: asks for a snapshot.
    pub(crate) fn diverged(&mut self, peer: &NodeName, part: StreamId, structure: StructureName) {
        let repairing = self.peers.links.get(peer).is_some_and(|link| link.wants(&part));
        if !repairing {
            self.output.counters.divergences += 1;
            self.event(Event::Diverged { structure, actor: part.1.clone() });
        }
        self.want(peer, &part, Request::WHOLE);
    }

    /// Asks for rows that have been missing for too long.
    pub(crate) fn chase(&mut self, now: Time) {
        if !missing_rows_are_chased() {
            return;
        }
        let mut missing = Vec::new();
        let current = self.runs.nodes.iter().filter(|(name, _)| self.peers.is_linked(name));
        let linked: BTreeSet<_> = current.map(|(name, node)| Actor::new(name.clone(), node.incarnation)).collect();
        for (peer, link) in &mut self.peers.links {
            let (structures, crowded) = (&self.structures, &self.crowded);
            let room_of = |part: &StreamId| structures.get(&part.0).map_or(0, |held| held.structure.room());
            link.behind.retain(|part, behind| {
                let Some(progress) = structures.get(&part.0).and_then(|held| held.structure.progress(&part.1)) else {
                    return false;
                };
                if progress.applied >= behind.target {
                    return false;
                }
                let other_is_owner = part.1.node != *peer && linked.contains(&part.1);
                if crowded.contains(part) && (other_is_owner || crowded.waits(part, now, room_of(part))) {
                    return true;
                }
                let patience = if other_is_owner { PATIENCE_WITH_OWNER } else { PATIENCE };
                if progress != behind.progress {
                    (behind.noticed, behind.progress, behind.tries) = (now, progress, 0);
                } else if now.since(behind.noticed) >= self.config.digest_interval * patience {
                    behind.noticed = now;
                    behind.tries += 1;
                    missing.push((peer.clone(), part.clone(), progress));
                }
                behind.tries < TRIES
            });
        }
        for (peer, part, progress) in missing {
            let request = match progress.staging {
                // A snapshot that is stuck continues where it stopped.
                Some(staging) => Request::Snapshot { since: staging.since, after: staging.upto },
                None => Request::Rows { since: progress.since, after: progress.applied },
            };
            self.want(&peer, &part, request);
        }
    }
}

/// Whether this node asks again for rows that do not come.
fn missing_rows_are_chased() -> bool {
    !canary::broken(Canary::NothingChased)
}
