//! Deltas: cutting them for peers that are behind, and applying the received ones.

use std::ops::Bound;
use std::time::Duration;

use tallymesh_schemas::message::{Delta, Message, Prune, Want};
use tallymesh_schemas::{NodeName, StructureName, bounds};

use crate::canary::{self, Canary};
use crate::counter::join::{Applied, Source};
use crate::counter::sync::Start;
use crate::replica::Replica;
use crate::replica::peer::encode::send;
use crate::replica::peer::link::{Feed, Link};
use crate::replica::report::{Event, PeerError};
use crate::replica::runs::life::RunStatus;
use crate::replica::stream::StreamId;
use crate::rows::span::Span;
use crate::time::Now;

/// A received delta's stream, and why the peer sent it.
#[derive(Debug, Clone)]
struct Sent {
    part: StreamId,
    /// The sender is the owner of the rows.
    owner: bool,
    /// The sender is the parent, which relays these rows to this node.
    parent: bool,
}

/// After this many bytes of rows, one more row of any size still fits.
const LARGEST: usize = bounds::DELTA_BYTES - bounds::VALUE_BYTES - bounds::ROW_KEY_BYTES - 64;

impl Replica {
    /// Appends the next message for a link to `buf`, the most urgent first; `false` when there is none.
    pub(crate) fn transmit(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        if let Some(nonce) = link.probe.take() {
            send(&Message::Probe { nonce }, buf);
            return true;
        }
        if let Some((part, want)) = link.next_want() {
            let missing = want.snapshot || link.peer_progress.get(&part).is_none_or(|said| said.applied > want.after);
            *if missing { &mut self.counters.wants_out } else { &mut self.counters.grafts_out } += 1;
            send(&Message::Want(want), buf);
            return true;
        }
        if let Some(part) = link.prunes.pop_first() {
            let (structure, actor) = part;
            send(&Message::Prune(Prune { structure, actor }), buf);
            return true;
        }
        // The answer to a probe must follow the rows that it reports.
        let answering = link.digest.as_ref().is_some_and(|run| run.answers != 0);
        if answering && self.transmit_delta(link, buf) {
            return true;
        }
        if let Some(run) = link.digest.take() {
            self.transmit_digest(link, &run, buf);
            return true;
        }
        if self.transmit_seen(link, buf) {
            return true;
        }
        if self.transmit_delta(link, buf) {
            return true;
        }
        if self.leaving && !link.said_goodbye {
            link.said_goodbye = true;
            send(&Message::Goodbye, buf);
            return true;
        }
        false
    }

    /// Feeds with rows to send take turns: first those after the feed that was served last, then the others.
    fn transmit_delta(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        let last = link.served.take();
        let turns = match &last {
            Some(last) => {
                [Some((Bound::Excluded(last), Bound::Unbounded)), Some((Bound::Unbounded, Bound::Included(last)))]
            }
            None => [Some((Bound::Unbounded, Bound::Unbounded)), None],
        };
        for (from, to) in turns.into_iter().flatten() {
            let mut from = from.cloned();
            while let Some(part) = link.due.range::<StreamId, _>((from.as_ref(), to)).next().cloned() {
                if self.serve(link, &part, buf) {
                    link.served = Some(part);
                    return true;
                }
                from = Bound::Excluded(part);
            }
        }
        false
    }

    /// Cuts the next delta of a feed, if there is one, and drops the feed if it has ended.
    fn serve(&mut self, link: &mut Link, part: &StreamId, buf: &mut Vec<u8>) -> bool {
        let Some(feed) = link.feeds.get_mut(part) else {
            link.due.remove(part);
            return false;
        };
        let (sent, keep) = self.cut(part, feed, buf);
        // A snapshot may wait until this node's copy is complete, and a digest can report that without rows.
        if !keep || !(sent || feed.snapshot) {
            link.due.remove(part);
        }
        if !keep {
            link.feeds.remove(part);
        }
        sent
    }

