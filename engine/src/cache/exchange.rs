//! The exchange of one cache with all linked peers.
//!
//! It owns the state per link and composes it: sessions, marks, comparisons of keys, and rounds of collection.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::inspect::CacheLinkView;
use tallymesh_schemas::message::{CacheCompare, CacheEntries, CacheKeys, CacheReport, Message};
use tallymesh_schemas::rows::RowsError;
use tallymesh_schemas::{Actor, NodeName, StructureId, UnixMs, bounds};

use crate::cache::collect::Round;
use crate::cache::compare::{Answer, Asked, Piece, Question};
use crate::cache::context::{Context, PLACES};
use crate::cache::fingerprint::comparable_after;
use crate::cache::link::{InInterval, Link, Missing};
use crate::cache::map::CacheMap;
use crate::cache::mark::{Limits, Marked};
use crate::cache::receiver::{Always, Reading, Receiver};
use crate::cache::runs::Unmarked;
use crate::cache::writers::Writers;
use crate::canary::{self, Canary};
use crate::time::Now;

/// Intervals for which entries wait for a mark of a run that has ended, or of a node that is gone. Then this replica takes them
/// over, or sends them on.
const UNMARKED: u32 = 5;

/// Intervals after which a peer that has not reported counts as not having the cache.
const SILENT: u32 = 3;

/// The exchange of one cache.
#[derive(Debug)]
pub(crate) struct Exchange {
    structure: StructureId,
    links: BTreeMap<NodeName, Link>,
    /// Sessions so far.
    sessions: u64,
    /// Comparisons so far.
    questions: u64,
    /// The current round of collection.
    round: Option<Round>,
    /// Ended runs of which entries have arrived that no mark has covered.
    ended: Waiting,
    /// The same of runs that have not ended, of nodes that are gone.
    gone: Waiting,
}

/// Runs of which entries wait for a mark.
#[derive(Debug, Default)]
struct Waiting {
    runs: Vec<Unmarked>,
    /// Intervals since nothing about them changed.
    intervals: u32,
}

impl Waiting {
    fn note(&mut self, runs: Vec<Unmarked>) {
        self.intervals = if self.runs == runs { self.intervals.saturating_add(1) } else { 0 };
        self.runs = runs;
    }
}

/// What a message of entries brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Brought {
    /// The first refused entry was this far ahead of the clock, and who wrote it.
    pub(crate) ahead: Option<(Duration, Actor)>,
    /// Entries of new keys found no room.
    pub(crate) no_room: bool,
    /// The message ended with a mark that could be applied.
    pub(crate) is_marked: bool,
}

impl Exchange {
    pub(crate) fn new(structure: StructureId) -> Self {
        let (ended, gone) = (Waiting::default(), Waiting::default());
        Self { structure, links: BTreeMap::new(), sessions: 0, questions: 0, round: None, ended, gone }
    }

    /// A link to a peer is up. The earlier one, if there was one, is void.
    pub(crate) fn link_up(&mut self, peer: &NodeName) {
        // A round is made of what the peers have reported on their present links: a peer may have lost what it had.
        self.round = None;
        let mut link = Link::default();
        self.sessions += 1;
        link.receiver.begin(self.sessions);
        link.report = Some(Always::Yes);
        self.links.insert(peer.clone(), link);
    }

    /// This node is another run now: the peers need what the earlier run has not sent.
    pub(crate) fn walk_again(&mut self) {
        self.links.values_mut().for_each(|link| link.sender.walk_again());
    }

    pub(crate) fn link_down(&mut self, peer: &NodeName) {
        // The round may wait for writes that only this peer had.
        self.round = None;
        self.links.remove(peer);
    }

