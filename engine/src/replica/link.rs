//! What a replica keeps about one link: cursors and what was said, per structure and actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::message::{DigestEntry, Tombstone, Want};
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, Version, limits};

use super::Config;
use super::peer_clocks::Reading;
use super::retire::Vector;
use crate::journal::Mark;
use crate::random::Random;
use crate::sync::{Progress, Start};
use crate::time::Time;

/// A structure and an actor in it.
pub(super) type StreamId = (StructureId, Actor);

/// How far a peer is with an actor's rows, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PeerProgress {
    pub(super) since: Version,
    pub(super) applied: Version,
    pub(super) low_water: Version,
    pub(super) fingerprint: u64,
}

impl From<&DigestEntry> for PeerProgress {
    fn from(entry: &DigestEntry) -> Self {
        Self { since: entry.since, applied: entry.applied, low_water: entry.low_water, fingerprint: entry.fingerprint }
    }
}

/// What is sent to a peer of one actor's rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feed {
    /// The peer knows the keys of rows that came to be above this version
    pub(super) since: Version,
    /// and up to this one.
    pub(super) keys_complete: Version,
    /// It has been sent rows up to this version.
    pub(super) cursor: Version,
    /// It builds up a snapshot.
    pub(super) snapshot: bool,
}

impl Feed {
    /// A feed to a peer that is taken to know no keys yet.
    pub(super) fn new(since: Version, start: Start) -> Self {
        Self { since, keys_complete: since, cursor: start.cursor, snapshot: start.snapshot }
    }
}

/// We have less than the peer: since when, what we had then, and what the peer has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Behind {
    pub(super) noticed: Time,
    pub(super) progress: Progress,
    pub(super) target: Version,
    /// How often we have asked without getting any further.
    pub(super) tries: u32,
}

/// A peer's copy of a run that is as far as ours and differs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Compared {
    /// Our fingerprint and the peer's.
    fingerprints: (u64, u64),
    tries: u32,
}

/// How often a peer is asked for the same thing without getting any further, until it names it again: it may not have it
/// any more.
pub(super) const TRIES: u32 = 5;

impl Compared {
    /// Whether to ask the peer for its copy.
    pub(super) fn asks(&mut self, fingerprints: (u64, u64)) -> bool {
        if self.fingerprints != fingerprints {
            *self = Self { fingerprints, tries: 0 };
        }
        self.tries += 1;
        self.tries <= TRIES
    }

    /// Whether they have differed before in this way: rows that are under way would have come meanwhile.
    pub(super) fn again(&self) -> bool {
        self.tries > 1
    }
}

/// A digest on its way out.
#[derive(Debug, Clone, Default)]
pub(super) struct DigestRun {
    /// It names everything.
    pub(super) full: bool,
    /// The probe that it answers.
    pub(super) answers: u64,
    /// What was named last.
    pub(super) last: Option<StreamId>,
}

