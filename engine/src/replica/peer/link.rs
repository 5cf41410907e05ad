//! The state that a replica keeps for one link: cursors and the peer's reports, per structure and actor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::message::{DigestEntry, Tombstone, Want};
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, Version, bounds};

use crate::counter::journal::Mark;
use crate::counter::sync::{Progress, Start};
use crate::random::Random;
use crate::replica::Config;
use crate::replica::peer::clocks::Reading;
use crate::replica::stream::{StreamId, Vector};
use crate::time::Time;

/// How far a peer's copy of an actor's rows reaches, as the peer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replica) struct PeerProgress {
    pub(in crate::replica) since: Version,
    pub(in crate::replica) applied: Version,
    pub(in crate::replica) low_water: Version,
    pub(in crate::replica) fingerprint: u64,
}

impl From<&DigestEntry> for PeerProgress {
    fn from(entry: &DigestEntry) -> Self {
        Self { since: entry.since, applied: entry.applied, low_water: entry.low_water, fingerprint: entry.fingerprint }
    }
}

/// The progress of sending one actor's rows to a peer.
#[derive(Debug, Clone, Copy)]
pub(in crate::replica) struct Feed {
    /// The peer knows the keys of the rows that were created above this version
    pub(in crate::replica) since: Version,
    /// and up to this one.
    pub(in crate::replica) keys_complete: Version,
    /// The version up to which rows were sent to the peer.
    pub(in crate::replica) cursor: Version,
    /// The peer receives a snapshot.
    pub(in crate::replica) snapshot: bool,
}

impl Feed {
    /// A feed to a peer that is assumed to know no keys yet.
    pub(in crate::replica) fn new(since: Version, start: Start) -> Self {
        Self { since, keys_complete: since, cursor: start.cursor, snapshot: start.snapshot }
    }
}

/// This node's copy is behind the peer's: since when, the progress at that time, and the peer's version.
#[derive(Debug, Clone, Copy)]
pub(in crate::replica) struct Behind {
    pub(in crate::replica) noticed: Time,
    pub(in crate::replica) progress: Progress,
    pub(in crate::replica) target: Version,
    /// How often this node has asked without progress.
    pub(in crate::replica) tries: u32,
}

/// A peer's copy of a run that has the same applied version as this node's copy and another fingerprint.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::replica) struct Compared {
    /// The fingerprints of this node and of the peer.
    fingerprints: (u64, u64),
    tries: u32,
}

/// How often this node asks a peer for the same rows without progress, until the peer reports them again. The peer may have
/// lost them.
pub(in crate::replica) const TRIES: u32 = 5;

impl Compared {
    /// Whether to ask the peer for its copy.
    pub(in crate::replica) fn asks(&mut self, fingerprints: (u64, u64)) -> bool {
        if self.fingerprints != fingerprints {
            *self = Self { fingerprints, tries: 0 };
        }
        self.tries += 1;
        self.tries <= TRIES
    }

    /// Whether the copies differed in this way before. Rows that were in transit would have arrived since.
    pub(in crate::replica) fn again(&self) -> bool {
        self.tries > 1
    }
}

/// A digest that is being sent.
#[derive(Debug, Clone, Default)]
pub(in crate::replica) struct DigestRun {
    /// It lists all entries.
    pub(in crate::replica) full: bool,
    /// The nonce of the probe that it answers.
    pub(in crate::replica) answers: u64,
    /// The last entry that was sent.
    pub(in crate::replica) last: Option<StreamId>,
}

#[derive(Debug)]
pub(in crate::replica) struct Link {
    /// The run that the peer states.
    pub(in crate::replica) incarnation: Option<Incarnation>,
    pub(in crate::replica) feeds: BTreeMap<StreamId, Feed>,
    /// Feeds that may have rows to send.
    pub(in crate::replica) due: BTreeSet<StreamId>,
    /// The feed that was served last. The feed after it is served next.
    pub(in crate::replica) served: Option<StreamId>,
    /// Requests to send, at most [`bounds::WANTS`].
    wants: BTreeMap<StreamId, Want>,
    /// How often this node asked the peer about a run of its name since the last digest.
    run_questions: u32,
    /// Rows that the peer is to stop sending: the prunes that are still to be sent.
    pub(in crate::replica) prunes: BTreeSet<StreamId>,
    /// Rows for which this node has decided on a prune. Some rows may still be in transit.
    pub(in crate::replica) pruned: BTreeSet<StreamId>,
    /// Rows of other actors that this node asked the peer for.
    pub(in crate::replica) asked: BTreeSet<StreamId>,
    /// How far this node's digests have reported the changes of each structure.
    pub(in crate::replica) digest_marks: BTreeMap<StructureId, Mark>,
    /// What the peer's digests have reported.
    pub(in crate::replica) peer_progress: BTreeMap<StreamId, PeerProgress>,
    pub(in crate::replica) behind: BTreeMap<StreamId, Behind>,
    /// Copies with the same applied version as this node's copy and another fingerprint.
    pub(in crate::replica) compared: BTreeMap<StreamId, Compared>,
    /// Structures for which the peer has another kind or name.
    pub(in crate::replica) mismatched: BTreeSet<StructureId>,
    pub(in crate::replica) digest: Option<DigestRun>,
    digest_at: Time,
    full_at: Time,
    /// There is a tombstone that was not sent to the peer.
    pub(in crate::replica) new_tombstone: bool,
    /// The nonce of a probe to send.
    pub(in crate::replica) probe: Option<u64>,
    /// The nonce of the last probe that the peer answered.
    pub(in crate::replica) answered: u64,
    pub(in crate::replica) said_goodbye: bool,
    /// The last reading of the peer's clock.
    pub(in crate::replica) clock: Option<Reading>,
    /// The peer has said goodbye.
    pub(in crate::replica) heard_goodbye: bool,
    /// A tombstone of the peer itself that is to be sent to it.
    pub(in crate::replica) unsent_tombstone: Option<Tombstone>,
    /// How far the peer is with each cache.
    pub(in crate::replica) seen: BTreeMap<StructureId, Vector>,
    /// How far this node is with each cache, as last reported to the peer.
    pub(in crate::replica) seen_sent: BTreeMap<StructureId, Vector>,
    /// Caches whose progress is to be reported to the peer.
    pub(in crate::replica) seen_due: BTreeSet<StructureId>,
    /// Complete digests that have come from the peer.
    pub(in crate::replica) completes: u32,
    /// Cache rows that the peer sent without some of their values, because it knew the writes that superseded them.
    pub(in crate::replica) without_values: BTreeSet<StreamId>,
    /// Streams with rows refused because they were written too far ahead of this node's clock.
    pub(in crate::replica) ahead: BTreeSet<StreamId>,
    /// The peer has sent a message since this node last asked it for everything.
    pub(in crate::replica) spoke: bool,
    tally: Arc<bound::Tally>,
}

