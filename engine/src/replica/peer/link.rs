//! The state that a replica keeps for one link: cursors and the peer's reports, per structure and actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::message::{DigestEntry, Tombstone, Want};
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, Version, bounds};

use crate::counter::journal::Mark;
use crate::counter::sync::{Progress, Start};
use crate::random::Random;
use crate::replica::peer::request::Request;
use crate::replica::stream::StreamId;
use crate::rows::heartbeat::Heartbeat;
use crate::time::Time;

/// How far a peer's copy of an actor's rows reaches, as the peer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerProgress {
    pub(crate) since: Version,
    pub(crate) applied: Version,
    pub(crate) low_water: Version,
    pub(crate) fingerprint: u64,
}

impl From<Progress> for PeerProgress {
    fn from(Progress { since, applied, low_water, fingerprint, .. }: Progress) -> Self {
        Self { since, applied, low_water, fingerprint }
    }
}

impl From<&DigestEntry> for PeerProgress {
    fn from(entry: &DigestEntry) -> Self {
        Self { since: entry.since, applied: entry.applied, low_water: entry.low_water, fingerprint: entry.fingerprint }
    }
}

/// The progress of sending one actor's rows to a peer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Feed {
    /// The peer knows the keys of the rows that were created above this version
    pub(crate) since: Version,
    /// and up to this one.
    pub(crate) keys_complete: Version,
    /// The version up to which rows were sent to the peer.
    pub(crate) cursor: Version,
    /// The peer receives a snapshot.
    pub(crate) snapshot: bool,
}

impl Feed {
    /// A feed to a peer that is assumed to know no keys yet.
    pub(crate) fn new(since: Version, start: Start) -> Self {
        Self { since, keys_complete: since, cursor: start.cursor, snapshot: start.snapshot }
    }
}

/// This node's copy is behind the peer's: since when, the progress at that time, and the peer's version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Behind {
    pub(crate) noticed: Time,
    pub(crate) progress: Progress,
    pub(crate) target: Version,
    /// How often this node has asked without progress.
    pub(crate) tries: u32,
}

/// A peer's copy of a run that has the same applied version as this node's copy and another fingerprint.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Compared {
    /// The fingerprints of this node and of the peer.
    fingerprints: (u64, u64),
    tries: u32,
}

/// Digest intervals that an owner has to send missing rows before this node asks it: a sent delta may be lost.
pub(crate) const PATIENCE: u32 = 2;

/// How often this node asks a peer for the same rows without progress, until the peer reports them again. The peer may have
/// lost them.
pub(crate) const TRIES: u32 = 5;

impl Compared {
    /// Whether to ask the peer for its copy.
    pub(crate) fn asks(&mut self, fingerprints: (u64, u64)) -> bool {
        if self.fingerprints != fingerprints {
            *self = Self { fingerprints, tries: 0 };
        }
        self.tries += 1;
        self.tries <= TRIES
    }

    /// Whether the copies differed in this way before. Rows that were in transit would have arrived since.
    pub(crate) fn again(&self) -> bool {
        self.tries > 1
    }
}

