//! Input: links, messages of peers, and changed counts.

use std::sync::Arc;

use tallymesh_schemas::NodeName;
use tallymesh_schemas::message::{Message, MessageError};

use crate::canary::{self, Canary};
use crate::replica::Replica;
use crate::replica::held::Held;
use crate::replica::peer::link::Link;
use crate::replica::report::PeerError;
use crate::replica::runs::life::Life;
use crate::replica::timers::Timer;
use crate::time::{Now, Time};

impl Replica {
    /// A link to a peer is up. A link to this node's own name is ignored: that process is not a peer. Reports about this node's
    /// runs come from the other peers.
    pub fn handle_link_up(&mut self, now: Now, peer: &NodeName) {
        if *peer == self.runs.actor.node {
            return;
        }
        let mut link = Link::new(now.mono, Arc::clone(&self.output.tally));
        link.unsent_tombstone = self.runs.contested(peer).cloned();
        self.peers.add(peer, link);
        self.timers.set(Timer::Digest(peer.clone()), now.mono);
        self.take_from_owner(peer);
        self.ask_again_for_values();
        self.set_life(now, peer, Life::Alive);
        // A node with a link is not an invented name.
        if let Some(known) = self.runs.nodes.get_mut(peer) {
            known.reported_by = None;
        }
    }

    /// A link is down. The membership decides whether the peer is dead.
    pub fn handle_link_down(&mut self, peer: &NodeName) {
        if let Some(link) = self.peers.remove(peer) {
            self.timers.stop(&Timer::Digest(peer.clone()));
            self.runs.note_unlinked();
            self.relay.await_values(link.without_values);
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
        let result = decoded.map_err(PeerError::from).and_then(|message| {
            match message {
                Message::Digest(digest) => self.handle_digest(now, peer, &digest),
                Message::Want(want) => self.handle_want(now, peer, &want),
                Message::Delta(delta) => return self.handle_delta(now, peer, &delta),
                Message::Probe { nonce } => self.handle_probe(now, peer, nonce),
                Message::Seen(seen) => self.handle_seen(peer, seen),
                Message::Prune(prune) => self.handle_prune(peer, prune),
                Message::Goodbye => self.handle_goodbye(now, peer),
            }
            Ok(())
        });
        self.output.counters.refused += u64::from(result.is_err());
        result
    }

    /// Counts have changed: releases them to be sent, at once or when they are due.
    pub fn handle_changes(&mut self, now: Now) {
        self.now = now.mono;
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
    }

    /// Releases the changes in the structures that are `due`, so that all linked peers get them.
    fn release(&mut self, now: Time, due: impl Fn(&mut Held) -> bool) {
        for (id, held) in &mut self.structures {
            if due(held) && held.flush(now) {
                self.peers.touch(&(*id, self.runs.actor.clone()));
            }
        }
    }

    /// Releases all changes.
    pub(crate) fn flush(&mut self, now: Now) {
        self.release(now.mono, |_| true);
    }
}

/// Whether the changes of a structure that have waited are not sent in time.
fn forgets_to_flush(held: &Held, now: Time) -> bool {
    canary::broken(Canary::FlushForgotten) && held.flushed_at.is_some_and(|at| at != now)
}