impl Link {
    pub(in crate::replica) fn new(now: Time, tally: Arc<bound::Tally>) -> Self {
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

    /// This node is another run now: everything sent as an earlier run of `node` is void. Feeds of other actors continue.
    pub(in crate::replica) fn start_over(&mut self, node: &NodeName) {
        self.feeds.retain(|(_, actor), _| actor.node != *node);
        self.due.retain(|(_, actor)| actor.node != *node);
        self.digest_marks.clear();
        self.seen_sent.clear();
        self.digest = Some(DigestRun { full: true, ..DigestRun::default() });
    }

    /// Removes the state of the streams that are `gone`.
    pub(in crate::replica) fn forget(&mut self, gone: impl Fn(&StreamId) -> bool) {
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

    /// Asks for rows, if there is room. Otherwise the rows remain missing, and this node asks for them later.
    pub(in crate::replica) fn want(&mut self, want: Want) {
        let part = (want.structure, want.actor.clone());
        if self.wants.len() < bounds::WANTS || self.wants.contains_key(&part) {
            self.wants.insert(part, want);
        } else {
            self.tally.reached(Bound::Wants);
        }
    }

    /// Asks the peer about a run of its name that another node reports, so that the peer learns of that run. The number of
    /// these questions is bounded, so endless reports of new runs cause only a few.
    pub(in crate::replica) fn ask_about_run(&mut self, structure: StructureId, actor: Actor) {
        if self.run_questions < bounds::RUN_QUESTIONS {
            self.run_questions += 1;
            self.want(Want { structure, actor, since: 0, after: 0, snapshot: false });
        } else {
            self.tally.reached(Bound::RunQuestions);
        }
    }

    /// Whether a request for these rows is waiting to be sent.
    pub(in crate::replica) fn wants(&self, part: &StreamId) -> bool {
        self.wants.contains_key(part)
    }

    /// Cancels the request for these rows.
    pub(in crate::replica) fn unwant(&mut self, part: &StreamId) {
        self.wants.remove(part);
    }

    pub(in crate::replica) fn next_want(&mut self) -> Option<(StreamId, Want)> {
        self.wants.pop_first()
    }

    /// Sends a digest as soon as possible: the peer waits for its content.
    pub(in crate::replica) fn hurry(&mut self) {
        self.digest.get_or_insert_with(DigestRun::default);
    }

    /// Whether there may be a message to send. `leaving`: whether the node leaves.
    pub(in crate::replica) fn has_something(&self, leaving: bool) -> bool {
        let asks = self.probe.is_some() || !self.wants.is_empty() || !self.prunes.is_empty();
        let tells = self.digest.is_some() || !self.seen_due.is_empty() || !self.due.is_empty();
        asks || tells || (leaving && !self.said_goodbye)
    }

    /// Sends a digest by `at`: it holds news that the peer may not have received.
    pub(in crate::replica) fn hurry_by(&mut self, at: Time) {
        self.digest_at = self.digest_at.min(at);
    }

    /// The rows of a stream have changed.
    pub(in crate::replica) fn touch(&mut self, part: &StreamId) {
        if self.feeds.contains_key(part) {
            self.due.insert(part.clone());
        }
    }

    /// Starts sending rows.
    pub(in crate::replica) fn feed(&mut self, part: StreamId, feed: Feed) {
        self.due.insert(part.clone());
        self.feeds.insert(part, feed);
    }

    /// Starts the digest that is [due](Self::due).
    pub(in crate::replica) fn handle_timeout(&mut self, now: Time, config: &Config, random: &mut Random) {
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

    pub(in crate::replica) fn due(&self) -> Time {
        self.digest_at
    }

    /// The applied version that the peer reports.
    pub(in crate::replica) fn said_have(&self, id: StructureId, actor: &Actor) -> Version {
        self.peer_progress.get(&(id, actor.clone())).map_or(0, |said| said.applied)
    }

    /// The number of entries in all maps.
    pub(in crate::replica) fn entries(&self) -> usize {
        let digests = self.digest_marks.len() + self.peer_progress.len() + self.behind.len() + self.compared.len();
        let seen = |vectors: &BTreeMap<StructureId, Vector>| vectors.values().map(Vector::len).sum::<usize>();
        let seen = seen(&self.seen) + seen(&self.seen_sent) + self.ahead.len() + self.without_values.len();
        let fed = self.feeds.len() + self.due.len() + self.wants.len() + self.asked.len();
        fed + self.prunes.len() + self.pruned.len() + digests + seen
    }
}