    /// The linked peers that exchange the cache and have not sent all that this replica lacks.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &NodeName> {
        self.links.iter().filter(|(_, link)| link.is_awaited(SILENT)).map(|(peer, _)| peer)
    }

    /// The number of runs and nodes about which the links keep something.
    pub(crate) fn len(&self) -> usize {
        self.links.values().map(|link| link.sender.len() + link.receiver.len()).sum()
    }

    /// What a peer has, as it has reported on its link.
    pub(crate) fn said(&self, peer: &NodeName) -> Option<&Context> {
        self.links.get(peer)?.receiver.said()
    }

    /// Whether entries of a peer found no room, and were not taken in since.
    pub(crate) fn is_crowded(&self) -> bool {
        self.links.values().any(|link| link.crowded.is_some() || link.receiver.is_crowded())
    }

    /// The state of a link, for people.
    pub(crate) fn link_view(&self, peer: &NodeName, map: &CacheMap) -> Option<CacheLinkView> {
        let link = self.links.get(peer)?;
        let (sends_session, cursor, caught_up) = link.sender.place();
        Some(CacheLinkView {
            sends_session,
            cursor,
            log_end: map.log_end(),
            caught_up,
            receives_session: link.receiver.session(),
            arrived: link.receiver.arrived(),
            broken: link.receiver.is_broken(),
            awaited: link.is_awaited(SILENT),
            comparing: link.question.is_some(),
        })
    }

    /// The receiver of a link.
    pub(crate) fn receiver(&self, peer: &NodeName) -> Option<&Receiver> {
        self.links.get(peer).map(|link| &link.receiver)
    }
}

/// How far a replica believes what a peer states about other nodes.
struct Trust<'a, W> {
    exchange: &'a Exchange,
    /// The run in which the peer is.
    sender: Option<&'a Actor>,
    peer: &'a NodeName,
    writers: &'a W,
}

impl<W: Writers> Limits for Trust<'_, W> {
    fn limit(&self, run: &Actor) -> u64 {
        if self.is_stated_by_its_owner(run) { 0 } else { u64::MAX }
    }

    fn places(&self, run: &Actor) -> usize {
        // Half of the places are for nodes that state their runs themselves.
        if run.node == *self.peer { PLACES } else { bounds::ACTORS_CONTENDED }
    }

    fn has_ended(&self, run: &Actor) -> bool {
        !self.is_stated_by_its_owner(run) && self.writers.has_ended(run)
    }

    fn is_senders(&self, run: &Actor) -> bool {
        self.sender == Some(run)
    }
}

impl<W> Trust<'_, W> {
    /// Whether the peer's word about a run does not count, because the run's own node has a link and sends its writes itself.
    /// Even a statement that keeps to the owner's head would keep out writes of the owner that are still on their way.
    fn is_stated_by_its_owner(&self, run: &Actor) -> bool {
        let owner = self.exchange.links.get(&run.node).filter(|_| run.node != *self.peer);
        owner.is_some_and(|link| match &link.run {
            // It has sent what it has of its earlier runs, and it may not have all.
            Some(current) => run >= current || !link.is_marked,
            None => link.intervals <= SILENT,
        })
    }
}

/// Input.
impl Exchange {
    /// A peer reports what it has. Returns a higher run of this node, or a write that this run never made, if it names one.
    pub(crate) fn handle_report(
        &mut self,
        map: &mut CacheMap,
        (peer, unix_ms): (&NodeName, UnixMs),
        report: &CacheReport,
        writers: &impl Writers,
    ) -> Option<Actor> {
        let link = self.links.get_mut(peer)?;
        link.sender.handle_report(report, |reported| map.start_for(reported));
        link.receiver.handle_report(report);
        let trust = Trust { exchange: self, sender: None, peer, writers };
        report.endings.iter().for_each(|ending| map.end_too(ending, |run| trust.has_ended(run)));
        let link = self.links.get_mut(peer)?;
        let said = link.receiver.said()?;
        map.begin_at(said, unix_ms);
        let is_ours = |run: &Actor, number: u64| {
            run.node == map.me().node
                && (run.incarnation > map.me().incarnation || (run == map.me() && number > map.head()))
        };
        if let Some((run, _)) = said.runs().find(|(run, number)| is_ours(run, *number)) {
            return Some(run.clone());
        }
        link.run = Some(Actor::new(peer.clone(), report.incarnation));
        map.note_sent(self.links.values().map(|link| link.sender.sent(map)).min());
        None
    }