/// A digest that is being sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct DigestRun {
    /// It lists all entries.
    pub(crate) full: bool,
    /// The nonce of the probe that it answers.
    pub(crate) answers: u64,
    /// The last entry that was sent.
    pub(crate) last: Option<StreamId>,
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Differs from the numbers of the earlier links to the peer.
    pub(crate) number: u64,
    /// The run that the peer states.
    incarnation: Option<Incarnation>,
    /// When the peer last sent a digest of that run.
    pub(crate) heartbeat: Heartbeat,
    pub(crate) feeds: BTreeMap<StreamId, Feed>,
    /// Feeds that may have rows to send.
    pub(crate) due: BTreeSet<StreamId>,
    /// The feed that was served last. The feed after it is served next.
    pub(crate) served: Option<StreamId>,
    /// Requests to send, at most [`bounds::WANTS`].
    wants: BTreeMap<StreamId, Want>,
    /// How often this node asked the peer about a run of its name since the last digest.
    run_questions: u32,
    /// Rows that the peer is to stop sending: the prunes that are still to be sent.
    pub(crate) prunes: BTreeSet<StreamId>,
    /// Rows for which this node has decided on a prune. Some rows may still be in transit.
    pub(crate) pruned: BTreeSet<StreamId>,
    /// Rows of other actors that this node asked the peer for.
    pub(crate) asked: BTreeSet<StreamId>,
    /// How far this node's digests have looked at the structures that have changed.
    pub(crate) changes_mark: Mark,
    /// How far this node's digests have reported the changes of each structure.
    pub(crate) digest_marks: BTreeMap<StructureId, Mark>,
    /// The structures that the peer's digests have named.
    pub(crate) structures: BTreeSet<StructureId>,
    /// What the peer's digests have reported.
    pub(crate) peer_progress: BTreeMap<StreamId, PeerProgress>,
    pub(crate) behind: BTreeMap<StreamId, Behind>,
    /// Copies with the same applied version as this node's copy and another fingerprint.
    pub(crate) compared: BTreeMap<StreamId, Compared>,
    /// Structures that are not exchanged with the peer: it has another kind or name for them, or a build that is too old.
    pub(crate) mismatched: BTreeSet<StructureId>,
    pub(crate) digest: Option<DigestRun>,
    full_at: Time,
    /// There is a tombstone that was not sent to the peer.
    pub(crate) new_tombstone: bool,
    /// The nonce of a probe to send.
    pub(crate) probe: Option<u64>,
    /// The nonce of the last probe that the peer answered.
    pub(crate) answered: u64,
    pub(crate) said_goodbye: bool,
    /// The peer has said goodbye.
    pub(crate) heard_goodbye: bool,
    /// A tombstone of the peer itself that is to be sent to it.
    pub(crate) unsent_tombstone: Option<Tombstone>,
    /// Complete digests that have come from the peer.
    pub(crate) completes: u32,
    /// Caches with entries refused because they were written too far ahead of this node's clock.
    pub(crate) ahead: BTreeSet<StructureId>,
    /// Whether the next message is about a cache, if there is one.
    turn_of_caches: bool,
    /// The peer has sent a message since this node last asked it for everything.
    pub(crate) spoke: bool,
    tally: Arc<bound::Tally>,
}

impl Link {
    pub(crate) fn new(now: Time, tally: Arc<bound::Tally>) -> Self {
        Self {
            number: 0,
            incarnation: None,
            heartbeat: Heartbeat::default(),
            feeds: BTreeMap::new(),
            due: BTreeSet::new(),
            served: None,
            wants: BTreeMap::new(),
            run_questions: 0,
            prunes: BTreeSet::new(),
            pruned: BTreeSet::new(),
            asked: BTreeSet::new(),
            changes_mark: 0,
            digest_marks: BTreeMap::new(),
            structures: BTreeSet::new(),
            peer_progress: BTreeMap::new(),
            behind: BTreeMap::new(),
            compared: BTreeMap::new(),
            mismatched: BTreeSet::new(),
            digest: Some(DigestRun { full: true, ..DigestRun::default() }),
            full_at: now,
            new_tombstone: false,
            probe: None,
            answered: 0,
            said_goodbye: false,
            heard_goodbye: false,
            unsent_tombstone: None,
            completes: 0,
            ahead: BTreeSet::new(),
            // The first message of a link is a digest: it opens the link.
            turn_of_caches: true,
            spoke: false,
            tally,
        }
    }

    /// The run that the peer states.
    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The peer states its run. Returns the run that it stated before.
    pub(crate) fn state_run(&mut self, run: Incarnation) -> Option<Incarnation> {
        let before = self.incarnation.replace(run);
        if before != Some(run) {
            // The digests of a run say nothing of the rows of another.
            self.heartbeat = Heartbeat::default();
        }
        before
    }

    /// This node is another run now: everything sent as an earlier run of `node` is void. Feeds of other actors continue.
    pub(crate) fn start_over(&mut self, node: &NodeName) {
        self.feeds.retain(|(_, actor), _| actor.node != *node);
        self.due.retain(|(_, actor)| actor.node != *node);
        self.digest_marks.clear();
        self.digest = Some(DigestRun { full: true, ..DigestRun::default() });
    }

