//! Verification: compares the copies of all members with each owner's rows.

mod caches;
pub(crate) mod found;
pub(crate) mod rounds;
mod walk;

use tallymesh_schemas::bound::Bound;
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId};

use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::peer::link::DigestRun;
use crate::replica::runs::life::Life;
use crate::replica::stream::StreamId;
use crate::replica::verify::found::{Unheld, Verification};
use crate::replica::verify::walk::{SLICE, Subject, Walk};
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
    fn all_answered(&self, nonce: u64) -> bool {
        self.peers.all_answered(nonce)
    }

    /// The result of a probe so far: final once no member is silent or late. Only copies of members that have answered are
    /// compared, because earlier reports of the others are old. It compares everything at once; a [`Verifier`](crate::replica::Verifier) does not.
    pub fn verification(&self, nonce: u64) -> Verification {
        let mut walk = Walk::new(self, nonce, Subject::All);
        while !walk.step(self, SLICE) {}
        self.with_members(nonce, walk.finish())
    }

    /// Adds to what a pass has found: which members have answered the probe `first` or a later one, and their clocks.
    fn with_members(&self, first: u64, compared: Verification) -> Verification {
        let Verification { actors, copies, findings, .. } = compared;
        let clocks = self.clocks().into_iter().filter(|clock| clock.beyond).collect();
        let structures = self.structures.values().filter(|held| held.is_compared()).count() + self.caches.shared();
        Verification { clocks, structures, actors, copies, findings, ..self.members_of(first) }
    }

    /// The members that have answered, and those that have not, with the reason.
    fn members_of(&self, nonce: u64) -> Verification {
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
                Life::Alive | Life::Suspect if self.is_heard_of(name, node.incarnation) => &mut found.beyond,
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

    /// Whether a linked peer reports rows of a run.
    fn is_heard_of(&self, node: &NodeName, run: Incarnation) -> bool {
        let mut part = (StructureId(0), Actor::new(node.clone(), run));
        self.peers.links.values().any(|link| {
            link.structures.iter().any(|id| {
                part.0 = *id;
                link.peer_progress.contains_key(&part)
            })
        })
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
}
