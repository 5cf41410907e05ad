//! Resets of keys, as rows that clear change.

use std::collections::BTreeMap;

use tallymesh_schemas::Actor;
use tallymesh_schemas::key::{self, KeyError};

use crate::canary::{self, Canary};
use crate::counter::ledger::Ledger;
use crate::counter::resets::{Restated, counts};
use crate::counter::structure::Structure;
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::keys::Keys;
use crate::keyspace::quota::Full;
use crate::keyspace::totals::Totals;
use crate::rows::row::Row;

impl Structure {
    /// Resets a key of events: the counts of all nodes for it, as far as this node knows them, no longer count, here and on
    /// every node. Counts that happen concurrently and have not reached this node still count. O(actors).
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind, when the structure holds gauges (a gauge ends when it is
    /// closed), or when there is no room for the rows that state the reset. Then nothing is reset.
    pub fn clear(&self, key: &[u8]) -> Result<(), KeyError> {
        key::check(self.kind(), key)?;
        if !self.shape.counts_events() {
            return Err(KeyError::Gauge);
        }
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.state_reset(&ledger, key).map_err(|full| self.refuse(full))?;
        self.commit_locked(&mut ledger);
        Ok(())
    }

    /// Resets valid keys of events under one lock. Leaves out each key for whose reset there is no room. Returns whether it
    /// reset all keys. O(keys × actors).
    pub(crate) fn clear_all<K: AsRef<[u8]>>(&self, keys: &[K]) -> bool {
        if keys.is_empty() {
            return true;
        }
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        let mut all_fit = true;
        for key in keys {
            if let Err(full) = self.state_reset(&ledger, key.as_ref()) {
                self.keys.quota().note_refused(full);
                all_fit = false;
            }
        }
        self.commit_locked(&mut ledger);
        all_fit
    }

    /// Raises the rows that state the reset of a key, all of them or none.
    fn state_reset(&self, ledger: &Ledger, key: &[u8]) -> Result<(), Full> {
        let rows = ledger.rows_of_key(key, &self.keys);
        let notes: Vec<_> = rows.into_iter().map(|(actor, row)| (key::cleared(&actor, key), row.totals())).collect();
        let mut room = self.reserve(&notes)?;
        for (note, totals) in notes {
            self.raise(&note, totals, &mut room);
        }
        Ok(())
    }
}

impl Ledger {
    /// The rows of all actors for a key, including rows that are already cleared: the actor that cleared them may be
    /// forgotten later.
    pub(crate) fn rows_of_key(&self, key: &[u8], keys: &Keys) -> Vec<(Actor, Row)> {
        let Some(id) = keys.find(key) else { return Vec::new() };
        let cells = &self.views.cells;
        let rows = self.actors.iter().filter_map(|(actor, rows)| Some((actor, rows.find(id, cells)?.1.row)));
        // The cell knows how many rows there are, so the search ends with the last of them.
        let rows = rows.take(cells.get(id).rows() as usize);
        rows.filter(|(_, row)| row.totals() != Totals::default()).map(|(actor, row)| (actor.clone(), row)).collect()
    }

    /// Handles changes of rows that clear: subtracts exactly the totals that all of these rows together state.
    pub(super) fn reclear(&mut self, rows: Vec<Restated>, keys: &Keys, sink: &mut ChangeSink<'_>) {
        let lowered = rows.iter().filter(|restated| restated.raised_to.is_none()).count();
        // To walk through all rows once costs less than to look for many rows with each of many actors.
        let all = self.actors.iter().map(|(_, actor_rows)| actor_rows.len()).sum::<usize>();
        let stated = (lowered.saturating_mul(self.actors.len()) > all).then(|| self.stated_by_cell(&rows, keys));
        for Restated { row, raised_to } in rows {
            let Ok((victim, key)) = key::to_cleared(self.views.shape.kind(), &row) else { continue };
            let was = self.views.resets.of(key, &victim);
            let totals = match (raised_to, &stated) {
                (Some(totals), _) => combine(was, totals),
                (None, Some(stated)) => keys.find(&row).and_then(|id| stated.get(&id)).copied().unwrap_or_default(),
                (None, None) => self.stated(&row, keys),
            };
            if totals != was {
                self.restate((key, victim), (was, totals), keys, sink);
            }
        }
    }

    /// The cleared totals of an actor's row of a key have changed.
    fn restate(
        &mut self,
        (key, victim): (&[u8], Actor),
        (was, totals): (Totals, Totals),
        keys: &Keys,
        sink: &mut ChangeSink<'_>,
    ) {
        let ours = victim == self.views.actor;
        let actor_rows = self.actors.get(&victim).filter(|actor_rows| actor_rows.counts || ours);
        let found = keys.find(key).and_then(|id| Some((id, actor_rows?.find(id, &self.views.cells)?.1.row.totals())));
        self.views.resets.set(key, victim, totals);
        let Some((id, counted)) = found else { return };
        let n = counts(counted, totals) - counts(counted, was);
        if ours {
            self.views.add_own(id, n);
            sink.changed(|| key);
        } else {
            self.views.add_others(id, n);
            sink.moved(n, || key);
        }
    }

    /// The highest totals that any actor's row states. O(actors).
    fn stated(&self, row: &[u8], keys: &Keys) -> Totals {
        let Some(id) = keys.find(row) else { return Totals::default() };
        let rows = self.actors.iter().filter_map(|(_, actor_rows)| actor_rows.find(id, &self.views.cells));
        // The cell knows how many rows there are, so the search ends with the last of them.
        let totals = rows.take(self.views.cells.get(id).rows() as usize).map(|(_, state)| state.row.totals());
        totals.fold(Totals::default(), combine)
    }

    /// The highest totals that any actor's row states, for many rows together. O(rows of all actors).
    fn stated_by_cell(&self, rows: &[Restated], keys: &Keys) -> BTreeMap<CellId, Totals> {
        let cells = rows.iter().filter_map(|restated| keys.find(&restated.row));
        let mut stated: BTreeMap<_, _> = cells.map(|id| (id, Totals::default())).collect();
        if stated.is_empty() {
            return stated;
        }
        for (_, state) in self.actors.iter().flat_map(|(_, actor_rows)| actor_rows.live()) {
            if let Some(totals) = stated.get_mut(&state.cell) {
                *totals = combine(*totals, state.row.totals());
            }
        }
        stated
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