    /// Entries of a peer. Passes each key that changes to `changed`.
    ///
    /// # Errors
    /// The entries cannot be decoded.
    pub(crate) fn handle_entries(
        &mut self,
        map: &mut CacheMap,
        (peer, unix_ms): (&NodeName, UnixMs),
        message: &CacheEntries<'_>,
        writers: &impl Writers,
        changed: impl FnMut(&[u8]),
    ) -> Result<Brought, RowsError> {
        let Some(mut link) = self.links.remove(peer) else { return Ok(Brought::default()) };
        let questions = self.links.values().filter_map(|link| link.question.as_ref()).chain(&link.question);
        let compared: Vec<_> = questions.map(Question::context).collect();
        let reading = Reading { unix_ms, compared: &compared };
        let received = link.receiver.handle_entries(map, message, &reading, changed);
        if let Ok(received) = &received
            && let Some(mark) = &received.mark
        {
            link.is_marked = true;
            let of_peer = mark.runs.iter().filter(|run| run.run.node == *peer);
            of_peer.for_each(|run| link.receiver.note_head(&run.run, run.upto));
            let trust = Trust { exchange: self, sender: link.run.as_ref(), peer, writers };
            let marked = if link.question.is_some() { Marked::Gap } else { map.apply_mark(mark, &trust) };
            match marked {
                Marked::Applied => {
                    link.receiver.note_mark();
                    link.crowded = None;
                }
                Marked::Uncovered if !link.asked.by_us => {
                    let own = (map.seen(), comparable_after(unix_ms));
                    link.question = Some(Question::new(self.questions + 1, mark.clone(), own, &trust));
                    link.asked.by_us = true;
                    self.questions += 1;
                }
                Marked::Gap | Marked::Uncovered => link.receiver.break_off(),
            }
        }
        self.links.insert(peer.clone(), link);
        received.map(|received| {
            let is_marked = received.mark.is_some();
            Brought { ahead: received.ahead, no_room: received.no_room, is_marked }
        })
    }

    /// A peer asks which keys this replica holds.
    pub(crate) fn handle_compare(&mut self, peer: &NodeName, compare: CacheCompare) {
        let Some(link) = self.links.get_mut(peer) else { return };
        if link.asked.by_peer {
            link.next_answer = Some(Answer::new(compare));
        } else {
            link.begin_answer(Answer::new(compare));
        }
    }

    /// A part of the answer of a peer.
    pub(crate) fn handle_keys(&mut self, peer: &NodeName, keys: &CacheKeys<'_>) {
        if let Some(link) = self.links.get_mut(peer)
            && let Some(question) = &mut link.question
            && matches!(question.handle(keys), Asked::Failed)
        {
            link.question = None;
            link.receiver.break_off();
        }
    }
}

/// Time.
impl Exchange {
    /// Whether [`Exchange::work`] has something to do.
    pub(crate) fn is_working(&self) -> bool {
        self.links.values().any(|link| {
            let asks = link.question.as_ref().is_some_and(Question::is_working);
            asks || (link.answer.is_some() && link.piece.is_none())
        })
    }

    /// Walks on with comparisons of keys. Passes each key that changes to `changed`.
    pub(crate) fn work(&mut self, map: &mut CacheMap, writers: &impl Writers, mut changed: impl FnMut(&[u8])) {
        let peers: Vec<_> = self.links.keys().cloned().collect();
        for peer in peers {
            let Some(mut link) = self.links.remove(&peer) else { continue };
            if let Some(answer) = link.answer.as_mut().filter(|_| link.piece.is_none()) {
                link.piece = answer.step(map);
            }
            match link.question.as_mut().map(|question| question.step(map, &mut changed)) {
                Some(Asked::Answered(mark)) => {
                    link.question = None;
                    let sender = link.run.as_ref();
                    let trust = Trust { exchange: self, sender, peer: &peer, writers };
                    if map.apply_compared(&mark, &trust) == Marked::Gap {
                        link.receiver.break_off();
                    }
                }
                Some(Asked::Repairs(repair)) => {
                    link.question = None;
                    link.repair = Some(repair);
                }
                Some(Asked::Waits | Asked::Failed) | None => {}
            }
            self.links.insert(peer, link);
        }
    }

    /// An interval has passed: begins the sessions that have to begin again, asks for what is missing, and reports.
    pub(crate) fn tick(&mut self, map: &mut CacheMap, now: Now, interval: Duration, writers: &impl Writers) {
        for (peer, link) in &mut self.links {
            link.believe_owner(map);
            let missing = link.missing(map, now.mono, interval, (peer, writers));
            if let Missing::Skip(run, upto) = &missing {
                map.skip(run, *upto);
            }
            link.asked = InInterval::default();
            link.intervals = link.intervals.saturating_add(1);
            if let Some(answer) = link.next_answer.take() {
                link.begin_answer(answer);
            }
            if link.question.as_mut().is_some_and(Question::tick) {
                link.receiver.break_off();
            }
            if !link.waits_for_room(now.mono) && (link.receiver.is_broken() || missing == Missing::Ask) {
                if link.needs_relay(peer, writers) {
                    link.receiver.ask_for_all();
                }
                self.sessions += 1;
                link.receiver.begin(self.sessions);
                link.question = None;
                link.report = Some(Always::Yes);
            }
            let is_free = link.question.is_none() && link.repair.is_none();
            if link.differs(map, now.unix_ms) && is_free && differences_are_repaired() {
                let own = (map.seen(), comparable_after(now.unix_ms));
                link.question = Some(Question::about_difference(self.questions + 1, own, link.repairs()));
                link.asked.by_us = true;
                self.questions += 1;
            }
            if link.is_unaware(map) {
                link.receiver.repeat();
                link.report = Some(Always::Yes);
            }
            link.report.get_or_insert(Always::No);
        }
        self.spread_unmarked(map, writers);
    }

