//! Resets of keys, as rows that clear change.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, key};

use crate::canary::{self, Canary};
use crate::counter::ledger::Ledger;
use crate::counter::resets::{Totals, counts};
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::CellKey;
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::shape::Role;

impl Ledger {
    /// Whether any key was cleared, so that a cell's own totals alone do not give its count.
    pub(crate) fn has_cleared(&self) -> bool {
        !self.resets.is_empty()
    }

    /// What an actor's row of a key counts.
    #[inline]
    pub(crate) fn value(&self, actor: &Actor, id: CellId, row: &Row) -> i64 {
        if self.shape.is_cache() {
            return 0;
        }
        if self.resets.is_empty() {
            return row.value();
        }
        counts((row.added, row.removed), self.resets.of(&self.cells.key_of(id), actor))
    }

    /// By how much the count of an actor's row of a key has changed.
    #[inline(always)]
    pub(super) fn change(&self, actor: &Actor, id: CellId, old: &Row, new: &Row) -> i64 {
        if self.resets.is_empty() && !self.shape.is_cache() {
            return new.value() - old.value();
        }
        self.value(actor, id, new) - self.value(actor, id, old)
    }

    /// What this node's own totals of a key count.
    pub(crate) fn own_value(&self, key: &[u8], totals: Totals) -> i64 {
        counts(totals, self.resets.of(key, &self.actor))
    }

    /// The cleared totals of an actor's row of a key.
    pub(super) fn cleared_of(&self, id: CellId, actor: &Actor) -> Totals {
        self.resets.of(&self.cells.key_of(id), actor)
    }

    /// Whether the rows of a cell clear instead of counting.
    #[inline(always)]
    pub(super) fn clears(&self, id: CellId) -> bool {
        self.cells.get(id).role() == Role::Clears
    }

    /// The rows of all actors for a key, including rows that are already cleared: the actor that cleared them may be
    /// forgotten later.
    pub(crate) fn rows_of_key(&self, key: &[u8], keys: &Keys) -> Vec<(Actor, Row)> {
        let Some(id) = keys.find(key) else { return Vec::new() };
        let rows =
            self.actors.iter().filter_map(|(actor, actor_rows)| Some((actor, actor_rows.find(id, &self.cells)?.1.row)));
        rows.filter(|(_, row)| (row.added, row.removed) != Totals::default())
            .map(|(actor, row)| (actor.clone(), row))
            .collect()
    }

    /// Handles changes of rows that clear: subtracts exactly the totals that all of these rows together state.
    pub(super) fn reclear(&mut self, rows: Vec<CellKey>, keys: &Keys, sink: &mut ChangeSink<'_>) {
        for row in rows {
            let Ok((victim, key)) = key::to_cleared(self.shape.kind(), &row) else { continue };
            let totals = self.stated(&row, keys);
            let was = self.resets.of(key, &victim);
            if totals == was {
                continue;
            }
            self.resets.set(key, victim.clone(), totals);
            let Some(id) = keys.find(key) else { continue };
            let ours = victim == self.actor;
            let actor_rows = self.actors.get(&victim).filter(|actor_rows| actor_rows.counts || ours);
            let Some((_, state)) = actor_rows.and_then(|actor_rows| actor_rows.find(id, &self.cells)) else { continue };
            let counted = (state.row.added, state.row.removed);
            let n = counts(counted, totals) - counts(counted, was);
            if ours {
                self.add_own(id, n);
            } else {
                self.add_others(id, n);
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
        let rows = self.actors.values().filter_map(|actor_rows| actor_rows.find(id, &self.cells));
        if canary::broken(Canary::ClearAdded) {
            return rows
                .fold(Totals::default(), |sum, (_, state)| (sum.0 + state.row.added, sum.1 + state.row.removed));
        }
        rows.fold(Totals::default(), |top, (_, state)| (top.0.max(state.row.added), top.1.max(state.row.removed)))
    }

    /// The keys of all rows that clear among an actor's rows.
    pub(super) fn clearing_rows(&self, actor_rows: &ActorRows) -> Vec<CellKey> {
        if !self.shape.counts_events() {
            return Vec::new();
        }
        let clearing = actor_rows.live().filter(|(_, state)| self.clears(state.cell));
        clearing.map(|(_, state)| self.cells.key_of(state.cell)).collect()
    }

    /// Checks the cleared totals against the rows (I10).
    pub(super) fn audit_cleared(&self) -> Result<(), String> {
        let mut stated: BTreeMap<(Vec<u8>, Actor), Totals> = BTreeMap::new();
        for state in self.actors.values().flat_map(|actor_rows| actor_rows.live().map(|(_, state)| state)) {
            if !self.clears(state.cell) {
                continue;
            }
            let row = self.cells.key_of(state.cell);
            let (victim, key) = key::to_cleared(self.shape.kind(), &row).map_err(|error| error.to_string())?;
            let top = stated.entry((key.to_vec(), victim)).or_default();
            *top = (top.0.max(state.row.added), top.1.max(state.row.removed));
        }
        stated.retain(|_, totals| *totals != Totals::default());
        let kept = self.resets.by_key.iter().flat_map(|(key, actors)| {
            actors.iter().map(move |(actor, totals)| ((key.to_vec(), actor.clone()), *totals))
        });
        let kept: BTreeMap<_, _> = kept.collect();
        if kept == stated { Ok(()) } else { Err(format!("cleared {kept:?}, rows say {stated:?}")) }
    }
}
