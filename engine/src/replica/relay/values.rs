//! The values of cache rows. A peer sends a superseded write without its value, and the write that supersedes it may be lost
//! with the peer before it arrives here.

use tallymesh_schemas::{NodeName, Version};

use crate::replica::Replica;
use crate::replica::held::Structures;
use crate::replica::peer::link::{Link, PATIENCE, TRIES};
use crate::replica::peer::request::Request;
use crate::replica::relay::Relay;
use crate::replica::stream::StreamId;

/// A missing value to ask for.
struct Lacking {
    part: StreamId,
    since: Version,
    /// The version before that of the row without value.
    before: Version,
    /// For how many digest intervals it has been missing.
    waited: u32,
}

impl Relay {
    /// Counts a digest interval for all rows that lack values, and drops those that lack none or have waited for too long.
    /// Returns the rows that have waited for long enough to be asked for.
    fn lacking(&mut self, structures: &Structures) -> Vec<Lacking> {
        let mut lacking = Vec::new();
        self.awaiting_values.retain(|part, waited| {
            let Some(held) = structures.get(&part.0) else { return false };
            let Some(progress) = held.structure.progress(&part.1) else { return false };
            // If the actor has a staging copy, this node checks it when the snapshot is complete.
            let Some(before) = held.structure.missing_value(&part.1) else { return progress.staging.is_some() };
            *waited += 1;
            if *waited >= PATIENCE {
                lacking.push(Lacking { part: part.clone(), since: progress.since, before, waited: *waited });
            }
            *waited < TRIES + PATIENCE
        });
        lacking
    }
}

impl Replica {
    /// Cache rows have come from a peer. This node sends values that come late to the peers that got the row without.
    pub(crate) fn note_values(&mut self, peer: &NodeName, part: &StreamId) {
        let Some(held) = self.structures.get(&part.0).filter(|held| held.structure.is_cache()) else { return };
        let (without_value, arrived) = held.structure.take_arrived_values(&part.1);
        if without_value && let Some(link) = self.peers.links.get_mut(peer) {
            link.without_values.insert(part.clone());
        }
        if let Some(before) = arrived {
            for feed in self.peers.links.values_mut().filter_map(|link| link.feeds.get_mut(part)) {
                feed.cursor = feed.cursor.min(before).max(feed.since);
            }
        }
    }

    /// A new link is up: its peer may have values that are missing here.
    pub(crate) fn ask_again_for_values(&mut self) {
        for (id, held) in self.structures.iter().filter(|(_, held)| held.structure.is_cache()) {
            self.relay.await_values(held.structure.actors_without_values().into_iter().map(|actor| (*id, actor)));
        }
    }

    /// Asks for missing values of rows that no write here supersedes, if the peer that sent the rows without values is gone, or
    /// if this node refuses writes of that peer that are too far ahead. See [`Replica::source_of_values`].
    pub(crate) fn ask_for_values(&mut self) {
        for Lacking { part, since, before, waited } in self.relay.lacking(&self.structures) {
            if let Some(peer) = self.source_of_values(&part, waited) {
                self.want(&peer, &part, Request::Rows { since, after: before.max(since) });
            }
        }
    }

    /// The peer to ask for missing values: the owner, or the parent, or else one linked peer after another. A peer may read a
    /// write that is too far ahead for this node. It does not have the values that this write supersedes, so other peers are
    /// asked, if there are any.
    fn source_of_values(&self, part: &StreamId, turn: u32) -> Option<NodeName> {
        let links = &self.peers.links;
        let able = |link: &Link| !link.ahead.iter().any(|(of, _)| *of == part.0);
        let mut peers: Vec<_> = links.iter().filter(|(_, link)| able(link)).map(|(peer, _)| peer).collect();
        if peers.is_empty() {
            peers = links.keys().collect();
        }
        let owner = &part.1.node;
        let linked = self.peers.is_linked(owner) && self.runs.is_current(&part.1);
        let first = if linked { Some(owner) } else { self.relay.parent(part) };
        let first = first.filter(|peer| peers.contains(peer));
        first.or_else(|| peers.get(turn as usize % peers.len().max(1)).copied()).cloned()
    }
}
