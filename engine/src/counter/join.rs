//! The writer of other actors' rows: joins a delta into the actor's rows.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss
    )
)]

use std::sync::Arc;

use smallvec::SmallVec;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::message::Delta;
use tallymesh_schemas::rows::{RowReader, RowState, RowsError, WireRow};
use tallymesh_schemas::{Actor, Version};

use crate::canary::{self, Canary};
use crate::counter::ledger::{Ledger, TOGETHER};
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::key::CellKey;
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::registers::Register;
use crate::rows::row::{Row, content_hash};
use crate::rows::slots::{Slot, VACANT};

/// The result of a delta. The ledger is consistent after each of them. It is also consistent after an [`ApplyError`]; then
/// the rows before the fault are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The rows are joined; the applied version is now the delta's `upto`.
    Advanced,
    /// The delta contained nothing new.
    Stale,
    /// Rows are missing before the delta. The receiver has to request rows above `after`, as a snapshot or not.
    Gap { since: Version, after: Version, snapshot: bool },
    /// This replica's rows differ from the sender's rows at the same version.
    Diverged,
    /// Like [`Applied::Diverged`], but this replica's rows may be newer than the sender's statement.
    Doubted,
    /// A part of a snapshot was joined into the staging copy.
    Part,
    /// A snapshot is complete and has replaced the earlier rows.
    Replaced,
}

/// Why a delta was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The rows cannot be decoded.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A key does not match the structure's kind.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A row has a version beyond the end of the delta.
    #[error("row of version {version} in a delta up to {upto}")]
    Beyond {
        /// The row's version.
        version: Version,
        /// The delta's end.
        upto: Version,
    },
    /// A row has a value, but the structure has no values.
    #[error("a value in a structure of {0}s")]
    Value(&'static str),
    /// A row has no key, and the receiver does not know the key of its slot.
    #[error("row of slot {0} without key, and none is known")]
    Unknown(u32),
}

/// The context of a delta during its join.
pub(super) struct Joining<'a, 'b> {
    pub(super) actor: &'a Actor,
    /// The fingerprint is the owner's own statement.
    pub(super) verify: bool,
    pub(super) keys: &'a Keys,
    sink: &'a mut ChangeSink<'b>,
    /// Keys of changed rows that clear.
    cleared: Vec<CellKey>,
}

/// Rows of known keys, with their slots.
type Known = SmallVec<[(u32, Row); TOGETHER]>;

/// The key of a live row, if the delta contains it, and its totals.
type Said<'a> = (Option<&'a [u8]>, (u64, u64));

/// The key and totals of a live row; `None` for a vacant one.
fn key_and_totals<'a>(state: &RowState<'a>) -> Option<Said<'a>> {
    match *state {
        RowState::Live { key, added, removed } => Some((key, (added, removed))),
        RowState::Content { key, stamp, expires_ms, value } => Some((key, (stamp, content_hash(expires_ms, value)))),
        RowState::Vacant => None,
    }
}

fn applied(delta: &Delta<'_>, had: Version) -> Applied {
    if delta.upto > had { Applied::Advanced } else { Applied::Stale }
}

impl Ledger {
    /// Joins a delta of another actor's rows. `verify` says that its fingerprint is the owner's own statement.
    pub(crate) fn apply(
        &mut self,
        delta: &Delta<'_>,
        verify: bool,
        keys: &Keys,
        sink: &mut ChangeSink<'_>,
    ) -> Result<Applied, ApplyError> {
        debug_assert_ne!(delta.actor, self.actor, "our rows have one writer, and it is not a peer");
        // Taken out of the map during the write, so that cells and sums can be changed as well.
        let Some(mut actor_rows) = self.actors.remove(&delta.actor) else { return Ok(Applied::Stale) };
        let mut joining = Joining { actor: &delta.actor, verify, keys, sink, cleared: Vec::new() };
        let applied = if delta.snapshot {
            self.apply_snapshot(&mut actor_rows, delta, &mut joining)
        } else {
            self.apply_next(&mut actor_rows, delta, &mut joining)
        };
        self.index.settle();
        let Joining { cleared, sink, .. } = joining;
        self.actors.insert(delta.actor.clone(), actor_rows);
        self.reclear(cleared, keys, sink);
        applied
    }

