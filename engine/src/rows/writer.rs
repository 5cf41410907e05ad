//! The writer of this node's own rows: the only code that gives them versions (I1).

use std::collections::VecDeque;
use std::time::Duration;

use tallymesh_schemas::{Version, bounds};

use crate::canary::{self, Canary};
use crate::keyspace::cell::Cell;
use crate::keyspace::cells::Cells;
use crate::keyspace::id::{CellId, EMPTY};
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::rows::slots::{Slot, VACANT};
use crate::shape::Role;
use crate::time::Time;

/// What the owner keeps beside its rows.
#[derive(Debug, Default)]
pub(crate) struct OwnRowWriter {
    free: Vec<u32>,
    next: u32,
    /// The head at past times, to find how long a row has been idle. One mark per sweep.
    marks: VecDeque<(Time, Version)>,
    /// Rows that last changed up to this version were already considered for retirement. A row that becomes zero later gets
    /// a later version. So no row is missed, and no row is considered twice for one change.
    swept: Version,
    /// Number of rows that found no free slot since the last call that took it.
    without_room: u64,
}

/// Returns whether a cell needs no row to express its totals. A row that clears is needed unless both totals are zero: it
/// subtracts the totals that it states, also when they are equal.
pub(crate) fn counts_nothing(cell: &Cell, totals: Totals) -> bool {
    totals.added == totals.removed && (totals == Totals::default() || cell.role() != Role::Clears)
}

impl OwnRowWriter {
    /// Writes the totals of a cell's own row under the next version. Returns the previous and the new row, or `None` when
    /// the totals are unchanged.
    pub(crate) fn write(
        &mut self,
        actor_rows: &mut ActorRows,
        cells: &Cells,
        id: CellId,
        totals: Totals,
    ) -> Option<(Row, Row)> {
        let slot = cells.get(id).own_slot();
        let unchanged = actor_rows.get(slot).row.totals() == totals;
        if unchanged || (slot == EMPTY && counts_nothing(cells.get(id), totals)) {
            return None;
        }
        self.put(actor_rows, cells, id, totals)
    }

    /// Writes a cell's own row under the next version, whatever its previous state; `None` when there is no free slot for
    /// another row.
    pub(crate) fn put(
        &mut self,
        actor_rows: &mut ActorRows,
        cells: &Cells,
        id: CellId,
        totals: Totals,
    ) -> Option<(Row, Row)> {
        let slot = cells.get(id).own_slot();
        let row = Row::new(totals, actor_rows.applied.next());
        if slot != EMPTY
            && let Some((_, old)) = actor_rows.advance(slot, &row, cells)
        {
            actor_rows.applied = row.version;
            return Some((old, row));
        }
        let old = actor_rows.get(slot);
        let slot = if slot == EMPTY { self.slot()? } else { slot };
        let born = if old.is_live() { old.born } else { row.version };
        actor_rows.applied = row.version;
        actor_rows.put(slot, Slot { row, born, cell: id }, cells);
        if !old.is_live() {
            cells.get(id).set_own_slot(slot);
            cells.get(id).add_row();
        }
        Some((old.row, row))
    }

    /// Finds a slot for a new row; `None` when this node has the maximum number of rows per actor. The count then stays on
    /// this node and is not sent to the other nodes.
    fn slot(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            if slot >= bounds::ROWS_PER_ACTOR {
                self.without_room += 1;
                return None;
            }
            self.next += 1;
            Some(slot)
        })
    }

    /// How many rows found no free slot since the last call.
    pub(crate) fn take_without_room(&mut self) -> u64 {
        std::mem::take(&mut self.without_room)
    }

    /// Retires rows that are zero and have not changed for `idle`. Calls `retired` with each row's cell.
    pub(crate) fn retire(
        &mut self,
        actor_rows: &mut ActorRows,
        cells: &Cells,
        now: Time,
        idle: Duration,
        mut retired: impl FnMut(CellId),
    ) {
        if self.marks.back().is_none_or(|(_, version)| *version < actor_rows.applied) {
            self.marks.push_back((now, actor_rows.applied));
        }
        let Some(upto) = self.version_before(now, idle).filter(|upto| *upto > self.swept) else { return };
        let idle_rows = actor_rows.changed(self.swept).take_while(|(_, state)| state.row.version <= upto);
        let zero: Vec<_> = idle_rows.filter(|(_, state)| state.is_live() && may_retire(&state.row)).collect();
        self.swept = upto;
        for (slot, state) in zero {
            if cells.get(state.cell).is_dirty() {
                continue;
            }
            self.vacate(actor_rows, cells, slot);
            retired(state.cell);
        }
    }

    /// Retires a row.
    pub(crate) fn vacate(&self, actor_rows: &mut ActorRows, cells: &Cells, slot: u32) {
        let cell = cells.get(actor_rows.get(slot).cell);
        let row = Row { version: actor_rows.applied.next(), ..Row::default() };
        actor_rows.applied = row.version;
        actor_rows.put(slot, Slot { row, born: row.version, cell: VACANT }, cells);
        cell.set_own_slot(EMPTY);
        cell.remove_row();
    }

    /// Purges vacant rows that every live peer has seen, or that became vacant longer than `retention` ago.
    pub(crate) fn raise_low_water(
        &mut self,
        actor_rows: &mut ActorRows,
        acked: Version,
        now: Time,
        retention: Duration,
    ) {
        let low_water = self.version_before(now, retention).unwrap_or_default().max(acked);
        let free = &mut self.free;
        actor_rows.purge(low_water, |slot| free.push(slot));
        if free.len() == self.next as usize {
            (*free, self.next) = (Vec::new(), 0);
        }
        // Marks older than both ages are not needed, except the newest of them.
        while self.marks.get(1).is_some_and(|(at, version)| now.since(*at) > retention && *version <= self.swept) {
            self.marks.pop_front();
        }
    }

    /// The head at the time `ago` before `now`.
    fn version_before(&self, now: Time, ago: Duration) -> Option<Version> {
        let spent = self.marks.partition_point(|(at, _)| now.since(*at) >= ago);
        spent.checked_sub(1).and_then(|at| self.marks.get(at)).map(|(_, version)| *version)
    }
}

/// Returns whether an idle row may be retired: it counts nothing.
fn may_retire(row: &Row) -> bool {
    row.value() == 0 || canary::broken(Canary::CountRetired)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row without a free slot does not reach the other nodes, and the node counts such rows (I14).
    #[test]
    fn rows_without_room_are_counted() {
        let mut own = OwnRowWriter { next: bounds::ROWS_PER_ACTOR - 1, ..OwnRowWriter::default() };
        assert_eq!(own.slot(), Some(bounds::ROWS_PER_ACTOR - 1));
        assert_eq!((own.slot(), own.slot()), (None, None));
        assert_eq!((own.take_without_room(), own.take_without_room()), (2, 0));
        own.free.push(7);
        assert_eq!(own.slot(), Some(7), "a row that was retired leaves its room");
    }
}
