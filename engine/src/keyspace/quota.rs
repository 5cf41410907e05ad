//! The budgets that count the keys of a structure.

use std::sync::Arc;

use tallymesh_schemas::OverBudget;
use tallymesh_schemas::budget::Unit;

use crate::budget::{Budget, NodeBudget};

/// The budgets that count each key: that of the object, which all windows of a series share, and that of the node.
#[derive(Debug)]
pub(crate) struct Quota {
    object: Arc<Budget>,
    node: Arc<NodeBudget>,
}

/// The budget that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Object,
    Node,
}

impl Quota {
    pub(crate) fn new(object: Arc<Budget>, node: Arc<NodeBudget>) -> Self {
        Self { object, node }
    }

    /// The budget of the object.
    pub(crate) fn object(&self) -> &Arc<Budget> {
        &self.object
    }

    /// How many more keys fit.
    pub(crate) fn room(&self) -> u64 {
        self.object.room().min(self.node.keys.room())
    }

    /// Takes room for `n` keys, if there is so much.
    pub(crate) fn take(&self, n: u64) -> Result<(), Full> {
        if !self.object.take(n) {
            return Err(Full::Object);
        }
        if !self.node.keys.take(n) {
            self.object.give_back(n);
            return Err(Full::Node);
        }
        Ok(())
    }

    fn force(&self, n: u64) {
        self.object.force(n);
        self.node.keys.force(n);
    }

    pub(crate) fn give_back(&self, n: u64) {
        self.object.give_back(n);
        self.node.keys.give_back(n);
    }

    /// Reserves room for `n` keys that are about to be made, if there is so much.
    pub(crate) fn reserve(&self, n: u64) -> Result<Reservation<'_>, Full> {
        self.take(n).map(|()| Reservation { quota: self, left: n })
    }

    /// Room for any number of keys, whether or not they fit.
    pub(crate) fn unchecked(&self) -> Reservation<'_> {
        Reservation { quota: self, left: 0 }
    }

    /// Counts that keys did not fit.
    pub(crate) fn note_refused(&self, full: Full) {
        match full {
            Full::Object => self.object.note_refused(),
            Full::Node => self.node.keys.note_refused(),
        }
    }

    /// Counts a change of this node that did not fit. Returns its error. `object` is the name of the object.
    pub(crate) fn refuse_change(&self, full: Full, object: &str) -> OverBudget {
        self.note_refused(full);
        self.node.note_change_refused();
        match full {
            Full::Object => self.object.over(Some(object), Unit::Keys),
            Full::Node => self.node.keys.over(None, Unit::Keys),
        }
    }
}

/// Room that was reserved. What is not used is given back in the end. Keys beyond it are counted and not refused.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    quota: &'a Quota,
    left: u64,
}

impl Reservation<'_> {
    /// Uses the room of one key.
    pub(super) fn draw(&mut self) {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.quota.force(1),
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.quota.give_back(self.left);
    }
}