    pub(super) fn apply_next(
        &mut self,
        actor_rows: &mut ActorRows,
        delta: &Delta<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<Applied, ApplyError> {
        let (since, have) = (actor_rows.since, actor_rows.applied);
        if (delta.after > have && !canary::broken(Canary::GapApplied)) || delta.since < since {
            if canary::broken(Canary::HaveBeyondJoined) {
                actor_rows.applied = delta.after;
            }
            return Ok(Applied::Gap { since, after: have, snapshot: false });
        }
        if !actor_rows.follows(delta.low_water) {
            return Ok(Applied::Gap { since, after: since, snapshot: true });
        }
        if delta.keys_complete > delta.since.max(actor_rows.keys_complete) && !canary::broken(Canary::GapApplied) {
            // A request from `after` on with no known keys makes the sender include the keys.
            return Ok(Applied::Gap { since: have, after: have, snapshot: false });
        }
        // Other replicas may have rows of an ended run that are missing here, although the applied versions are equal.
        let again = self.shape.keeps_runs() && (!joining.verify || !actor_rows.without_value.is_empty());
        if delta.upto > have || again {
            if !joining.verify {
                // No probe answer that is under way covers these rows.
                actor_rows.doubted = 0;
            }
            let joined = self.join(actor_rows, delta, joining);
            actor_rows.mix(delta.upto.max(delta.low_water));
            joined?;
        }
        actor_rows.raise_low_water(delta.low_water);
        if joining.verify
            && delta.upto == actor_rows.applied
            && let Some(fingerprint) = delta.fingerprint
        {
            return Ok(self.compare(actor_rows, fingerprint, joining).unwrap_or(applied(delta, have)));
        }
        Ok(applied(delta, have))
    }

    /// Compares this copy with the owner's fingerprint at the owner's head. Returns `None` when they are equal.
    pub(super) fn compare(
        &mut self,
        actor_rows: &mut ActorRows,
        fingerprint: u64,
        joining: &Joining<'_, '_>,
    ) -> Option<Applied> {
        let checked = actor_rows.since == 0 && !canary::broken(Canary::FingerprintUnchecked);
        if checked && fingerprint != actor_rows.fingerprint() {
            actor_rows.diverged |= !actor_rows.may_be_newer();
            return Some(if actor_rows.diverged { Applied::Diverged } else { Applied::Doubted });
        }
        actor_rows.agrees();
        actor_rows.keys_complete = actor_rows.applied;
        let since = actor_rows.since;
        if let Some(shadow) = actor_rows.staging.take_if(|shadow| shadow.since >= since) {
            // This staging copy began before the rows were confirmed.
            self.drop_copy(joining.actor, &shadow, Some(actor_rows), joining.keys);
        }
        None
    }

    /// Handles the change of an actor's row in a cell: if the row counts, updates the aggregates.
    #[inline]
    pub(super) fn count(&mut self, id: CellId, old: &Row, new: &Row, counts: bool, joining: &mut Joining<'_, '_>) {
        if self.clears(id) {
            joining.cleared.push(self.cells.key_of(id));
        } else if counts {
            let by = self.change(joining.actor, id, old, new);
            self.add_others(id, by);
            self.note_below(joining.actor, id, old, new);
            joining.sink.moved(by, || self.cells.key_of(id));
        }
    }

    pub(super) fn join(
        &mut self,
        actor_rows: &mut ActorRows,
        delta: &Delta<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<(), ApplyError> {
        let mut rows = RowReader::new(delta.rows, delta.after);
        // Rows of known keys are collected, so that their memory accesses overlap.
        let mut known: Known = SmallVec::new();
        let read = loop {
            let row = match rows.next_row() {
                Ok(Some(row)) if row.version <= delta.upto => row,
                Ok(Some(row)) => break Err(ApplyError::Beyond { version: row.version, upto: delta.upto }),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            if let RowState::Live { key: None, added, removed } = row.state {
                known.push((row.slot, Row { added, removed, version: row.version }));
                if known.len() == TOGETHER {
                    self.join_known(actor_rows, &mut known, joining)?;
                }
            } else {
                self.join_known(actor_rows, &mut known, joining)?;
                self.join_next(actor_rows, row, joining)?;
            }
        };
        self.join_known(actor_rows, &mut known, joining)?;
        read?;
        actor_rows.applied = actor_rows.applied.max(delta.upto);
        Ok(())
    }

    fn join_known(
        &mut self,
        actor_rows: &mut ActorRows,
        rows: &mut Known,
        joining: &mut Joining<'_, '_>,
    ) -> Result<(), ApplyError> {
        let cells: SmallVec<[CellId; TOGETHER]> = rows.iter().map(|(slot, _)| actor_rows.cell(*slot)).collect();
        self.warm(&cells);
        for (slot, row) in rows.drain(..) {
            if !self.advance(actor_rows, slot, &row, joining) {
                let state = RowState::Live { key: None, added: row.added, removed: row.removed };
                self.join_next(actor_rows, WireRow { slot, version: row.version, state }, joining)?;
            }
        }
        Ok(())
    }

    /// Joins the next state of a row under the same key, if nothing else changes; most rows are like that. Returns whether
    /// it did.
    #[inline]
    fn advance(&mut self, actor_rows: &mut ActorRows, slot: u32, row: &Row, joining: &mut Joining<'_, '_>) -> bool {
        let broken = canary::broken(Canary::SumForMax) || canary::broken(Canary::ViewNotMoved);
        // A row that arrives late starts another edition.
        if broken || self.shape.is_cache() || row.version <= actor_rows.applied {
            return false;
        }
        let Some((cell, old)) = actor_rows.advance(slot, row, &self.cells) else { return false };
        self.count(cell, &old, row, actor_rows.counts, joining);
        true
    }

    /// Reads cells that are about to be written, all at once, so that their memory accesses overlap.
    fn warm(&self, cells: &[CellId]) {
        let live = cells.iter().filter(|id| **id < VACANT);
        std::hint::black_box(live.fold(0, |sum, id| sum ^ self.cells.get(*id).others()));
    }

    #[inline]
    fn join_next(
        &mut self,
        actor_rows: &mut ActorRows,
        row: WireRow<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<(), ApplyError> {
        let old = actor_rows.get(row.slot);
        if row.version > old.row.version || self.decides(&old, &row, joining) {
            self.join_row(actor_rows, &old, row, joining)?;
        } else if actor_rows.without_value.contains(&old.cell)
            && key_and_totals(&row.state).is_some_and(|said| said.1 == (old.row.added, old.row.removed))
        {
            self.offer_row(actor_rows, &old, &row.state, joining);
        }
        Ok(())
    }

    /// Decides between two rows of one version, for the case that two processes wrote under one name and the run has ended.
    /// Every replica chooses the same row. A live row wins over a retired one.
    fn decides(&self, old: &Slot, row: &WireRow<'_>, joining: &Joining<'_, '_>) -> bool {
        let Some((key, (added, removed))) = key_and_totals(&row.state) else { return false };
        if row.version != old.row.version || !self.is_decided(joining) {
            return false;
        }
        if !old.is_live() {
            return key.is_some();
        }
        let known = self.cells.key_of(old.cell);
        (key.unwrap_or(&known), added, removed) > (&*known, old.row.added, old.row.removed)
    }

    /// Returns whether this replica decides between two rows of one version, because no owner states which one is right.
    fn is_decided(&self, joining: &Joining<'_, '_>) -> bool {
        self.shape.keeps_runs() && !joining.verify
    }

    #[inline]
    fn join_row(
        &mut self,
        actor_rows: &mut ActorRows,
        old: &Slot,
        row: WireRow<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<(), ApplyError> {
        if matches!(row.state, RowState::Content { .. }) && !self.shape.is_cache() {
            return Err(ApplyError::Value(self.shape.kind().label()));
        }
        let (cell, totals) = match key_and_totals(&row.state) {
            Some((None, _)) if !old.is_live() => return Err(ApplyError::Unknown(row.slot)),
            Some((None, (added, removed))) if canary::broken(Canary::SumForMax) => {
                (old.cell, (old.row.added.wrapping_add(added), old.row.removed.wrapping_add(removed)))
            }
            Some((None, totals)) => (old.cell, totals),
            Some((Some(key), totals)) => {
                self.shape.check_row(key)?;
                let id = joining.keys.with_or_new(key, |id, _| id);
                self.enter(id);
                (id, totals)
            }
            None => (VACANT, (0, 0)),
        };
        let new = Slot {
            row: Row { added: totals.0, removed: totals.1, version: row.version },
            born: if cell == old.cell { old.born } else { row.version },
            cell,
        };
        if !self.displace(actor_rows, row.slot, &new, cell != old.cell, joining) {
            return Ok(());
        }
        if row.version <= actor_rows.applied {
            // A reader beyond that version has not seen the row.
            actor_rows.edition = self.edition();
        }
        actor_rows.put(row.slot, new, &self.cells);
        if cell == old.cell {
            if self.shape.is_cache() && new.is_live() {
                self.replace_newer(cell, joining.actor, &old.row, &new.row);
            } else if new.is_live() && !canary::broken(Canary::ViewNotMoved) {
                self.count(cell, &old.row, &new.row, actor_rows.counts, joining);
            }
        } else {
            self.move_row(old, &new, actor_rows.counts, joining);
        }
        if self.shape.is_cache() && new.is_live() {
            self.offer_row(actor_rows, &new, &row.state, joining);
        }
        Ok(())
    }

    /// Removes rows that conflict with an incoming row. An owner has one row per key and one row per version. If another
    /// slot has the incoming row's key, the owner has retired that slot and this replica does not know it yet. If another
    /// slot has its version, two processes wrote under one name. Returns whether the new row takes their place.
    pub(super) fn displace(
        &mut self,
        actor_rows: &mut ActorRows,
        at: u32,
        new: &Slot,
        moves: bool,
        joining: &mut Joining<'_, '_>,
    ) -> bool {
        let decided = self.is_decided(joining);
        let of_key = (moves && new.is_live()).then(|| actor_rows.find(new.cell, &self.cells)).flatten();
        let late = decided && new.row.version <= actor_rows.applied;
        let of_version = late.then(|| actor_rows.find_version(new.row.version)).flatten();
        let of_version = of_version.filter(|(slot, _)| of_key.is_none_or(|(same, _)| same != *slot));
        let mut others: SmallVec<[(u32, Slot); 2]> = of_key.into_iter().chain(of_version).collect();
        others.retain(|(slot, _)| *slot != at);
        let wins = |(slot, other): &(u32, Slot)| {
            let same = decided && other.row.version == new.row.version;
            other.row.version > new.row.version || (same && self.outranks((*slot, other), (at, new)))
        };
        if others.iter().any(wins) {
            return false;
        }
        if others.is_empty() {
            return true;
        }
        // The new row is noted first, so that the cell keeps its number in between.
        let cell = new.is_live().then_some(new.cell);
        cell.inspect(|cell| self.cells.get(*cell).add_row());
        for (slot, other) in others {
            actor_rows.clear(slot, &self.cells);
            actor_rows.edition = self.edition();
            self.move_row(&other, &Slot::NONE, actor_rows.counts, joining);
        }
        cell.inspect(|cell| self.cells.get(*cell).remove_row());
        true
    }

    /// The order that decides between rows of one version.
    fn outranks(&self, (slot, other): (u32, &Slot), (at, new): (u32, &Slot)) -> bool {
        let key = |state: &Slot| state.is_live().then(|| self.cells.key_of(state.cell));
        let (old_key, new_key) = (key(other), key(new));
        (old_key.as_deref(), other.row.added, other.row.removed, slot)
            > (new_key.as_deref(), new.row.added, new.row.removed, at)
    }

    /// Applies the cache write that a row states. A row without value was superseded, where it came from, by another known
    /// write. It has no effect here until its value or the superseding write arrives.
    fn offer_row(
        &mut self,
        actor_rows: &mut ActorRows,
        new: &Slot,
        state: &RowState<'_>,
        joining: &mut Joining<'_, '_>,
    ) {
        let (expires_ms, value) = match *state {
            RowState::Content { expires_ms, value, .. } => (expires_ms, Some(Arc::from(value))),
            _ if new.row.content() == 0 => (0, None),
            _ => {
                actor_rows.without_value.insert(new.cell);
                return;
            }
        };
        if actor_rows.without_value.remove(&new.cell) {
            actor_rows.value_arrived =
                Some(actor_rows.value_arrived.map_or(new.row.version, |first| first.min(new.row.version)));
            actor_rows.edition = self.edition();
        }
        let (stamp, content) = (new.row.stamp(), new.row.content());
        let register = Register { stamp, content, actor: joining.actor.clone(), expires_ms, value };
        if let Some(losing) = &mut actor_rows.losing
            && self.registers.loses_to_its_actor(new.cell, &register)
        {
            losing.insert(new.cell, register);
        } else if self.offer(new.cell, register) {
            joining.sink.changed(|| self.cells.key_of(new.cell));
        }
    }

    /// Handles a slot that gets another key, its first key, or none.
    pub(super) fn move_row(&mut self, old: &Slot, new: &Slot, counts: bool, joining: &mut Joining<'_, '_>) {
        if new.is_live() {
            self.cells.get(new.cell).add_row();
            self.count(new.cell, &Row::default(), &new.row, counts, joining);
        }
        if old.is_live() {
            self.count(old.cell, &old.row, &Row::default(), counts, joining);
            self.cells.get(old.cell).remove_row();
            self.drop_if_unused(old.cell, joining.keys);
        }
    }
}
