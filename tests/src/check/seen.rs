//! What the checkers have seen so far of a process.

use std::collections::BTreeMap;

use tallymesh_engine::{Held, Row};
use tallymesh_schemas::{Actor, StructureId, Version};

/// What a replica was seen to hold of one actor. None of it may go back.
#[derive(Debug, Default)]
pub(crate) struct SeenPart {
    pub(crate) applied: Version,
    pub(crate) rows: BTreeMap<Vec<u8>, SeenRow>,
    /// How often it was checked.
    pub(crate) looks: u64,
}

impl SeenPart {
    /// The row of a key; without a copy of the key if it is known.
    pub(crate) fn row(&mut self, key: &[u8]) -> &mut SeenRow {
        if !self.rows.contains_key(key) {
            self.rows.insert(key.to_vec(), SeenRow::default());
        }
        self.rows.get_mut(key).unwrap_or_else(|| unreachable!("it was put there"))
    }
}

/// The last state of a row that was seen, its position in its owner's history, and the check that saw it.
#[derive(Debug, Default)]
pub(crate) struct SeenRow {
    pub(crate) row: Row,
    pub(crate) position: usize,
    pub(crate) look: u64,
}

/// What a replica was seen to hold.
#[derive(Debug, Default)]
pub(crate) struct Seen(pub(crate) BTreeMap<(StructureId, Actor), SeenPart>);

impl Seen {
    pub(crate) fn parts_of(&self, structure: StructureId) -> impl Iterator<Item = (&(StructureId, Actor), &SeenPart)> {
        self.0.iter().filter(move |((of, _), _)| *of == structure)
    }

    /// Forgets what was seen in structures that no longer exist: a window that is dropped and created again starts from
    /// nothing.
    pub(crate) fn forget(&mut self, is_there: impl Fn(StructureId) -> bool) {
        self.0.retain(|(structure, _), _| is_there(*structure));
    }
}

/// What a structure held when the last check passed, and what its process had counted in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) actor: Actor,
    pub(crate) leaves: bool,
    pub(crate) held: Vec<Held>,
    pub(crate) operations: u64,
}

/// What was found correct in a process. While nothing has changed, the check cannot find a new error, because the data that it
/// compares with only grows. The exception are aggregates that change without a row change. For these, every [`EVERYTHING`]th
/// call and the last one check everything.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    pub(crate) right: BTreeMap<StructureId, Right>,
    pub(crate) looks: u64,
}

/// See [`Looked`].
pub(crate) const EVERYTHING: u64 = 8;
