//! The interface between a structure and the replication state machine: what the structure holds of each actor, which rows
//! to send, and how to apply received rows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;

use tallymesh_schemas::bound;
use tallymesh_schemas::message::{Delta, DigestEntry, SeenEntry};
use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::Extent;
use tallymesh_schemas::{Actor, Incarnation, NodeName, Version};

use crate::canary::{self, Canary};
use crate::counter::join::{Applied, ApplyError};
use crate::counter::journal::Mark;
use crate::counter::ledger::Ledger;
use crate::counter::structure::Structure;
use crate::counter::watch::ChangeSink;
use crate::hlc::Stamp;
use crate::primitive::Ordering;
use crate::rows::actor_rows::{ActorRows, Cut};
use crate::time::Time;

/// How far this replica's copy of an actor's rows reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) since: Version,
    pub(crate) have: Version,
    pub(crate) floor: Version,
    pub(crate) fingerprint: u64,
    /// The snapshot that is being received: the version at which it begins, and its applied version.
    pub(crate) staging: Option<(Version, Version)>,
}

/// The version at which a sender begins to send an actor's rows to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) cursor: Version,
    pub(crate) snapshot: bool,
}

/// How much of an actor's rows is in a copy outside the ledger (for example on disk), or is available to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PersistedExtent {
    pub(crate) since: Version,
    pub(crate) applied: Version,
    pub(crate) low_water: Version,
    pub(crate) complete: Version,
    /// Set when the copy contains all rows that existed at that time.
    pub(crate) fingerprint: Option<u64>,
    edition: u64,
}

impl PersistedExtent {
    /// The extent that an earlier process copied. The ledger of this process holds none of those rows yet.
    pub(crate) fn of(extent: &Extent) -> Self {
        let Extent { since, applied: have, low_water: floor, complete: whole, fingerprint } = *extent;
        Self { since, applied: have, low_water: floor, complete: whole, fingerprint, edition: u64::MAX }
    }

    pub(crate) fn extent(&self) -> Extent {
        let Self { since, applied: have, low_water: floor, complete: whole, fingerprint, .. } = *self;
        Extent { since, applied: have, low_water: floor, complete: whole, fingerprint }
    }

    fn now(actor_rows: &ActorRows, ours: bool) -> Self {
        let (since, have, floor, edition) =
            (actor_rows.since, actor_rows.applied, actor_rows.floor, actor_rows.edition);
        let whole = if ours { have } else { actor_rows.keys_complete.max(actor_rows.complete).min(have) };
        Self {
            since,
            applied: have,
            low_water: floor,
            complete: whole,
            fingerprint: Some(actor_rows.fingerprint()),
            edition,
        }
    }

    /// Returns whether there are rows or changes that are not in the copy yet.
    pub(crate) fn differs(&self, now: &Self) -> bool {
        (self.edition, self.applied, self.complete) != (now.edition, now.applied, now.complete)
            || self.fingerprint.is_none()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.applied == self.since
    }
}

/// A chunk of rows to be copied, and the extent of the copy after it.
#[derive(Debug)]
pub(crate) struct PersistChunk {
    pub(crate) extent: PersistedExtent,
    /// True when the chunk starts the copy over: it does not continue the earlier copy.
    pub(crate) anew: bool,
    pub(crate) after: Version,
    pub(crate) rows: Vec<u8>,
}

/// A delta contains a write whose stamp is too far ahead of this node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ahead {
    /// How far the write is ahead.
    pub(crate) by: Duration,
    /// Rows before that write have versions up to this one.
    pub(crate) upto: Version,
    /// Length in bytes of those rows in the delta.
    pub(crate) bytes: usize,
}

