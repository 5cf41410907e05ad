//! Gauges that nodes have taken below zero: a node removed more than it had added.
//!
//! The views show such counts unchanged. For limits a row below zero counts as zero: a fault of one node's client must not
//! make room for other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::Actor;

use crate::keyspace::id::CellId;
use crate::primitive::{Mutex, RwLock};
use crate::rows::row::Row;

/// By how much gauges are below zero.
#[derive(Debug, Default)]
pub(crate) struct Below {
    pub(super) others: Arc<Debts>,
    /// The debts of this node's own rows, by cell.
    pub(super) own: BTreeMap<CellId, i64>,
}

/// The debts of the other actors' rows that count. Only the ledger writes it; its locks are taken last.
#[derive(Debug)]
pub(crate) struct Debts {
    /// By cell, summed over all actors.
    pub(super) by_cell: RwLock<BTreeMap<CellId, i64>>,
    /// How often each actor's gauges, this node's included, went below zero since the last call that took the counts.
    pub(super) falls: Mutex<BTreeMap<Actor, u64>>,
}

impl Default for Debts {
    fn default() -> Self {
        Self { by_cell: RwLock::new(BTreeMap::new()), falls: Mutex::default() }
    }
}

impl Debts {
    /// By how much other actors' rows of a cell are below zero.
    pub(crate) fn of(&self, id: CellId) -> i64 {
        self.by_cell.read().get(&id).copied().unwrap_or(0)
    }

    /// Returns which actors have taken gauges below zero, and how often, since the last call.
    pub(crate) fn take_falls(&self) -> BTreeMap<Actor, u64> {
        std::mem::take(&mut *self.falls.lock())
    }
}

impl Below {
    pub(super) fn debts(&self) -> &Arc<Debts> {
        &self.others
    }
}

/// By how much a row is below zero.
pub(super) fn debt(row: &Row) -> i64 {
    -row.value().min(0)
}

/// Adds to a debt. Returns whether a debt remains.
pub(super) fn change(debts: &mut BTreeMap<CellId, i64>, id: CellId, by: i64) -> bool {
    let debt = debts.get(&id).copied().unwrap_or(0).saturating_add(by);
    if debt > 0 {
        debts.insert(id, debt);
    } else {
        debts.remove(&id);
    }
    debt > 0
}
