//! The set of actors: actors are admitted and dropped, count or do not count, and this node renews its run or closes.

use tallymesh_schemas::{Actor, Incarnation, NodeName, Version, bounds};

use crate::canary::{self, Canary};
use crate::counter::ledger::Ledger;
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{EMPTY, KeyOf};
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::writer::OwnRowWriter;

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
        let skip = if self.shape.keeps_runs() { 0 } else { self.runs(node).count().saturating_sub(1) };
        self.runs(node).skip(skip)
    }

    /// Makes room for rows of an actor, known from `since` on. Returns true if there was no room before and there is now.
    pub(crate) fn admit(&mut self, actor: &Actor, since: Version) -> bool {
        let new = !self.actors.contains_key(actor) && self.has_room_for(&actor.node);
        if new {
            let edition = self.edition();
            self.actors.insert(actor.clone(), ActorRows::new(since).of_edition(edition));
            self.journal.note(actor);
        }
        new
    }

    /// Returns whether there is room for a further run of a node. When few places are left, a node that has many runs gets
    /// no further one. So a node that keeps announcing new runs does not keep other nodes out.
    fn has_room_for(&self, node: &NodeName) -> bool {
        let taken = self.actors.len();
        let contended = taken >= bounds::ACTORS_CONTENDED && *node != self.actor.node;
        taken < bounds::ACTORS
            && !(contended && self.runs(node).take(bounds::RUNS_CONTENDED).count() >= bounds::RUNS_CONTENDED)
    }

    /// Sets whether an actor's rows count in the views (I4).
    pub(crate) fn set_counts(&mut self, actor: &Actor, counts: bool, sink: &mut ChangeSink<'_>) {
        let Some(actor_rows) = self.actors.get_mut(actor) else { return };
        if actor_rows.counts == counts {
            return;
        }
        actor_rows.counts = counts;
        let rows: Vec<_> = actor_rows.live().map(|(_, state)| (state.cell, state.row)).collect();
        for (id, row) in rows {
            if self.clears(id) {
                continue;
            }
            let value = self.value(actor, id, &row);
            if !counts && canary::broken(Canary::DeadFolded) {
                continue;
            }
            let by = if counts { value } else { -value };
            self.add_others(id, by);
            self.owe_all(id, &row, counts);
            sink.moved(by, || self.cells.key_of(id));
        }
    }

    /// Drops a superseded or forgotten actor with all its rows. In a cache this node republishes the readable values of
    /// those rows. With `away` the actor was dropped elsewhere while this node was away; then this node republishes only
    /// values of rows above the restored version.
    pub(crate) fn drop_actor(&mut self, actor: &Actor, away: bool, keys: &Keys, sink: &mut ChangeSink<'_>) {
        self.set_counts(actor, false, sink);
        self.journal.forget(actor);
        if let Some(mut actor_rows) = self.actors.remove(actor) {
            self.republish_lost(actor, &actor_rows, if away { actor_rows.restored } else { 0 });
            self.reclear(self.clearing_rows(&actor_rows), keys, sink);
            if let Some(shadow) = actor_rows.staging.take() {
                self.drop_copy(actor, &shadow, None, keys);
            }
            self.drop_copy(actor, &actor_rows, None, keys);
        }
    }

    /// Drops rows of an actor that are replaced by `others`, or by nothing. Afterwards the readable values of those rows may
    /// have no row on any node.
    pub(super) fn drop_copy(&mut self, actor: &Actor, rows: &ActorRows, others: Option<&ActorRows>, keys: &Keys) {
        self.drop_rows(rows, keys);
        self.note_unowned(actor, rows, others);
    }

    /// Removes the rows of an actor from their cells. The ledger no longer holds these rows.
    pub(super) fn drop_rows(&mut self, actor_rows: &ActorRows, keys: &Keys) {
        for (_, state) in actor_rows.live() {
            self.cells.get(state.cell).remove_row();
            self.drop_if_unused(state.cell, keys);
        }
    }

    /// Renews this node's run: the open gauges become the new run's, and the old run's rows are dropped here as on every
    /// other node.
    pub(crate) fn renew(&mut self, actor: Actor, keys: &Keys, sink: &mut ChangeSink<'_>) {
        let Some(old) = self.actors.remove(&self.actor) else { return };
        let was = std::mem::replace(&mut self.actor, actor.clone());
        self.journal.forget(&was);
        let cleared = self.clearing_rows(&old);
        self.own = OwnRowWriter::default();
        let edition = self.edition();
        self.actors.insert(actor, ActorRows::ours().of_edition(edition));
        for (_, state) in old.live() {
            let cell = self.cells.get(state.cell);
            cell.set_own_slot(EMPTY);
            cell.remove_row();
            // The cleared totals of the old run's row are not part of the new run's row.
            let cleared = self.cleared_of(state.cell, &was);
            if self.shape.is_cache() {
                self.renew_register(state.cell, &was, &state.row);
                self.drop_if_unused(state.cell, keys);
                continue;
            }
            let (added, removed) = (state.row.added.min(cleared.0), state.row.removed.min(cleared.1));
            self.cells.get(state.cell).lower(added, removed);
            let totals = (state.row.added - added, state.row.removed - removed);
            if let Some((own, actor_rows, cells)) = self.own_parts() {
                own.write(actor_rows, cells, state.cell, totals);
            }
            // Totals that count nothing are not carried over.
            if self.cells.get(state.cell).own_slot() == EMPTY && !self.clears(state.cell) {
                sink.changed(|| self.cells.key_of(state.cell));
            }
            self.drop_if_unused(state.cell, keys);
        }
        self.reclear(cleared, keys, sink);
    }

    /// Closes this node's counting: its gauges become zero; events stay.
    pub(crate) fn close(&mut self, sink: &mut ChangeSink<'_>) {
        self.closed = true;
        if self.shape.keeps_runs() {
            return;
        }
        let Some(own) = self.actors.get(&self.actor) else { return };
        let rows: Vec<_> = own.live().map(|(_, state)| (state.cell, state.row)).collect();
        for (id, row) in rows {
            let Some((own, actor_rows, cells)) = self.own_parts() else { return };
            let total = row.added.max(row.removed);
            if let Some((old, new)) = own.write(actor_rows, cells, id, (total, total)) {
                self.add_own(id, self.change(&self.actor, id, &old, &new));
                self.note_own_below(id, &old, &new);
                sink.changed(|| self.cells.key_of(id));
            }
        }
    }
}
