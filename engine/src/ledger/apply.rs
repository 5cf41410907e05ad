//! The writer of other actors' rows: joins a delta into the partial of the actor whose rows it brings.

use tallymesh_schemas::Version;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::message::Delta;
use tallymesh_schemas::rows::{RowReader, RowState, RowsError, WireRow};

use super::Ledger;
use crate::keys::Keys;
use crate::partial::Partial;
use crate::row::Row;
use crate::slots::{CellId, Slot, VACANT};

/// What became of a delta. In all of these the ledger is sound; an [`ApplyError`] leaves it sound as well, with the rows
/// joined that came before the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Its rows are joined; everything up to its `upto` is known now.
    Advanced,
    /// It brought nothing new.
    Stale,
    /// Something is missing before it: rows above `after` are to be asked for, as a snapshot or not.
    Gap { since: Version, after: Version, snapshot: bool },
    /// Our rows are not those that the sender has at the same version.
    Diverged,
    /// A part of a snapshot was taken in.
    Part,
    /// A snapshot is complete and has replaced what was known.
    Replaced,
}

/// Why a delta was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A key is not one of the structure's kind.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A row beyond the end of the delta.
    #[error("row of version {version} in a delta up to {upto}")]
    Beyond {
        /// The row's version.
        version: Version,
        /// The delta's end.
        upto: Version,
    },
    /// A row of a slot whose key is not known, though the delta takes it to be.
    #[error("row of slot {0} without key, and none is known")]
    Unknown(u32),
}

impl Ledger {
    /// Joins a delta of another actor's rows. `verify` says that its fingerprint is the owner's own statement.
    pub(crate) fn apply(
        &mut self,
        delta: &Delta<'_>,
        verify: bool,
        keys: &Keys,
        changed: &mut dyn FnMut(&[u8]),
    ) -> Result<Applied, ApplyError> {
        debug_assert_ne!(delta.actor, self.actor, "our rows have one writer, and it is not a peer");
        // Taken out while it is written to, so that cells and sums can be as well.
        let Some(mut partial) = self.partials.remove(&delta.actor) else { return Ok(Applied::Stale) };
        let applied = if delta.snapshot {
            self.apply_snapshot(&mut partial, delta, verify, keys, changed)
        } else {
            self.apply_next(&mut partial, delta, verify, keys, changed)
        };
        self.partials.insert(delta.actor.clone(), partial);
        applied
    }

    fn apply_next(
        &mut self,
        partial: &mut Partial,
        delta: &Delta<'_>,
        verify: bool,
        keys: &Keys,
        changed: &mut dyn FnMut(&[u8]),
    ) -> Result<Applied, ApplyError> {
        let (since, have) = (partial.since, partial.have);
        if delta.after > have || delta.since < since {
            return Ok(Applied::Gap { since, after: have, snapshot: false });
        }
        if have > since && have < delta.floor {
            // Rows may have been retired and purged that we still hold.
            return Ok(Applied::Gap { since, after: since, snapshot: true });
        }
        if delta.upto > have {
            self.join(partial, delta, keys, partial.counts, changed)?;
        }
        let matches =
            |partial: &Partial| !verify || since > 0 || delta.fingerprint.is_none_or(|f| f == partial.fingerprint());
        if delta.upto >= partial.have && !matches(partial) {
            return Ok(Applied::Diverged);
        }
        partial.purge(delta.floor, |_| ());
        Ok(if delta.upto > have { Applied::Advanced } else { Applied::Stale })
    }

    fn apply_snapshot(
        &mut self,
        partial: &mut Partial,
        delta: &Delta<'_>,
        verify: bool,
        keys: &Keys,
        changed: &mut dyn FnMut(&[u8]),
    ) -> Result<Applied, ApplyError> {
        let since = partial.since;
        let mut shadow = partial.shadow.take().unwrap_or_else(|| Box::new(Partial::new(since)));
        if shadow.have > since && shadow.have < delta.floor {
            self.drop_rows(&shadow, keys);
            shadow = Box::new(Partial::new(since));
        }
        if delta.after > shadow.have || delta.since < since {
            let after = shadow.have;
            partial.shadow = Some(shadow);
            return Ok(Applied::Gap { since, after, snapshot: true });
        }
        let joined = self.join(&mut shadow, delta, keys, false, &mut |_| ());
        let after = shadow.have;
        if joined.is_err() || delta.fingerprint.is_none() || after < partial.have {
            partial.shadow = Some(shadow);
            // The sender has no more, but we have: what is newer is to come from somebody else.
            let behind = delta.fingerprint.is_some();
            return joined.map(|()| if behind { Applied::Gap { since, after, snapshot: true } } else { Applied::Part });
        }
        if verify && since == 0 && delta.fingerprint != Some(shadow.fingerprint()) {
            self.drop_rows(&shadow, keys);
            return Ok(Applied::Diverged);
        }
        (shadow.counts, shadow.confirmed) = (partial.counts, partial.confirmed);
        if partial.has_log() {
            shadow.make_log();
        }
        self.replace(partial, *shadow, keys, changed);
        partial.purge(delta.floor, |_| ());
        Ok(Applied::Replaced)
    }

