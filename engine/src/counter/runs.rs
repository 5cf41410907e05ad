//! The set of actors: actors are admitted and dropped, count or do not count, and this node renews its run or closes.

use tallymesh_schemas::{Actor, Incarnation, NodeName, Version, bounds};

use crate::canary::{self, Canary};
use crate::counter::actors::Copies;
use crate::counter::ledger::Ledger;
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{CellId, EMPTY, KeyOf};
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::rows::slots::Slot;
use crate::rows::writer::OwnRowWriter;

/// Whether an actor's rows start or stop to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    On,
    Off,
}

impl Ledger {
    /// The latest run of a node of which this replica holds rows.
    pub(crate) fn latest(&self, node: &NodeName) -> Option<(&Actor, &ActorRows)> {
        self.runs(node).next_back()
    }

    /// The runs of a node of which this replica holds rows, in order. Of gauges only the latest run counts.
    pub(crate) fn runs(&self, node: &NodeName) -> impl DoubleEndedIterator<Item = (&Actor, &ActorRows)> + Clone {
        let first = Actor::new(node.clone(), Incarnation(0));
        let last = Actor::new(node.clone(), Incarnation(u64::MAX));
        self.actors.range(first..=last)
    }

    /// The runs of a node whose rows make up the node's count.
    pub(crate) fn counted_runs(&self, node: &NodeName) -> impl Iterator<Item = (&Actor, &ActorRows)> {
        let skip = if self.views.shape.keeps_runs() { 0 } else { self.runs(node).count().saturating_sub(1) };
        self.runs(node).skip(skip)
    }

    /// Makes room for rows of an actor, known from `since` on. Returns true if there was no room before and there is now.
    pub(crate) fn admit(&mut self, actor: &Actor, since: Version) -> bool {
        let new = self.actors.get(actor).is_none() && self.has_room_for(&actor.node);
        if new {
            self.actors.insert(actor.clone(), ActorRows::new(since).of_edition(self.editions.next()));
            self.journal.note(actor);
        }
        new
    }

    /// Returns whether there is room for a further run of a node. When few places are left, a node that has many runs gets
    /// no further one. So a node that keeps announcing new runs does not keep other nodes out.
    fn has_room_for(&self, node: &NodeName) -> bool {
        let taken = self.actors.len();
        let contended = taken >= bounds::ACTORS_CONTENDED && *node != self.actor().node;
        taken < bounds::ACTORS
            && !(contended && self.runs(node).take(bounds::RUNS_CONTENDED).count() >= bounds::RUNS_CONTENDED)
    }

    /// Lets an actor's rows count in the views, or no longer (I4).
    pub(crate) fn turn(&mut self, actor: &Actor, turn: Turn, sink: &mut ChangeSink<'_>) {
        let Some(rows) = self.actors.get_mut(actor) else { return };
        if rows.counts == (turn == Turn::On) {
            return;
        }
        rows.counts = turn == Turn::On;
        let views = &mut self.views;
        for (_, Slot { cell: id, row, .. }) in rows.live() {
            if views.clears(id) || keeps_counts(turn) {
                continue;
            }
            let value = views.value(actor, id, &row);
            let by = match turn {
                Turn::On => value,
                Turn::Off => -value,
            };
            views.add_others(id, by);
            match turn {
                Turn::On => views.owe_more(id, &row),
                Turn::Off => views.owe_less(id, &row),
            }
            sink.moved(by, || views.cells.key_of(id));
        }
    }

    /// Drops a superseded or forgotten actor with all its rows.
    pub(crate) fn drop_actor(&mut self, actor: &Actor, keys: &Keys, sink: &mut ChangeSink<'_>) {
        self.turn(actor, Turn::Off, sink);
        self.journal.forget(actor);
        let Some(Copies { rows, staging, .. }) = self.actors.remove(actor) else { return };
        let cleared = self.views.clearing_rows(&rows);
        if let Some(staging) = staging {
            self.views.drop_rows(&staging, keys);
        }
        // A row that no other actor has goes with its cell, so there is nothing to look for.
        self.views.drop_rows(&rows, keys);
        self.reclear(cleared, keys, sink);
    }

    /// Renews this node's run: the open gauges become the new run's, and the old run's rows are dropped here as on every
    /// other node.
    pub(crate) fn renew(&mut self, actor: Actor, keys: &Keys, sink: &mut ChangeSink<'_>) {
        let Some(Copies { rows: old, .. }) = self.actors.remove(&self.views.actor) else { return };
        let cleared = self.views.clearing_rows(&old);
        let was = self.begin_run(actor);
        self.journal.forget(&was);
        for (_, Slot { cell: id, row, .. }) in old.live() {
            let cell = self.views.cells.get(id);
            cell.set_own_slot(EMPTY);
            cell.remove_row();
            self.renew_count(id, &was, &row, sink);
            self.views.drop_if_unused(id, keys);
        }
        self.reclear(cleared, keys, sink);
    }

    /// Counts under the new run what the old run's row counted. The cleared totals of that row are not part of the new run's
    /// row.
    fn renew_count(&mut self, id: CellId, was: &Actor, row: &Row, sink: &mut ChangeSink<'_>) {
        let Some((own, rows, views)) = self.own_parts() else { return };
        let left = row.totals().beyond(views.cleared_of(id, was));
        views.cells.get(id).lower(row.totals().beyond(left));
        own.write(rows, &views.cells, id, left);
        // Totals that count nothing are not carried over.
        if views.cells.get(id).own_slot() == EMPTY && !views.clears(id) {
            sink.changed(|| views.cells.key_of(id));
        }
    }

    /// Begins a new run without rows. Returns the actor of the run before.
    pub(super) fn begin_run(&mut self, actor: Actor) -> Actor {
        let was = std::mem::replace(&mut self.views.actor, actor.clone());
        self.own = OwnRowWriter::default();
        self.actors.insert(actor, ActorRows::ours().of_edition(self.editions.next()));
        was
    }
}

/// Returns whether the views keep the counts of rows that count no longer (I4).
fn keeps_counts(turn: Turn) -> bool {
    turn == Turn::Off && canary::broken(Canary::DeadFolded)
}
