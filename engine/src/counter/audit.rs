//! Checks that the aggregates match the rows.

use std::collections::BTreeMap;

use tallymesh_schemas::Kind;

use crate::counter::below::debt;
use crate::counter::ledger::Ledger;
use crate::index::nodes::Sum;
use crate::keyspace::hash::key_hash;
use crate::keyspace::id::{CellId, KeyOf};
use crate::rows::row::row_hash;

impl Ledger {
    /// Recomputes every aggregate from the rows (I10, and the basis of I3) and returns the first difference as an error.
    pub(crate) fn audit(&self) -> Result<(), String> {
        // For each cell: the number of rows, and the sum of the other actors' rows.
        let mut sums: BTreeMap<CellId, (u32, i64)> = BTreeMap::new();
        let views = &self.views;
        let with_staging = self.actors.all_copies().flat_map(|(actor, copies)| {
            [Some((actor, &copies.rows, false)), copies.staging.as_deref().map(|staging| (actor, staging, true))]
        });
        for (actor, actor_rows, staging) in with_staging.flatten() {
            let mut fingerprint = 0_u64;
            for (_, state) in actor_rows.live() {
                let (rows, others) = sums.entry(state.cell).or_default();
                *rows += 1;
                fingerprint = fingerprint.wrapping_add(row_hash(key_hash(&views.cells.key_of(state.cell)), &state.row));
                if !staging && actor_rows.counts && actor != self.actor() && !views.clears(state.cell) {
                    *others += views.value(actor, state.cell, &state.row);
                }
            }
            if fingerprint != actor_rows.fingerprint() {
                return Err(format!(
                    "fingerprint of {actor} is {:x}, its rows say {fingerprint:x}",
                    actor_rows.fingerprint()
                ));
            }
        }
        for (id, cell) in views.cells.indexed() {
            let key = &*views.cells.key_of(id);
            let (held, sum) = sums.remove(&id).unwrap_or_default();
            if cell.others() != sum {
                return Err(format!("{key:?}: cached {} of others, rows say {sum}", cell.others()));
            }
            if cell.rows() != held {
                return Err(format!("{key:?}: {} rows noted, {held} there", cell.rows()));
            }
            if views.shape.kind() == Kind::CidrTree && !views.clears(id) {
                let own = self.own_rows().and_then(|own| own.find(id, &views.cells));
                let own = own.map_or(0, |(_, state)| views.value(self.actor(), id, &state.row));
                let cached = views.sum(key, key.len() * 8);
                let all = own + sum;
                if cached != (Sum { all, own }) {
                    return Err(format!("{key:?}: tree says {cached:?}, rows say {all} and {own}"));
                }
            }
        }
        if let Some(id) = sums.into_keys().next() {
            return Err(format!("{:?} has rows and is not in the index", &*views.cells.key_of(id)));
        }
        self.audit_below()?;
        self.audit_cleared()
    }

    /// Checks the debts against the rows (I10).
    fn audit_below(&self) -> Result<(), String> {
        let below = &self.views.below;
        if !self.views.shape.counts_gauges() {
            return Ok(());
        }
        let (mut others, mut own): (BTreeMap<CellId, i64>, BTreeMap<CellId, i64>) = Default::default();
        for (actor, rows) in self.actors.iter().filter(|(actor, rows)| rows.counts || *actor == self.actor()) {
            let debts = if actor == self.actor() { &mut own } else { &mut others };
            for (_, state) in rows.live().filter(|(_, state)| debt(&state.row) > 0) {
                *debts.entry(state.cell).or_default() += debt(&state.row);
            }
        }
        let noted = below.others.by_cell.read();
        if others == *noted && own == below.own {
            return Ok(());
        }
        let noted = (&*noted, &below.own);
        Err(format!("{noted:?} is noted as below zero, rows say {others:?} and {own:?}"))
    }
}