#[derive(Debug)]
pub(super) struct Link {
    /// The run that the peer says it is in.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) feeds: BTreeMap<StreamId, Feed>,
    /// Feeds that may have something to send.
    pub(super) due: BTreeSet<StreamId>,
    /// The feed that was served last: the next one's turn is next.
    pub(super) served: Option<StreamId>,
    /// Requests to be sent, at most [`limits::WANTS`].
    wants: BTreeMap<StreamId, Want>,
    /// Times that the peer was asked about a run of its name since the last digest.
    run_questions: u32,
    /// Rows that the peer is to be told to send no more.
    pub(super) prunes: BTreeSet<StreamId>,
    /// Rows that it was told so of: some may be on their way.
    pub(super) pruned: BTreeSet<StreamId>,
    /// Other actors' rows that we asked this peer for.
    pub(super) asked: BTreeSet<StreamId>,
    /// How far our digests have told of the changes in each structure.
    pub(super) digest_marks: BTreeMap<StructureId, Mark>,
    /// What the peer's digests have told.
    pub(super) peer_progress: BTreeMap<StreamId, PeerProgress>,
    pub(super) behind: BTreeMap<StreamId, Behind>,
    /// Copies of runs that have ended that differ from ours.
    pub(super) compared: BTreeMap<StreamId, Compared>,
    /// Structures that the peer takes for another kind.
    pub(super) mismatched: BTreeSet<StructureId>,
    pub(super) digest: Option<DigestRun>,
    digest_at: Time,
    full_at: Time,
    /// There is a tombstone that the peer has not been told.
    pub(super) new_tombstone: bool,
    /// The nonce of a probe to be sent.
    pub(super) probe: Option<u64>,
    /// The nonce of the last probe that was answered.
    pub(super) answered: u64,
    pub(super) said_goodbye: bool,
    /// What its clock showed, as it said last.
    pub(super) clock: Option<Reading>,
    /// The peer has said goodbye.
    pub(super) heard_goodbye: bool,
    /// A tombstone of the peer itself, which it is to be told.
    pub(super) unsent_tombstone: Option<Tombstone>,
    /// What the peer has of each cache.
    pub(super) seen: BTreeMap<StructureId, Vector>,
    /// What it was told that we have.
    pub(super) seen_sent: BTreeMap<StructureId, Vector>,
    /// Caches of which it is to be told.
    pub(super) seen_due: BTreeSet<StructureId>,
    /// Digests of everything that have come.
    pub(super) completes: u32,
    /// Rows of caches that it has told without some of their values: it knew what outdoes them.
    pub(super) without_values: BTreeSet<StreamId>,
    /// Parts that were refused because they were written too far ahead of our clock.
    pub(super) ahead: BTreeSet<StreamId>,
    /// It has said something since it was last asked for everything.
    pub(super) spoke: bool,
    tally: Arc<bound::Tally>,
}

impl Link {
    pub(super) fn new(now: Time, tally: Arc<bound::Tally>) -> Self {
        Self {
            incarnation: None,
            feeds: BTreeMap::new(),
            due: BTreeSet::new(),
            served: None,
            wants: BTreeMap::new(),
            run_questions: 0,
            prunes: BTreeSet::new(),
            pruned: BTreeSet::new(),
            asked: BTreeSet::new(),
            digest_marks: BTreeMap::new(),
            peer_progress: BTreeMap::new(),
            behind: BTreeMap::new(),
            compared: BTreeMap::new(),
            mismatched: BTreeSet::new(),
            digest: Some(DigestRun { full: true, ..DigestRun::default() }),
            digest_at: now,
            full_at: now,
            new_tombstone: false,
            probe: None,
            answered: 0,
            said_goodbye: false,
            clock: None,
            heard_goodbye: false,
            unsent_tombstone: None,
            seen: BTreeMap::new(),
            seen_sent: BTreeMap::new(),
            seen_due: BTreeSet::new(),
            completes: 0,
            without_values: BTreeSet::new(),
            ahead: BTreeSet::new(),
            spoke: false,
            tally,
        }
    }

    /// We are another run now: what we said and sent as an earlier run of `node` is void. What others have is passed on as before.
    pub(super) fn start_over(&mut self, node: &NodeName) {
        self.feeds.retain(|(_, actor), _| actor.node != *node);
        self.due.retain(|(_, actor)| actor.node != *node);
        self.digest_marks.clear();
        self.seen_sent.clear();
        self.digest = Some(DigestRun { full: true, ..DigestRun::default() });
    }

