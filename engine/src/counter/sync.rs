//! The interface between a structure and the replication state machine: what the structure holds of each actor, which rows
//! to send, and how to apply received rows.

use std::collections::BTreeSet;
use std::ops::{Bound, RangeInclusive};
use std::time::Duration;

use tallymesh_schemas::bound;
use tallymesh_schemas::message::{Delta, DigestEntry};
use tallymesh_schemas::{Actor, Incarnation, NodeName, Version};

use crate::counter::actors::Copies;
use crate::counter::join::{Applied, ApplyError, Fit, Source};
use crate::counter::ledger::Ledger;
use crate::counter::runs::Turn;
use crate::counter::structure::Structure;
use crate::counter::watch::ChangeSink;
use crate::primitive::Ordering;
use crate::rows::actor_rows::{ActorRows, Cut, is_above_low_water};
use crate::rows::span::Span;
use crate::time::Time;

/// How far this replica's copy of an actor's rows reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) since: Version,
    pub(crate) applied: Version,
    pub(crate) low_water: Version,
    pub(crate) fingerprint: u64,
    /// The snapshot that is being received.
    pub(crate) staging: Option<Span>,
}

/// The version at which a sender begins to send an actor's rows to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) cursor: Version,
    pub(crate) snapshot: bool,
}

