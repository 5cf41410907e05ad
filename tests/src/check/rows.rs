//! The rows of a window on one node, and their sums.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_engine::{Held, Row, Structure};
use tallymesh_schemas::{Actor, key};

use crate::truth::{Totals, less, most};

/// A node's rows of a window, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) counted: BTreeMap<Actor, BTreeMap<Vec<u8>, Totals>>,
    /// What was removed of each actor's totals: the maximum over all rows.
    pub(crate) removed: BTreeMap<Vec<u8>, BTreeMap<Actor, Totals>>,
    /// The reset rows that state this, by the actor that wrote them.
    pub(crate) notes: BTreeMap<Actor, BTreeMap<Vec<u8>, Totals>>,
}

pub(crate) fn value((added, removed): Totals) -> i64 {
    added.wrapping_sub(removed) as i64
}

impl Rows {
    pub(crate) fn of(window: &Structure) -> Self {
        let mut rows = Self::default();
        for held in window.held() {
            rows.read(window, held.actor, &mut BTreeSet::new());
        }
        rows
    }

    /// Reads the rows of an actor again, and adds the changed keys to `changed`. Returns whether no row is gone and no reset
    /// row states less than before.
    fn read(&mut self, window: &Structure, actor: Actor, changed: &mut BTreeSet<Vec<u8>>) -> bool {
        let (mut rows, mut noted, mut fewer) = (0, 0, false);
        let notes = self.notes.entry(actor.clone()).or_default();
        let counted = self.counted.entry(actor.clone()).or_default();
        window.each_row_of(&actor, |bytes, Row { added, removed, .. }| {
            let totals = (*added, *removed);
            match key::to_cleared(window.kind(), bytes) {
                Ok((whose, of)) => {
                    noted += 1;
                    let before = notes.get(bytes).copied();
                    if before == Some(totals) {
                        return;
                    }
                    fewer |= before.is_some_and(|before| most(before, totals) != totals);
                    notes.insert(bytes.to_vec(), totals);
                    let known = self.removed.get_mut(of).and_then(|actors| actors.get_mut(&whose));
                    let seen = most(known.as_ref().map_or((0, 0), |known| **known), totals);
                    if known.as_ref().is_none_or(|known| **known != seen) {
                        self.removed.entry(of.to_vec()).or_default().insert(whose, seen);
                        changed.insert(of.to_vec());
                    }
                }
                Err(_) => {
                    rows += 1;
                    if counted.get(bytes) != Some(&totals) {
                        counted.insert(bytes.to_vec(), totals);
                        changed.insert(bytes.to_vec());
                    }
                }
            }
        });
        counted.len() == rows && notes.len() == noted && !fewer
    }

    /// Updates rows that were read at state `was` to state `is`. Returns the changed keys; `None` means all of them.
    pub(crate) fn update(&mut self, window: &Structure, was: &[Held], is: &[Held]) -> Option<BTreeSet<Vec<u8>>> {
        let before: BTreeMap<_, _> = was.iter().map(|held| (&held.actor, held)).collect();
        // Where only versions were added, no row is gone.
        let grown = |is: &Held| {
            let Some(was) = before.get(&is.actor) else { return !is.replacing };
            let same = |held: &Held| (held.since, held.low_water, held.counts, held.replacing);
            same(was) == same(is) && was.applied <= is.applied && was.rows <= is.rows
        };
        let there = is.iter().filter(|is| before.contains_key(&is.actor)).count();
        let mut changed = BTreeSet::new();
        let mut others = is.iter().filter(|is| before.get(&is.actor) != Some(is));
        let grown = there == was.len()
            && is.iter().all(grown)
            && others.all(|is| self.read(window, is.actor.clone(), &mut changed));
        if !grown {
            *self = Self::of(window);
        }
        grown.then_some(changed)
    }

    pub(crate) fn removed(&self, key: &[u8], actor: &Actor) -> Totals {
        self.removed.get(key).and_then(|actors| actors.get(actor)).copied().unwrap_or_default()
    }

    /// The count of each key, and `own`'s part of it.
    pub(crate) fn counts(&self, own: &Actor) -> BTreeMap<&[u8], (i64, i64)> {
        let mut counts: BTreeMap<&[u8], (i64, i64)> = BTreeMap::new();
        for (actor, rows) in &self.counted {
            for (key, totals) in rows {
                let count = value(less(*totals, self.removed(key, actor)));
                let sum = counts.entry(key).or_default();
                *sum = (sum.0 + count, sum.1 + if actor == own { count } else { 0 });
            }
        }
        counts
    }

    /// The totals of each actor's row of a key, and what was removed of them.
    pub(crate) fn of_key(&self, key: &[u8]) -> Vec<(&Actor, Totals, Totals)> {
        let rows = self.counted.iter().filter_map(|(actor, rows)| Some((actor, *rows.get(key)?)));
        rows.map(|(actor, totals)| (actor, totals, self.removed(key, actor))).collect()
    }

    /// Whether any actor has counted a key.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.counted.values().any(|rows| rows.contains_key(key))
    }

    pub(crate) fn keys(&self) -> BTreeSet<&[u8]> {
        self.counted.values().flat_map(|rows| rows.keys().map(Vec::as_slice)).collect()
    }
}
