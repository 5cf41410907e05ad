//! Verification: do all members hold what each owner says it has?

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::{Actor, NodeName, StructureName, Version};

use super::link::{DigestRun, Part, Said};
use super::{Life, PeerClock, Replica};
use crate::time::Now;

/// What a round of verification found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Verification {
    /// Who answered, this node included, in order of name.
    pub members: Vec<NodeName>,
    /// Who lives, as far as is known, and has not answered, in order of name.
    pub silent: Vec<NodeName>,
    /// Who lives and is heard of through others, in order of name: there is no link to ask it by. Copies of its rows were
    /// compared with each other; what it holds itself is for those to compare who have a link to it.
    pub beyond: Vec<NodeName>,
    /// Structures that were compared.
    pub structures: usize,
    /// Actors whose rows were compared.
    pub actors: usize,
    /// Copies that were compared with what their owner says, or, where the owner is away, with each other.
    pub copies: usize,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Peers whose clocks are off by more than [`Replica::clock_bound`]. Rows are compared all the same; but a node with such
    /// a clock counts in other windows, and its writes in caches may be refused.
    pub clocks: Vec<PeerClock>,
}

impl Verification {
    /// Whether everybody that there is a link to answered, and holds what every owner has.
    pub fn converged(&self) -> bool {
        self.findings.is_empty() && self.silent.is_empty()
    }
}

/// A copy that is not what its owner has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Where.
    pub structure: StructureName,
    /// Whose rows.
    pub actor: Actor,
    /// Who holds the copy.
    pub member: NodeName,
    /// The version that it has.
    pub have: Version,
    /// The version that the owner has.
    pub head: Version,
    /// At the same version it holds other rows; else it lags.
    pub differs: bool,
}

impl Replica {
    /// Asks every peer for a digest of everything; returns the number under which the answers come.
    pub fn probe(&mut self, now: Now) -> u64 {
        self.nonce += 1;
        self.flush(now);
        for link in self.links.values_mut() {
            link.probe = Some(self.nonce);
        }
        self.nonce
    }

    pub(super) fn handle_probe(&mut self, now: Now, peer: &NodeName, nonce: u64) {
        self.flush(now);
        if let Some(link) = self.links.get_mut(peer) {
            link.digest = Some(DigestRun { full: true, answers: nonce, last: None });
        }
    }

    /// What a probe has found so far: final once nobody is silent, as the answers come.
    pub fn verification(&self, nonce: u64) -> Verification {
        let copies = self.copies();
        let answered = self.links.iter().filter(|(_, link)| link.answered >= nonce).map(|(peer, _)| peer);
        let members: Vec<_> = answered.chain([&self.actor.node]).cloned().collect();
        let lives = self.nodes.iter().filter(|(_, node)| matches!(node.life, Life::Alive | Life::Suspect));
        let said = self.links.values().flat_map(|link| link.said.keys());
        let heard_of: BTreeSet<&NodeName> =
            said.filter(|(_, actor)| self.is_current(actor)).map(|(_, actor)| &actor.node).collect();
        let others = lives.map(|(name, _)| name).filter(|name| !members.contains(name)).cloned();
        let (beyond, silent) = others.partition(|name| !self.links.contains_key(name) && heard_of.contains(name));
        let mut found = Verification {
            silent,
            beyond,
            members,
            structures: self.structures.values().filter(|held| held.shared).count(),
            actors: 0,
            copies: 0,
            findings: Vec::new(),
            clocks: self.clocks().into_iter().filter(|clock| clock.beyond).collect(),
        };
        found.members.sort();
        let mut actors: Vec<&Actor> = copies.keys().map(|(_, actor)| actor).collect();
        actors.sort();
        actors.dedup();
        found.actors = actors.len();
        for (part, holders) in &copies {
            self.compare(part, holders, &mut found);
        }
        found
    }

    /// Every copy of every actor's rows that a linked member or this node has said to hold.
    fn copies(&self) -> BTreeMap<Part, BTreeMap<NodeName, Said>> {
        let mut copies: BTreeMap<Part, BTreeMap<NodeName, Said>> = BTreeMap::new();
        for (id, held) in self.structures.iter().filter(|(_, held)| held.shared) {
            held.structure.digest(None, self.now, &mut |entry| {
                let said = Said::from(&entry);
                copies.entry((*id, entry.actor)).or_default().insert(self.actor.node.clone(), said);
                true
            });
        }
        for (peer, link) in &self.links {
            for (part, said) in &link.said {
                if let Some(holders) = copies.get_mut(part) {
                    holders.insert(peer.clone(), *said);
                }
            }
        }
        copies
    }

    fn compare(&self, part: &Part, holders: &BTreeMap<NodeName, Said>, found: &mut Verification) {
        let Some(held) = self.structures.get(&part.0) else { return };
        let furthest = holders.values().max_by_key(|said| said.have);
        // Of a run that has ended there is no owner to ask.
        let owner = holders.get(&part.1.node).filter(|_| self.is_current(&part.1));
        let Some(head) = owner.or(furthest) else { return };
        for (member, said) in holders {
            found.copies += 1;
            let whole = said.since == 0 && head.since == 0;
            let differs = said.have == head.have && whole && said.fingerprint != head.fingerprint;
            if differs || said.have != head.have {
                found.findings.push(Finding {
                    structure: held.structure.spec().name.clone(),
                    actor: part.1.clone(),
                    member: member.clone(),
                    have: said.have,
                    head: head.have,
                    differs,
                });
            }
        }
        // A member that replicates the structure and holds nothing of the actor lags as well.
        for (peer, link) in &self.links {
            let replicates = link.said.keys().any(|(id, _)| *id == part.0);
            if replicates && head.have > 0 && !holders.contains_key(peer) {
                let structure = held.structure.spec().name.clone();
                let finding = Finding {
                    structure,
                    actor: part.1.clone(),
                    member: peer.clone(),
                    have: 0,
                    head: head.have,
                    differs: false,
                };
                found.findings.push(finding);
            }
        }
    }
}
