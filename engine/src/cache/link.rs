//! One link over which a cache is exchanged.

use std::time::Duration;

use tallymesh_schemas::{Actor, Incarnation, NodeName, UnixMs};

use crate::cache::compare::{Answer, Piece, Question, Repair, Repairs};
use crate::cache::context::Context;
use crate::cache::map::CacheMap;
use crate::cache::receiver::{Always, Receiver};
use crate::cache::sender::Sender;
use crate::cache::writers::Writers;
use crate::pause::Pause;
use crate::time::Time;

/// Intervals for which a replica lacks writes that a peer has, before it asks that peer for them.
const PATIENCE: u32 = 2;

/// The same if the writer is linked and sends them itself.
const PATIENCE_WITH_OWNER: u32 = 5;

/// Intervals for which a peer lacks something and reports nothing, before this replica reports everything again.
const UNAWARE: u32 = 4;

/// Intervals for which a peer with the same writes holds other entries, before this replica compares keys with it.
const DIFFERENT: u32 = 4;

/// Intervals for which a peer states less of its run than this replica counts as taken in, before the replica believes it. Its
/// report may have been on its way for long.
const DOUBTS: u32 = 2;

/// The state of one link.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) sender: Sender,
    pub(super) receiver: Receiver,
    pub(super) question: Option<Question>,
    pub(super) answer: Option<Answer>,
    /// A question of the peer that came in the interval of another one, and waits for the next interval.
    pub(super) next_answer: Option<Answer>,
    /// What was asked in this interval.
    pub(super) asked: InInterval,
    /// Intervals since the link is up.
    pub(super) intervals: u32,
    /// The peer has sent a mark.
    pub(super) is_marked: bool,
    /// The peer's run, as it has stated.
    pub(super) run: Option<Actor>,
    /// For so many intervals the peer has stated less of its run than this replica counts as taken in.
    pub(super) doubts: u32,
    /// A piece of the answer that waits to be sent.
    pub(super) piece: Option<Piece>,
    /// What it sends because the peer has taken in the same writes and holds other entries.
    pub(super) repair: Option<Repair>,
    /// A report to send.
    pub(super) report: Option<Always>,
    pub(super) behind: Option<Behind>,
    /// For so many intervals the peer has taken in the same writes and held other entries.
    pub(super) differing: u32,
    /// Entries found no room: the pause before the next session.
    pub(super) crowded: Option<Pause>,
    /// The number of the peer's last report, and the intervals since then in which it lacked something.
    lacking: ((u64, u64), u32),
}

/// A peer has more of a run than this replica.
#[derive(Debug)]
pub(super) struct Behind {
    /// The run, and what this replica has of it.
    pub(super) position: (Actor, u64),
    pub(super) since: Time,
    /// This replica has asked for it.
    pub(super) is_asked: bool,
    /// The messages of the session that had arrived.
    pub(super) arrived: u64,
}

/// What follows from a peer having more of a run than this replica.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing, or nothing yet.
    Nothing,
    /// To ask the peer.
    Ask,
    /// The peer cannot send it: it has joined without it.
    Skip(Actor, u64),
}

/// Which questions there were in an interval. A comparison walks all entries, so each side begins one in an interval.
#[derive(Debug, Default)]
pub(super) struct InInterval {
    pub(super) by_us: bool,
    pub(super) by_peer: bool,
}

impl Link {
    /// Whether the peer has not sent all that this replica lacks. A peer that reports nothing for `silent` intervals does not
    /// have the cache.
    pub(super) fn is_awaited(&self, silent: u32) -> bool {
        let takes_part = self.receiver.said().is_some() || self.intervals <= silent;
        let is_done = self.is_marked && !self.receiver.is_broken() && self.question.is_none() && self.behind.is_none();
        takes_part && !is_done
    }

    /// Begins to answer a question. The peer does not wait for the answer to an earlier one.
    pub(super) fn begin_answer(&mut self, answer: Answer) {
        self.answer = Some(answer);
        self.piece = None;
        self.asked.by_peer = true;
    }

    /// Believes the peer about its run, if it keeps stating less than this replica counts as taken in. Before that, tells it: another
    /// process may be in that run.
    pub(super) fn believe_owner(&mut self, map: &mut CacheMap) {
        let (Some(run), Some(said)) = (&self.run, self.receiver.said()) else { return };
        let reached = map.seen().reached(run);
        let is_less = said.reached(run) < reached && reached < u64::MAX;
        self.doubts = if is_less { self.doubts.saturating_add(1) } else { 0 };
        if self.doubts == DOUBTS {
            self.receiver.dispute(run.clone(), reached);
            self.report = Some(Always::Yes);
        } else if self.doubts > DOUBTS {
            map.distrust(run);
            self.receiver.break_off();
            self.doubts = 0;
        }
    }

