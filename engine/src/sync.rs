//! A structure as the replication state machine sees it: what it holds of each actor, what to send, what to take in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;

use tallymesh_schemas::bound;
use tallymesh_schemas::message::{Delta, DigestEntry, SeenEntry};
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::Extent;
use tallymesh_schemas::{Actor, Cell, Incarnation, NodeName, Version};

use crate::canary::{self, Canary};
use crate::journal::Mark;
use crate::ledger::{Applied, ApplyError, Ledger};
use crate::partial::{Cut, Partial};
use crate::primitive::Ordering;
use crate::stamp::Stamp;
use crate::structure::Structure;
use crate::time::Time;
use crate::watch::Told;

/// How far we are with an actor's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) since: Version,
    pub(crate) have: Version,
    pub(crate) floor: Version,
    pub(crate) fingerprint: u64,
    /// Where a snapshot begins that is being received, and how far it has come.
    pub(crate) shadow: Option<(Version, Version)>,
}

/// Where to begin with sending rows to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) cursor: Version,
    pub(crate) snapshot: bool,
}

/// How much of an actor's rows was copied elsewhere, or is here to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) since: Version,
    pub(crate) have: Version,
    pub(crate) floor: Version,
    pub(crate) whole: Version,
    /// Set where it is all that there was.
    pub(crate) fingerprint: Option<u64>,
    edition: u64,
}

impl Copied {
    /// What was copied by an earlier process, of which nothing is here.
    pub(crate) fn of(extent: &Extent) -> Self {
        let Extent { since, have, floor, whole, fingerprint } = *extent;
        Self { since, have, floor, whole, fingerprint, edition: u64::MAX }
    }

    pub(crate) fn extent(&self) -> Extent {
        let Self { since, have, floor, whole, fingerprint, .. } = *self;
        Extent { since, have, floor, whole, fingerprint }
    }

    fn now(partial: &Partial, ours: bool) -> Self {
        let (since, have, floor, edition) = (partial.since, partial.have, partial.floor, partial.edition);
        let whole = if ours { have } else { partial.known.max(partial.whole).min(have) };
        Self { since, have, floor, whole, fingerprint: Some(partial.fingerprint()), edition }
    }

    /// Whether there is something to be copied that was not.
    pub(crate) fn differs(&self, now: &Self) -> bool {
        (self.edition, self.have, self.whole) != (now.edition, now.have, now.whole) || self.fingerprint.is_none()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.have == self.since
    }
}

/// Rows to be copied, and how much was copied with them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) copied: Copied,
    /// They do not follow on what was copied before.
    pub(crate) anew: bool,
    pub(crate) after: Version,
    pub(crate) rows: Vec<u8>,
}

/// A delta brings a write that lies too far ahead of our clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// By how much.
    pub(crate) by: Duration,
    /// The rows before it are of versions up to this one,
    pub(crate) upto: Version,
    /// and take so many bytes of the delta's rows.
    pub(crate) bytes: usize,
}