/// Builds the digest entry of an actor. `age` is the time since this copy was last confirmed as current.
pub(crate) fn digest_entry(actor: &Actor, actor_rows: &ActorRows, age: Option<Duration>) -> DigestEntry {
    DigestEntry {
        actor: actor.clone(),
        since: actor_rows.since,
        applied: actor_rows.applied,
        low_water: actor_rows.low_water,
        fingerprint: actor_rows.fingerprint(),
        age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}

impl Structure {
    /// The highest committed version of this node's own rows.
    pub(crate) fn head(&self) -> Version {
        Version(self.head.load(Ordering::SeqCst))
    }

    /// Passes the digest entry of each actor behind `after`, in order, to `tell`, until `tell` returns false.
    pub(crate) fn digest(&self, after: Option<&Actor>, now: Time, tell: &mut dyn FnMut(DigestEntry) -> bool) {
        let ledger = self.ledger.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (actor, actor_rows) in ledger.actors().range((from, Bound::Unbounded)) {
            if !tell(digest_entry(actor, actor_rows, ledger.age(actor, actor_rows, now))) {
                return;
            }
        }
    }

    /// How far this replica's copy of one actor's rows reaches; `None` when this replica holds no rows of the actor.
    pub(crate) fn progress(&self, actor: &Actor) -> Option<Progress> {
        let ledger = self.ledger.read();
        let copies = ledger.actors().copies(actor)?;
        let actor_rows = &copies.rows;
        Some(Progress {
            since: actor_rows.since,
            applied: actor_rows.applied,
            low_water: actor_rows.low_water,
            fingerprint: actor_rows.fingerprint(),
            staging: copies.staging.as_ref().map(|staging| Span { since: staging.since, upto: staging.applied }),
        })
    }

    /// Returns whether this replica holds everything that another actor had at one moment.
    pub(crate) fn is_complete(&self, actor: &Actor) -> bool {
        self.ledger.read().actors().get(actor).is_some_and(ActorRows::is_complete)
    }

    /// Returns whether this replica holds everything that an actor had when `head` was its head, in that state or a later one.
    pub(crate) fn is_complete_at(&self, actor: &Actor, head: Version) -> bool {
        self.ledger.read().actors().get(actor).is_some_and(|rows| rows.is_complete_at(head))
    }

    /// Records that a replica whose copy is complete up to `upto` has this fingerprint there. If this replica has the same
    /// fingerprint at the same version, its copy is complete too.
    pub(crate) fn note_complete(&self, actor: &Actor, upto: Version, fingerprint: u64) {
        if let Some(actor_rows) = self.ledger.write().actors_mut().get_mut(actor)
            && actor_rows.applied == upto
            && (actor_rows.since > Version::ZERO || actor_rows.fingerprint() == fingerprint)
        {
            actor_rows.complete = upto;
            actor_rows.agrees();
        }
    }

    /// Makes room for an actor's rows. Returns whether there was none before.
    pub(crate) fn admit(&self, actor: &Actor, since: Version) -> bool {
        self.admit_to(&mut self.ledger.write(), actor, since)
    }

    fn admit_to(&self, ledger: &mut Ledger, actor: &Actor, since: Version) -> bool {
        let new = ledger.admit(actor, since);
        self.publish(ledger);
        if !new && ledger.actors().get(actor).is_none() {
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
        ledger.turn(actor, Turn::On, &mut ChangeSink::discard());
        new
    }

    /// Records that an actor's rows up to a version existed before they could reach this node.
    pub(crate) fn inherit(&self, actor: &Actor, upto: Version) {
        if let Some(actor_rows) = self.ledger.write().actors_mut().get_mut(actor) {
            actor_rows.inherited = actor_rows.inherited.max(upto);
        }
    }

    /// Returns where to begin sending to a replica that holds an actor's rows from `since` up to the cursor of `wanted`, and
    /// knows retirements up to `low_water`; `None` when this replica does not hold enough itself.
    pub(crate) fn start(&self, actor: &Actor, since: Version, low_water: Version, wanted: Start) -> Option<Start> {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actors().get(actor)?;
        let after = wanted.cursor;
        let below = after > since && !is_above_low_water(after.max(low_water), actor_rows.low_water);
        let start = if below && !wanted.snapshot { Start { cursor: since, snapshot: true } } else { wanted };
        let from = if start.snapshot { since } else { start.cursor };
        if from < actor_rows.since {
            return None;
        }
        if !actor_rows.has_log() {
            drop(ledger);
            self.ledger.write().actors_mut().get_mut(actor)?.make_log();
        }
        Some(start)
    }

    /// Starts a staging copy for an actor's whole history when this copy begins in the middle. The history arrives as a
    /// snapshot.
    pub(crate) fn stage_history(&self, actor: &Actor) {
        if let Some(copies) = self.ledger.write().actors_mut().copies_mut(actor)
            && copies.rows.since > Version::ZERO
        {
            copies.staging.get_or_insert_with(|| Box::new(ActorRows::staging(Version::ZERO)));
        }
    }

    /// Cuts rows above `after` for a replica that knows the keys of the rows created in `known`.
    pub(crate) fn cut(&self, actor: &Actor, known: Span, after: Version, budget: usize) -> Option<Cut> {
        let ledger = self.ledger.read();
        ledger.actors().get(actor)?.cut(known, after, budget, ledger.cells())
    }

    /// Gives up the snapshot that is being received: no peer has the rest of it.
    pub(crate) fn give_up_snapshot(&self, actor: &Actor) {
        self.ledger.write().give_up_snapshot(actor, &self.keys);
    }

    /// Records that the relay of an actor's rows has different rows. A snapshot then replaces the rows held here.
    pub(crate) fn distrust(&self, actor: &Actor) {
        if let Some(actor_rows) = self.ledger.write().actors_mut().get_mut(actor) {
            actor_rows.diverged = true;
        }
    }

    /// Handles an owner's statement, in answer to probe `answers`, that differs from this copy at the same version. Returns
    /// whether this copy has diverged. While this copy may be newer than the statement, the answer to probe `next` decides.
    pub(crate) fn contradicted(&self, actor: &Actor, answers: u64, next: u64) -> bool {
        let mut ledger = self.ledger.write();
        let Some(actor_rows) = ledger.actors_mut().get_mut(actor) else { return false };
        let answered = actor_rows.doubted > 0 && answers >= actor_rows.doubted;
        actor_rows.diverged |= answered || !actor_rows.may_be_newer();
        if actor_rows.doubted == 0 {
            actor_rows.doubted = next;
        }
        actor_rows.diverged
    }

    /// Joins a delta.
    pub(crate) fn apply(
        &self,
        delta: &Delta<'_>,
        (source, fit): (Source, Fit),
        now: Time,
    ) -> Result<Applied, ApplyError> {
        self.watchers.with_sink(|changed| {
            let mut ledger = self.ledger.write();
            let applied = ledger.apply(delta, (source, fit), &self.keys, changed);
            ledger.note(&delta.actor);
            self.publish(&mut ledger);
            let current = matches!(applied, Ok(Applied::Advanced | Applied::Stale | Applied::Replaced));
            if current
                && source == Source::Owner
                && delta.fingerprint.is_some()
                && let Some(actor_rows) = ledger.actors_mut().get_mut(&delta.actor)
                && actor_rows.is_complete_at(delta.upto)
            {
                actor_rows.confirm(now);
            }
            self.refresh(&ledger);
            applied
        })
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
        let turns = |(actor, rows): (&Actor, &ActorRows)| match (rows.counts, counts(actor)) {
            (false, true) => Some((actor.clone(), Turn::On)),
            (true, false) => Some((actor.clone(), Turn::Off)),
            _ => None,
        };
        let changed: Vec<_> = match nodes {
            Some(nodes) => nodes.iter().flat_map(|node| ledger.runs(node)).filter_map(turns).collect(),
            None => ledger.actors().iter().filter_map(turns).collect(),
        };
        self.watchers.with_sink(|sink| {
            changed.iter().for_each(|(actor, turn)| ledger.turn(actor, *turn, sink));
        });
        if !changed.is_empty() {
            self.refresh(&ledger);
        }
    }

    /// Returns whether the structure holds no counts from any run of a node.
    pub(crate) fn has_nothing_of(&self, node: &NodeName) -> bool {
        let ledger = self.ledger.read();
        let mut runs = ledger.runs(node).filter_map(|(actor, _)| ledger.actors().copies(actor));
        runs.all(|Copies { rows, staging, .. }| rows.applied <= rows.since && staging.is_none())
    }

    /// Returns whether this replica has a copy of an actor's rows, which may be empty.
    pub(crate) fn holds(&self, actor: &Actor) -> bool {
        self.ledger.read().actors().get(actor).is_some()
    }

    /// Some runs of a node, those of which this replica holds nothing, not even a part of a snapshot.
    pub(crate) fn empty_runs(&self, node: &NodeName, runs: &RangeInclusive<Incarnation>) -> Vec<Actor> {
        let ledger = self.ledger.read();
        let is_empty = |actor: &Actor| {
            let copies = ledger.actors().copies(actor);
            copies.is_some_and(|Copies { rows, staging, .. }| rows.applied == Version::ZERO && staging.is_none())
        };
        let (first, last) = (*runs.start(), *runs.end());
        let some = Actor::new(node.clone(), first)..=Actor::new(node.clone(), last);
        ledger.actors().range(some).map(|(actor, _)| actor).filter(|actor| is_empty(actor)).cloned().collect()
    }

    /// Drops some runs of a node and returns the runs that existed: see
    /// [`Ledger::drop_actor`](crate::counter::ledger::Ledger::drop_actor).
    pub(crate) fn drop_runs(&self, node: &NodeName, runs: &RangeInclusive<Incarnation>) -> Vec<Actor> {
        let mut ledger = self.ledger.write();
        let old = ledger.runs(node).map(|(actor, _)| actor).filter(|actor| runs.contains(&actor.incarnation));
        let old: Vec<_> = old.cloned().collect();
        if old.is_empty() {
            return old;
        }
        self.watchers.with_sink(|sink| {
            old.iter().for_each(|actor| ledger.drop_actor(actor, &self.keys, sink));
        });
        self.publish(&mut ledger);
        self.refresh(&ledger);
        old
    }

    /// Continues as a new run.
    pub(crate) fn renew(&self, actor: Actor) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.with_sink(|changed| ledger.renew(actor, &self.keys, changed));
        self.publish(&mut ledger);
        self.refresh(&ledger);
    }

    /// Closes this node's own counting.
    pub(crate) fn close(&self) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.watchers.with_sink(|changed| ledger.close(changed));
        self.publish(&mut ledger);
    }

    /// Retires idle zero rows. Purges retired rows that all peers have seen or that are older than `retention`.
    pub(crate) fn sweep(&self, now: Time, idle: Duration, acked: Version, retention: Duration) {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        ledger.sweep(&self.keys, now, idle);
        let acked = acked.min(ledger.head());
        ledger.raise_low_water(acked, now, retention);
        self.publish(&mut ledger);
    }
}