    /// Cuts the next delta of a feed. Returns whether there was one, and whether the feed continues.
    fn cut(&mut self, part: &StreamId, feed: &mut Feed, buf: &mut Vec<u8>) -> (bool, bool) {
        let (id, actor) = part;
        let Some(held) = self.structures.get(id) else { return (false, false) };
        let ours = *actor == self.actor;
        // A run that is over has no more rows to send.
        let stands = ours || self.lives(actor);
        if ours && !feed.snapshot && feed.cursor >= held.flushed {
            return (false, true);
        }
        let budget = self.config.delta_bytes.min(LARGEST);
        let known = Span { since: feed.since, upto: feed.keys_complete };
        let Some(mut cut) = held.structure.cut(actor, known, feed.cursor, budget) else { return (false, false) };
        let at_end = cut.fingerprint.is_some();
        if !ours
            && self.lives(actor)
            && !held.structure.is_complete(actor)
            && !canary::broken(Canary::PiecesTakenForAll)
        {
            // While the owner is alive, a receiver must not take a copy that may lack rows as complete.
            cut.fingerprint = None;
        }
        if cut.upto <= feed.cursor && (!feed.snapshot || cut.fingerprint.is_none()) {
            // A snapshot that is not complete yet waits for the rest.
            return (false, stands || feed.snapshot);
        }
        let delta = Delta {
            structure: *id,
            actor: actor.clone(),
            since: feed.since,
            keys_complete: feed.keys_complete,
            after: feed.cursor,
            upto: cut.upto.max(feed.cursor),
            low_water: cut.low_water,
            snapshot: feed.snapshot,
            fingerprint: cut.fingerprint,
            rows: &cut.rows,
        };
        send(&Message::Delta(delta), buf);
        self.counters.deltas_out += 1;
        self.counters.row_bytes_out += cut.rows.len() as u64;
        feed.cursor = cut.upto.max(feed.cursor);
        feed.snapshot &= cut.fingerprint.is_none();
        if ours && at_end {
            // This node has sent all its own rows. A relayed copy may lack keys itself.
            feed.keys_complete = feed.cursor;
        }
        (true, stands || !at_end || feed.snapshot)
    }

    /// A peer asks for rows.
    pub(crate) fn handle_want(&mut self, now: Now, peer: &NodeName, want: &Want) {
        let Some(held) = self.structures.get(&want.structure).filter(|held| held.shared) else { return };
        let ahead = want.actor == self.actor && want.after > held.structure.head();
        if ahead || self.is_later_run(&want.actor) {
            return self.conflict(now, want.actor.incarnation, peer);
        }
        if want.actor.node == self.actor.node && want.actor != self.actor && !held.structure.keeps_runs() {
            return;
        }
        let part = (want.structure, want.actor.clone());
        // The peer may know of retirements beyond its applied version. If the low-water mark has risen since, the peer rejects
        // the delta.
        let floor =
            self.links.get(peer).and_then(|link| link.peer_progress.get(&part)).map_or(0, |said| said.low_water);
        let wanted = Start { cursor: want.after, snapshot: want.snapshot };
        let start = held.structure.start(&want.actor, want.since, floor, wanted);
        // This node records nothing for actors that it does not hold: a peer may ask for runs that do not exist.
        let Some(have) = held.structure.progress(&want.actor).map(|have| have.have) else { return };
        let Some(link) = self.links.get_mut(peer) else { return };
        if let Some(start) = start {
            link.feed(part.clone(), Feed::new(want.since, start));
        }
        if part.1 != self.actor {
            self.break_cycle(peer, want, have);
            if start.is_some() { &mut self.forwarded } else { &mut self.wanted_history }.insert(part);
        }
    }