/// What is said of an actor; `age` is how long ago its rows here were known to be what there is.
fn digest_entry(actor: &Actor, partial: &Partial, age: Option<Duration>) -> DigestEntry {
    DigestEntry {
        actor: actor.clone(),
        since: partial.since,
        have: partial.have,
        floor: partial.floor,
        fingerprint: partial.fingerprint(),
        age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}

impl Structure {
    /// The highest version of our own rows that is committed.
    pub(crate) fn head(&self) -> Version {
        self.head.load(Ordering::SeqCst)
    }

    pub(crate) fn note_head(&self, ledger: &Ledger) {
        self.head.store(ledger.head(), Ordering::SeqCst);
    }

    /// Tells how far we are with each actor behind `after`, in order, until `tell` says that it is enough.
    pub(crate) fn digest(&self, after: Option<&Actor>, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) {
        let ledger = self.ledger.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (actor, partial) in ledger.partials().range((from, Bound::Unbounded)) {
            if !tell(digest_entry(actor, partial, ledger.age(actor, partial, now))) {
                return;
            }
        }
    }

    /// Where a reader of changes is that is about to be told everything.
    pub(crate) fn last_change(&self) -> Mark {
        self.ledger.write().journal().last()
    }

    /// Tells how far we are with each actor that has changed behind `mark`, until `tell` says that it is enough. Where the
    /// reader is then. O(what is told).
    pub(crate) fn changes(&self, mark: Mark, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) -> Mark {
        if self.ledger.write().journal().last() == mark {
            return mark;
        }
        let ledger = self.ledger.read();
        let mut told = mark;
        for (mark, actor) in ledger.changed_behind(mark) {
            if let Some(partial) = ledger.partial(actor)
                && !tell(digest_entry(actor, partial, ledger.age(actor, partial, now)))
            {
                return told;
            }
            told = mark;
        }
        told
    }

    /// An actor is to be told of once more.
    pub(crate) fn tell_again(&self, actor: &Actor) {
        self.ledger.write().note(actor);
    }

    /// How far we are with one actor's rows; `None` when we hold none.
    pub(crate) fn progress(&self, actor: &Actor) -> Option<Progress> {
        let ledger = self.ledger.read();
        let partial = ledger.partial(actor)?;
        Some(Progress {
            since: partial.since,
            have: partial.have,
            floor: partial.floor,
            fingerprint: partial.fingerprint(),
            shadow: partial.shadow.as_ref().map(|shadow| (shadow.since, shadow.have)),
        })
    }

    /// What we have of every actor's rows, all of it at this moment.
    pub(crate) fn vector(&self) -> BTreeMap<Actor, SeenEntry> {
        let ledger = self.ledger.read();
        let entry = |(actor, partial): (&Actor, &Partial)| {
            let (have, fingerprint) = (partial.have, partial.fingerprint());
            let whole = if actor == ledger.actor() { have } else { partial.known.max(partial.whole).min(have) };
            (actor.clone(), SeenEntry { actor: actor.clone(), have, whole, fingerprint })
        };
        ledger.partials().iter().map(entry).collect()
    }

    /// The first write of a delta that lies further ahead of our clock than any may; `None` when there is none.
    pub(crate) fn ahead(&self, delta: &Delta<'_>, unix_ms: u64) -> Option<Ahead> {
        if !self.is_cache() || canary::broken(Canary::FutureTaken) {
            return None;
        }
        let time = self.time(unix_ms);
        let mut rows = RowReader::new(delta.rows, delta.after);
        let (mut upto, mut bytes) = (delta.after, 0);
        // What cannot be read is refused where it is joined.
        while let Ok(Some(row)) = rows.next_row() {
            let stamp = match row.state {
                RowState::Live { added, .. } => added,
                RowState::Content { stamp, .. } => stamp,
                RowState::Vacant => 0,
            };
            let version = row.version;
            if let Some(by) = Stamp(stamp).beyond(time) {
                return Some(Ahead { by, upto, bytes });
            }
            (upto, bytes) = (version, delta.rows.len() - rows.remaining());
        }
        None
    }

    /// Whether what we hold of another actor is everything that it had at one moment.
    pub(crate) fn is_whole(&self, actor: &Actor) -> bool {
        self.ledger.read().partial(actor).is_some_and(Partial::is_whole)
    }

    /// Somebody who has everything up to `have` has this fingerprint there: if we do, we have everything as well.
    pub(crate) fn note_whole(&self, actor: &Actor, have: Version, fingerprint: u64) {
        if let Some(partial) = self.ledger.write().partial_mut(actor)
            && partial.have == have
            && (partial.since > 0 || partial.fingerprint() == fingerprint)
        {
            partial.whole = have;
            partial.agrees();
        }
    }

    /// Makes room for an actor's rows; whether there was none before.
    pub(crate) fn admit(&self, actor: &Actor, since: Version) -> bool {
        self.admit_to(&mut self.ledger.write(), actor, since)
    }

    fn admit_to(&self, ledger: &mut Ledger, actor: &Actor, since: Version) -> bool {
        let new = ledger.admit(actor, since);
        if !new && ledger.partial(actor).is_none() {
            self.tally.reached(bound::Bound::Actors);
        }
        new
    }

    /// As [`Structure::admit`], of rows that outlive their run: they count from the first one on, so that whoever watches hears
    /// of each.
    pub(crate) fn admit_saved(&self, actor: &Actor, since: Version) -> bool {
        let mut ledger = self.ledger.write();
        let new = self.admit_to(&mut ledger, actor, since);
        // There are none yet that it could tell of.
        ledger.set_counts(actor, true, &mut Told::nobody());
        new
    }

    /// Rows of an actor up to a version were there before they could come here.
    pub(crate) fn inherit(&self, actor: &Actor, have: Version) {
        if let Some(partial) = self.ledger.write().partial_mut(actor) {
            partial.inherited = partial.inherited.max(have);
        }
    }

    /// Where to begin for a replica that has `(since, after]` of an actor and knows retirements up to `floor`, or wants a
    /// snapshot; `None` when we do not know enough ourselves.
    pub(crate) fn start(
        &self,
        actor: &Actor,
        (since, after): (Version, Version),
        floor: Version,
        snapshot: bool,
    ) -> Option<Start> {
        let ledger = self.ledger.read();
        let partial = ledger.partial(actor)?;
        let below = after > since && partial.floor > after.max(floor) && !canary::broken(Canary::FloorIgnored);
        let start = match (snapshot, below) {
            (false, true) => Start { cursor: since, snapshot: true },
            (snapshot, _) => Start { cursor: after, snapshot },
        };
        let from = if start.snapshot { since } else { start.cursor };
        if from < partial.since {
            return None;
        }
        if !partial.has_log() {
            drop(ledger);
            self.ledger.write().partial_mut(actor)?.make_log();
        }
        Some(start)
    }

    /// Of a cache: the actors of which there may be rows without their values.
    pub(crate) fn hollow(&self) -> Vec<Actor> {
        let ledger = self.ledger.read();
        let hollow = ledger.partials().iter().filter(|(_, partial)| !partial.hollow.is_empty());
        hollow.map(|(actor, _)| actor.clone()).collect()
    }

    /// Of a cache: the version before the first row of an actor that says that there is a value that is neither here nor outdone.
    pub(crate) fn lacking(&self, actor: &Actor) -> Option<Version> {
        self.ledger.write().lacking(actor).map(|first| first - 1)
    }

    /// Whether there may be rows of an actor without their values, also of those that come anew, and the version before the first one
    /// of which the value has come only now. O(1).
    pub(crate) fn take_filled(&self, actor: &Actor) -> (bool, Option<Version>) {
        let mut ledger = self.ledger.write();
        let Some(partial) = ledger.partial_mut(actor) else { return (false, None) };
        let anew = partial.shadow.as_ref().is_some_and(|shadow| !shadow.hollow.is_empty());
        (anew || !partial.hollow.is_empty(), partial.filled.take().map(|first| first - 1))
    }

    /// Makes room for everything that an actor has, where we began in the middle: it comes as a snapshot.
    pub(crate) fn begin_earlier(&self, actor: &Actor) {
        if let Some(partial) = self.ledger.write().partial_mut(actor)
            && partial.since > 0
        {
            partial.shadow.get_or_insert_with(|| Box::new(Partial::shadow(0)));
        }
    }

    /// Cuts rows above `after` for a replica that knows the keys of rows born in `(since, known]`.
    pub(crate) fn cut(&self, actor: &Actor, known: (Version, Version), after: Version, budget: usize) -> Option<Cut> {
        let ledger = self.ledger.read();
        ledger.partial(actor)?.cut(known, after, budget, (ledger.cells(), ledger.registers()))
    }

    /// Tells how much there is of each actor's rows, in order.
    pub(crate) fn each_part(&self, each: &mut dyn FnMut(&Actor, Copied)) {
        let ledger = self.ledger.read();
        for (actor, partial) in ledger.partials() {
            each(actor, Copied::now(partial, actor == ledger.actor()));
        }
    }

    /// Cuts the next rows for a copy, each with its key; `None` when there are none of that actor any more.
    pub(crate) fn copy(&self, actor: &Actor, copied: Option<Copied>, budget: usize) -> Option<Piece> {
        let mut ledger = self.ledger.write();
        let ours = actor == ledger.actor();
        let partial = ledger.partial_mut(actor)?;
        partial.make_log();
        let now = Copied::now(partial, ours);
        let follows = |copied: &Copied| {
            copied.edition == now.edition && now.floor <= copied.have.max(copied.floor) && copied.since == now.since
        };
        let copied = copied.filter(follows);
        let from = copied.unwrap_or(Copied { have: now.since, floor: 0, whole: now.since, ..now });
        let (cells, registers) = (ledger.cells(), ledger.registers());
        let cut = ledger.partial(actor)?.cut((now.since, now.since), from.have, budget, (cells, registers))?;
        let mut reader = RowReader::new(&cut.rows, from.have);
        let mut floor = from.floor.max(cut.floor);
        while let Ok(Some(row)) = reader.next_row() {
            // A copy keeps nothing of what was retired.
            floor = if row.state == RowState::Vacant { floor.max(row.version) } else { floor };
        }
        let whole = if cut.fingerprint.is_some() { now.whole } else { from.whole };
        let copied = Copied { have: cut.upto.max(from.have), floor, whole, fingerprint: cut.fingerprint, ..now };
        Some(Piece { copied, anew: copied.since == from.have, after: from.have, rows: cut.rows })
    }

    /// Rows of an actor were taken back that had been copied as `extent` says: what of them is copied, if they are all here and
    /// nothing else is.
    pub(crate) fn restored(&self, actor: &Actor, extent: &Extent) -> Option<Copied> {
        let mut ledger = self.ledger.write();
        let partial = ledger.partial_mut(actor)?;
        (partial.restored, partial.inherited) = (extent.have, extent.have);
        let same = (partial.since, partial.have) == (extent.since, extent.have)
            && extent.fingerprint.is_none_or(|fingerprint| fingerprint == partial.fingerprint());
        partial.whole = partial.whole.max(if same { extent.whole } else { 0 });
        same.then(|| Copied { edition: partial.edition, ..Copied::of(extent) })
    }

    /// The rows of a cache were taken back: see [`Ledger::settle_registers`].
    pub(crate) fn settle_registers(&self, now: Time) {
        self.ledger.write().settle_registers(now);
    }

    /// Nobody has what is missing of a snapshot that is being received.
    pub(crate) fn give_up_snapshot(&self, actor: &Actor) {
        self.ledger.write().give_up_snapshot(actor, &self.keys);
    }

    /// Whoever passes an actor's rows on to us has other ones: a snapshot takes the place of what is here.
    pub(crate) fn distrust(&self, actor: &Actor) {
        if let Some(partial) = self.ledger.write().partial_mut(actor) {
            partial.diverged = true;
        }
    }

    /// An actor's owner states something else of the version that we have, in answer to probe `answers`. Whether we have
    /// diverged; while what we have may be newer than that statement, the answer to probe `next` will tell.
    pub(crate) fn contradicted(&self, actor: &Actor, answers: u64, next: u64) -> bool {
        let mut ledger = self.ledger.write();
        let Some(partial) = ledger.partial_mut(actor) else { return false };
        let answered = partial.doubted > 0 && answers >= partial.doubted;
        partial.diverged |= answered || !partial.may_be_newer();
        if partial.doubted == 0 {
            partial.doubted = next;
        }
        partial.diverged
    }

    /// Joins a delta. `from_owner` says that what it states is its owner's word.
    pub(crate) fn apply(&self, delta: &Delta<'_>, from_owner: bool, now: Time) -> Result<Applied, ApplyError> {
        let applied = self.watchers.tell(|changed| {
            let mut ledger = self.ledger.write();
            let applied = ledger.apply(delta, from_owner, &self.keys, changed);
            ledger.note(&delta.actor);
            let current = matches!(applied, Ok(Applied::Advanced | Applied::Stale | Applied::Replaced));
            if current
                && from_owner
                && delta.fingerprint.is_some()
                && let Some(partial) = ledger.partial_mut(&delta.actor)
            {
                partial.confirmed = now;
            }
            applied
        });
        self.refresh();
        applied
    }

    /// An actor's owner has just said that its head is `head`.
    pub(crate) fn confirm(&self, owner: &Actor, head: Version, now: Time) {
        let mut ledger = self.ledger.write();
        let Some(partial) = ledger.partial_mut(owner).filter(|partial| partial.have >= head) else { return };
        partial.confirmed = now;
        drop(ledger);
        self.refresh();
    }

    /// Somebody has known `head` to be an actor's head at some moment.
    pub(crate) fn hear(&self, actor: &Actor, head: Version, at: Time) {
        let mut ledger = self.ledger.write();
        if let Some(partial) =
            ledger.partial_mut(actor).filter(|partial| partial.have >= head && partial.confirmed < at)
        {
            partial.confirmed = at;
        }
    }

    /// Whether what a run has counted outlives it.
    pub(crate) fn keeps_runs(&self) -> bool {
        self.spec().class.cell() != Cell::Gauge
    }

    /// Whether it is a window of a series.
    pub(crate) fn is_window(&self) -> bool {
        self.spec().class.is_window()
    }

    /// Lets the rows of those actors count of whom `counts` says so; those of events always do. Looks at the runs of these
    /// nodes, or at all. O(actors that are looked at).
    pub(crate) fn set_counts(&self, nodes: Option<&BTreeSet<NodeName>>, counts: impl Fn(&Actor) -> bool) {
        let counts = |actor: &Actor| self.keeps_runs() || counts(actor);
        let mut ledger = self.ledger.write();
        let turns = |(actor, partial): &(&Actor, &Partial)| partial.counts != counts(actor);
        let changed: Vec<_> = match nodes {
            Some(nodes) => nodes.iter().flat_map(|node| ledger.runs(node)).filter(turns).collect(),
            None => ledger.partials().iter().filter(turns).collect(),
        };
        let changed: Vec<_> = changed.into_iter().map(|(actor, partial)| (actor.clone(), !partial.counts)).collect();
        self.watchers.tell(|told| {
            changed.iter().for_each(|(actor, counts)| ledger.set_counts(actor, *counts, told));
        });
        drop(ledger);
        if !changed.is_empty() {
            self.refresh();
        }
    }

    /// Whether there is nothing that any run of a node has counted.
    pub(crate) fn has_nothing_of(&self, node: &NodeName) -> bool {
        self.ledger.read().runs(node).all(|(_, partial)| partial.have <= partial.since && partial.shadow.is_none())
    }

    /// Drops some runs of a node, and says which there were. `away` says that it was done while this node was away: see
    /// [`Ledger::drop_actor`](crate::ledger::Ledger::drop_actor).
    pub(crate) fn drop_runs(&self, node: &NodeName, runs: &RangeInclusive<Incarnation>, away: bool) -> Vec<Actor> {
        let mut ledger = self.ledger.write();
        let old = ledger.runs(node).map(|(actor, _)| actor).filter(|actor| runs.contains(&actor.incarnation));
        let old: Vec<_> = old.cloned().collect();
        self.watchers.tell(|told| {
            old.iter().for_each(|actor| ledger.drop_actor(actor, away, &self.keys, told));
        });
        self.note_head(&ledger);
        drop(ledger);
        self.refresh();
        old
    }

    /// Goes on as another run.
    pub(crate) fn renew(&self, actor: Actor) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.tell(|changed| ledger.renew(actor, &self.keys, changed));
        self.note_head(&ledger);
        drop(ledger);
        self.refresh();
    }

    /// Ends our counting.
    pub(crate) fn close(&self) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.tell(|changed| ledger.close(changed));
        self.note_head(&ledger);
    }

    /// Retires idle zero rows, and purges retired ones that all have seen or that are older than `retention`.
    pub(crate) fn sweep(&self, now: Time, idle: Duration, acked: Version, retention: Duration) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        ledger.sweep(&self.keys, now, idle);
        let acked = acked.min(ledger.head());
        ledger.raise_floor(acked, now, retention);
        self.note_head(&ledger);
    }
}
