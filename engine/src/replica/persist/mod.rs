//! Saved state: what a node writes while it runs, and what it restores at its start.

pub(crate) mod error;
pub(crate) mod restore;
pub(crate) mod save;
pub(crate) mod stored;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tallymesh_schemas::saved::{self, Facts};
use tallymesh_schemas::{Incarnation, NodeName};

use crate::counter::persist::PersistedExtent;
use crate::replica::stream::StreamId;

/// What the replica knows about the saved state.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// How far rows were handed out.
    pub(crate) copies: BTreeMap<StreamId, PersistedExtent>,
    /// For rows handed out since the last commit: how far they were saved before; `None` if nothing was saved.
    pub(crate) before: BTreeMap<StreamId, Option<PersistedExtent>>,
    pub(crate) facts: Facts,
    pub(crate) facts_before: Option<Facts>,
    /// The rest of the unit that is being handed out.
    pub(crate) due: VecDeque<StreamId>,
    pub(crate) gone: Vec<StreamId>,
    pub(crate) facts_due: bool,
    /// The stream that is being saved again from the start: its saved rows are incomplete until it is done.
    pub(crate) anew: bool,
    /// Bytes since the last commit.
    pub(crate) bytes: usize,
    /// The outcome of a batch is not known yet.
    pub(crate) out: bool,
    /// Restored rows that cannot be joined yet: they were written ahead of this node's clock, or their window has not come.
    pub(crate) waiting: Vec<saved::Part>,
    /// The last run of this node in the saved state, if there was any.
    pub(crate) last: Option<Incarnation>,
    /// Peers that have sent a complete digest since then.
    pub(crate) met: BTreeSet<NodeName>,
}

impl Store {
    pub(crate) fn note(&mut self, part: &StreamId, copied: Option<PersistedExtent>) {
        let was = match copied {
            Some(copied) => self.copies.insert(part.clone(), copied),
            None => self.copies.remove(part),
        };
        self.before.entry(part.clone()).or_insert(was);
    }

    pub(crate) fn settle(&mut self, saved: bool) {
        let before = std::mem::take(&mut self.before);
        let facts = self.facts_before.take();
        self.bytes = 0;
        if saved {
            return;
        }
        for (part, was) in before {
            match was {
                Some(was) => self.copies.insert(part, was),
                None => self.copies.remove(&part),
            };
        }
        if let Some(facts) = facts {
            self.facts = facts;
        }
        self.due.clear();
        self.gone.clear();
        (self.facts_due, self.anew) = (false, false);
    }

    pub(crate) fn is_handed_out(&self) -> bool {
        self.due.is_empty() && self.gone.is_empty() && !self.facts_due
    }
}