    /// A peer sends rows: its own, or rows of other actors that this node asked for.
    pub(crate) fn handle_delta(&mut self, now: Now, peer: &NodeName, delta: &Delta<'_>) -> Result<(), PeerError> {
        let part = (delta.structure, delta.actor.clone());
        let parent = self.parent(&part) == Some(peer);
        let asked = parent || self.links.get(peer).is_some_and(|link| link.asked.contains(&part));
        if !asked && delta.actor != self.actor && self.links.get(peer).is_some_and(|link| link.pruned.contains(&part)) {
            // The peer has not received the prune yet. The rows come from another peer.
            self.prune(peer, &part);
            return Ok(());
        }
        if !asked && delta.actor.node != *peer && self.is_over(&delta.actor) {
            // The peer does not know yet that there is a later run. This node asked when there was none.
            self.refuse(peer, part);
            return Ok(());
        }
        if delta.actor == self.actor || (delta.actor.node != *peer && !asked) {
            // Only this node may send its current counts (I1).
            return self.unasked(peer, part);
        }
        let standing = self.note_run(now, &delta.actor, peer);
        let Some(held) = self.structures.get(&delta.structure).filter(|held| held.shared) else { return Ok(()) };
        if standing < if held.structure.keeps_runs() { RunStatus::Earlier } else { RunStatus::Current } {
            return Ok(());
        }
        let owner = standing == RunStatus::Current && delta.actor.node == *peer;
        if !owner && !asked {
            return self.unasked(peer, part);
        }
        let sent = Sent { part, owner, parent };
        let Some(ahead) = held.structure.ahead(delta, now.unix_ms) else {
            return self.join_delta(now, peer, delta, sent);
        };
        let name = held.structure.spec().name.clone();
        if ahead.upto > delta.after {
            let rows = delta.rows.get(..ahead.bytes).unwrap_or_default();
            let before = Delta { upto: ahead.upto, fingerprint: None, rows, ..delta.clone() };
            self.join_delta(now, peer, &before, sent.clone())?;
        }
        self.refuse_ahead(peer, sent.part, name, ahead.by);
        Ok(())
    }

    /// Applies a delta that the peer had reason to send.
    fn join_delta(&mut self, now: Now, peer: &NodeName, delta: &Delta<'_>, sent: Sent) -> Result<(), PeerError> {
        let Sent { part, owner, parent } = sent;
        let Some(held) = self.structures.get(&delta.structure) else { return Ok(()) };
        let name = held.structure.spec().name.clone();
        let source = if owner { Source::Owner } else { Source::Other };
        let applied = held.structure.apply(delta, source, now.mono);
        let applied = applied.map_err(|error| PeerError::Delta { actor: delta.actor.clone(), error })?;
        if let Some(fingerprint) = delta.fingerprint.filter(|_| !owner && self.lives(&delta.actor)) {
            // A peer that marks its copy as complete has held all rows.
            held.structure.note_complete(&delta.actor, delta.upto, fingerprint);
        }
        self.counters.deltas_in += 1;
        self.counters.row_bytes_in += delta.rows.len() as u64;
        self.note_values(peer, &part);
        self.forward(&part);
        match applied {
            Applied::Gap { since, after, snapshot } => {
                self.counters.gaps += 1;
                // Rows too far ahead reopen the gap each time they come. This node asks for them at the next check instead.
                if self.links.get(peer).is_none_or(|link| !link.ahead.contains(&part)) {
                    self.want(peer, &part, since, after, snapshot);
                }
            }
            Applied::Diverged => self.diverged(peer, part.clone(), name),
            Applied::Doubted => self.contradicted(peer, part.clone(), 0),
            Applied::Replaced => {
                self.counters.replaced += 1;
                self.event(Event::Replaced { structure: name, actor: delta.actor.clone() });
            }
            Applied::Advanced | Applied::Stale | Applied::Part => {}
        }
        if delta.fingerprint.is_some()
            && matches!(applied, Applied::Advanced | Applied::Stale | Applied::Replaced)
            && let Some(link) = self.links.get_mut(peer)
        {
            link.ahead.remove(&part);
            if link.asked.remove(&part) && !parent {
                // This was a single request. Later rows come from the owner, or on a new request.
                self.prune(peer, &part);
            }
        }
        Ok(())
    }

    /// The refused rows remain missing, so this node asks for them again, as for lost rows.
    fn refuse_ahead(&mut self, peer: &NodeName, part: StreamId, structure: StructureName, by: Duration) {
        self.counters.ahead += 1;
        let actor = part.1.clone();
        if self.links.get_mut(peer).is_some_and(|link| link.ahead.insert(part)) {
            self.event(Event::Ahead { peer: peer.clone(), structure, actor, by });
        }
    }

    fn unasked(&mut self, peer: &NodeName, part: StreamId) -> Result<(), PeerError> {
        self.counters.unasked += 1;
        self.event(Event::Unasked { peer: peer.clone(), actor: part.1 });
        Ok(())
    }
}
