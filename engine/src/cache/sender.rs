//! Sending a cache's entries to a peer.
//!
//! A sender keeps a position in its log for each peer. It walks the log to the end, skips what the peer's context covers, and
//! ends with a **mark**: the peer has now taken in what the mark states, because for each of those writes the log has that
//! write or a later one of the same key.
//!
//! - A **full** walk sends all entries, and its mark states the sender's context as a whole. A session begins with one. All
//!   its walks are full if the peer asks for the entries of all writers.
//! - Otherwise each node sends only its own writes, because in a full mesh every node hears every writer. A write of another
//!   node that has replaced an own write that the peer may lack is sent as well: without it, the mark, which states the own
//!   writes, would promise more than the peer has.

use tallymesh_schemas::entries::{EntryWriter, WireEntry};
use tallymesh_schemas::message::{CacheContext, CacheEntries, CacheMark, CacheReport, Message, RunMark};
use tallymesh_schemas::{Actor, StructureId, bounds};

use crate::cache::context::Context;
use crate::cache::entry::{Entry, RunId};
use crate::cache::map::CacheMap;
use crate::canary::{self, Canary};

/// After this many bytes of entries, one more of any size still fits into a message.
const LARGEST: usize = bounds::DELTA_BYTES - bounds::VALUE_BYTES - bounds::KEY_BYTES - (256 << 10);

/// Runs whose entries one message contains at most.
const RUNS: usize = 1024;

/// A mark that may name more runs and nodes than this does not travel with entries: together they could exceed a frame.
const NAMED: usize = 512;

/// Entries that one message passes at most, sent or not.
const PASSED: usize = 1 << 16;

/// The state of sending one cache to one peer.
#[derive(Debug, Default)]
pub(crate) struct Sender {
    /// The session, as the peer has numbered it; 0 before its first report.
    session: u64,
    /// The number of the last report.
    report: u64,
    /// What the peer has reported.
    reported: Context,
    /// What the peer has when everything that was sent has arrived.
    assumed: Context,
    /// The peer wants the entries of all writers.
    relays: bool,
    /// The mark of the full walk at the beginning of the session was sent.
    caught_up: bool,
    /// Everything in the log up to this position was sent, or did not have to be.
    cursor: u64,
    /// Messages of the session.
    messages: u64,
}

/// The entries of one message.
#[derive(Debug, Default)]
pub(super) struct Cut {
    runs: Vec<Actor>,
    /// The positions of runs in `runs`.
    places: Vec<(RunId, u32)>,
    entries: EntryWriter,
    /// The walk has reached the end of the log.
    at_end: bool,
}

impl Sender {
    /// The peer reports what it has. `start` returns a position up to which a peer with this context has everything.
    pub(crate) fn handle_report(&mut self, report: &CacheReport, start: impl FnOnce(&Context) -> u64) {
        if (report.session, report.number) <= (self.session, self.report) {
            return;
        }
        if report.session > self.session {
            let reported = Context::from(&report.seen);
            *self = Self {
                session: report.session,
                cursor: start(&reported),
                assumed: reported.clone(),
                reported,
                relays: report.relay,
                ..Self::default()
            };
        } else {
            self.reported.join_stated(&report.seen);
            self.assumed.join_stated(&report.seen);
        }
        self.report = report.number;
    }

    /// Sends everything that the peer lacks, whichever run wrote it.
    pub(crate) fn walk_again(&mut self) {
        self.cursor = 0;
        self.caught_up = false;
    }

    /// Sends what the peer lacks although no mark has stated it, whichever run wrote it.
    pub(crate) fn walk_for_unmarked(&mut self, map: &CacheMap) {
        self.cursor = self.cursor.min(map.start_for(&self.assumed));
        self.caught_up = false;
    }

    /// The session, the position in the log up to which everything was sent, and whether the first walk of the session is over.
    pub(crate) fn place(&self) -> (u64, u64, bool) {
        (self.session, self.cursor, self.caught_up)
    }

    /// Up to which own write everything was sent.
    pub(crate) fn sent(&self, map: &CacheMap) -> u64 {
        self.assumed.reached(&map.me)
    }

    /// The number of runs and nodes about which it keeps something.
    pub(crate) fn len(&self) -> usize {
        self.reported.len() + self.assumed.len()
    }

    fn walks_fully(&self) -> bool {
        self.relays || !self.caught_up
    }

    /// Whether there is something to send.
    pub(crate) fn has_something(&self, map: &CacheMap) -> bool {
        self.session != 0 && (self.cursor < map.log.end() || !self.caught_up || self.states_more(map))
    }

    /// Whether a mark would state more than the peer has.
    fn states_more(&self, map: &CacheMap) -> bool {
        if self.relays { !map.seen.is_within(&self.assumed) } else { map.head() > self.sent(map) }
    }

