//! Input: links, messages of peers, and changed counts.

use std::sync::Arc;

use tallymesh_schemas::message::{Message, MessageError};
use tallymesh_schemas::{NodeName, bounds};

use crate::canary::{self, Canary};
use crate::replica::Replica;
use crate::replica::caches::held::Flush;
use crate::replica::held::Held;
use crate::replica::peer::link::Link;
use crate::replica::report::PeerError;
use crate::replica::runs::life::Life;
use crate::replica::timers::Timer;
use crate::time::{Now, Time};

/// The first protocol version with the messages about caches.
const CACHES_SINCE: u8 = 2;

impl Replica {
    /// A link to a peer is up. A link to this node's own name is ignored: that process is not a peer. Reports about this node's
    /// runs come from the other peers.
    pub fn handle_link_up(&mut self, now: Now, peer: &NodeName) {
        self.handle_link_up_with(now, peer, bounds::PROTOCOL_VERSION);
    }

    /// As [`Replica::handle_link_up`], for a link on which the two nodes have agreed on a protocol version. On a link of
    /// version 1 they do not exchange caches.
    pub fn handle_link_up_with(&mut self, now: Now, peer: &NodeName, protocol: u8) {
        if *peer == self.runs.actor.node {
            return;
        }
        let mut link = Link::new(now.mono, Arc::clone(&self.output.tally));
        link.unsent_tombstone = self.runs.contested(peer).cloned();
        if protocol < CACHES_SINCE {
            // A verification names what the two nodes do not exchange.
            link.mismatched.extend(self.caches.iter().filter(|(_, held)| held.shared).map(|(id, _)| *id));
        }
        self.peers.add(peer, link);
        self.timers.set(Timer::Digest(peer.clone()), now.mono);
        self.take_from_owner(peer);
        if protocol >= CACHES_SINCE {
            self.caches.link_up(peer);
        } else {
            // The link may replace one of a later version.
            self.caches.link_down(peer);
        }
        self.set_life(now, peer, Life::Alive);
        // A node with a link is not an invented name.
        if let Some(known) = self.runs.nodes.get_mut(peer) {
            known.reported_by = None;
        }
    }

    /// A link is down. The membership decides whether the peer is dead.
    pub fn handle_link_down(&mut self, peer: &NodeName) {
        if self.peers.remove(peer).is_some() {
            self.timers.stop(&Timer::Digest(peer.clone()));
            self.runs.note_unlinked();
            self.caches.link_down(peer);
            self.replace_parents(peer);
        }
    }

    /// A message from a peer.
    ///
    /// # Errors
    /// [`PeerError`] when it is not a message that a node of this protocol sends.
    pub fn handle_message(&mut self, now: Now, peer: &NodeName, bytes: &[u8]) -> Result<(), PeerError> {
        self.handle_decoded(now, peer, Message::decode(bytes))
    }

    /// A message from a peer, as [`Message::decode`] returned it. A driver that reads the message first decodes it only once.
    ///
    /// # Errors
    /// As of [`Replica::handle_message`].
    pub fn handle_decoded(
        &mut self,
        now: Now,
        peer: &NodeName,
        decoded: Result<Message<'_>, MessageError>,
    ) -> Result<(), PeerError> {
        let Some(link) = self.peers.links.get_mut(peer) else { return Err(PeerError::NoLink(peer.clone())) };
        link.spoke = true;
        self.now = now.mono;
        self.caches.unix_ms = now.unix_ms;
        let result = decoded.map_err(PeerError::from).and_then(|message| {
            match message {
                Message::Digest(digest) => self.handle_digest(now, peer, &digest),
                Message::Want(want) => self.handle_want(now, peer, &want),
                Message::Delta(delta) => return self.handle_delta(now, peer, &delta),
                Message::Probe { nonce } => self.handle_probe(now, peer, nonce),
                Message::Prune(prune) => self.handle_prune(peer, prune),
                Message::Goodbye => self.handle_goodbye(now, peer),
                Message::Seen(_) => {}
                Message::CacheReport(report) => self.handle_cache_report(now, peer, &report),
                Message::CacheEntries(entries) => return self.handle_cache_entries(now, peer, &entries),
                Message::CacheCompare(compare) => self.handle_cache_compare(peer, compare),
                Message::CacheKeys(keys) => self.handle_cache_keys(peer, &keys),
            }
            Ok(())
        });
        self.output.counters.refused += u64::from(result.is_err());
        result
    }

    /// Counts have changed: releases them to be sent, at once or when they are due.
    pub fn handle_changes(&mut self, now: Now) {
        self.now = now.mono;
        self.flush_caches(now, Flush::Due);
        self.release(now.mono, |held| {
            if !held.waits() {
                return false;
            }
            if forgets_to_flush(held, now.mono) {
                held.flushed_at = Some(now.mono);
                return false;
            }
            now.mono >= held.due() || held.structure.pending() >= held.structure.spec().max_pending
        });
        self.hurry_gauge_caches(now);
    }

    /// Releases the changes in the structures that are `due`, so that all linked peers get them.
    fn release(&mut self, now: Time, due: impl Fn(&mut Held) -> bool) {
        for (id, held) in &mut self.structures {
            if due(held) && held.flush(now) {
                self.output.counters.flushes += 1;
                self.peers.touch(&(*id, self.runs.actor.clone()));
            }
        }
    }

    /// Releases all changes.
    pub(crate) fn flush(&mut self, now: Now) {
        self.release(now.mono, |_| true);
        self.flush_caches(now, Flush::All);
    }
}

/// Whether the changes of a structure that have waited are not sent in time.
fn forgets_to_flush(held: &Held, now: Time) -> bool {
    canary::broken(Canary::FlushForgotten) && held.flushed_at.is_some_and(|at| at != now)
}

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Class, Incarnation, StructureSpec, UnixMs};

    use super::*;
    use crate::replica::Config;
    use crate::replica::verify::found::Outcome;

    /// I14: a verification does not say "converged" of a cache that a link of version 1 does not exchange.
    #[test]
    fn a_verification_names_the_caches_that_a_link_does_not_exchange() {
        let [a, b] = ["a", "b"].map(|name| NodeName::new(name).unwrap());
        let mut replica = Replica::new(Config::default(), a, Incarnation(1));
        let cache = replica.replicate_cache(StructureSpec::from(Class::Cache), Arc::new(|| ())).unwrap();
        let now = Now { mono: Time(1), unix_ms: UnixMs(1) };
        replica.handle_link_up_with(now, &b, CACHES_SINCE - 1);
        let nonce = replica.probe(now);
        let found = replica.verification(nonce);
        assert_eq!(found.mismatched, [(b.clone(), cache.spec().name.clone())]);
        assert_eq!(found.outcome(), Outcome::NotConverged);
        replica.handle_link_up_with(now, &b, CACHES_SINCE);
        assert_eq!(replica.verification(nonce).mismatched, []);
    }
}
