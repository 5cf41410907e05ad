//! The aggregates that reads use: what the rows of all actors add up to, cell by cell and in the index. They know no rows, so
//! that the rows of one actor can be written at the same time.

use std::sync::Arc;

use tallymesh_schemas::{Actor, Kind, key};

use crate::counter::below::Below;
use crate::counter::resets::{Resets, Restated, counts};
use crate::index::Index;
use crate::index::nodes::Sum;
use crate::keyspace::cell::Flag;
use crate::keyspace::cells::Cells;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::keys::Keys;
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::shape::{Role, Shape};

/// Number of rows that are read together before they are written one by one, so that their memory accesses overlap.
pub(super) const TOGETHER: usize = 32;

#[derive(Debug)]
pub(crate) struct Views {
    pub(super) shape: Shape,
    /// This node's actor: its totals are in the cells.
    pub(super) actor: Actor,
    pub(super) cells: Arc<Cells>,
    pub(super) index: Index,
    pub(super) resets: Resets,
    /// Gauges that nodes have taken below zero.
    pub(super) below: Below,
    /// Number of keys that are blocks rather than single hosts.
    pub(super) blocks: usize,
    /// Cells that were still pinned when their last row was dropped. Each sweep tries again to remove them.
    pub(super) unused: Vec<CellId>,
    /// The highest count that this node, or all other nodes together, ever had for one key.
    pub(super) most: u64,
    /// Number of keys in the index.
    pub(super) indexed: u64,
}

impl Views {
    pub(super) fn new(shape: Shape, actor: Actor, cells: Arc<Cells>) -> Self {
        Self {
            shape,
            actor,
            cells,
            index: Index::new(shape.kind()),
            resets: Resets::default(),
            below: Below::default(),
            blocks: 0,
            unused: Vec::new(),
            most: 0,
            indexed: 0,
        }
    }

    /// Whether the rows of a cell clear instead of counting.
    #[inline(always)]
    pub(super) fn clears(&self, id: CellId) -> bool {
        self.cells.get(id).role() == Role::Clears
    }

    /// What an actor's row of a key counts.
    #[inline]
    pub(crate) fn value(&self, actor: &Actor, id: CellId, row: &Row) -> i64 {
        if self.resets.is_empty() {
            return row.value();
        }
        counts(row.totals(), self.cleared_of(id, actor))
    }

    /// By how much the count of an actor's row of a key has changed.
    #[inline(always)]
    pub(super) fn change(&self, actor: &Actor, id: CellId, old: &Row, new: &Row) -> i64 {
        if self.resets.is_empty() {
            return new.value() - old.value();
        }
        self.value(actor, id, new) - self.value(actor, id, old)
    }

    /// What this node's own totals of a key count.
    pub(crate) fn own_value(&self, key: &[u8], totals: Totals) -> i64 {
        counts(totals, self.resets.of(key, &self.actor))
    }

    /// The totals up to which an actor's row of a key was reset.
    pub(crate) fn reset_of(&self, id: CellId, actor: &Actor) -> Totals {
        if self.resets.is_empty() { Totals::default() } else { self.cleared_of(id, actor) }
    }

    /// The cleared totals of an actor's row of a key.
    pub(super) fn cleared_of(&self, id: CellId, actor: &Actor) -> Totals {
        self.resets.of(&self.cells.key_of(id), actor)
    }

    /// All rows that clear among an actor's rows that go.
    pub(super) fn clearing_rows(&self, rows: &ActorRows) -> Vec<Restated> {
        if !self.shape.counts_events() {
            return Vec::new();
        }
        let clearing = rows.live().filter(|(_, state)| self.clears(state.cell));
        clearing.map(|(_, state)| Restated::gone(self.cells.key_of(state.cell))).collect()
    }

    /// Adds a cell to the index if it is not in it.
    #[inline]
    pub(super) fn enter(&mut self, id: CellId) {
        if !self.cells.get(id).has(Flag::Indexed) {
            self.cells.get(id).set(Flag::Indexed);
            if !self.clears(id) {
                self.index.insert(id, &*self.cells);
                self.indexed += 1;
                self.blocks += usize::from(is_block(self.shape.kind(), &self.cells.key_of(id)));
            }
        }
    }

    /// Handles a change of this node's own row by `n`.
    pub(super) fn add_own(&mut self, id: CellId, n: i64) {
        self.index.add(id, Sum { all: n, own: n }, &*self.cells);
    }

    /// Adds to the other actors' count.
    #[inline(always)]
    pub(super) fn add_others(&mut self, id: CellId, n: i64) {
        if n != 0 {
            let others = self.cells.get(id).add_others(n);
            self.most = self.most.max(others.unsigned_abs());
            self.index.add(id, Sum { all: n, own: 0 }, &*self.cells);
        }
    }

    /// Counts a change of this node's own row.
    #[inline(always)]
    pub(super) fn count_own(&mut self, id: CellId, old: &Row, new: &Row) {
        self.add_own(id, self.change(&self.actor, id, old, new));
        self.note_own_below(id, old, new);
    }

    /// Removes the rows of an actor from their cells. The ledger no longer holds these rows.
    pub(super) fn drop_rows(&mut self, rows: &ActorRows, keys: &Keys) {
        for (_, state) in rows.live() {
            self.cells.get(state.cell).remove_row();
            self.drop_if_unused(state.cell, keys);
        }
    }

    #[inline]
    pub(super) fn drop_if_unused(&mut self, id: CellId, keys: &Keys) {
        if self.cells.get(id).rows() == 0 {
            self.drop_unused(id, keys);
        }
    }

    fn drop_unused(&mut self, id: CellId, keys: &Keys) {
        self.cells.get(id).unset(Flag::Indexed);
        if !self.clears(id) {
            let key = self.cells.key_of(id);
            self.index.remove(&key);
            self.indexed -= 1;
            self.blocks -= usize::from(is_block(self.shape.kind(), &key));
        }
        // The sweep removes cells that are on its list.
        if self.cells.get(id).has(Flag::Parked) || !keys.remove_unused(id) {
            self.park(id);
        }
    }

    /// Puts a cell without rows on the list of the next sweep, once.
    pub(super) fn park(&mut self, id: CellId) {
        let cell = self.cells.get(id);
        if !cell.has(Flag::Parked) {
            cell.set(Flag::Parked);
            self.unused.push(id);
        }
    }

    /// Removes parked cells that are no longer pinned.
    pub(super) fn sweep(&mut self, keys: &Keys) {
        let cells = &self.cells;
        self.unused.retain(|id| {
            let cell = cells.get(*id);
            // A cell that counts again has rows again. It is removed together with the last of them.
            if cell.has(Flag::Indexed) || cell.own() != 0 {
                cell.unset(Flag::Parked);
                return false;
            }
            !keys.remove_unused(*id)
        });
    }

    /// Bytes of the index and the resets.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.resets.bytes()
    }
}

fn is_block(kind: Kind, key: &[u8]) -> bool {
    kind == Kind::CidrTree && key::to_net(key).is_ok_and(|net| net.prefix_len() < net.max_prefix_len())
}
