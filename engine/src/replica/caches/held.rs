//! The caches of a node, each with the state of its exchange with peers and of its saved copy.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_schemas::inspect::CacheLinkView;
use tallymesh_schemas::saved::{Change, Shape};
use tallymesh_schemas::{Actor, NodeName, StructureId, UnixMs};

use crate::cache::context::Context;
use crate::cache::exchange::Exchange;
use crate::cache::handle::Cache;
use crate::cache::receiver::Receiver;
use crate::cache::writers::Writers;
use crate::primitive::Ordering;
use crate::replica::caches::saved::SavedCache;
use crate::replica::peer::Peers;
use crate::replica::runs::Runs;
use crate::time::Time;

/// The caches by their id on the wire, and for each peer the caches that may have something for it.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(super) held: BTreeMap<StructureId, HeldCache>,
    pub(super) due: BTreeMap<NodeName, BTreeSet<StructureId>>,
    are_saved: bool,
    /// The cache of which entries were collected last, beyond the step of an interval.
    pub(super) collected: Option<StructureId>,
    /// What the wall clock showed at the last input, in milliseconds since 1970.
    pub(crate) unix_ms: UnixMs,
}

/// Whether a cache is exchanged with peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchanged {
    Yes,
    No,
}

/// A cache and the replica's state for it.
#[derive(Debug)]
pub(crate) struct HeldCache {
    pub(crate) cache: Cache,
    pub(super) exchange: Exchange,
    /// Whether the node exchanges it with peers.
    pub(crate) shared: bool,
    /// Entries that have expired, or removals that could be collected, are left.
    pub(super) is_behind: bool,
    /// When writes were last released to be sent.
    flushed_at: Option<Time>,
    pub(super) saved: SavedCache,
}

/// What a node knows of the runs that wrote a cache's entries.
pub(super) struct Known<'a> {
    pub(super) runs: &'a Runs,
    pub(super) peers: &'a Peers,
}

impl Writers for Known<'_> {
    fn is_linked(&self, node: &NodeName) -> bool {
        self.peers.is_linked(node)
    }

    fn has_ended(&self, run: &Actor) -> bool {
        self.runs.is_superseded(run)
    }

    fn lives(&self, run: &Actor) -> bool {
        self.runs.lives(run)
    }
}

impl HeldCache {
    /// The linked peers that have not sent all that this node lacks.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &NodeName> {
        self.exchange.awaited()
    }

    /// What a peer has said of it.
    pub(crate) fn receiver(&self, peer: &NodeName) -> Option<&Receiver> {
        self.exchange.receiver(peer)
    }

    /// What a peer has, as it has reported on its link.
    pub(crate) fn said(&self, peer: &NodeName) -> Option<&Context> {
        self.exchange.said(peer)
    }

    /// The state of the link to a peer, for people.
    pub(crate) fn link_view(&self, peer: &NodeName) -> Option<CacheLinkView> {
        self.exchange.link_view(peer, &self.cache.shared.map.read())
    }

    /// Whether entries of peers wait for room.
    pub(crate) fn is_crowded(&self) -> bool {
        self.exchange.is_crowded()
    }

    /// Whether writes wait to be released.
    fn waits(&self) -> bool {
        self.cache.pending() > 0
    }

    fn due(&self) -> Time {
        self.flushed_at.map_or(Time(0), |at| at.after(self.cache.spec().max_delay))
    }
}

impl Caches {
    pub(crate) fn insert(&mut self, cache: Cache, exchanged: Exchanged, peers: &Peers) {
        if self.are_saved {
            cache.shared.map.write().keep_unsaved();
        }
        let (id, shared) = (cache.id(), exchanged == Exchanged::Yes);
        let (exchange, saved) = (Exchange::new(id), SavedCache::default());
        let mut held = HeldCache { cache, exchange, shared, is_behind: false, flushed_at: None, saved };
        if shared {
            for peer in peers.links.keys() {
                held.exchange.link_up(peer);
                self.due.entry(peer.clone()).or_default().insert(id);
            }
        }
        self.held.insert(id, held);
    }

    pub(crate) fn get(&self, id: StructureId) -> Option<&HeldCache> {
        self.held.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: StructureId) -> Option<&mut HeldCache> {
        self.held.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&StructureId, &HeldCache)> {
        self.held.iter()
    }

