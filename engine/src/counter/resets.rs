//! Resets of events: per key and actor, the totals that no longer count.
//!
//! A node that clears a key writes one own row for each actor. The row states the totals of that actor's row as this node
//! knows it. These rows join like all others. A reader subtracts the highest totals that any actor states from the actor's
//! row. So clearing twice equals clearing once, on whichever nodes. Counts beyond the stated totals still count: they came
//! later, or the clearing node did not know them.

use std::collections::BTreeMap;

use tallymesh_schemas::Actor;

use crate::keyspace::key::CellKey;
use crate::keyspace::totals::Totals;
use crate::rows::row::Row;

/// The reset totals of the actors' rows, by key.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    pub(super) by_key: BTreeMap<Box<[u8]>, BTreeMap<Actor, Totals>>,
}

impl Resets {
    pub(super) fn of(&self, key: &[u8], actor: &Actor) -> Totals {
        self.by_key.get(key).and_then(|actors| actors.get(actor)).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, key: &[u8], actor: Actor, totals: Totals) {
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

/// A row that clears has changed.
#[derive(Debug)]
pub(super) struct Restated {
    pub(super) row: CellKey,
    /// The totals that it states now, when they have grown. `None` when they have not: the row may be gone, and other rows
    /// state what holds.
    pub(super) raised_to: Option<Totals>,
}

impl Restated {
    pub(super) fn new(row: CellKey, old: &Row, new: &Row) -> Self {
        let grown = old.added <= new.added && old.removed <= new.removed;
        Self { row, raised_to: grown.then(|| new.totals()) }
    }

    /// A row that is gone.
    pub(super) fn gone(row: CellKey) -> Self {
        Self { row, raised_to: None }
    }
}

/// What a row counts after some of its totals were cleared. A row that has not yet reached the cleared totals here counts
/// nothing.
pub(crate) fn counts(totals: Totals, cleared: Totals) -> i64 {
    totals.beyond(cleared).value()
}
