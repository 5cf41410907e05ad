//! Gauges that nodes have taken below zero: a node removed more than it had added.
//!
//! The views show such counts unchanged. For limits a row below zero counts as zero: a fault of one node's client must not
//! make room for other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, Cell, key};

use crate::counter::store::Ledger;
use crate::keyspace::id::CellId;
use crate::keyspace::id::KeyOf;
use crate::primitive::{Mutex, RwLock};
use crate::rows::row::Row;

/// By how much gauges are below zero.
#[derive(Debug, Default)]
pub(crate) struct Below {
    others: Arc<Debts>,
    /// The debts of this node's own rows, by cell.
    own: BTreeMap<CellId, i64>,
}

/// The debts of the other actors' rows that count. Only the ledger writes it; its locks are taken last.
#[derive(Debug)]
pub(crate) struct Debts {
    /// By cell, summed over all actors.
    by_cell: RwLock<BTreeMap<CellId, i64>>,
    /// How often each actor's gauges, this node's included, went below zero since the last call that took the counts.
    falls: Mutex<BTreeMap<Actor, u64>>,
}

impl Default for Debts {
    fn default() -> Self {
        Self { by_cell: RwLock::new(BTreeMap::new()), falls: Mutex::default() }
    }
}

impl Debts {
    /// By how much other actors' rows of a cell are below zero.
    pub(crate) fn of(&self, id: CellId) -> i64 {
        self.by_cell.read().get(&id).copied().unwrap_or(0)
    }

    /// Returns which actors have taken gauges below zero, and how often, since the last call.
    pub(crate) fn take_falls(&self) -> BTreeMap<Actor, u64> {
        std::mem::take(&mut *self.falls.lock())
    }
}

impl Below {
    pub(super) fn debts(&self) -> &Arc<Debts> {
        &self.others
    }
}

fn debt(row: &Row) -> i64 {
    -row.value().min(0)
}

/// Adds to a debt. Returns whether a debt remains.
fn change(debts: &mut BTreeMap<CellId, i64>, id: CellId, by: i64) -> bool {
    let debt = debts.get(&id).copied().unwrap_or(0).saturating_add(by);
    if debt > 0 {
        debts.insert(id, debt);
    } else {
        debts.remove(&id);
    }
    debt > 0
}

impl Ledger {
    fn counts_gauges(&self) -> bool {
        self.class.cell() == Cell::Gauge
    }

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
        if debts != (0, 0) && self.counts_gauges() {
            change(&mut self.below.own, id, debts.1 - debts.0);
            self.note_fall(&self.actor, debts);
        }
    }

    fn note_fall(&self, actor: &Actor, (before, after): (i64, i64)) {
        if before == 0 && after > 0 && self.counts_gauges() {
            *self.below.others.falls.lock().entry(actor.clone()).or_default() += 1;
        }
    }

    /// Handles a change of the debt of another actor's row, or of whether the row counts.
    pub(super) fn owe(&mut self, id: CellId, (before, after): (i64, i64)) {
        if before != after && self.counts_gauges() {
            let in_debt = change(&mut self.below.others.by_cell.write(), id, after - before);
            self.cells.get(id).set_in_debt(in_debt);
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
        if !self.counts_gauges() {
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
