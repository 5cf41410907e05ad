//! Positions: which changes this node has made, and which nodes hold them.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, NodeName, Position, StructureId, Version};

use crate::replica::Replica;
use crate::replica::peer::link::Link;
use crate::time::Now;

/// For each peer and object, the version at which the peer has been sent everything that a position names.
///
/// A peer that reports a version of this node's rows may lack rows that changed again before they were sent. It has everything
/// of a moment when it reports a version at which this node had sent it all rows of a later moment.
pub(crate) type Sent = BTreeMap<(NodeName, StructureId), Version>;

impl Replica {
    /// Releases all changes of this node so far, and returns the position behind them. O(objects).
    pub fn position(&mut self, now: Now) -> Position {
        self.flush(now);
        let structures = self.structures.iter().filter(|(_, held)| held.is_compared());
        let structures = structures.map(|(id, held)| (*id, held.structure.head()));
        let caches = self.caches.iter().filter(|(_, held)| held.shared);
        let caches = caches.map(|(id, held)| (*id, Version(held.cache.shared.map.read().head())));
        let mut versions: Vec<_> = structures.chain(caches).filter(|(_, version)| *version > Version::ZERO).collect();
        versions.sort_unstable();
        Position { actor: self.runs.actor.clone(), versions }
    }

    /// Whether this node holds all changes that a position names, or later states of them. Objects that this node does not
    /// have are left out, and so are counts that ended with their run. O(objects).
    pub fn has_reached(&self, position: &Position) -> bool {
        position.versions.iter().all(|(id, version)| self.holds_changes(*id, &position.actor, *version))
    }

    fn holds_changes(&self, id: StructureId, actor: &Actor, version: Version) -> bool {
        if self.runs.is_void(actor) {
            return true;
        }
        if let Some(held) = self.structures.get(&id) {
            let structure = &held.structure;
            let is_over = !structure.keeps_runs() && self.runs.is_superseded(actor);
            let ours = *actor == self.runs.actor && structure.head() >= version;
            return is_over || ours || structure.is_complete_at(actor, version);
        }
        self.caches.get(id).is_none_or(|held| held.cache.shared.map.read().seen().reached(actor) >= version.0)
    }

    /// How many reports of peers have arrived.
    pub(crate) fn reports_of_peers(&self) -> u64 {
        self.peers.reported
    }

    /// Asks all peers for a report, unless one of them still has to answer an earlier question.
    pub(crate) fn ask_for_reports(&mut self) {
        self.peers.ask();
    }

    /// The linked peers that have reported to hold all changes that a position of this run names, in order of name. `sent`
    /// belongs to the position. O(links times objects).
    pub(crate) fn holders(&self, position: &Position, sent: &mut Sent) -> Vec<NodeName> {
        let mut holders = Vec::new();
        for (peer, link) in &self.peers.links {
            if position.versions.iter().all(|(id, version)| self.peer_holds((peer, link), *id, *version, sent)) {
                holders.push(peer.clone());
            }
        }
        holders
    }

    fn peer_holds(&self, (peer, link): (&NodeName, &Link), id: StructureId, version: Version, sent: &mut Sent) -> bool {
        if link.mismatched.contains(&id) {
            return false;
        }
        let Some(held) = self.structures.get(&id) else {
            let Some(held) = self.caches.get(id) else { return true };
            let said = held.receiver(peer).and_then(|receiver| receiver.said());
            return said.is_some_and(|seen| seen.reached(&self.runs.actor) >= version.0);
        };
        let part = (id, self.runs.actor.clone());
        let sent_all = link.feeds.get(&part).map(|feed| feed.keys_complete).filter(|complete| *complete >= version);
        let place = (peer.clone(), id);
        let sent_all = sent.get(&place).copied().or(sent_all);
        if let Some(at) = sent_all {
            sent.entry(place).or_insert(at);
        }
        let Some(said) = link.peer_progress.get(&part) else { return false };
        let is_equal = said.applied == held.structure.head()
            && held.structure.progress(&part.1).is_some_and(|own| own.fingerprint == said.fingerprint);
        sent_all.is_some_and(|at| said.applied >= at) || (said.applied >= version && is_equal)
    }
}
