//! Checks that the aggregates match the rows.

use std::collections::BTreeMap;

use tallymesh_schemas::Kind;

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
        let with_shadows =
            self.actors.iter().flat_map(|(a, p)| [Some((a, p, false)), p.staging.as_deref().map(|s| (a, s, true))]);
        for (actor, actor_rows, shadow) in with_shadows.flatten() {
            let mut fingerprint = 0_u64;
            for (_, state) in actor_rows.live() {
                let (rows, others) = sums.entry(state.cell).or_default();
                *rows += 1;
                fingerprint = fingerprint.wrapping_add(row_hash(key_hash(&self.cells.key_of(state.cell)), &state.row));
                if !shadow && actor_rows.counts && *actor != self.actor && !self.clears(state.cell) {
                    *others += self.value(actor, state.cell, &state.row);
                }
            }
            if fingerprint != actor_rows.fingerprint() {
                return Err(format!(
                    "fingerprint of {actor} is {:x}, its rows say {fingerprint:x}",
                    actor_rows.fingerprint()
                ));
            }
        }
        for (id, cell) in self.cells.indexed() {
            let key = &*self.cells.key_of(id);
            let (held, sum) = sums.remove(&id).unwrap_or_default();
            if cell.others() != sum {
                return Err(format!("{key:?}: cached {} of others, rows say {sum}", cell.others()));
            }
            if cell.rows() != held {
                return Err(format!("{key:?}: {} rows noted, {held} there", cell.rows()));
            }
            if self.shape.kind() == Kind::CidrTree && !self.clears(id) {
                let own = self.actors.get(&self.actor).and_then(|own| own.find(id, &self.cells));
                let own = own.map_or(0, |(_, state)| self.value(&self.actor, id, &state.row));
                let cached = self.sum(key, key.len() * 8);
                let all = own + sum;
                if cached != (Sum { all, own }) {
                    return Err(format!("{key:?}: tree says {cached:?}, rows say {all} and {own}"));
                }
            }
        }
        if let Some(id) = sums.into_keys().next() {
            return Err(format!("{:?} has rows and is not in the index", &*self.cells.key_of(id)));
        }
        if self.shape.is_cache() {
            self.audit_registers()?;
        }
        self.audit_below()?;
        self.audit_cleared()
    }
}
