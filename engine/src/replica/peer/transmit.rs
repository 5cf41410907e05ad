//! Messages to a peer: the next one for a link is cut when the link has room.

use std::ops::Bound as End;

use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, Prune, StructureDigest};
use tallymesh_schemas::{Actor, StructureId, UnixMs, bounds};

use crate::canary::{self, Canary};
use crate::counter::structure::Structure;
use crate::replica::changed::ChangeOrder;
use crate::replica::held::{Held, Structures};
use crate::replica::output::Output;
use crate::replica::peer::encode::send;
use crate::replica::peer::link::{DigestRun, Feed, Link};
use crate::replica::runs::Runs;
use crate::replica::stream::StreamId;
use crate::rows::span::Span;
use crate::time::Time;

/// After this many bytes of rows, one more row of any size still fits.
const LARGEST: usize = bounds::DELTA_BYTES - bounds::VALUE_BYTES - bounds::ROW_KEY_BYTES - 64;

/// The state from which the messages for one link are cut. Nothing that is sent to one peer depends on the links to the others.
pub(crate) struct Transmission<'a> {
    pub(crate) structures: &'a Structures,
    pub(crate) changes: &'a mut ChangeOrder,
    pub(crate) runs: &'a Runs,
    pub(crate) output: &'a mut Output,
    /// Bytes of rows in one delta.
    pub(crate) delta_bytes: usize,
    /// What this node's window clock shows.
    pub(crate) clock_ms: UnixMs,
    /// The time of the last input.
    pub(crate) now: Time,
    pub(crate) leaving: bool,
}

/// The result of a feed's turn.
struct Turn {
    /// A delta was sent.
    sent: bool,
    /// The feed has not ended.
    continues: bool,
}

impl Transmission<'_> {
    /// Appends the next message for a link to `buf`, the most urgent first; `false` when there is none.
    pub(crate) fn next(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        if let Some(nonce) = link.probe.take() {
            send(&Message::Probe { nonce }, buf);
            return true;
        }
        if let Some((part, want)) = link.next_want() {
            let missing = want.snapshot || link.peer_progress.get(&part).is_none_or(|said| said.applied > want.after);
            let counters = &mut self.output.counters;
            *if missing { &mut counters.wants_out } else { &mut counters.grafts_out } += 1;
            send(&Message::Want(want), buf);
            return true;
        }
        if let Some((structure, actor)) = link.prunes.pop_first() {
            send(&Message::Prune(Prune { structure, actor }), buf);
            return true;
        }
        // The answer to a probe must follow the rows that it reports.
        let answering = link.digest.as_ref().is_some_and(|run| run.answers != 0);
        if answering && self.delta(link, buf) {
            return true;
        }
        if let Some(run) = link.digest.take() {
            self.digest(link, run, buf);
            return true;
        }
        if self.delta(link, buf) {
            return true;
        }
        if self.leaving && !link.said_goodbye {
            link.said_goodbye = true;
            send(&Message::Goodbye, buf);
            return true;
        }
        false
    }
}

/// The entries of a digest message.
struct Listed<'a> {
    structures: Vec<StructureDigest<'a>>,
    /// How many more entries fit.
    left: usize,
    last: Option<StreamId>,
}

impl<'a> Listed<'a> {
    fn add(&mut self, id: StructureId, held: &'a Held, entries: Vec<DigestEntry>) {
        let Some(entry) = entries.last() else { return };
        self.last = Some((id, entry.actor.clone()));
        let name = held.structure.spec().name.as_str();
        self.structures.push(StructureDigest { structure: id, name, kind: held.structure.kind(), entries });
    }
}

/// Digests.
impl<'a> Transmission<'a> {
    /// Appends the next message of a digest to `buf`.
    fn digest(&mut self, link: &mut Link, run: DigestRun, buf: &mut Vec<u8>) {
        let mut listed = Listed { structures: Vec::new(), left: bounds::DIGEST_ENTRIES, last: run.last.clone() };
        if run.full {
            self.list_all(link, &run, &mut listed);
        } else {
            self.changes.update(self.structures);
            self.list_changes(link, &mut listed);
        }
        let done = listed.left > 0;
        let mut tombstones = Vec::new();
        if done && (run.full || link.new_tombstone) {
            link.new_tombstone = false;
            tombstones.extend(self.runs.tombstones().cloned());
        }
        if done && let Some(unsent) = link.unsent_tombstone.take().filter(|_| tombstones.len() < bounds::TOMBSTONES) {
            tombstones.push(unsent);
        }
        let digest = Digest {
            incarnation: self.runs.actor.incarnation,
            clock_ms: self.clock_ms,
            answers: run.answers,
            complete: done && run.full,
            structures: listed.structures,
            tombstones,
        };
        if !done {
            let last = listed.last.filter(|_| run.full);
            link.digest = Some(DigestRun { last, ..run });
        }
        self.output.counters.digests_out += 1;
        send(&Message::Digest(digest), buf);
    }