/// Builds the digest entry of an actor. `age` is the time since this copy was last confirmed as current.
fn digest_entry(actor: &Actor, actor_rows: &ActorRows, age: Option<Duration>) -> DigestEntry {
    DigestEntry {
        actor: actor.clone(),
        since: actor_rows.since,
        applied: actor_rows.applied,
        low_water: actor_rows.floor,
        fingerprint: actor_rows.fingerprint(),
        age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}

impl Structure {
    /// The highest committed version of this node's own rows.
    pub(crate) fn head(&self) -> Version {
        self.head.load(Ordering::SeqCst)
    }

    pub(crate) fn note_head(&self, ledger: &Ledger) {
        self.head.store(ledger.head(), Ordering::SeqCst);
    }

    /// Passes the digest entry of each actor behind `after`, in order, to `tell`, until `tell` returns false.
    pub(crate) fn digest(&self, after: Option<&Actor>, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) {
        let ledger = self.ledger.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (actor, actor_rows) in ledger.all_actor_rows().range((from, Bound::Unbounded)) {
            if !tell(digest_entry(actor, actor_rows, ledger.age(actor, actor_rows, now))) {
                return;
            }
        }
    }

    /// The journal mark of a reader that is about to receive a full digest.
    pub(crate) fn last_change(&self) -> Mark {
        self.ledger.write().journal().last()
    }

    /// Passes the digest entry of each actor that changed behind `mark` to `tell`, until `tell` returns false. Returns the
    /// mark that the reader has reached. O(entries passed).
    pub(crate) fn changes(&self, mark: Mark, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) -> Mark {
        if self.ledger.write().journal().last() == mark {
            return mark;
        }
        let ledger = self.ledger.read();
        let mut reached = mark;
        for (mark, actor) in ledger.changed_behind(mark) {
            if let Some(actor_rows) = ledger.actor_rows(actor)
                && !tell(digest_entry(actor, actor_rows, ledger.age(actor, actor_rows, now)))
            {
                return reached;
            }
            reached = mark;
        }
        reached
    }

    /// Lists an actor in the journal again, so that the next digest of changes contains it.
    pub(crate) fn list_again(&self, actor: &Actor) {
        self.ledger.write().note(actor);
    }

    /// How far this replica's copy of one actor's rows reaches; `None` when this replica holds no rows of the actor.
    pub(crate) fn progress(&self, actor: &Actor) -> Option<Progress> {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actor_rows(actor)?;
        Some(Progress {
            since: actor_rows.since,
            have: actor_rows.applied,
            floor: actor_rows.floor,
            fingerprint: actor_rows.fingerprint(),
            staging: actor_rows.staging.as_ref().map(|shadow| (shadow.since, shadow.applied)),
        })
    }

    /// The version vector of this replica: applied version, complete version and fingerprint of each actor, all read at the
    /// same moment.
    pub(crate) fn vector(&self) -> BTreeMap<Actor, SeenEntry> {
        let ledger = self.ledger.read();
        let entry = |(actor, actor_rows): (&Actor, &ActorRows)| {
            let (have, fingerprint) = (actor_rows.applied, actor_rows.fingerprint());
            let whole = if actor == ledger.actor() {
                have
            } else {
                actor_rows.keys_complete.max(actor_rows.complete).min(have)
            };
            (actor.clone(), SeenEntry { actor: actor.clone(), applied: have, complete: whole, fingerprint })
        };
        ledger.all_actor_rows().iter().map(entry).collect()
    }

    /// Returns the first write of a delta whose stamp is further ahead of this node's clock than allowed; `None` when there
    /// is none.
    pub(crate) fn ahead(&self, delta: &Delta<'_>, unix_ms: u64) -> Option<Ahead> {
        if !self.shape.is_cache() || canary::broken(Canary::FutureTaken) {
            return None;
        }
        let time = self.time(unix_ms);
        let mut rows = RowReader::new(delta.rows, delta.after);
        let (mut upto, mut bytes) = (delta.after, 0);
        // The join reports unreadable rows.
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

    /// Returns whether this replica holds everything that another actor had at one moment.
    pub(crate) fn is_complete(&self, actor: &Actor) -> bool {
        self.ledger.read().actor_rows(actor).is_some_and(ActorRows::is_complete)
    }

    /// Records that a replica whose copy is complete up to `have` has this fingerprint there. If this replica has the same
    /// fingerprint at the same version, its copy is complete too.
    pub(crate) fn note_complete(&self, actor: &Actor, have: Version, fingerprint: u64) {
        if let Some(actor_rows) = self.ledger.write().actor_rows_mut(actor)
            && actor_rows.applied == have
            && (actor_rows.since > 0 || actor_rows.fingerprint() == fingerprint)
        {
            actor_rows.complete = have;
            actor_rows.agrees();
        }
    }

    /// Makes room for an actor's rows. Returns whether there was none before.
    pub(crate) fn admit(&self, actor: &Actor, since: Version) -> bool {
        self.admit_to(&mut self.ledger.write(), actor, since)
    }

    fn admit_to(&self, ledger: &mut Ledger, actor: &Actor, since: Version) -> bool {
        let new = ledger.admit(actor, since);
        if !new && ledger.actor_rows(actor).is_none() {
            self.tally.reached(bound::Bound::Actors);
        }
        new
    }

    /// Like [`Structure::admit`], for rows that outlive their run. The rows count from the first one on, so each of them
    /// reaches the watchers.
    pub(crate) fn admit_saved(&self, actor: &Actor, since: Version) -> bool {
        let mut ledger = self.ledger.write();
        let new = self.admit_to(&mut ledger, actor, since);
        // There are no rows yet that a watcher could receive.
        ledger.set_counts(actor, true, &mut ChangeSink::discard());
        new
    }

    /// Records that an actor's rows up to a version existed before they could reach this node.
    pub(crate) fn inherit(&self, actor: &Actor, have: Version) {
        if let Some(actor_rows) = self.ledger.write().actor_rows_mut(actor) {
            actor_rows.inherited = actor_rows.inherited.max(have);
        }
    }

    /// Returns where to begin sending to a replica that holds `(since, after]` of an actor and knows retirements up to
    /// `low_water`, or that wants a snapshot; `None` when this replica does not hold enough itself.
    pub(crate) fn start(
        &self,
        actor: &Actor,
        (since, after): (Version, Version),
        floor: Version,
        snapshot: bool,
    ) -> Option<Start> {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actor_rows(actor)?;
        let below = after > since && actor_rows.floor > after.max(floor) && !canary::broken(Canary::FloorIgnored);
        let start = match (snapshot, below) {
            (false, true) => Start { cursor: since, snapshot: true },
            (snapshot, _) => Start { cursor: after, snapshot },
        };
        let from = if start.snapshot { since } else { start.cursor };
        if from < actor_rows.since {
            return None;
        }
        if !actor_rows.has_log() {
            drop(ledger);
            self.ledger.write().actor_rows_mut(actor)?.make_log();
        }
        Some(start)
    }

    /// For a cache: the actors that may have rows without value.
    pub(crate) fn actors_without_values(&self) -> Vec<Actor> {
        let ledger = self.ledger.read();
        let hollow = ledger.all_actor_rows().iter().filter(|(_, actor_rows)| !actor_rows.without_value.is_empty());
        hollow.map(|(actor, _)| actor.clone()).collect()
    }

    /// For a cache: the version before the first row of an actor whose value is neither held here nor superseded.
    pub(crate) fn missing_value(&self, actor: &Actor) -> Option<Version> {
        self.ledger.write().missing_value(actor).map(|first| first - 1)
    }

    /// Returns whether an actor, or its staging copy, may have rows without value, and the version before the first row
    /// whose value has arrived only now. O(1).
    pub(crate) fn take_arrived_values(&self, actor: &Actor) -> (bool, Option<Version>) {
        let mut ledger = self.ledger.write();
        let Some(actor_rows) = ledger.actor_rows_mut(actor) else { return (false, None) };
        let anew = actor_rows.staging.as_ref().is_some_and(|shadow| !shadow.without_value.is_empty());
        (anew || !actor_rows.without_value.is_empty(), actor_rows.value_arrived.take().map(|first| first - 1))
    }

    /// Starts a staging copy for an actor's whole history when this copy begins in the middle. The history arrives as a
    /// snapshot.
    pub(crate) fn stage_history(&self, actor: &Actor) {
        if let Some(actor_rows) = self.ledger.write().actor_rows_mut(actor)
            && actor_rows.since > 0
        {
            actor_rows.staging.get_or_insert_with(|| Box::new(ActorRows::staging(0)));
        }
    }

    /// Cuts rows above `after` for a replica that knows the keys of the rows created in `(since, known]`.
    pub(crate) fn cut(&self, actor: &Actor, known: (Version, Version), after: Version, budget: usize) -> Option<Cut> {
        let ledger = self.ledger.read();
        ledger.actor_rows(actor)?.cut(known, after, budget, (ledger.cells(), ledger.registers()))
    }

    /// Reports the extent of each actor's rows, in order of actor.
    pub(crate) fn each_extent(&self, each: &mut dyn FnMut(&Actor, PersistedExtent)) {
        let ledger = self.ledger.read();
        for (actor, actor_rows) in ledger.all_actor_rows() {
            each(actor, PersistedExtent::now(actor_rows, actor == ledger.actor()));
        }
    }

    /// Cuts the next rows for a copy, each with its key; `None` when the ledger no longer holds rows of that actor.
    pub(crate) fn copy(&self, actor: &Actor, copied: Option<PersistedExtent>, budget: usize) -> Option<PersistChunk> {
        let mut ledger = self.ledger.write();
        let ours = actor == ledger.actor();
        let actor_rows = ledger.actor_rows_mut(actor)?;
        actor_rows.make_log();
        let now = PersistedExtent::now(actor_rows, ours);
        let follows = |copied: &PersistedExtent| {
            copied.edition == now.edition
                && now.low_water <= copied.applied.max(copied.low_water)
                && copied.since == now.since
        };
        let copied = copied.filter(follows);
        let from = copied.unwrap_or(PersistedExtent { applied: now.since, low_water: 0, complete: now.since, ..now });
        let (cells, registers) = (ledger.cells(), ledger.registers());
        let cut = ledger.actor_rows(actor)?.cut((now.since, now.since), from.applied, budget, (cells, registers))?;
        let mut reader = RowReader::new(&cut.rows, from.applied);
        let mut floor = from.low_water.max(cut.low_water);
        while let Ok(Some(row)) = reader.next_row() {
            // The copy contains no retired rows.
            floor = if row.state == RowState::Vacant { floor.max(row.version) } else { floor };
        }
        let whole = if cut.fingerprint.is_some() { now.complete } else { from.complete };
        let copied = PersistedExtent {
            applied: cut.upto.max(from.applied),
            low_water: floor,
            complete: whole,
            fingerprint: cut.fingerprint,
            ..now
        };
        Some(PersistChunk { extent: copied, anew: copied.since == from.applied, after: from.applied, rows: cut.rows })
    }

    /// Called after a restore of an actor's rows that had been persisted with `extent`. Returns the persisted extent if the
    /// ledger holds all of those rows and no others.
    pub(crate) fn restored(&self, actor: &Actor, extent: &Extent) -> Option<PersistedExtent> {
        let mut ledger = self.ledger.write();
        let actor_rows = ledger.actor_rows_mut(actor)?;
        (actor_rows.restored, actor_rows.inherited) = (extent.applied, extent.applied);
        let same = (actor_rows.since, actor_rows.applied) == (extent.since, extent.applied)
            && extent.fingerprint.is_none_or(|fingerprint| fingerprint == actor_rows.fingerprint());
        actor_rows.complete = actor_rows.complete.max(if same { extent.complete } else { 0 });
        same.then(|| PersistedExtent { edition: actor_rows.edition, ..PersistedExtent::of(extent) })
    }

    /// Settles a cache's rows after a restore: see [`Ledger::settle_registers`].
    pub(crate) fn settle_registers(&self, now: Time) {
        self.ledger.write().settle_registers(now);
    }

    /// Gives up the snapshot that is being received: no peer has the rest of it.
    pub(crate) fn give_up_snapshot(&self, actor: &Actor) {
        self.ledger.write().give_up_snapshot(actor, &self.keys);
    }

    /// Records that the relay of an actor's rows has different rows. A snapshot then replaces the rows held here.
    pub(crate) fn distrust(&self, actor: &Actor) {
        if let Some(actor_rows) = self.ledger.write().actor_rows_mut(actor) {
            actor_rows.diverged = true;
        }
    }

    /// Handles an owner's statement, in answer to probe `answers`, that differs from this copy at the same version. Returns
    /// whether this copy has diverged. While this copy may be newer than the statement, the answer to probe `next` decides.
    pub(crate) fn contradicted(&self, actor: &Actor, answers: u64, next: u64) -> bool {
        let mut ledger = self.ledger.write();
        let Some(actor_rows) = ledger.actor_rows_mut(actor) else { return false };
        let answered = actor_rows.doubted > 0 && answers >= actor_rows.doubted;
        actor_rows.diverged |= answered || !actor_rows.may_be_newer();
        if actor_rows.doubted == 0 {
            actor_rows.doubted = next;
        }
        actor_rows.diverged
    }

    /// Joins a delta. `from_owner` says that the owner itself made the statements in it.
    pub(crate) fn apply(&self, delta: &Delta<'_>, from_owner: bool, now: Time) -> Result<Applied, ApplyError> {
        let applied = self.watchers.with_sink(|changed| {
            let mut ledger = self.ledger.write();
            let applied = ledger.apply(delta, from_owner, &self.keys, changed);
            ledger.note(&delta.actor);
            let current = matches!(applied, Ok(Applied::Advanced | Applied::Stale | Applied::Replaced));
            if current
                && from_owner
                && delta.fingerprint.is_some()
                && let Some(actor_rows) = ledger.actor_rows_mut(&delta.actor)
                && actor_rows.is_complete_at(delta.upto)
            {
                actor_rows.confirmed = now;
            }
            applied
        });
        self.refresh();
        applied
    }

    /// Returns whether this structure is a window of a series.
    pub(crate) fn is_window(&self) -> bool {
        self.spec().class.is_window()
    }

    /// Lets an actor's rows count if `counts` returns true for it; rows of events always count. Considers the runs of the
    /// given nodes, or of all nodes. O(actors considered).
    pub(crate) fn set_counts(&self, nodes: Option<&BTreeSet<NodeName>>, counts: impl Fn(&Actor) -> bool) {
        let counts = |actor: &Actor| self.shape.keeps_runs() || counts(actor);
        let mut ledger = self.ledger.write();
        let turns = |(actor, actor_rows): &(&Actor, &ActorRows)| actor_rows.counts != counts(actor);
        let changed: Vec<_> = match nodes {
            Some(nodes) => nodes.iter().flat_map(|node| ledger.runs(node)).filter(turns).collect(),
            None => ledger.all_actor_rows().iter().filter(turns).collect(),
        };
        let changed: Vec<_> =
            changed.into_iter().map(|(actor, actor_rows)| (actor.clone(), !actor_rows.counts)).collect();
        self.watchers.with_sink(|sink| {
            changed.iter().for_each(|(actor, counts)| ledger.set_counts(actor, *counts, sink));
        });
        drop(ledger);
        if !changed.is_empty() {
            self.refresh();
        }
    }

    /// Returns whether the structure holds no counts from any run of a node.
    pub(crate) fn has_nothing_of(&self, node: &NodeName) -> bool {
        self.ledger
            .read()
            .runs(node)
            .all(|(_, actor_rows)| actor_rows.applied <= actor_rows.since && actor_rows.staging.is_none())
    }

    /// Drops some runs of a node and returns the runs that existed. `away` says that they were forgotten while this node was
    /// away: see [`Ledger::drop_actor`](crate::counter::ledger::Ledger::drop_actor).
    pub(crate) fn drop_runs(&self, node: &NodeName, runs: &RangeInclusive<Incarnation>, away: bool) -> Vec<Actor> {
        let mut ledger = self.ledger.write();
        let old = ledger.runs(node).map(|(actor, _)| actor).filter(|actor| runs.contains(&actor.incarnation));
        let old: Vec<_> = old.cloned().collect();
        self.watchers.with_sink(|sink| {
            old.iter().for_each(|actor| ledger.drop_actor(actor, away, &self.keys, sink));
        });
        self.note_head(&ledger);
        drop(ledger);
        self.refresh();
        old
    }

    /// Continues as a new run.
    pub(crate) fn renew(&self, actor: Actor) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.with_sink(|changed| ledger.renew(actor, &self.keys, changed));
        self.note_head(&ledger);
        drop(ledger);
        self.refresh();
    }

    /// Closes this node's own counting.
    pub(crate) fn close(&self) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.with_sink(|changed| ledger.close(changed));
        self.note_head(&ledger);
    }

    /// Retires idle zero rows. Purges retired rows that all peers have seen or that are older than `retention`.
    pub(crate) fn sweep(&self, now: Time, idle: Duration, acked: Version, retention: Duration) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        ledger.sweep(&self.keys, now, idle);
        let acked = acked.min(ledger.head());
        ledger.raise_low_water(acked, now, retention);
        self.note_head(&ledger);
    }
}