    /// Sees to entries that wait for a mark in vain. It takes over those of ended runs. Those of nodes that are gone it sends on as
    /// they are, because it may be this node that is cut off: what the other nodes have since removed must not get another name.
    fn spread_unmarked(&mut self, map: &mut CacheMap, writers: &impl Writers) {
        self.ended.note(map.unmarked(|run| writers.has_ended(run)));
        if self.ended.intervals >= UNMARKED {
            map.take_over(&self.ended.runs);
        }
        self.gone.note(map.unmarked(|run| !writers.has_ended(run) && !writers.lives(run)));
        if self.gone.intervals == UNMARKED && !self.gone.runs.is_empty() && unmarked_writes_are_sent_on() {
            self.links.values_mut().for_each(|link| link.sender.walk_for_unmarked(map));
        }
    }

    /// Reports everything to a peer, whether or not something has changed.
    pub(crate) fn report_to(&mut self, peer: &NodeName) {
        if let Some(link) = self.links.get_mut(peer) {
            link.receiver.repeat();
            link.report = Some(Always::Yes);
        }
    }

    /// Ends a round of collection if it is over, and begins the next one, if all other known nodes have reported. Collects at most
    /// `most` removals, and returns whether more are left: then the round goes on with the next call.
    pub(crate) fn collect(
        &mut self,
        map: &mut CacheMap,
        next: Option<Round>,
        (expiry_ms, most): (UnixMs, usize),
        writers: &impl Writers,
    ) -> bool {
        if let Some(round) = self.round.take_if(|round| round.is_over(map.seen())) {
            if map.collect(&round, expiry_ms, most) {
                self.round = Some(round);
                return true;
            }
            map.end_runs(&round, |run| writers.has_ended(run));
        }
        if self.round.is_none() {
            self.round = next;
        }
        false
    }
}

/// Output.
impl Exchange {
    /// Sends the next message to a peer, if there is one: with `send`. Returns whether there was one.
    pub(crate) fn next(
        &mut self,
        map: &mut CacheMap,
        peer: &NodeName,
        (unix_ms, budget): (UnixMs, usize),
        send: impl FnOnce(&Message<'_>),
    ) -> bool {
        let structure = self.structure;
        let Some(link) = self.links.get_mut(peer) else { return false };
        if let Some(always) = link.report.take()
            && let Some(report) = link.receiver.report(map, structure, always, comparable_after(unix_ms))
        {
            send(&Message::CacheReport(report));
            return true;
        }
        if let Some(question) = link.question.as_mut().filter(|question| question.is_ready()) {
            send(&Message::CacheCompare(question.ask(structure)));
            return true;
        }
        if let Some(Piece { question, position, hashes, seen, parts }) = link.piece.take() {
            if parts.is_some() {
                link.answer = None;
            }
            let keys = CacheKeys { structure, question, position, seen, parts, hashes: &hashes };
            send(&Message::CacheKeys(keys));
            return true;
        }
        if let Some(repair) = &mut link.repair {
            if repair.next(map, structure, send) {
                link.repair = None;
            }
            return true;
        }
        let sent = link.sender.next(map, structure, budget, send);
        if sent {
            map.note_sent(self.links.values().map(|link| link.sender.sent(map)).min());
        }
        sent
    }
}

/// Whether a replica compares its keys with a peer that has taken in the same writes and holds other entries.
fn differences_are_repaired() -> bool {
    !canary::broken(Canary::DifferenceLeft)
}

/// Whether a replica sends on what it holds of a node that is gone and what no mark covers.
fn unmarked_writes_are_sent_on() -> bool {
    !canary::broken(Canary::GoneNotSent)
}
