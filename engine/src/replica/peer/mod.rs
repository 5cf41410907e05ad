//! The links to peers: digests, the feeds that answer wants, and the clocks of the peers.

pub(crate) mod clock;
mod clock_report;
pub(crate) mod clocks;
pub(crate) mod compare;
mod digest;
pub(crate) mod encode;
mod entry;
mod feed;
pub(crate) mod link;
mod repeated;
pub(crate) mod request;
pub(crate) mod transmit;
mod want;

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, NodeName, StructureId, Version};

use crate::replica::peer::clocks::Clocks;
use crate::replica::peer::link::Link;
use crate::replica::runs::contact::Contact;
use crate::replica::stream::StreamId;

/// The linked peers.
#[derive(Debug)]
pub(crate) struct Peers {
    /// Boxed because links are large and the nodes of the map should be small.
    pub(crate) links: BTreeMap<NodeName, Box<Link>>,
    pub(crate) clocks: Clocks,
    /// The nonce of the last probe; 0 before the first one.
    nonce: u64,
    /// How many links were added.
    added: u64,
    /// How many reports have arrived: digests, and contexts of caches.
    pub(crate) reported: u64,
}

impl Peers {
    pub(crate) fn new(clocks: Clocks) -> Self {
        Self { links: BTreeMap::new(), clocks, nonce: 0, added: 0, reported: 0 }
    }

    pub(crate) fn is_linked(&self, peer: &NodeName) -> bool {
        self.links.contains_key(peer)
    }

    /// The link to a node, and the run that the node states on it.
    pub(crate) fn contact(&self, node: &NodeName) -> Contact {
        self.links.get(node).map_or(Contact::Unlinked, |link| Contact::Linked(link.incarnation()))
    }

    /// Adds a link, and replaces an earlier one to the same peer.
    pub(crate) fn add(&mut self, peer: &NodeName, mut link: Link) {
        // A verification may be in progress. The probe on the previous link was lost with that link.
        link.probe = (self.nonce > 0).then_some(self.nonce);
        self.added += 1;
        link.number = self.added;
        self.clocks.forget(peer);
        self.links.insert(peer.clone(), Box::new(link));
    }

    /// Removes the link to a peer, if there is one.
    pub(crate) fn remove(&mut self, peer: &NodeName) -> Option<Box<Link>> {
        self.clocks.forget(peer);
        self.links.remove(peer)
    }

    /// Rows of a stream have changed: schedules them for the peers that receive them.
    pub(crate) fn touch(&mut self, part: &StreamId) {
        self.links.values_mut().for_each(|link| link.touch(part));
    }

    /// Asks a peer to stop sending these rows.
    pub(crate) fn prune(&mut self, peer: &NodeName, part: &StreamId) {
        if let Some(link) = self.links.get_mut(peer) {
            link.asked.remove(part);
            link.unwant(part);
            link.pruned.insert(part.clone());
            link.prunes.insert(part.clone());
        }
    }

    /// Schedules the tombstones for all peers.
    pub(crate) fn announce_tombstones(&mut self) {
        for link in self.links.values_mut() {
            link.new_tombstone = true;
            link.hurry();
        }
    }

    /// Removes all bookkeeping about the streams that are `gone`.
    pub(crate) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        self.links.values_mut().for_each(|link| link.forget(&gone));
    }

    /// Removes all bookkeeping about structures that do not exist any more.
    pub(crate) fn forget_structures(&mut self, exists: impl Fn(&StructureId) -> bool) {
        for link in self.links.values_mut() {
            link.forget(|(id, _)| !exists(id));
            link.digest_marks.retain(|id, _| exists(id));
            link.structures.retain(&exists);
            link.hurry();
        }
    }

    /// The version of an actor's rows that its peers have applied, at least; the peers without a link have applied none.
    pub(crate) fn acked<'a>(&self, peers: impl Iterator<Item = &'a NodeName>, id: StructureId, of: &Actor) -> Version {
        let acks = peers.map(|name| self.links.get(name).map_or(Version::ZERO, |link| link.peer_applied(id, of)));
        acks.min().unwrap_or(Version::MAX)
    }

    /// The number of entries about all links.
    pub(crate) fn entries(&self) -> usize {
        self.links.values().map(|link| link.entries()).sum()
    }
}

/// Probes.
impl Peers {
    /// The nonce of the next probe.
    pub(crate) fn next_nonce(&self) -> u64 {
        self.nonce + 1
    }

    /// Probes all peers. Returns the nonce.
    pub(crate) fn probe(&mut self) -> u64 {
        self.nonce += 1;
        for link in self.links.values_mut() {
            link.probe = Some(self.nonce);
            link.spoke = false;
        }
        self.nonce
    }

    /// Asks all peers, if all have answered the last probe. A running verification does not begin anew.
    pub(crate) fn ask(&mut self) {
        if self.all_answered(self.nonce) {
            self.nonce += 1;
            self.links.values_mut().for_each(|link| link.probe = Some(self.nonce));
        }
    }

    /// Probes one peer.
    pub(crate) fn probe_one(&mut self, peer: &NodeName) {
        if let Some(link) = self.links.get_mut(peer) {
            self.nonce += 1;
            link.probe = Some(self.nonce);
        }
    }

    /// Sends the last probe again to all peers to which no probe waits to be sent.
    pub(crate) fn repeat_probe(&mut self) {
        for link in self.links.values_mut() {
            link.probe.get_or_insert(self.nonce);
        }
    }

    /// Whether every peer has answered a probe.
    pub(crate) fn all_answered(&self, nonce: u64) -> bool {
        self.links.values().all(|link| link.answered >= nonce)
    }
}
