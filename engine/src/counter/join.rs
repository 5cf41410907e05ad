//! The writer of other actors' rows: joins a delta into the actor's rows.

use smallvec::SmallVec;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::message::Delta;
use tallymesh_schemas::rows::{RowReader, RowState, RowsError, WireRow};
use tallymesh_schemas::{Actor, Version};

use crate::canary::{self, Canary};
use crate::counter::actors::Copies;
use crate::counter::ledger::Ledger;
use crate::counter::resets::Restated;
use crate::counter::views::{TOGETHER, Views};
use crate::counter::watch::ChangeSink;
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::keys::Keys;
use crate::keyspace::quota::Reservation;
use crate::keyspace::totals::Totals;
use crate::rows::actor_rows::{ActorRows, Editions};
use crate::rows::row::Row;
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
    /// The delta was refused, because its keys do not fit within a budget. So many more keys would have to fit.
    NoRoom { keys: u64 },
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

/// Who sends a delta, and so makes the statements in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The owner of the rows: its fingerprint is the truth.
    Owner,
    /// Another node, or saved state.
    Other,
}

/// Whether the keys of a delta have to fit within the budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fit {
    Checked,
    /// They are kept in any case: they were saved.
    Unchecked,
    /// Rows before the delta wait for room: if the delta does not follow, its retirements are joined.
    Awaited,
}

/// A delta's join: the aggregates to change, and the context.
pub(super) struct Joining<'a, 'b> {
    pub(super) views: &'a mut Views,
    pub(super) editions: &'a mut Editions,
    pub(super) actor: &'a Actor,
    pub(super) source: Source,
    pub(super) keys: &'a Keys,
    pub(super) fit: Fit,
    /// The room of the delta's keys.
    pub(super) room: Reservation<'a>,
    sink: &'a mut ChangeSink<'b>,
    /// Changed rows that clear. Those of a staging copy clear nothing yet.
    cleared: Vec<Restated>,
    pub(super) into: Into,
}

/// The copy into which a delta is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Rows,
    Staging,
}

/// Rows of known keys, with their slots.
type Known = SmallVec<[(u32, Row); TOGETHER]>;

/// The key of a live row, if the delta contains it, and its totals.
type Said<'a> = (Option<&'a [u8]>, Totals);

/// The key and totals of a live row; `None` for a vacant one.
fn key_and_totals<'a>(state: &RowState<'a>) -> Option<Said<'a>> {
    match *state {
        RowState::Live { key, added, removed } => Some((key, Totals { added, removed })),
        RowState::Content { .. } | RowState::Vacant => None,
    }
}

/// Returns whether this node compares its copies with the fingerprints that their owners state (I3).
pub(crate) fn owners_fingerprint_is_compared() -> bool {
    !canary::broken(Canary::FingerprintUnchecked)
}

/// Returns whether a delta may be joined although it begins behind the applied version, or omits keys that are unknown here.
fn gaps_are_joined() -> bool {
    canary::broken(Canary::GapApplied)
}

/// Returns whether the rows of a gap count as applied.
fn gaps_count_as_applied() -> bool {
    canary::broken(Canary::AppliedBeyondJoined)
}

/// Returns whether the totals of two states of a row are added up. The newer state replaces the older one (I2).
fn states_are_added_up() -> bool {
    canary::broken(Canary::SumForMax)
}

/// Returns whether the views follow a row that is replaced (I10).
fn views_follow_rows() -> bool {
    !canary::broken(Canary::ViewNotMoved)
}

/// Compares a copy with the owner's fingerprint at the owner's head. Returns `None` when they are equal.
pub(super) fn compare(rows: &mut ActorRows, fingerprint: u64) -> Option<Applied> {
    let compared = rows.since == Version::ZERO && owners_fingerprint_is_compared();
    if compared && fingerprint != rows.fingerprint() {
        rows.diverged |= !rows.may_be_newer();
        return Some(if rows.diverged { Applied::Diverged } else { Applied::Doubted });
    }
    rows.agrees();
    rows.keys_complete = rows.applied;
    None
}

impl Ledger {
    /// Joins a delta of another actor's rows.
    pub(crate) fn apply(
        &mut self,
        delta: &Delta<'_>,
        (source, fit): (Source, Fit),
        keys: &Keys,
        sink: &mut ChangeSink<'_>,
    ) -> Result<Applied, ApplyError> {
        debug_assert_ne!(delta.actor, self.views.actor, "our rows have one writer, and it is not a peer");
        let Some(copies) = self.actors.copies_mut(&delta.actor) else { return Ok(Applied::Stale) };
        let (applied, cleared) = {
            let (views, editions, actor) = (&mut self.views, &mut self.editions, &delta.actor);
            let (room, cleared, into) = (keys.quota().unchecked(), Vec::new(), Into::Rows);
            let sink = &mut *sink;
            let mut joining = Joining { views, editions, actor, source, keys, fit, room, sink, cleared, into };
            let mut applied =
                if delta.snapshot { joining.apply_snapshot(copies, delta) } else { joining.apply_next(copies, delta) };
            // Rows of events are not retired.
            let makes_room = fit == Fit::Awaited && !delta.snapshot && joining.views.shape.counts_gauges();
            if makes_room && let Ok(Applied::Gap { snapshot: false, .. }) = applied {
                applied = joining.take_retirements(copies, delta).and(applied);
            }
            (applied, joining.cleared)
        };
        self.views.index.settle();
        self.reclear(cleared, keys, sink);
        applied
    }
}

