//! Verification: compares the copies of all members with each owner's rows.

mod caches;
pub(crate) mod found;
pub(crate) mod rounds;

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::{Actor, NodeName, Version};

use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::peer::link::{DigestRun, PeerProgress};
use crate::replica::runs::life::Life;
use crate::replica::stream::StreamId;
use crate::replica::verify::found::{Fault, Finding, Unheld, Verification};
use crate::time::Now;

impl Replica {
    /// Asks every peer for a complete digest. Returns the nonce that the answers carry.
    pub fn probe(&mut self, now: Now) -> u64 {
        self.flush(now);
        self.peers.probe()
    }

    pub(crate) fn handle_probe(&mut self, now: Now, peer: &NodeName, nonce: u64) {
        self.flush(now);
        if let Some(link) = self.peers.links.get_mut(peer) {
            link.digest = Some(DigestRun { full: true, answers: nonce, last: None });
        }
        self.report_caches(peer);
    }

    /// Whether every linked peer has answered a probe.
    pub(crate) fn all_answered(&self, nonce: u64) -> bool {
        self.peers.all_answered(nonce)
    }

    /// The nodes that have answered a probe, including this node.
    pub(crate) fn answered(&self, nonce: u64) -> BTreeSet<NodeName> {
        let mut nodes = self.peers.answered(nonce);
        nodes.insert(self.runs.actor.node.clone());
        nodes
    }

    /// The result of a probe so far: final once no member is silent or late. Only copies of members that have answered are
    /// compared, because earlier reports of the others are old.
    pub fn verification(&self, nonce: u64) -> Verification {
        self.verification_since(nonce, nonce)
    }

    /// As [`Replica::verification`]. A node that has answered `first` or a later probe is a member. Its copies are compared
    /// once it has answered `nonce`.
    pub(crate) fn verification_since(&self, first: u64, nonce: u64) -> Verification {
        let mut found = self.members_of(first);
        found.clocks = self.clocks().into_iter().filter(|clock| clock.beyond).collect();
        found.structures = self.structures.values().filter(|held| held.is_compared()).count() + self.caches.shared();
        let copies = self.copies(nonce);
        let actors: BTreeSet<&Actor> = copies.keys().map(|(_, actor)| actor).collect();
        found.actors = actors.len();
        for (part, holders) in &copies {
            self.compare(part, holders, nonce, &mut found);
        }
        self.compare_caches(nonce, &mut found);
        found
    }

    /// The members that have answered, and those that have not, with the reason.
    fn members_of(&self, nonce: u64) -> Verification {
        let said = self.peers.links.values().flat_map(|link| link.peer_progress.keys());
        let heard_of: BTreeSet<&NodeName> =
            said.filter(|(_, actor)| self.runs.is_current(actor)).map(|(_, actor)| &actor.node).collect();
        let mut found = Verification { members: vec![self.runs.actor.node.clone()], ..Verification::default() };
        for (peer, link) in &self.peers.links {
            let list = match (link.answered >= nonce, link.spoke) {
                (true, _) => &mut found.members,
                (false, true) => &mut found.late,
                (false, false) => &mut found.silent,
            };
            list.push(peer.clone());
        }
        found.members.sort();
        for (name, node) in self.runs.nodes.iter().filter(|(name, _)| !self.peers.links.contains_key(*name)) {
            let list = match node.life {
                Life::Left => continue,
                // Such a name is not a member.
                _ if node.is_only_heard_of() => continue,
                Life::Dead => &mut found.dead,
                Life::Alive | Life::Suspect if heard_of.contains(name) => &mut found.beyond,
                Life::Alive | Life::Suspect => &mut found.unlinked,
            };
            list.push(name.clone());
        }
        let mismatched =
            self.peers.links.iter().flat_map(|(peer, link)| link.mismatched.iter().map(move |id| (peer, id)));
        let spec = |id| {
            let structure = self.structures.get(id).map(|held| held.structure.spec());
            structure.or(self.caches.get(*id).map(|held| held.cache.spec()))
        };
        found.mismatched = mismatched.filter_map(|(peer, id)| Some((peer.clone(), spec(id)?.name.clone()))).collect();
        self.note_unheld(&mut found);
        found
    }

