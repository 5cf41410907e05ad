//! Resets of keys, as rows that clear change.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, key};

use crate::canary::{self, Canary};
use crate::counter::ledger::Ledger;
use crate::counter::resets::counts;
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::KeyOf;
use crate::keyspace::key::CellKey;
use crate::keyspace::keys::Keys;
use crate::keyspace::totals::Totals;
use crate::rows::row::Row;

impl Ledger {
    /// The rows of all actors for a key, including rows that are already cleared: the actor that cleared them may be
    /// forgotten later.
    pub(crate) fn rows_of_key(&self, key: &[u8], keys: &Keys) -> Vec<(Actor, Row)> {
        let Some(id) = keys.find(key) else { return Vec::new() };
        let cells = &self.views.cells;
        let rows = self.actors.iter().filter_map(|(actor, rows)| Some((actor, rows.find(id, cells)?.1.row)));
        rows.filter(|(_, row)| row.totals() != Totals::default()).map(|(actor, row)| (actor.clone(), row)).collect()
    }

    /// Handles changes of rows that clear: subtracts exactly the totals that all of these rows together state.
    pub(super) fn reclear(&mut self, rows: Vec<CellKey>, keys: &Keys, sink: &mut ChangeSink<'_>) {
        for row in rows {
            let Ok((victim, key)) = key::to_cleared(self.views.shape.kind(), &row) else { continue };
            let totals = self.stated(&row, keys);
            let was = self.views.resets.of(key, &victim);
            if totals == was {
                continue;
            }
            self.views.resets.set(key, victim.clone(), totals);
            let Some(id) = keys.find(key) else { continue };
            let ours = victim == self.views.actor;
            let actor_rows = self.actors.get(&victim).filter(|actor_rows| actor_rows.counts || ours);
            let Some((_, state)) = actor_rows.and_then(|actor_rows| actor_rows.find(id, &self.views.cells)) else {
                continue;
            };
            let counted = state.row.totals();
            let n = counts(counted, totals) - counts(counted, was);
            if ours {
                self.views.add_own(id, n);
            } else {
                self.views.add_others(id, n);
            }
            if ours {
                sink.changed(|| key);
            } else {
                sink.moved(n, || key);
            }
        }
    }

    /// The highest totals that any actor's row states.
    pub(super) fn stated(&self, row: &[u8], keys: &Keys) -> Totals {
        let Some(id) = keys.find(row) else { return Totals::default() };
        let rows = self.actors.iter().filter_map(|(_, actor_rows)| actor_rows.find(id, &self.views.cells));
        let totals = rows.map(|(_, state)| state.row.totals());
        totals.fold(Totals::default(), combine)
    }

    /// Checks the cleared totals against the rows (I10).
    pub(super) fn audit_cleared(&self) -> Result<(), String> {
        let mut stated: BTreeMap<(Vec<u8>, Actor), Totals> = BTreeMap::new();
        for state in self.actors.iter().flat_map(|(_, actor_rows)| actor_rows.live().map(|(_, state)| state)) {
            if !self.views.clears(state.cell) {
                continue;
            }
            let row = self.views.cells.key_of(state.cell);
            let (victim, key) = key::to_cleared(self.views.shape.kind(), &row).map_err(|error| error.to_string())?;
            let top = stated.entry((key.to_vec(), victim)).or_default();
            *top = top.highest(state.row.totals());
        }
        stated.retain(|_, totals| *totals != Totals::default());
        let kept = self.views.resets.by_key.iter().flat_map(|(key, actors)| {
            actors.iter().map(move |(actor, totals)| ((key.to_vec(), actor.clone()), *totals))
        });
        let kept: BTreeMap<_, _> = kept.collect();
        if kept == stated { Ok(()) } else { Err(format!("cleared {kept:?}, rows say {stated:?}")) }
    }
}

/// Combines what two actors state about one count: the highest totals, because both cleared the same count.
fn combine(one: Totals, other: Totals) -> Totals {
    if canary::broken(Canary::ClearAdded) {
        return Totals { added: one.added + other.added, removed: one.removed + other.removed };
    }
    one.highest(other)
}