    /// Puts a complete snapshot in the place of what was known, in one step.
    fn replace(&mut self, partial: &mut Partial, new: Partial, keys: &Keys, changed: &mut dyn FnMut(&[u8])) {
        let old = std::mem::replace(partial, new);
        if old.counts {
            for (_, state) in partial.live() {
                self.add_others(state.cell, state.row.value());
                changed(self.cells.get(state.cell).cell.key());
            }
            for (_, state) in old.live() {
                self.add_others(state.cell, state.row.value().wrapping_neg());
                changed(self.cells.get(state.cell).cell.key());
            }
        }
        self.drop_rows(&old, keys);
    }

    fn join(
        &mut self,
        partial: &mut Partial,
        delta: &Delta<'_>,
        keys: &Keys,
        counts: bool,
        changed: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ApplyError> {
        let mut rows = RowReader::new(delta.rows, delta.after);
        while let Some(row) = rows.next_row()? {
            if row.version > delta.upto {
                return Err(ApplyError::Beyond { version: row.version, upto: delta.upto });
            }
            let old = partial.get(row.slot);
            if row.version > old.row.version {
                self.join_row(partial, &old, row, keys, counts, changed)?;
            }
        }
        partial.have = partial.have.max(delta.upto);
        Ok(())
    }

    #[inline]
    fn join_row(
        &mut self,
        partial: &mut Partial,
        old: &Slot,
        row: WireRow<'_>,
        keys: &Keys,
        counts: bool,
        changed: &mut dyn FnMut(&[u8]),
    ) -> Result<(), ApplyError> {
        let (cell, totals) = match row.state {
            RowState::Live { key: None, .. } if !old.is_live() => return Err(ApplyError::Unknown(row.slot)),
            RowState::Live { key: None, added, removed } => (old.cell, (added, removed)),
            RowState::Live { key: Some(key), added, removed } => {
                key::check(self.kind, key)?;
                (keys.with_or_new(key, |cell| self.number(cell)), (added, removed))
            }
            RowState::Vacant => (VACANT, (0, 0)),
        };
        if cell != old.cell
            && cell < VACANT
            && let Some((slot, other)) = partial.find(cell)
        {
            if other.row.version > row.version {
                return Ok(());
            }
            // The owner has one row a key: it has retired that one, and we have not heard of it yet.
            partial.clear(slot, &self.cells);
            self.move_row(&other, &Slot::NONE, keys, counts, changed);
        }
        let new = Slot {
            row: Row { added: totals.0, removed: totals.1, version: row.version },
            born: if cell == old.cell { old.born } else { row.version },
            cell,
        };
        partial.put(row.slot, new, &self.cells);
        if cell == old.cell {
            if counts && new.is_live() {
                self.add_others(cell, new.row.value().wrapping_sub(old.row.value()));
                changed(self.cells.get(cell).cell.key());
            }
            return Ok(());
        }
        self.move_row(old, &new, keys, counts, changed);
        Ok(())
    }

    /// The slot has another key than before, or none any more, or its first one.
    fn move_row(&mut self, old: &Slot, new: &Slot, keys: &Keys, counts: bool, changed: &mut dyn FnMut(&[u8])) {
        let mut count = |ledger: &mut Self, id: CellId, n: i64| {
            if counts {
                ledger.add_others(id, n);
                changed(ledger.cells.get(id).cell.key());
            }
        };
        if new.is_live() {
            self.cells.get_mut(new.cell).rows += 1;
            count(self, new.cell, new.row.value());
        }
        if old.is_live() {
            count(self, old.cell, old.row.value().wrapping_neg());
            self.cells.get_mut(old.cell).rows -= 1;
            self.drop_if_unused(old.cell, keys);
        }
    }
}