impl Joining<'_, '_> {
    pub(super) fn apply_next(&mut self, copies: &mut Copies, delta: &Delta<'_>) -> Result<Applied, ApplyError> {
        let rows = &mut copies.rows;
        let (since, applied) = (rows.since, rows.applied);
        let gap = delta.after > applied && !gaps_are_joined();
        if gap || delta.since < since {
            if gaps_count_as_applied() {
                rows.applied = delta.after;
            }
            return Ok(Applied::Gap { since, after: applied, snapshot: false });
        }
        if !rows.follows(delta.low_water) {
            return Ok(Applied::Gap { since, after: since, snapshot: true });
        }
        let omits_keys = delta.keys_complete > delta.since.max(rows.keys_complete);
        if omits_keys && !gaps_are_joined() {
            // A request from `after` on with no known keys makes the sender include the keys.
            return Ok(Applied::Gap { since: applied, after: applied, snapshot: false });
        }
        // Other replicas may have rows of an ended run that are missing here, although the applied versions are equal.
        let again = self.views.shape.keeps_runs() && self.source == Source::Other;
        if delta.upto > applied || again {
            if let Some(keys) = self.make_room(rows, delta)? {
                return Ok(Applied::NoRoom { keys });
            }
            if self.source == Source::Other {
                // No probe answer that is under way covers these rows.
                rows.doubted = 0;
            }
            let joined = self.join(rows, delta);
            rows.mix(delta.upto.max(delta.low_water));
            joined?;
        }
        rows.raise_low_water(delta.low_water);
        let outcome = if delta.upto > applied { Applied::Advanced } else { Applied::Stale };
        let Some(fingerprint) =
            delta.fingerprint.filter(|_| self.source == Source::Owner && delta.upto == rows.applied)
        else {
            return Ok(outcome);
        };
        if let Some(differs) = compare(rows, fingerprint) {
            return Ok(differs);
        }
        let since = rows.since;
        if let Some(staging) = copies.staging.take_if(|staging| staging.since >= since) {
            // This staging copy began before the rows were confirmed.
            self.views.drop_rows(&staging, self.keys);
        }
        Ok(outcome)
    }

    /// Handles the change of an actor's row in a cell: if the row counts, updates the aggregates.
    #[inline]
    pub(super) fn count(&mut self, id: CellId, old: &Row, new: &Row, of: &ActorRows) {
        if self.views.clears(id) {
            if self.into == Into::Rows {
                self.cleared.push(Restated::new(self.views.cells.key_of(id), old, new));
            }
        } else if of.counts {
            let by = self.views.change(self.actor, id, old, new);
            self.views.add_others(id, by);
            self.views.note_below(self.actor, id, old, new);
            self.sink.moved(by, || self.views.cells.key_of(id));
        }
    }

