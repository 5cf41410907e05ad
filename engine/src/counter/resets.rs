//! Resets of events: per key and actor, the totals that no longer count.
//!
//! A node that clears a key writes one own row for each actor. The row states the totals of that actor's row as this node
//! knows it. These rows join like all others. A reader subtracts the highest totals that any actor states from the actor's
//! row. So clearing twice equals clearing once, on whichever nodes. Counts beyond the stated totals still count: they came
//! later, or the clearing node did not know them.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, Cell, key};

use crate::canary::{self, Canary};
use crate::counter::store::Ledger;
use crate::counter::watch::ChangeSink;
use crate::keyspace::cell::CellKey;
use crate::keyspace::id::CellId;
use crate::keyspace::id::KeyOf;
use crate::keyspace::keys::Keys;
use crate::rows::row::Row;

/// Totals, `(added, removed)`.
pub(crate) type Totals = (u64, u64);

/// The reset totals of the actors' rows, by key.
#[derive(Debug, Default)]
pub(crate) struct Cleared {
    by_key: BTreeMap<Box<[u8]>, BTreeMap<Actor, Totals>>,
}

impl Cleared {
    pub(super) fn of(&self, key: &[u8], actor: &Actor) -> Totals {
        self.by_key.get(key).and_then(|actors| actors.get(actor)).copied().unwrap_or_default()
    }

    fn set(&mut self, key: &[u8], actor: Actor, totals: Totals) {
        if totals != Totals::default() {
            self.by_key.entry(key.into()).or_default().insert(actor, totals);
        } else if let Some(actors) = self.by_key.get_mut(key) {
            actors.remove(&actor);
            if actors.is_empty() {
                self.by_key.remove(key);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        let actor = size_of::<(Actor, Totals)>();
        self.by_key.iter().map(|(key, actors)| key.len() + actors.len() * actor).sum()
    }
}

/// What a row counts after some of its totals were cleared. A row that has not yet reached the cleared totals here counts
/// nothing.
pub(crate) fn counts(totals: Totals, cleared: Totals) -> i64 {
    let (added, removed) = (totals.0.saturating_sub(cleared.0), totals.1.saturating_sub(cleared.1));
    crate::keyspace::totals::value((added, removed))
}

impl Ledger {
    /// Whether any key was cleared, so that a cell's own totals alone do not give its count.
    pub(crate) fn has_cleared(&self) -> bool {
        !self.cleared.is_empty()
    }

    /// What an actor's row of a key counts.
    #[inline]
    pub(crate) fn value(&self, actor: &Actor, id: CellId, row: &Row) -> i64 {
        if self.is_cache() {
            return 0;
        }
        if self.cleared.is_empty() {
            return row.value();
        }
        counts((row.added, row.removed), self.cleared.of(&self.cells.key_of(id), actor))
    }

    /// By how much the count of an actor's row of a key has changed.
    #[inline(always)]
    pub(super) fn change(&self, actor: &Actor, id: CellId, old: &Row, new: &Row) -> i64 {
        if self.cleared.is_empty() && !self.is_cache() {
            return new.value() - old.value();
        }
        self.value(actor, id, new) - self.value(actor, id, old)
    }

    /// What this node's own totals of a key count.
    pub(crate) fn own_value(&self, key: &[u8], totals: Totals) -> i64 {
        counts(totals, self.cleared.of(key, &self.actor))
    }

    /// The cleared totals of an actor's row of a key.
    pub(super) fn cleared_of(&self, id: CellId, actor: &Actor) -> Totals {
        self.cleared.of(&self.cells.key_of(id), actor)
    }

    fn counts_events(&self) -> bool {
        self.class.cell() == Cell::Events
    }

    /// Whether the rows of a cell clear instead of counting.
    #[inline(always)]
    pub(super) fn clears(&self, id: CellId) -> bool {
        self.counts_events() && key::is_cleared(&self.cells.key_of(id))
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
            let Ok((victim, key)) = key::to_cleared(self.class.kind(), &row) else { continue };
            let totals = self.stated(&row, keys);
            let was = self.cleared.of(key, &victim);
            if totals == was {
                continue;
            }
            self.cleared.set(key, victim.clone(), totals);
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
    pub(super) fn clearing_rows(&self, actor_rows: &crate::rows::actor_rows::ActorRows) -> Vec<CellKey> {
        if !self.counts_events() {
            return Vec::new();
        }
        let keys = actor_rows.live().map(|(_, state)| self.cells.key_of(state.cell));
        keys.filter(|key| key::is_cleared(key)).collect()
    }

    /// Checks the cleared totals against the rows (I10).
    pub(super) fn audit_cleared(&self) -> Result<(), String> {
        let mut stated: BTreeMap<(Vec<u8>, Actor), Totals> = BTreeMap::new();
        for state in self.actors.values().flat_map(|actor_rows| actor_rows.live().map(|(_, state)| state)) {
            if !self.clears(state.cell) {
                continue;
            }
            let row = self.cells.key_of(state.cell);
            let (victim, key) = key::to_cleared(self.class.kind(), &row).map_err(|error| error.to_string())?;
            let top = stated.entry((key.to_vec(), victim)).or_default();
            *top = (top.0.max(state.row.added), top.1.max(state.row.removed));
        }
        stated.retain(|_, totals| *totals != Totals::default());
        let kept = self.cleared.by_key.iter().flat_map(|(key, actors)| {
            actors.iter().map(move |(actor, totals)| ((key.to_vec(), actor.clone()), *totals))
        });
        let kept: BTreeMap<_, _> = kept.collect();
        if kept == stated { Ok(()) } else { Err(format!("cleared {kept:?}, rows say {stated:?}")) }
    }
}