    /// Forgets what concerns the parts that are `gone`.
    pub(super) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
        let keep = |part: &StreamId| !gone(part);
        self.feeds.retain(|part, _| keep(part));
        self.due.retain(keep);
        self.prunes.retain(keep);
        self.pruned.retain(keep);
        self.wants.retain(|part, _| keep(part));
        self.asked.retain(keep);
        self.peer_progress.retain(|part, _| keep(part));
        self.behind.retain(|part, _| keep(part));
        self.compared.retain(|part, _| keep(part));
        self.without_values.retain(keep);
        self.ahead.retain(keep);
    }

    /// Asks for rows, if there is room. What is not asked for now is missing still, and is asked for later.
    pub(super) fn want(&mut self, want: Want) {
        let part = (want.structure, want.actor.clone());
        if self.wants.len() < limits::WANTS || self.wants.contains_key(&part) {
            self.wants.insert(part, want);
        } else {
            self.tally.reached(Bound::Wants);
        }
    }

    /// Asks the peer about a run of its name that somebody else names, so that it hears of that run. A peer that is named
    /// ever new runs of gets few of these questions.
    pub(super) fn ask_about_run(&mut self, structure: StructureId, actor: Actor) {
        if self.run_questions < limits::RUN_QUESTIONS {
            self.run_questions += 1;
            self.want(Want { structure, actor, since: 0, after: 0, snapshot: false });
        } else {
            self.tally.reached(Bound::RunQuestions);
        }
    }

    /// Whether rows of a part are about to be asked for.
    pub(super) fn wants(&self, part: &StreamId) -> bool {
        self.wants.contains_key(part)
    }

    /// Rows of a part are not asked for any more.
    pub(super) fn unwant(&mut self, part: &StreamId) {
        self.wants.remove(part);
    }

    pub(super) fn next_want(&mut self) -> Option<(StreamId, Want)> {
        self.wants.pop_first()
    }

    /// Sends a digest soon: there is something that the peer waits to hear.
    pub(super) fn hurry(&mut self) {
        self.digest.get_or_insert_with(DigestRun::default);
    }

    /// Whether there may be something to be sent, when the node is `leaving` or not.
    pub(super) fn has_something(&self, leaving: bool) -> bool {
        let asks = self.probe.is_some() || !self.wants.is_empty() || !self.prunes.is_empty();
        let tells = self.digest.is_some() || !self.seen_due.is_empty() || !self.due.is_empty();
        asks || tells || (leaving && !self.said_goodbye)
    }

    /// Sends a digest before long: there is something that the peer may not have heard of.
    pub(super) fn hurry_by(&mut self, at: Time) {
        self.digest_at = self.digest_at.min(at);
    }

    /// Rows of a part have changed.
    pub(super) fn touch(&mut self, part: &StreamId) {
        if self.feeds.contains_key(part) {
            self.due.insert(part.clone());
        }
    }

    /// Begins to send rows.
    pub(super) fn feed(&mut self, part: StreamId, feed: Feed) {
        self.due.insert(part.clone());
        self.feeds.insert(part, feed);
    }

    /// Starts the digest that is [due](Self::due).
    pub(super) fn handle_timeout(&mut self, now: Time, config: &Config, random: &mut Random) {
        let full = now >= self.full_at;
        if full {
            self.full_at = now.after(random.jitter(config.full_digest_interval));
        }
        self.digest_at = now.after(random.jitter(config.digest_interval));
        self.run_questions = 0;
        let run = self.digest.get_or_insert_with(DigestRun::default);
        if full && !run.full {
            *run = DigestRun { full, answers: run.answers, last: None };
        }
    }

    pub(super) fn due(&self) -> Time {
        self.digest_at
    }

    /// How far the peer says it is.
    pub(super) fn said_have(&self, id: StructureId, actor: &Actor) -> Version {
        self.peer_progress.get(&(id, actor.clone())).map_or(0, |said| said.applied)
    }

    /// Entries of all maps.
    pub(super) fn entries(&self) -> usize {
        let digests = self.digest_marks.len() + self.peer_progress.len() + self.behind.len() + self.compared.len();
        let seen = |vectors: &BTreeMap<StructureId, Vector>| vectors.values().map(Vector::len).sum::<usize>();
        let seen = seen(&self.seen) + seen(&self.seen_sent) + self.ahead.len() + self.without_values.len();
        let fed = self.feeds.len() + self.due.len() + self.wants.len() + self.asked.len();
        fed + self.prunes.len() + self.pruned.len() + digests + seen
    }
}