    /// Appends the next message to `buf`. Returns whether there was something to send.
    pub(crate) fn next(
        &mut self,
        map: &CacheMap,
        structure: StructureId,
        budget: usize,
        send: impl FnOnce(&Message<'_>),
    ) -> bool {
        if !self.has_something(map) {
            return false;
        }
        let cut = self.cut(map, budget.min(LARGEST));
        let is_in_a_message_of_its_own = map.seen.len() + map.collected.len() > NAMED && !cut.entries.is_empty();
        let mark = (cut.at_end && !is_in_a_message_of_its_own).then(|| self.mark(map));
        let mark = mark.filter(|mark| mark.states_something() || !self.caught_up);
        if mark.is_some() {
            self.caught_up = true;
        }
        if cut.at_end && mark.is_none() && cut.entries.is_empty() {
            return false;
        }
        cut.send((structure, self.session, self.messages), mark, send);
        self.messages += 1;
        true
    }

    /// Walks on in the log.
    fn cut(&mut self, map: &CacheMap, budget: usize) -> Cut {
        let reached = map.runs.reached(&self.assumed);
        let own = map.runs.find(&map.me);
        let full = self.walks_fully();
        let mut cut = Cut::default();
        for (passed, (position, slot)) in map.log.behind(self.cursor).enumerate() {
            let Some(entry) = map.slots.get(slot) else { continue };
            if passed >= PASSED || cut.is_full(budget) {
                return cut;
            }
            let covered = reached.get(entry.run as usize).is_some_and(|reached| entry.number <= *reached);
            if !covered && (full || Some(entry.run) == own || is_sent_with_own(entry)) {
                cut.push(map, entry);
            }
            self.cursor = position;
        }
        self.cursor = map.log.end();
        cut.at_end = true;
        cut
    }

    /// States what the peer has now, and notes that it has it.
    fn mark(&mut self, map: &CacheMap) -> CacheMark {
        let collected = map.collected.beyond(&self.reported);
        let mut mark = CacheMark { runs: Vec::new(), ended: Vec::new(), collected };
        if self.walks_fully() {
            let beyond = map.seen.beyond(&self.assumed);
            let run_mark = |(run, upto): (Actor, u64)| {
                // What this replica has skipped it cannot send.
                let after = self.assumed.reached(&run).max(map.skipped.reached(&run));
                (after < upto).then_some(RunMark { run, after, upto })
            };
            mark.runs = beyond.runs.into_iter().filter_map(run_mark).collect();
            if map.is_whole() {
                mark.ended = beyond.ended;
            }
            self.assumed.join(&map.seen);
        } else if map.head() > self.sent(map) {
            mark.runs.push(RunMark { run: map.me.clone(), after: self.sent(map), upto: map.head() });
            self.assumed.raise(&map.me, map.head());
        }
        mark
    }
}

/// Whether another node's write is sent together with the own ones.
fn is_sent_with_own(entry: &Entry) -> bool {
    entry.over_own && !canary::broken(Canary::ReplacedLeftOut)
}

impl Cut {
    /// Whether it has this many bytes of entries, or names as many runs as one message may.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.entries.len() >= bytes || self.runs.len() >= RUNS
    }

    /// Sends it as a message of a session.
    pub(super) fn send(
        self,
        (structure, session, position): (StructureId, u64, u64),
        mark: Option<CacheMark>,
        send: impl FnOnce(&Message<'_>),
    ) {
        let (runs, entries) = (self.runs, &*self.entries.finish());
        send(&Message::CacheEntries(CacheEntries { structure, session, position, runs, entries, mark }));
    }

    pub(super) fn push(&mut self, map: &CacheMap, entry: &Entry) {
        let known = self.places.iter().rev().find(|(run, _)| *run == entry.run).map(|(_, place)| *place);
        let run = known.unwrap_or_else(|| {
            let place = u32::try_from(self.runs.len()).unwrap_or(u32::MAX);
            self.runs.push(map.writer(entry).clone());
            self.places.push((entry.run, place));
            place
        });
        let (number, stamp, expires_ms) = (entry.number, entry.stamp.0, entry.expires_ms);
        self.entries.push(&WireEntry {
            run,
            number,
            stamp,
            key: entry.key(),
            expires_ms: expires_ms.0,
            value: entry.value(),
        });
    }
}

/// Whether a mark states anything.
trait States {
    fn states_something(&self) -> bool;
}

impl States for CacheMark {
    fn states_something(&self) -> bool {
        let nothing = CacheContext::default();
        !self.runs.is_empty() || !self.ended.is_empty() || self.collected != nothing
    }
}
