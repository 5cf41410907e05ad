//! Inspection of the rows that a replica holds of each actor: for verification, diagnostics and tests.

use std::ops::Bound;
use std::time::Duration;

use tallymesh_schemas::{Actor, NodeName, Version};

use crate::counter::actors::Copies;
use crate::counter::structure::Structure;
use crate::keyspace::id::KeyOf;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::time::Time;

/// The state of a structure's copy of one actor's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The actor.
    pub actor: Actor,
    /// The copy begins at this version (exclusive).
    pub since: Version,
    /// Its applied version (inclusive).
    pub applied: Version,
    /// Its low-water mark: every retirement up to this version is known, though it may have been purged.
    pub low_water: Version,
    /// The sum of the hashes of the live rows.
    pub fingerprint: u64,
    /// Whether the rows count in the views.
    pub counts: bool,
    /// Number of live rows.
    pub rows: usize,
    /// Whether a snapshot is being received that will replace the rows.
    pub replacing: bool,
}

/// What a structure holds and has done, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Live rows of all actors, this node's own included.
    pub rows: usize,
    /// The version of this run's own rows: the number of their changes.
    pub changes: u64,
    /// Commits: how often changed counts became rows.
    pub commits: u64,
    /// The copies of other nodes' rows, of the latest run of each node, in order of node.
    pub copies: Vec<CopyFigures>,
}

/// How far a copy of a node's rows is behind the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFigures {
    /// The node.
    pub node: NodeName,
    /// Versions between the copy and the head that the node last stated over a link; 0 where it has no link.
    pub behind: u64,
    /// How long ago the copy was last confirmed as current; `None` when it never was.
    pub stale: Option<Duration>,
    /// Whether the rows count in the views.
    pub counts: bool,
}

impl Structure {
    /// What the structure holds and has done. O(actors), under the ledger lock for reading.
    pub fn figures(&self, now: Time) -> Figures {
        let ledger = self.ledger.read();
        let mut figures = Figures { commits: ledger.commits, changes: self.head().0, ..Figures::default() };
        for (actor, rows) in ledger.actors().iter() {
            figures.rows += rows.len();
            if actor.node == ledger.actor().node {
                continue;
            }
            let confirmed = rows.confirmed();
            let copy = CopyFigures {
                node: actor.node.clone(),
                behind: rows.stated.as_ref().map_or(0, |stated| stated.head.0.saturating_sub(rows.applied.0)),
                stale: (confirmed > Time(0)).then(|| now.since(confirmed)),
                counts: rows.counts,
            };
            // The runs of a node follow one another, the latest one last.
            match figures.copies.last_mut().filter(|last| last.node == copy.node) {
                Some(last) => *last = copy,
                None => figures.copies.push(copy),
            }
        }
        figures
    }

    /// Returns the state of each actor's rows, own rows as of the last commit included, in order of actor.
    pub fn held(&self) -> Vec<Held> {
        let ledger = self.ledger.read();
        let held = ledger.actors().all_copies().map(|(actor, Copies { rows, staging, .. })| Held {
            actor: actor.clone(),
            since: rows.since,
            applied: rows.applied,
            low_water: rows.low_water,
            fingerprint: rows.fingerprint(),
            counts: rows.counts,
            rows: rows.len(),
            replacing: staging.is_some(),
        });
        held.collect()
    }

    /// Returns the live rows of an actor, in no particular order; empty when this replica holds nothing of it.
    pub fn rows_of(&self, actor: &Actor) -> Vec<(Vec<u8>, Row)> {
        let mut rows = Vec::new();
        self.each_row_of(actor, |key, row| rows.push((key.to_vec(), *row)));
        rows
    }

    /// Like [`Structure::rows_of`], row by row, without a copy of the keys. `each` must not use the structure.
    pub fn each_row_of(&self, actor: &Actor, mut each: impl FnMut(&[u8], &Row)) {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actors().get(actor).into_iter();
        actor_rows
            .flat_map(ActorRows::live)
            .for_each(|(_, state)| each(&ledger.cells().key_of(state.cell), &state.row));
    }

    /// Returns the row of an actor for one key. O(1).
    pub fn row_of(&self, actor: &Actor, key: &[u8]) -> Option<Row> {
        let ledger = self.ledger.read();
        let actor_rows = ledger.actors().get(actor)?;
        Some(actor_rows.find(self.keys.find(key)?, ledger.cells())?.1.row)
    }
}

/// Keys in order, for readers that work in steps.
impl Structure {
    /// Number of actors with rows.
    pub(crate) fn actors(&self) -> usize {
        self.ledger.read().actors().len()
    }

    /// At most `most` keys behind a key, in order.
    pub(crate) fn keys_behind(&self, after: Option<&[u8]>, most: usize) -> Vec<Vec<u8>> {
        let ledger = self.ledger.read();
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while keys.len() < most {
            let from = keys.last().map(Vec::as_slice).or(after).map_or(Bound::Unbounded, Bound::Excluded);
            let Some(id) = ledger.index().seek(from, ledger.cells()) else { break };
            keys.push(ledger.cells().key_of(id).to_vec());
        }
        keys
    }
}

/// The rows that divide throttles into shares.
impl Structure {
    /// The rows of all actors for a key, whether they count or not.
    pub(crate) fn rows_at(&self, key: &[u8]) -> Vec<(Actor, Row)> {
        let ledger = self.ledger.read();
        let Some(id) = self.keys.find(key) else { return Vec::new() };
        let rows = ledger
            .actors()
            .iter()
            .filter_map(|(actor, actor_rows)| Some((actor, actor_rows.find(id, ledger.cells())?.1.row)));
        // The cell knows how many rows there are, so the search ends with the last of them.
        let rows = rows.take(ledger.cells().get(id).rows() as usize);
        rows.map(|(actor, row)| (actor.clone(), row)).collect()
    }
}
