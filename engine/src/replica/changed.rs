//! The structures in the order of their last change. A digest of changes looks only at those that have changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use tallymesh_schemas::StructureId;

use crate::counter::journal::{Journal, Mark};
use crate::counter::published::Changed;
use crate::replica::held::Structures;

/// The structures in the order of their last change.
#[derive(Debug, Default)]
pub(crate) struct ChangeOrder {
    /// Structures that have changed and are not in the order yet.
    list: Arc<Changed>,
    journal: Journal<StructureId>,
}

impl ChangeOrder {
    /// The list on which structures enter themselves.
    pub(crate) fn list(&self) -> &Arc<Changed> {
        &self.list
    }

    /// Takes over what is on the list.
    pub(crate) fn update(&mut self, structures: &Structures) {
        for id in self.list.take() {
            if let Some(held) = structures.get(&id) {
                // First: a change from now on lists the structure again.
                held.structure.unlist();
                self.journal.note(&id);
            }
        }
    }

    /// The structures that have changed behind a mark.
    pub(crate) fn behind(&self, mark: Mark) -> BTreeSet<StructureId> {
        self.journal.behind(mark).map(|(_, id)| *id).collect()
    }

    /// The mark of a reader that has looked at all of them.
    pub(crate) fn last(&self) -> Mark {
        self.journal.last()
    }

    /// The structure does not exist any more.
    pub(crate) fn forget(&mut self, id: StructureId) {
        self.journal.forget(&id);
    }
}