    /// Lists the next entries of a digest of everything.
    fn list_all(&self, link: &mut Link, run: &DigestRun, listed: &mut Listed<'a>) {
        let structures: &'a Structures = self.structures;
        let from = run.last.as_ref().map_or(StructureId(0), |(id, _)| *id);
        for (id, held) in structures.range(from..).filter(|(_, held)| held.shared) {
            let after = run.last.as_ref().filter(|(last, _)| last == id).map(|(_, actor)| actor);
            if after.is_none() {
                // Changes from now on are reported again.
                link.digest_marks.insert(*id, held.structure.last_change());
            }
            let mut entries = Vec::new();
            held.structure.digest(after, self.now, &mut |entry| self.list(entry, &mut listed.left, &mut entries));
            listed.add(*id, held, entries);
            if listed.left == 0 {
                return;
            }
        }
    }

    /// Lists what has changed since the last digest.
    fn list_changes(&self, link: &mut Link, listed: &mut Listed<'a>) {
        let structures: &'a Structures = self.structures;
        for id in self.changes.behind(link.changes_mark) {
            let Some(held) = structures.get(&id).filter(|held| held.shared) else { continue };
            let mark = link.digest_marks.entry(id).or_default();
            let mut entries = Vec::new();
            let tell = &mut |entry| self.list(entry, &mut listed.left, &mut entries);
            *mark = held.structure.changes(*mark, self.now, tell);
            listed.add(id, held, entries);
            if listed.left == 0 {
                return;
            }
        }
        link.changes_mark = self.changes.last();
    }

    /// Lists an entry, if it is to be told. Returns false if there is no room for it.
    fn list(&self, entry: DigestEntry, left: &mut usize, entries: &mut Vec<DigestEntry>) -> bool {
        if self.runs.keeps_to_itself(&entry) {
            return true;
        }
        if *left == 0 {
            return false;
        }
        *left -= 1;
        entries.push(entry);
        true
    }
}

/// Deltas.
impl Transmission<'_> {
    /// Feeds with rows to send take turns: first those after the feed that was served last, then the others.
    fn delta(&mut self, link: &mut Link, buf: &mut Vec<u8>) -> bool {
        let last = link.served.take();
        let turns = match &last {
            Some(last) => [Some((End::Excluded(last), End::Unbounded)), Some((End::Unbounded, End::Included(last)))],
            None => [Some((End::Unbounded, End::Unbounded)), None],
        };
        for (from, to) in turns.into_iter().flatten() {
            let mut from = from.cloned();
            while let Some(part) = link.due.range::<StreamId, _>((from.as_ref(), to)).next().cloned() {
                if self.serve(link, &part, buf) {
                    link.served = Some(part);
                    return true;
                }
                from = End::Excluded(part);
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
        let Turn { sent, continues } = self.cut(part, feed, buf);
        // A snapshot may wait until this node's copy is complete, and a digest can report that without rows.
        if !continues || !(sent || feed.snapshot) {
            link.due.remove(part);
        }
        if !continues {
            link.feeds.remove(part);
        }
        sent
    }

    /// Cuts the next delta of a feed.
    fn cut(&mut self, part: &StreamId, feed: &mut Feed, buf: &mut Vec<u8>) -> Turn {
        let (id, actor) = part;
        let Some(held) = self.structures.get(id) else { return Turn { sent: false, continues: false } };
        let ours = *actor == self.runs.actor;
        // A run that is over has no more rows to send.
        let stands = ours || self.runs.lives(actor);
        if ours && !feed.snapshot && feed.cursor >= held.flushed {
            return Turn { sent: false, continues: true };
        }
        let budget = self.delta_bytes.min(LARGEST);
        let known = Span { since: feed.since, upto: feed.keys_complete };
        let Some(mut cut) = held.structure.cut(actor, known, feed.cursor, budget) else {
            return Turn { sent: false, continues: false };
        };
        let at_end = cut.fingerprint.is_some();
        if !ours && stands && is_partial(&held.structure, actor) {
            // While the owner is alive, a receiver must not take a copy that may lack rows as complete.
            cut.fingerprint = None;
        }
        if cut.upto <= feed.cursor && (!feed.snapshot || cut.fingerprint.is_none()) {
            // A snapshot that is not complete yet waits for the rest.
            return Turn { sent: false, continues: stands || feed.snapshot };
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
        self.output.counters.deltas_out += 1;
        self.output.counters.row_bytes_out += cut.rows.len() as u64;
        feed.cursor = cut.upto.max(feed.cursor);
        feed.snapshot &= cut.fingerprint.is_none();
        if ours && at_end {
            // This node has sent all its own rows. A relayed copy may lack keys itself.
            feed.keys_complete = feed.cursor;
        }
        Turn { sent: true, continues: stands || !at_end || feed.snapshot }
    }
}

/// Whether this node's copy of an actor's rows may lack rows.
fn is_partial(structure: &Structure, actor: &Actor) -> bool {
    !structure.is_complete(actor) && !canary::broken(Canary::PiecesTakenForAll)
}
