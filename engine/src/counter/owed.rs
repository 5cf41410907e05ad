//! The debts of gauges that nodes have taken below zero, as rows change.

use tallymesh_schemas::Actor;

use crate::counter::below::{change, debt};
use crate::counter::views::Views;
use crate::keyspace::cell::Flag;
use crate::keyspace::id::CellId;
use crate::rows::row::Row;

impl Views {
    /// Handles the change of another actor's row that counts.
    #[inline]
    pub(super) fn note_below(&mut self, actor: &Actor, id: CellId, old: &Row, new: &Row) {
        let debts = (debt(old), debt(new));
        if debts != (0, 0) {
            self.owe(id, debts);
            self.note_fall(actor, debts);
        }
    }

    /// Handles the change of an own row.
    #[inline]
    pub(super) fn note_own_below(&mut self, id: CellId, old: &Row, new: &Row) {
        let debts = (debt(old), debt(new));
        if debts != (0, 0) && self.shape.counts_gauges() {
            change(&mut self.below.own, id, debts.1 - debts.0);
            self.note_fall(&self.actor, debts);
        }
    }

    fn note_fall(&self, actor: &Actor, (before, after): (i64, i64)) {
        if before == 0 && after > 0 && self.shape.counts_gauges() {
            *self.below.others.falls.lock().entry(actor.clone()).or_default() += 1;
        }
    }

    /// Handles a change of the debt of another actor's row, or of whether the row counts.
    fn owe(&mut self, id: CellId, (before, after): (i64, i64)) {
        if before != after && self.shape.counts_gauges() {
            let in_debt = change(&mut self.below.others.by_cell.write(), id, after - before);
            let cell = self.cells.get(id);
            if in_debt { cell.set(Flag::InDebt) } else { cell.unset(Flag::InDebt) }
        }
    }

    /// Handles that another actor's row starts to count.
    pub(super) fn owe_more(&mut self, id: CellId, row: &Row) {
        self.owe(id, (0, debt(row)));
    }

    /// Handles that another actor's row stops counting.
    pub(super) fn owe_less(&mut self, id: CellId, row: &Row) {
        self.owe(id, (debt(row), 0));
    }
}
