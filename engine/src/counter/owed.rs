//! The debts of gauges that nodes have taken below zero, as rows change.

use std::collections::BTreeMap;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, key};

use crate::counter::below::{change, debt};
use crate::counter::ledger::Ledger;
use crate::keyspace::cell::Flag;
use crate::keyspace::id::{CellId, KeyOf};
use crate::rows::row::Row;

impl Ledger {
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
    pub(super) fn owe(&mut self, id: CellId, (before, after): (i64, i64)) {
        if before != after && self.shape.counts_gauges() {
            let in_debt = change(&mut self.below.others.by_cell.write(), id, after - before);
            let cell = self.cells.get(id);
            if in_debt { cell.set(Flag::InDebt) } else { cell.unset(Flag::InDebt) }
        }
    }

    /// Handles that another actor's row starts or stops to count.
    pub(super) fn owe_all(&mut self, id: CellId, row: &Row, counts: bool) {
        self.owe(id, if counts { (0, debt(row)) } else { (debt(row), 0) });
    }

    /// By how much rows in a block are below zero, own rows included. O(rows below zero).
    pub(crate) fn owed_in(&self, net: IpNet) -> i64 {
        let others = self.below.others.by_cell.read();
        let all = others.iter().chain(&self.below.own);
        let inside = all.filter(|(id, _)| key::to_net(&self.cells.key_of(**id)).is_ok_and(|key| net.contains(&key)));
        inside.fold(0, |sum, (_, debt)| sum.saturating_add(*debt))
    }

    /// Checks the debts against the rows (I10).
    pub(super) fn audit_below(&self) -> Result<(), String> {
        if !self.shape.counts_gauges() {
            return Ok(());
        }
        let (mut others, mut own): (BTreeMap<CellId, i64>, BTreeMap<CellId, i64>) = Default::default();
        for (actor, actor_rows) in
            self.actors.iter().filter(|(actor, actor_rows)| actor_rows.counts || **actor == self.actor)
        {
            let debts = if *actor == self.actor { &mut own } else { &mut others };
            for (_, state) in actor_rows.live().filter(|(_, state)| debt(&state.row) > 0) {
                *debts.entry(state.cell).or_default() += debt(&state.row);
            }
        }
        let noted = self.below.others.by_cell.read();
        if others == *noted && own == self.below.own {
            return Ok(());
        }
        let noted = (&*noted, &self.below.own);
        Err(format!("{noted:?} is noted as below zero, rows say {others:?} and {own:?}"))
    }
}
