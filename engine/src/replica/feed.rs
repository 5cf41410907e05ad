//! Rows on their way: deltas cut for those who are behind, and deltas taken in.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use tallymesh_schemas::message::{Delta, Message, Want};
use tallymesh_schemas::{NodeName, StructureName, limits};

use super::digest::send;
use super::link::{Feed, Link, Part};
use super::liveness::Standing;
use super::{Event, PeerError, Replica};
use crate::canary::{self, Canary};
use crate::ledger::Applied;
use crate::time::Now;

/// Bytes of rows after which another one may still follow, whatever it holds.
const LARGEST: usize = limits::DELTA_BYTES - limits::VALUE_BYTES - limits::ROW_KEY_BYTES - 64;

impl Replica {
    /// Appends the next message for a link to `buf`, the most urgent first; `false` when there is none.
    pub(super) fn transmit(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        if let Some(nonce) = link.probe.take() {
            send(&Message::Probe { nonce }, buf);
            return true;
        }
        if let Some((_, want)) = link.wants.pop_first() {
            self.counters.wants_out += 1;
            send(&Message::Want(want), buf);
            return true;
        }
        // An answer to a probe comes behind the rows that it speaks of.
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

    /// The feeds take turns: first those behind the one that was served last, then the others.
    fn transmit_delta(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        let last = link.served.take();
        if self.all_rest(link) {
            return false;
        }
        let turns = match &last {
            Some(last) => {
                [Some((Bound::Excluded(last), Bound::Unbounded)), Some((Bound::Unbounded, Bound::Included(last)))]
            }
            None => [Some((Bound::Unbounded, Bound::Unbounded)), None],
        };
        for turn in turns.into_iter().flatten() {
            link.served = self.serve(&mut link.feeds, turn, buf);
            if link.served.is_some() {
                return true;
            }
        }
        false
    }

    /// Cuts the delta of the first feed in `turn` that has one, and drops those that are at their end. Which one it was.
    fn serve(
        &mut self,
        feeds: &mut BTreeMap<Part, Feed>,
        turn: (Bound<&Part>, Bound<&Part>),
        buf: &mut Vec<u8>,
    ) -> Option<Part> {
        let (mut served, mut over) = (None, Vec::new());
        for (part, feed) in feeds.range_mut::<Part, _>(turn) {
            let (sent, keep) = self.cut(part, feed, buf);
            if !keep {
                over.push(part.clone());
            }
            if sent {
                served = Some(part.clone());
                break;
            }
        }
        for part in over {
            feeds.remove(&part);
        }
        served
    }

    /// Whether a feed is one of our own rows that has nothing to send now: so are most of them most of the time.
    fn rests(&self, (id, actor): &Part, feed: &Feed) -> bool {
        let held = self.structures.get(id).filter(|_| !feed.snapshot && *actor == self.actor);
        held.is_some_and(|held| feed.cursor >= held.flushed)
    }

    /// Whether all feeds of a link [rest](Self::rests): until rows of ours are released, or the link changes, they do.
    pub(super) fn all_rest(&self, link: &Link) -> bool {
        link.feeds.iter().all(|(part, feed)| self.rests(part, feed))
    }

    /// Cuts the next delta of a feed. Whether there was one, and whether the feed goes on.
    fn cut(&mut self, part: &Part, feed: &mut Feed, buf: &mut Vec<u8>) -> (bool, bool) {
        if self.rests(part, feed) {
            return (false, true);
        }
        let (id, actor) = part;
        let Some(held) = self.structures.get(id) else { return (false, false) };
        let ours = *actor == self.actor;
        let budget = self.config.delta_bytes.min(LARGEST);
        let known = (feed.since, feed.known);
        let Some(mut cut) = held.structure.cut(actor, known, feed.cursor, budget) else { return (false, false) };
        let at_end = cut.fingerprint.is_some();
        if !ours && self.lives(actor) && !held.structure.is_whole(actor) && !canary::broken(Canary::PiecesTakenForAll) {
            // While the owner lives, nobody takes what may lack rows for all there is.
            cut.fingerprint = None;
        }
        if cut.upto <= feed.cursor && (!feed.snapshot || cut.fingerprint.is_none()) {
            // A snapshot that is not complete yet waits for the rest.
            return (false, ours || feed.snapshot);
        }
        let delta = Delta {
            structure: *id,
            actor: actor.clone(),
            since: feed.since,
            known: feed.known,
            after: feed.cursor,
            upto: cut.upto.max(feed.cursor),
            floor: cut.floor,
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
            // Everything that there is has been sent. A copy that we pass on may lack keys itself.
            feed.known = feed.cursor;
        }
        (true, ours || !at_end || feed.snapshot)
    }

    /// A peer asks for rows.
    pub(super) fn handle_want(&mut self, now: Now, peer: &NodeName, want: &Want) {
        let Some(held) = self.structures.get(&want.structure).filter(|held| held.shared) else { return };
        if want.actor == self.actor && want.after > held.structure.head() {
            return self.conflict(now, want.actor.incarnation, peer);
        }
        if want.actor.node == self.actor.node && want.actor != self.actor && !held.structure.keeps_runs() {
            return;
        }
        let start = held.structure.start(&want.actor, (want.since, want.after), 0, want.snapshot);
        if let Some(link) = self.links.get_mut(peer)
            && let Some(start) = start
        {
            link.feeds.insert((want.structure, want.actor.clone()), Feed::new(want.since, start));
        }
    }

    /// A peer sends rows: its own, or others' that we asked it for.
    pub(super) fn handle_delta(&mut self, now: Now, peer: &NodeName, delta: &Delta<'_>) -> Result<(), PeerError> {
        let part = (delta.structure, delta.actor.clone());
        let asked = self.links.get(peer).is_some_and(|link| link.asked.contains(&part));
        if delta.actor == self.actor || (delta.actor.node != *peer && !asked) {
            // What we count now is ours to tell (I1).
            return self.unasked(peer, part);
        }
        let standing = self.see(now, &delta.actor, peer);
        let Some(held) = self.structures.get(&delta.structure).filter(|held| held.shared) else { return Ok(()) };
        if standing < if held.structure.keeps_runs() { Standing::Earlier } else { Standing::Current } {
            return Ok(());
        }
        let owner = standing == Standing::Current && delta.actor.node == *peer;
        if !owner && !asked {
            return self.unasked(peer, part);
        }
        let name = held.structure.spec().name.clone();
        if let Some(by) = held.structure.ahead(delta, now.unix_ms) {
            self.refuse_ahead(peer, part, name, by);
            return Ok(());
        }
        let applied = held.structure.apply(delta, owner, now.mono);
        let applied = applied.map_err(|error| PeerError::Delta { actor: delta.actor.clone(), error })?;
        if let Some(fingerprint) = delta.fingerprint.filter(|_| !owner && self.lives(&delta.actor)) {
            // Whoever says that it is all there is, has had it all.
            held.structure.note_whole(&delta.actor, delta.upto, fingerprint);
        }
        self.counters.deltas_in += 1;
        self.counters.row_bytes_in += delta.rows.len() as u64;
        match applied {
            Applied::Gap { since, after, snapshot } => {
                self.counters.gaps += 1;
                self.want(peer, &part, since, after, snapshot);
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
            link.asked.remove(&part);
            link.ahead.remove(&part);
        }
        Ok(())
    }

    /// What is not taken is missing here, and so it is asked for again, as anything that was lost.
    fn refuse_ahead(&mut self, peer: &NodeName, part: Part, structure: StructureName, by: Duration) {
        self.counters.ahead += 1;
        let actor = part.1.clone();
        if self.links.get_mut(peer).is_some_and(|link| link.ahead.insert(part)) {
            self.event(Event::Ahead { peer: peer.clone(), structure, actor, by });
        }
    }

    fn unasked(&mut self, peer: &NodeName, part: Part) -> Result<(), PeerError> {
        self.counters.unasked += 1;
        self.event(Event::Unasked { peer: peer.clone(), actor: part.1 });
        Ok(())
    }
}