    /// Whether the peer has lacked something and reported nothing for 4, 8, 16 or so intervals: it may not know of it, because
    /// the messages that said so were lost.
    pub(super) fn is_unaware(&mut self, map: &CacheMap) -> bool {
        let lacks = self.receiver.said().is_none_or(|said| !map.seen().is_within(said));
        let report = self.receiver.last_report();
        let (at, intervals) = &mut self.lacking;
        *intervals = if lacks && *at == report { intervals.saturating_add(1) } else { 0 };
        *at = report;
        *intervals >= UNAWARE && intervals.is_power_of_two()
    }

    /// Whether the peer has taken in the same writes and holds other entries, and has for 4, 8, 16 or so intervals. A node that came
    /// back after the others had stopped waiting for it can bring a write that is older than a removal which some have collected
    /// and others still hold.
    pub(super) fn differs(&mut self, map: &CacheMap, unix_ms: UnixMs) -> bool {
        let (theirs, after_ms) = self.receiver.fingerprint;
        let is_same = |said: &Context| said.is_within(map.seen()) && map.seen().is_within(said);
        let is_whole = map.is_whole() && !self.receiver.is_partial;
        let is_comparable = is_whole && !self.receiver.is_outdated && after_ms > unix_ms;
        let differs = is_comparable
            && self.receiver.said().is_some_and(is_same)
            && theirs != map.derived().fingerprint.after(after_ms);
        self.differing = if differs { self.differing.saturating_add(1) } else { 0 };
        self.differing >= DIFFERENT && self.differing.is_power_of_two()
    }

    /// What to send to a peer that differs: at first only what it does not hold, which is exact. If the two still differ later, they
    /// may hold different writes of one key.
    pub(super) fn repairs(&self) -> Repairs {
        if self.differing > DIFFERENT { Repairs::All } else { Repairs::Unnamed }
    }

    /// Whether entries of this session found no room, and it is too early for the next one.
    pub(super) fn waits_for_room(&mut self, now: Time) -> bool {
        if !self.receiver.is_crowded() {
            return false;
        }
        let pause = *self.crowded.get_or_insert(Pause::first(now));
        if pause.is_over(now) {
            self.crowded = Some(pause.next(now));
        }
        !pause.is_over(now)
    }

    /// Whether the peer has had something for a long time that this replica lacks.
    pub(super) fn missing(
        &mut self,
        map: &CacheMap,
        now: Time,
        interval: Duration,
        (peer, writers): (&NodeName, &impl Writers),
    ) -> Missing {
        let Some(said) = self.receiver.said().filter(|_| self.question.is_none()) else { return Missing::Nothing };
        let us = &map.me().node;
        let last =
            |(node, first): (&NodeName, Incarnation)| Actor::new(node.clone(), Incarnation(first.0.saturating_sub(1)));
        let ended = said.ended().map(last).filter(|run| writers.has_ended(run)).map(|run| (run, u64::MAX));
        let stated = said.runs().map(|(run, number)| (run.clone(), number)).chain(ended);
        let first = stated.into_iter().find(|(run, number)| run.node != *us && !map.seen().covers(run, *number));
        let Some((run, upto)) = first else {
            self.behind = None;
            return Missing::Nothing;
        };
        let position = (run.clone(), map.seen().reached(&run));
        let Some(behind) = self.behind.as_mut().filter(|behind| behind.position == position) else {
            self.behind = Some(Behind { position, since: now, is_asked: false, arrived: 0 });
            return Missing::Nothing;
        };
        if !self.receiver.is_marked() && self.receiver.arrived() > behind.arrived {
            // The peer is still sending.
            (behind.arrived, behind.since) = (self.receiver.arrived(), now);
            return Missing::Nothing;
        }
        let owner_sends = run.node != *peer && writers.is_linked(&run.node);
        let waited = |intervals| now.since(behind.since) >= interval * intervals;
        // A peer that has sent everything that it can, and not this, does not have it itself. Another peer may have it.
        if behind.is_asked && self.receiver.is_marked() {
            let may_skip = map.may_skip && upto < u64::MAX && !owner_sends;
            let skips = may_skip && waited(PATIENCE_WITH_OWNER);
            return if skips { Missing::Skip(run, upto) } else { Missing::Nothing };
        }
        if !waited(if owner_sends { PATIENCE_WITH_OWNER } else { PATIENCE }) {
            return Missing::Nothing;
        }
        *behind = Behind { position, since: now, is_asked: true, arrived: 0 };
        Missing::Ask
    }

    /// Whether the peer has to relay the entries of a node to which this one has no link.
    pub(super) fn needs_relay(&self, peer: &NodeName, writers: &impl Writers) -> bool {
        self.behind.as_ref().is_some_and(|Behind { position: (run, ..), .. }| {
            run.node != *peer && !writers.is_linked(&run.node) && writers.lives(run)
        })
    }
}