    /// Removes the state of the streams that are `gone`.
    pub(crate) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
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
    }

    /// Asks for rows, if there is room. Otherwise the rows remain missing, and this node asks for them later.
    pub(crate) fn want(&mut self, want: Want) {
        let part = (want.structure, want.actor.clone());
        if self.wants.len() < bounds::WANTS || self.wants.contains_key(&part) {
            self.wants.insert(part, want);
        } else {
            self.tally.reached(Bound::Wants);
        }
    }

    /// Asks the peer about a run of its name that another node reports, so that the peer learns of that run. The number of
    /// these questions is bounded, so endless reports of new runs cause only a few.
    pub(crate) fn ask_about_run(&mut self, structure: StructureId, actor: Actor) {
        if self.run_questions < bounds::RUN_QUESTIONS {
            self.run_questions += 1;
            self.want(Request::FROM_START.want((structure, actor)));
        } else {
            self.tally.reached(Bound::RunQuestions);
        }
    }

    /// Whether a digest answers a probe.
    pub(crate) fn is_answering(&self) -> bool {
        self.digest.as_ref().is_some_and(|run| run.answers != 0)
    }

    /// Whether the next message is about a cache: rows and entries take turns.
    pub(crate) fn take_turn(&mut self) -> bool {
        self.turn_of_caches = !self.turn_of_caches;
        self.turn_of_caches
    }

    /// Whether a request for these rows is waiting to be sent.
    pub(crate) fn wants(&self, part: &StreamId) -> bool {
        self.wants.contains_key(part)
    }

    /// The request for these rows that is waiting to be sent.
    pub(crate) fn open_want(&self, part: &StreamId) -> Option<&Want> {
        self.wants.get(part)
    }

    /// Number of requests that are waiting to be sent.
    pub(crate) fn open_wants(&self) -> usize {
        self.wants.len()
    }

    /// Cancels the request for these rows.
    pub(crate) fn unwant(&mut self, part: &StreamId) {
        self.wants.remove(part);
    }

    pub(crate) fn next_want(&mut self) -> Option<(StreamId, Want)> {
        self.wants.pop_first()
    }

    /// Sends a digest as soon as possible: the peer waits for its content.
    pub(crate) fn hurry(&mut self) {
        self.digest.get_or_insert_with(DigestRun::default);
    }

    /// Whether there may be a message to send, other than a goodbye.
    pub(crate) fn has_something(&self) -> bool {
        let asks = self.probe.is_some() || !self.wants.is_empty() || !self.prunes.is_empty();
        asks || self.digest.is_some() || !self.due.is_empty()
    }

    /// The rows of a stream have changed.
    pub(crate) fn touch(&mut self, part: &StreamId) {
        if self.feeds.contains_key(part) {
            self.due.insert(part.clone());
        }
    }

    /// Starts sending rows.
    pub(crate) fn feed(&mut self, part: StreamId, feed: Feed) {
        self.due.insert(part.clone());
        self.feeds.insert(part, feed);
    }

    /// Starts a digest. It is a full one if `full_interval`, with jitter, is over since the last full one. Returns whether it
    /// is.
    pub(crate) fn begin_digest(&mut self, now: Time, full_interval: Duration, random: &mut Random) -> bool {
        let full = now >= self.full_at;
        if full {
            self.full_at = now.after(random.jitter(full_interval));
        }
        self.run_questions = 0;
        let run = self.digest.get_or_insert_with(DigestRun::default);
        if full && !run.full {
            *run = DigestRun { full, answers: run.answers, last: None };
        }
        full
    }

    /// The applied version that the peer reports.
    pub(crate) fn peer_applied(&self, id: StructureId, actor: &Actor) -> Version {
        self.peer_progress.get(&(id, actor.clone())).map_or(Version::ZERO, |said| said.applied)
    }

    /// The number of entries in all maps.
    pub(crate) fn entries(&self) -> usize {
        let digests = self.structures.len()
            + self.digest_marks.len()
            + self.peer_progress.len()
            + self.behind.len()
            + self.compared.len();
        let fed = self.feeds.len() + self.due.len() + self.wants.len() + self.asked.len();
        fed + self.prunes.len() + self.pruned.len() + digests + self.ahead.len()
    }
}
