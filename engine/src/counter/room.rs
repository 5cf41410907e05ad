//! Room for new keys: of changes of this node, and of deltas. The room of a delta is reserved before anything of it is joined,
//! so it fits as a whole or not at all.

use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::message::Delta;
use tallymesh_schemas::rows::{RowReader, RowState, RowsError, WireRow};

use crate::budget::Usage;
use crate::canary::{self, Canary};
use crate::counter::actors::Copies;
use crate::counter::join::{ApplyError, Fit, Joining};
use crate::counter::structure::Structure;
use crate::keyspace::cell::Cell;
use crate::keyspace::id::CellId;
use crate::keyspace::quota::{Full, Reservation};
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::ActorRows;

/// The least bytes of a row with a key: slot, two lengths of the key, and two totals.
const KEYED_ROW_BYTES: usize = 5;

/// A delta is not read to count its keys while there is room for this many times the keys that it can have.
const AMPLE: u64 = 4;

/// What a delta does to the number of keys.
#[derive(Debug, Default)]
struct Change {
    /// Keys that have no cell yet.
    new: u64,
    /// Keys whose last row the delta removes.
    removed: u64,
}

impl Joining<'_, '_> {
    /// Reserves room for the new keys of a delta to the rows `of`. If they do not fit, returns how many keys would have to fit.
    ///
    /// A delta may remove and add keys. Only the difference has to fit, so for a moment, while the delta is joined, there may be
    /// more keys than fit, by as many as the delta removes.
    pub(super) fn make_room(&mut self, of: &ActorRows, delta: &Delta<'_>) -> Result<Option<u64>, RowsError> {
        if self.fit == Fit::Unchecked || canary::broken(Canary::BudgetIgnored) {
            return Ok(None);
        }
        let quota = self.keys.quota();
        let most = (delta.rows.len() / KEYED_ROW_BYTES) as u64;
        if quota.room() / AMPLE >= most
            && let Ok(room) = quota.reserve(most)
        {
            self.room = room;
            return Ok(None);
        }
        let Change { new, removed } = self.change_of_keys(of, delta)?;
        let keys = new.saturating_sub(removed);
        match quota.reserve(keys) {
            Ok(room) => {
                self.room = room;
                Ok(None)
            }
            Err(full) => {
                quota.note_refused(full);
                Ok(Some(keys))
            }
        }
    }

    /// Takes the retirements of a delta that follows rows for which there is no room. They make room, and the rows before them
    /// come later. Each retirement is the last state of its slot so far, so it may come early.
    pub(super) fn take_retirements(&mut self, copies: &mut Copies, delta: &Delta<'_>) -> Result<(), ApplyError> {
        let mut rows = RowReader::new(delta.rows, delta.after);
        while let Some(WireRow { slot, version, state }) = rows.next_row()? {
            if state == RowState::Vacant && version <= delta.upto && copies.rows.get(slot).is_live() {
                self.join_next(&mut copies.rows, WireRow { slot, version, state: RowState::Vacant })?;
            }
        }
        Ok(())
    }

    /// Counts what a delta does to the number of keys. O(rows).
    fn change_of_keys(&self, of: &ActorRows, delta: &Delta<'_>) -> Result<Change, RowsError> {
        let mut change = Change::default();
        let mut rows = RowReader::new(delta.rows, delta.after);
        while let Some(row) = rows.next_row()? {
            let cell = match row.state {
                RowState::Live { key: Some(key), .. } => {
                    let cell = self.keys.find(key);
                    change.new += u64::from(cell.is_none());
                    cell
                }
                RowState::Vacant => None,
                RowState::Live { key: None, .. } | RowState::Content { .. } => continue,
            };
            change.removed += u64::from(self.removes_key(of, &row, cell));
        }
        Ok(change)
    }

    /// Whether a row takes the slot of the last row of another key.
    fn removes_key(&self, of: &ActorRows, row: &WireRow<'_>, cell: Option<CellId>) -> bool {
        let old = of.get(row.slot);
        let replaces = old.is_live() && row.version > old.row.version && cell != Some(old.cell);
        replaces && self.views.cells.get(old.cell).has_only_a_row()
    }
}

impl Structure {
    /// Calls `f` with the key's cell, which is made if needed and if there is room.
    #[inline]
    pub(super) fn with_or_new<R>(&self, key: &[u8], f: impl FnOnce(CellId, &Cell) -> R) -> Result<R, KeyError> {
        if self.shape.is_always_written(key) {
            return Ok(self.keys.with_or_reserved(key, &mut self.keys.quota().unchecked(), f));
        }
        self.keys.with_or_new(key, f).map_err(|full| self.refuse(full))
    }

    /// The error of a change of this node that does not fit.
    #[cold]
    pub(super) fn refuse(&self, full: Full) -> KeyError {
        KeyError::Budget(self.keys.quota().refuse_change(full, self.spec().name.as_str()))
    }

    /// Reports that there are more keys than fit, if that is so.
    pub(crate) fn note_overfull(&self) {
        self.keys.quota().object().note_overfull();
    }

    /// How many more keys fit, within the budgets of the object and of the node.
    pub(crate) fn room(&self) -> u64 {
        self.keys.quota().room()
    }

    /// Keys in use, and the most of them. The windows of a series are counted together.
    pub fn usage(&self) -> Usage {
        self.keys.quota().object().usage()
    }

    /// Reserves room for those of the rows whose keys have no cell.
    pub(super) fn reserve<T>(&self, rows: &[(Vec<u8>, T)]) -> Result<Reservation<'_>, Full> {
        let new = rows.iter().filter(|(key, _)| self.keys.find(key).is_none()).count();
        self.keys.quota().reserve(new as u64)
    }

    /// Raises this node's totals of a key to at least the given totals. Returns whether there was room for the key.
    pub(crate) fn raise_if_it_fits(&self, key: &[u8], totals: Totals) -> bool {
        let raised = self.keys.with_or_new(key, |id, cell| self.touch(id, cell.raise(totals)));
        let raised = raised.map_err(|full| self.keys.quota().note_refused(full));
        raised.is_ok()
    }

    pub(super) fn raise(&self, key: &[u8], totals: Totals, room: &mut Reservation<'_>) {
        self.keys.with_or_reserved(key, room, |id, cell| self.touch(id, cell.raise(totals)));
    }
}
