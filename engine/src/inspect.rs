//! Looking at what is held of each actor, row by row: for verification, diagnostics and tests.

use tallymesh_schemas::{Actor, Version};

use crate::actor_rows::ActorRows;
use crate::radix::KeyOf;
use crate::row::Row;
use crate::structure::Structure;

/// What a structure holds of one actor's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whose rows.
    pub actor: Actor,
    /// They are known from this version on (exclusive).
    pub since: Version,
    /// And up to this one (inclusive).
    pub applied: Version,
    /// Every retirement up to this version is known, though it may have been purged.
    pub low_water: Version,
    /// The sum of the hashes of the live rows.
    pub fingerprint: u64,
    /// Whether they count in what is read.
    pub counts: bool,
    /// Live rows.
    pub rows: usize,
    /// Whether a snapshot is being received that will take their place.
    pub replacing: bool,
}

impl Structure {
    /// What is held of each actor, our own rows as they were last committed included, in order of actor.
    pub fn held(&self) -> Vec<Held> {
        let ledger = self.ledger.read();
        let held = ledger.all_actor_rows().iter().map(|(actor, actor_rows)| Held {
            actor: actor.clone(),
            since: actor_rows.since,
            applied: actor_rows.applied,
            low_water: actor_rows.floor,
            fingerprint: actor_rows.fingerprint(),
            counts: actor_rows.counts,
            rows: actor_rows.len(),
            replacing: actor_rows.staging.is_some(),
        });
        held.collect()
    }

    /// The live rows that are held of an actor, in no particular order; empty when nothing is known of it.
    pub fn rows_of(&self, actor: &Actor) -> Vec<(Vec<u8>, Row)> {
        let mut rows = Vec::new();
        self.each_row_of(actor, |key, row| rows.push((key.to_vec(), *row)));
        rows
    }

    /// As [`Structure::rows_of`], row by row, without a copy of the keys. `each` must not use the structure.
    pub fn each_row_of(&self, actor: &Actor, mut each: impl FnMut(&[u8], &Row)) {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actor_rows(actor).into_iter();
        actor_rows
            .flat_map(ActorRows::live)
            .for_each(|(_, state)| each(&ledger.cells().key_of(state.cell), &state.row));
    }

    /// The row that is held of an actor for one key. O(1).
    pub fn row_of(&self, actor: &Actor, key: &[u8]) -> Option<Row> {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actor_rows(actor)?;
        Some(actor_rows.find(self.keys.find(key)?, ledger.cells())?.1.row)
    }
}

/// The rows by which nodes share throttles out.
impl Structure {
    /// The rows of all actors for a key, whether they count or not.
    pub(crate) fn rows_at(&self, key: &[u8]) -> Vec<(Actor, Row)> {
        let ledger = self.ledger.read();
        let Some(id) = self.keys.find(key) else { return Vec::new() };
        let rows = ledger
            .all_actor_rows()
            .iter()
            .filter_map(|(actor, actor_rows)| Some((actor, actor_rows.find(id, ledger.cells())?.1.row)));
        rows.map(|(actor, row)| (actor.clone(), row)).collect()
    }

    /// The keys that begin with `prefix`, in order.
    pub(crate) fn keys_under(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let ledger = self.ledger.read();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let from = keys.last().map_or(prefix, Vec::as_slice);
            let Some(id) = ledger.index().seek(from, keys.is_empty(), ledger.cells()) else { return keys };
            let key = ledger.cells().key_of(id);
            if !key.starts_with(prefix) {
                return keys;
            }
            keys.push(key.to_vec());
        }
    }
}
