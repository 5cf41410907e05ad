//! Snapshots of an actor: the rows arrive in pieces in a staging copy and replace the earlier rows when they are complete.

use tallymesh_schemas::message::Delta;
use tallymesh_schemas::{Actor, Version};

use crate::canary::{self, Canary};
use crate::counter::actors::Copies;
use crate::counter::join::{Applied, ApplyError, Into, Joining, Source, compare};
use crate::counter::ledger::Ledger;
use crate::keyspace::cells::Cells;
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::rows::slots::Slot;

/// What becomes of a staging copy.
enum End {
    /// It waits for more rows.
    Open,
    /// It replaces the rows.
    Complete,
    /// It is dropped.
    Wrong(Applied),
}

impl Ledger {
    /// Gives up a snapshot that is being received, because no peer has the rest of it.
    pub(crate) fn give_up_snapshot(&mut self, actor: &Actor, keys: &Keys) {
        let Some(copies) = self.actors.copies_mut(actor) else { return };
        if let Some(staging) = copies.staging.take() {
            self.views.drop_rows(&staging, keys);
            self.views.index.settle();
        }
    }
}

impl Joining<'_, '_> {
    /// Joins a part of a snapshot into the staging copy. The earlier rows stay readable until the snapshot is complete.
    pub(super) fn apply_snapshot(&mut self, copies: &mut Copies, delta: &Delta<'_>) -> Result<Applied, ApplyError> {
        let since = copies.staging.as_ref().map_or(copies.rows.since, |staging| staging.since);
        if since == copies.rows.since && !copies.rows.diverged && copies.rows.follows(delta.low_water) {
            // No snapshot is needed, or it is no longer needed: treat it as an ordinary delta.
            return self.apply_next(copies, delta);
        }
        self.into = Into::Staging;
        let Copies { rows, staging, .. } = copies;
        if let Some(old) = staging.take_if(|staging| !staging.follows(delta.low_water)) {
            self.views.drop_rows(&old, self.keys);
        }
        let new = staging.get_or_insert_with(|| Box::new(ActorRows::staging(since)));
        if delta.after > new.applied || delta.since < since || delta.keys_complete > delta.since.max(new.keys_complete)
        {
            return Ok(Applied::Gap { since, after: new.applied, snapshot: true });
        }
        let mut joined = Ok(());
        if delta.upto > new.applied {
            if let Some(keys) = self.make_room(new, delta)? {
                // What has come of the snapshot is of no use, and takes room.
                if let Some(new) = staging.take() {
                    self.views.drop_rows(&new, self.keys);
                }
                return Ok(Applied::NoRoom { keys });
            }
            joined = self.join(new, delta);
            new.mix(delta.upto.max(delta.low_water));
        }
        new.raise_low_water(delta.low_water);
        joined?;
        let end = self.end(rows, new, delta);
        match end {
            // A sender without further rows may still have less than this replica. Newer rows have to come from another
            // peer.
            End::Open => Ok(Applied::Part),
            End::Complete => {
                if let Some(new) = staging.take() {
                    self.replace(rows, *new);
                }
                Ok(Applied::Replaced)
            }
            End::Wrong(applied) => {
                if let Some(new) = staging.take() {
                    self.views.drop_rows(&new, self.keys);
                }
                Ok(applied)
            }
        }
    }

    /// Decides whether the staging copy `new` can replace the rows after a delta.
    fn end(&self, rows: &ActorRows, new: &mut ActorRows, delta: &Delta<'_>) -> End {
        let early = swaps_early();
        let fingerprint = delta.fingerprint.or(early.then(|| new.fingerprint()));
        let Some(fingerprint) = fingerprint.filter(|_| early || new.applied >= rows.applied) else {
            // No fingerprint confirms that the copy is complete, but it may hold more than the earlier rows.
            let more = new.since < rows.since && self.covers(new, rows);
            return if more { End::Complete } else { End::Open };
        };
        let differs = match self.source {
            Source::Owner => compare(new, fingerprint),
            Source::Other => {
                (new.since == Version::ZERO && fingerprint != new.fingerprint()).then_some(Applied::Doubted)
            }
        };
        match differs {
            None => End::Complete,
            // Pieces from several senders may together lack rows that changed in between. The snapshot starts again.
            Some(Applied::Doubted) => End::Wrong(Applied::Gap { since: new.since, after: new.since, snapshot: true }),
            Some(differs) => End::Wrong(differs),
        }
    }

    /// Returns whether the new rows contain everything that the old ones do, so that a replacement loses nothing. O(rows).
    fn covers(&self, new: &ActorRows, old: &ActorRows) -> bool {
        let covered = |state: &Slot| {
            let found = new.find(state.cell, &self.views.cells);
            found.is_some_and(|(_, found)| found.row.version >= state.row.version)
        };
        new.applied >= old.applied && !old.diverged && old.live().all(|(_, state)| covered(&state))
    }

    /// Replaces the earlier rows by the snapshot's rows, in one step.
    fn replace(&mut self, actor_rows: &mut ActorRows, mut new: ActorRows) {
        if actor_rows.has_log() {
            new.make_log();
        }
        if self.source == Source::Other && !actor_rows.diverged {
            self.keep_newer(actor_rows, &mut new);
        }
        self.into = Into::Rows;
        // Flags of the earlier rows carry over: kept rows count already, received rows do not count yet.
        new.take_over(actor_rows);
        let old = std::mem::replace(actor_rows, new.of_edition(self.editions.next()));
        // Unchanged rows are no change, so watchers receive nothing for them.
        let row_of = |actor_rows: &ActorRows, id, cells: &Cells| actor_rows.find(id, cells).map(|(_, state)| state.row);
        for (_, state) in actor_rows.live() {
            let was = row_of(&old, state.cell, &self.views.cells).unwrap_or_default();
            if was.totals() != state.row.totals() {
                self.count(state.cell, &was, &state.row, &old);
            }
        }
        for (_, state) in old.live() {
            if row_of(actor_rows, state.cell, &self.views.cells).is_none() {
                self.count(state.cell, &state.row, &Row::default(), &old);
            }
        }
        self.views.drop_rows(&old, self.keys);
    }

    /// Keeps newer rows of the old copy. Rows from a sender other than their owner lack rows that changed before their piece
    /// was cut, and the rows known here may be later. O(slots).
    fn keep_newer(&mut self, old: &ActorRows, new: &mut ActorRows) {
        for (slot, state) in old.used() {
            let found = new.get(slot);
            // A slot that the new rows do not contain was retired, unless the snapshot would have had to contain it.
            let retired = found.row.version == Version::ZERO && state.row.version <= new.low_water;
            if state.row.version <= found.row.version || retired {
                continue;
            }
            if self.displace(new, slot, &state) {
                new.put(slot, state, &self.views.cells);
                if state.cell != found.cell {
                    self.move_row(&found, &state, new);
                }
            }
        }
    }
}

/// Returns whether a part of a snapshot may replace the earlier rows.
fn swaps_early() -> bool {
    canary::broken(Canary::SnapshotSwappedEarly)
}