    pub(super) fn join(&mut self, actor_rows: &mut ActorRows, delta: &Delta<'_>) -> Result<(), ApplyError> {
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
                    self.join_known(actor_rows, &mut known)?;
                }
            } else {
                self.join_known(actor_rows, &mut known)?;
                self.join_next(actor_rows, row)?;
            }
        };
        self.join_known(actor_rows, &mut known)?;
        read?;
        actor_rows.applied = actor_rows.applied.max(delta.upto);
        Ok(())
    }

    fn join_known(&mut self, actor_rows: &mut ActorRows, rows: &mut Known) -> Result<(), ApplyError> {
        let cells: SmallVec<[CellId; TOGETHER]> = rows.iter().map(|(slot, _)| actor_rows.cell(*slot)).collect();
        self.warm(&cells);
        for (slot, row) in rows.drain(..) {
            if !self.advance(actor_rows, slot, &row) {
                let state = RowState::Live { key: None, added: row.added, removed: row.removed };
                self.join_next(actor_rows, WireRow { slot, version: row.version, state })?;
            }
        }
        Ok(())
    }

    /// Joins the next state of a row under the same key, if nothing else changes; most rows are like that. Returns whether
    /// it did.
    #[inline]
    fn advance(&mut self, actor_rows: &mut ActorRows, slot: u32, row: &Row) -> bool {
        let broken = states_are_added_up() || !views_follow_rows();
        // A row that arrives late starts another edition.
        if broken || row.version <= actor_rows.applied {
            return false;
        }
        let Some((cell, old)) = actor_rows.advance(slot, row, &self.views.cells) else { return false };
        self.count(cell, &old, row, actor_rows);
        true
    }

    /// Reads cells that are about to be written, all at once, so that their memory accesses overlap.
    fn warm(&self, cells: &[CellId]) {
        let live = cells.iter().filter(|id| **id < VACANT);
        std::hint::black_box(live.fold(0, |sum, id| sum ^ self.views.cells.get(*id).others()));
    }

    #[inline]
    pub(super) fn join_next(&mut self, actor_rows: &mut ActorRows, row: WireRow<'_>) -> Result<(), ApplyError> {
        let old = actor_rows.get(row.slot);
        if row.version > old.row.version || self.decides(&old, &row) {
            self.join_row(actor_rows, &old, row)?;
        }
        Ok(())
    }

    /// Decides between two rows of one version, for the case that two processes wrote under one name and the run has ended.
    /// Every replica chooses the same row. A live row wins over a retired one.
    fn decides(&self, old: &Slot, row: &WireRow<'_>) -> bool {
        let Some((key, Totals { added, removed })) = key_and_totals(&row.state) else { return false };
        if row.version != old.row.version || !self.is_decided() {
            return false;
        }
        if !old.is_live() {
            return key.is_some();
        }
        let known = self.views.cells.key_of(old.cell);
        (key.unwrap_or(&known), added, removed) > (&*known, old.row.added, old.row.removed)
    }

    /// Returns whether this replica decides between two rows of one version, because no owner states which one is right.
    fn is_decided(&self) -> bool {
        self.views.shape.keeps_runs() && self.source == Source::Other
    }

    #[inline]
    fn join_row(&mut self, actor_rows: &mut ActorRows, old: &Slot, row: WireRow<'_>) -> Result<(), ApplyError> {
        if matches!(row.state, RowState::Content { .. }) {
            return Err(ApplyError::Value(self.views.shape.kind().label()));
        }
        let (cell, totals) = match key_and_totals(&row.state) {
            Some((None, _)) if !old.is_live() => return Err(ApplyError::Unknown(row.slot)),
            Some((None, Totals { added, removed })) if states_are_added_up() => {
                let (added, removed) = (old.row.added.wrapping_add(added), old.row.removed.wrapping_add(removed));
                (old.cell, Totals { added, removed })
            }
            Some((None, totals)) => (old.cell, totals),
            Some((Some(key), totals)) => {
                self.views.shape.check_row(key)?;
                let id = self.keys.with_or_reserved(key, &mut self.room, |id, _| id);
                self.views.enter(id);
                (id, totals)
            }
            None => (VACANT, Totals::default()),
        };
        let new = Slot {
            row: Row::new(totals, row.version),
            born: if cell == old.cell { old.born } else { row.version },
            cell,
        };
        if !self.displace(actor_rows, row.slot, &new) {
            return Ok(());
        }
        if row.version <= actor_rows.applied {
            // A reader beyond that version has not seen the row.
            actor_rows.edition = self.editions.next();
        }
        actor_rows.put(row.slot, new, &self.views.cells);
        if cell == old.cell {
            if new.is_live() && views_follow_rows() {
                self.count(cell, &old.row, &new.row, actor_rows);
            }
        } else {
            self.move_row(old, &new, actor_rows);
        }
        Ok(())
    }

    /// Removes rows that conflict with an incoming row. An owner has one row per key and one row per version. If another
    /// slot has the incoming row's key, the owner has retired that slot and this replica does not know it yet. If another
    /// slot has its version, two processes wrote under one name. Returns whether the new row takes their place.
    pub(super) fn displace(&mut self, actor_rows: &mut ActorRows, at: u32, new: &Slot) -> bool {
        let decided = self.is_decided();
        let moves = actor_rows.cell(at) != new.cell;
        let of_key = (moves && new.is_live()).then(|| actor_rows.find(new.cell, &self.views.cells)).flatten();
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
        cell.inspect(|cell| self.views.cells.get(*cell).add_row());
        for (slot, other) in others {
            actor_rows.clear(slot, &self.views.cells);
            actor_rows.edition = self.editions.next();
            self.move_row(&other, &Slot::NONE, actor_rows);
        }
        cell.inspect(|cell| self.views.cells.get(*cell).remove_row());
        true
    }

    /// The order that decides between rows of one version.
    fn outranks(&self, (slot, other): (u32, &Slot), (at, new): (u32, &Slot)) -> bool {
        let key = |state: &Slot| state.is_live().then(|| self.views.cells.key_of(state.cell));
        let (old_key, new_key) = (key(other), key(new));
        (old_key.as_deref(), other.row.added, other.row.removed, slot)
            > (new_key.as_deref(), new.row.added, new.row.removed, at)
    }

    /// Handles a slot of the rows `of` that gets another key, its first key, or none.
    pub(super) fn move_row(&mut self, old: &Slot, new: &Slot, of: &ActorRows) {
        if new.is_live() {
            self.views.cells.get(new.cell).add_row();
            self.count(new.cell, &Row::default(), &new.row, of);
        }
        if old.is_live() {
            self.count(old.cell, &old.row, &Row::default(), of);
            self.views.cells.get(old.cell).remove_row();
            self.views.drop_if_unused(old.cell, self.keys);
        }
    }
}