    /// The caches from an id on.
    pub(crate) fn from(&self, id: StructureId) -> impl Iterator<Item = (&StructureId, &HeldCache)> {
        self.held.range(id..)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&StructureId, &mut HeldCache)> {
        self.held.iter_mut()
    }

    /// Number of caches that are exchanged with peers.
    pub(crate) fn shared(&self) -> usize {
        self.held.values().filter(|held| held.shared).count()
    }

    /// The number of entries about links.
    pub(crate) fn entries(&self) -> usize {
        self.held.values().map(|held| held.exchange.len()).sum()
    }

    /// A link to a peer that exchanges caches is up.
    pub(crate) fn link_up(&mut self, peer: &NodeName) {
        let shared = self.held.iter_mut().filter(|(_, held)| held.shared);
        let due = shared.map(|(id, held)| {
            held.exchange.link_up(peer);
            *id
        });
        self.due.insert(peer.clone(), due.collect());
    }

    pub(crate) fn link_down(&mut self, peer: &NodeName) {
        self.held.values_mut().for_each(|held| held.exchange.link_down(peer));
        self.due.remove(peer);
    }

    /// A cache may have something for all peers.
    pub(super) fn touch(&mut self, id: StructureId) {
        for due in self.due.values_mut() {
            due.insert(id);
        }
    }

    pub(super) fn touch_one(&mut self, id: StructureId, peer: &NodeName) {
        if let Some(due) = self.due.get_mut(peer) {
            due.insert(id);
        }
    }

    /// Whether there may be something to send to a peer.
    pub(crate) fn has_something(&self, peer: &NodeName) -> bool {
        self.due.get(peer).is_some_and(|due| !due.is_empty())
    }

    /// The time at which waiting writes are due.
    pub(crate) fn next_flush(&self) -> Time {
        let waiting = self.held.values().filter(|held| held.waits());
        waiting.map(HeldCache::due).fold(Time::NEVER, Time::min)
    }

    /// Releases the writes of caches that are due, or of all.
    pub(crate) fn flush(&mut self, now: Time, all: Flush) {
        let mut released = Vec::new();
        for (id, held) in &mut self.held {
            let full = held.cache.pending() >= held.cache.spec().max_pending;
            if held.waits() && (all == Flush::All || full || now >= held.due()) {
                held.cache.shared.pending.store(0, Ordering::SeqCst);
                held.flushed_at = Some(now);
                released.push(*id);
            }
        }
        released.into_iter().for_each(|id| self.touch(id));
    }
}

/// Saving.
impl Caches {
    /// Keeps track of what has to be saved.
    pub(crate) fn keep_state(&mut self) {
        self.held.values().for_each(|held| held.cache.shared.map.write().keep_unsaved());
        self.are_saved = true;
    }

    /// Begins a unit of changes. Returns whether there are any.
    pub(crate) fn begin_unit(&mut self) -> bool {
        let begin = |held: &mut HeldCache| held.saved.begin(&mut held.cache.shared.map.write());
        self.held.values_mut().map(begin).filter(|begun| *begun).count() > 0
    }

    /// The next changes of the unit, about `most` bytes; `None` when all were handed out. Returns their bytes, too.
    pub(crate) fn next_changes(&mut self, most: usize) -> Option<(Change, usize)> {
        self.held.values_mut().find_map(|held| {
            let changes = held.saved.next_changes(&mut held.cache.shared.map.write(), most)?;
            let (anew, entries, contexts) = (changes.anew, changes.entries, changes.contexts);
            let shape = Shape { name: held.cache.spec().name.as_str().to_owned(), class: held.cache.spec().class };
            Some((Change::Entries { shape, anew, entries, contexts }, changes.bytes))
        })
    }

    /// The unit was saved.
    pub(crate) fn note_saved(&mut self) {
        self.held.values_mut().for_each(|held| held.saved.note_saved());
    }

    /// The unit was not saved.
    pub(crate) fn note_failed(&mut self) {
        self.held.values_mut().for_each(|held| held.saved.note_failed(&mut held.cache.shared.map.write()));
    }
}

/// Which writes to release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Due,
    All,
}
