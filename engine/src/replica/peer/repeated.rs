//! Entries of a digest that repeat what the peer has said before. A digest of everything consists mostly of them, so each of them
//! costs little: the entries, what the peer has said, and the copies are in the same order.

use tallymesh_schemas::message::{DigestEntry, StructureDigest};
use tallymesh_schemas::{Actor, NodeName, StructureId, Version};

use crate::counter::actors::Copies;
use crate::replica::Replica;
use crate::replica::peer::link::{Link, PeerProgress};
use crate::rows::actor_rows::ActorRows;
use crate::time::{Now, Time};

impl Replica {
    /// The entries of a peer about a structure from which something may follow. An entry that repeats the peer's last statement
    /// about a copy that is as current as the statement changes nothing.
    pub(crate) fn news<'d>(&self, now: Now, peer: &NodeName, part: &'d StructureDigest<'_>) -> Vec<&'d DigestEntry> {
        let all = || part.entries.iter().collect();
        let (Some(held), Some(link)) = (self.structures.get(&part.structure), self.peers.links.get(peer)) else {
            return all();
        };
        let (Some(first), Some(last)) = (part.entries.first(), part.entries.last()) else { return all() };
        if first.actor > last.actor {
            return all();
        }
        let id = part.structure;
        let ledger = held.structure.ledger.read();
        let (first, last) = (first.actor.clone(), last.actor.clone());
        let mut copies = ledger.actors().copies_in(first.clone()..=last.clone()).peekable();
        let mut said = link.peer_progress.range((id, first)..=(id, last)).peekable();
        let is_news = |entry: &&DigestEntry| {
            let actor = &entry.actor;
            while copies.next_if(|(of, _)| *of < actor).is_some() {}
            while said.next_if(|((_, of), _)| of < actor).is_some() {}
            let copy = copies.next_if(|(of, _)| *of == actor).map(|(_, copy)| copy);
            let said = said.next_if(|((_, of), _)| of == actor).map(|(_, said)| said);
            let repeats = said.is_some_and(|said| *said == PeerProgress::from(*entry));
            let settled = |copy: &Copies| is_same(entry, copy) && self.is_settled(now, (peer, link), entry, &copy.rows);
            let is_open = link.is_open(id, actor) || self.crowded.waits_for_room(id, actor);
            !(repeats && copy.is_some_and(settled) && !is_open)
        };
        part.entries.iter().filter(is_news).collect()
    }

    /// Whether nothing follows from an entry that the peer repeats: this node takes the rows from their owner, has what the peer
    /// has, and knows that.
    fn is_settled(
        &self,
        now: Now,
        (peer, link): (&NodeName, &Link),
        DigestEntry { actor, applied, age_ms, .. }: &DigestEntry,
        rows: &ActorRows,
    ) -> bool {
        if !self.runs.is_current(actor) {
            return false;
        }
        if actor.node == *peer {
            let stated = rows.stated.as_ref().is_some_and(|stated| stated.is(&link.heartbeat, *applied));
            return stated && link.incarnation() == Some(actor.incarnation);
        }
        let known = |age: u64| rows.confirmed() >= Time(now.mono.0.saturating_sub(age.saturating_mul(1000)));
        self.peers.is_linked(&actor.node) && age_ms.is_none_or(known)
    }
}

/// Whether a copy is complete and equals the one that an entry describes.
fn is_same(entry: &DigestEntry, Copies { rows, staging, .. }: &Copies) -> bool {
    (rows.applied, rows.fingerprint()) == (entry.applied, entry.fingerprint)
        && (rows.since, entry.since) == (Version::ZERO, Version::ZERO)
        && rows.is_complete()
        && !rows.diverged
        && rows.doubted == 0
        && staging.is_none()
}

impl Link {
    /// Whether this node waits for rows of a stream that the peer has, or compares its copy with the peer's.
    fn is_open(&self, id: StructureId, actor: &Actor) -> bool {
        if self.behind.is_empty() && self.compared.is_empty() {
            return false;
        }
        let part = (id, actor.clone());
        self.behind.contains_key(&part) || self.compared.contains_key(&part)
    }
}