    fn note_unheld(&self, found: &mut Verification) {
        let structure = |part: &StreamId| Some(self.structures.get(&part.0)?.structure.spec().name.clone());
        let parts = self.output.unheld.parts.iter();
        found.unheld = parts
            .filter_map(|part| Some(Unheld::Run { structure: structure(part)?, actor: part.1.clone() }))
            .chain(self.output.unheld.nodes.keys().map(|node| Unheld::Node { node: node.clone() }))
            .collect();
        let unsent = |held: &&Held| held.structure.tally.times(Bound::Rows) > 0;
        let unsent = self.structures.values().filter(unsent).map(|held| held.structure.spec().name.clone());
        found.unheld.extend(unsent.map(|structure| Unheld::Unsent { structure }));
        let crowded = self.crowded.structures().into_iter();
        let crowded = crowded.filter_map(|id| Some(self.structures.get(&id)?.structure.spec().name.clone()));
        let caches = self.caches.iter().filter(|(_, held)| held.is_crowded());
        let crowded = crowded.chain(caches.map(|(_, held)| held.cache.spec().name.clone()));
        found.unheld.extend(crowded.map(|structure| Unheld::NoRoom { structure }));
        found.more_unheld = self.output.unheld.more;
    }

    /// Every copy of an actor's rows that this node holds, or that a member reported when it answered `nonce`.
    fn copies(&self, nonce: u64) -> BTreeMap<StreamId, BTreeMap<NodeName, PeerProgress>> {
        let mut copies: BTreeMap<StreamId, BTreeMap<NodeName, PeerProgress>> = BTreeMap::new();
        for (id, held) in self.structures.iter().filter(|(_, held)| held.is_compared()) {
            held.structure.digest(None, self.now, &mut |entry| {
                let said = PeerProgress::from(&entry);
                copies.entry((*id, entry.actor)).or_default().insert(self.runs.actor.node.clone(), said);
                true
            });
        }
        for (peer, link) in self.peers.links.iter().filter(|(_, link)| link.answered >= nonce) {
            for (part, said) in &link.peer_progress {
                if let Some(holders) = copies.get_mut(part) {
                    holders.insert(peer.clone(), *said);
                }
            }
        }
        copies
    }

    fn compare(
        &self,
        part: &StreamId,
        holders: &BTreeMap<NodeName, PeerProgress>,
        nonce: u64,
        found: &mut Verification,
    ) {
        let Some(held) = self.structures.get(&part.0) else { return };
        let furthest = holders.values().max_by_key(|said| said.applied);
        // A run that has ended has no owner to ask.
        let owner = holders.get(&part.1.node).filter(|_| self.runs.is_current(&part.1));
        let Some(head) = owner.or(furthest) else { return };
        let finding = |member: &NodeName, applied, fault| Finding {
            structure: held.structure.spec().name.clone(),
            actor: part.1.clone(),
            member: member.clone(),
            applied,
            head: head.applied,
            fault,
        };
        for (member, said) in holders {
            found.copies += 1;
            let whole = said.since == Version::ZERO && head.since == Version::ZERO;
            if said.applied != head.applied {
                found.findings.push(finding(member, said.applied, Fault::Lags));
            } else if whole && said.fingerprint != head.fingerprint {
                found.findings.push(finding(member, said.applied, Fault::Differs));
            }
        }
        // A member that replicates the structure and holds no rows of the actor lags as well.
        for (peer, link) in self.peers.links.iter().filter(|(_, link)| link.answered >= nonce) {
            let replicates = link.peer_progress.keys().any(|(id, _)| *id == part.0);
            if replicates && head.applied > Version::ZERO && !holders.contains_key(peer) {
                found.findings.push(finding(peer, Version::ZERO, Fault::Lags));
            }
        }
    }
}
