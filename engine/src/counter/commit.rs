//! The writer of this node's own counts: turns changed cells into rows.
#![allow(clippy::cast_possible_truncation, reason = "the sort key holds the number of a cell in its low half")]

use std::time::Duration;

use tallymesh_schemas::Version;

use crate::counter::ledger::Ledger;
use crate::counter::resets::Restated;
use crate::counter::views::{TOGETHER, Views};
use crate::counter::watch::ChangeSink;
use crate::keyspace::cell::Flag;
use crate::keyspace::id::{CellId, EMPTY, KeyOf};
use crate::keyspace::keys::Keys;
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::ActorRows;
use crate::rows::writer::{OwnRowWriter, counts_nothing};
use crate::time::Time;

/// A commit.
struct Commit<'a, 'b> {
    own: &'a mut OwnRowWriter,
    rows: &'a mut ActorRows,
    views: &'a mut Views,
    keys: &'a Keys,
    sink: &'a mut ChangeSink<'b>,
    /// Changed rows that clear.
    cleared: Vec<Restated>,
}

impl Ledger {
    /// Writes the own rows of the cells that have changed, in order of slot, so that the batch is short on the wire.
    pub(crate) fn commit(&mut self, dirty: &mut Vec<CellId>, keys: &Keys, sink: &mut ChangeSink<'_>) {
        self.commits += 1;
        let batch = self.batch(dirty);
        let Some((own, rows, views)) = self.own_parts() else { return };
        let mut commit = Commit { own, rows, views, keys, sink, cleared: Vec::new() };
        for together in batch.chunks(TOGETHER) {
            commit.rows.warm(together.iter().map(|at| (at >> 32) as u32).filter(|slot| *slot != EMPTY));
            for at in together {
                commit.cell(*at as CellId);
            }
        }
        let cleared = commit.cleared;
        self.reclear(cleared, keys, sink);
        self.views.index.settle();
    }

    /// The cells to commit, each with its slot in the upper half, in order of slot. Takes the changes of all others.
    fn batch(&mut self, dirty: &mut Vec<CellId>) -> Vec<u64> {
        let views = &mut self.views;
        let mut batch = Vec::with_capacity(dirty.len());
        for id in dirty.drain(..) {
            let cell = views.cells.get(id);
            if self.closed {
                cell.take();
            } else {
                // Sorting by one packed number takes half the time.
                batch.push(u64::from(cell.own_slot()) << 32 | u64::from(id));
            }
        }
        batch.sort_unstable();
        batch
    }

    /// Retires this node's idle zero rows and removes cells that are no longer pinned.
    pub(crate) fn sweep(&mut self, keys: &Keys, now: Time, idle: Duration) {
        let mut retired = Vec::new();
        // Rows of events stay until their structure is removed.
        if let Some((own, rows, views)) = self.own_parts().filter(|(_, _, views)| !views.shape.keeps_runs()) {
            own.retire(rows, &views.cells, now, idle, |id| retired.push(id));
        }
        for id in retired {
            self.views.drop_if_unused(id, keys);
        }
        self.views.sweep(keys);
    }

    /// Purges retired rows that all peers have seen: see [`OwnRowWriter::raise_low_water`].
    pub(crate) fn raise_low_water(&mut self, acked: Version, now: Time, retention: Duration) {
        if let Some((own, rows, _)) = self.own_parts() {
            own.raise_low_water(rows, acked, now, retention);
        }
    }

    /// Closes this node's counting: its gauges become zero; events stay.
    pub(crate) fn close(&mut self, sink: &mut ChangeSink<'_>) {
        self.closed = true;
        let Some((own, rows, views)) = self.own_parts().filter(|(_, _, views)| !views.shape.keeps_runs()) else {
            return;
        };
        let open: Vec<_> = rows.live().map(|(_, state)| (state.cell, state.row)).collect();
        for (id, row) in open {
            let total = row.added.max(row.removed);
            let closed = Totals { added: total, removed: total };
            if let Some((old, new)) = own.write(rows, &views.cells, id, closed) {
                views.count_own(id, &old, &new);
                sink.changed(|| views.cells.key_of(id));
            }
        }
    }
}

impl Commit<'_, '_> {
    /// Writes the own row of a cell that has changed.
    fn cell(&mut self, id: CellId) {
        let Self { own, rows, views, keys, sink, cleared } = self;
        let cell = views.cells.get(id);
        let totals = cell.take();
        if !cell.has(Flag::Indexed) && counts_nothing(cell, totals) {
            return views.park(id);
        }
        views.enter(id);
        if let Some((old, new)) = own.write(rows, &views.cells, id, totals) {
            if views.clears(id) {
                cleared.push(Restated::new(views.cells.key_of(id), &old, &new));
                return;
            }
            views.count_own(id, &old, &new);
            views.most = views.most.max(new.value().unsigned_abs());
            sink.changed(|| views.cells.key_of(id));
        }
        views.drop_if_unused(id, keys);
    }
}
