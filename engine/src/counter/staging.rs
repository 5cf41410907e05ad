//! Snapshots of an actor: the rows arrive in pieces in a staging copy and replace the earlier rows when they are complete.
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

use tallymesh_schemas::Actor;
use tallymesh_schemas::message::Delta;

use crate::canary::{self, Canary};
use crate::counter::join::{Applied, ApplyError, Joining};
use crate::counter::ledger::Ledger;
use crate::keyspace::cells::Cells;
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::row::Row;
use crate::rows::slots::Slot;

impl Ledger {
    /// Joins a part of a snapshot into the staging copy. The earlier rows stay readable until the snapshot is complete.
    pub(super) fn apply_snapshot(
        &mut self,
        actor_rows: &mut ActorRows,
        delta: &Delta<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<Applied, ApplyError> {
        let since = actor_rows.staging.as_ref().map_or(actor_rows.since, |shadow| shadow.since);
        if since == actor_rows.since && !actor_rows.diverged && actor_rows.follows(delta.low_water) {
            // No snapshot is needed, or it is no longer needed: treat it as an ordinary delta.
            return self.apply_next(actor_rows, delta, joining);
        }
        let mut shadow = actor_rows.staging.take().unwrap_or_else(|| Box::new(ActorRows::staging(since)));
        if !shadow.follows(delta.low_water) {
            self.drop_copy(joining.actor, &shadow, Some(actor_rows), joining.keys);
            shadow = Box::new(ActorRows::staging(since));
        }
        if delta.after > shadow.applied
            || delta.since < since
            || delta.keys_complete > delta.since.max(shadow.keys_complete)
        {
            let after = shadow.applied;
            actor_rows.staging = Some(shadow);
            return Ok(Applied::Gap { since, after, snapshot: true });
        }
        let mut joined = Ok(());
        if delta.upto > shadow.applied {
            joined = self.join(&mut shadow, delta, joining);
            shadow.mix(delta.upto.max(delta.low_water));
        }
        shadow.raise_low_water(delta.low_water);
        let early = canary::broken(Canary::SnapshotSwappedEarly);
        let fingerprint = delta.fingerprint.or(early.then(|| shadow.fingerprint()));
        let complete = fingerprint.filter(|_| joined.is_ok() && (early || shadow.applied >= actor_rows.applied));
        let Some(fingerprint) = complete else {
            if joined.is_ok() && since < actor_rows.since && self.covers(&shadow, actor_rows) {
                // No fingerprint confirms that the copy is complete, but it holds more than the earlier rows.
                self.replace(actor_rows, *shadow, joining);
                return Ok(Applied::Replaced);
            }
            // A sender without further rows may still have less than this replica. Newer rows have to come from another
            // peer.
            actor_rows.staging = Some(shadow);
            return joined.map(|()| Applied::Part);
        };
        let anew = Applied::Gap { since, after: since, snapshot: true };
        let differs = if joining.verify {
            self.compare(&mut shadow, fingerprint, joining)
        } else {
            (since == 0 && fingerprint != shadow.fingerprint()).then_some(Applied::Doubted)
        };
        if let Some(differs) = differs {
            self.drop_copy(joining.actor, &shadow, Some(actor_rows), joining.keys);
            // Pieces from several senders may together lack rows that changed in between. The snapshot starts again.
            return Ok(if differs == Applied::Doubted { anew } else { differs });
        }
        self.replace(actor_rows, *shadow, joining);
        Ok(Applied::Replaced)
    }

    /// Gives up a snapshot that is being received, because no peer has the rest of it.
    pub(crate) fn give_up_snapshot(&mut self, actor: &Actor, keys: &Keys) {
        let Some(mut actor_rows) = self.actors.remove(actor) else { return };
        if let Some(shadow) = actor_rows.staging.take() {
            self.drop_copy(actor, &shadow, Some(&actor_rows), keys);
            self.index.settle();
        }
        self.actors.insert(actor.clone(), actor_rows);
    }

    /// Returns whether the new rows contain everything that the old ones do, so that a replacement loses nothing. O(rows).
    fn covers(&self, new: &ActorRows, old: &ActorRows) -> bool {
        let covered = |state: &Slot| {
            let found = new.find(state.cell, &self.cells);
            found.is_some_and(|(_, found)| found.row.version >= state.row.version)
        };
        new.applied >= old.applied && !old.diverged && old.live().all(|(_, state)| covered(&state))
    }

    /// Replaces the earlier rows by the snapshot's rows, in one step.
    fn replace(&mut self, actor_rows: &mut ActorRows, mut new: ActorRows, joining: &mut Joining<'_, '_>) {
        if actor_rows.has_log() {
            new.make_log();
        }
        let losing = new.losing.take().unwrap_or_default();
        if !joining.verify && !actor_rows.diverged {
            self.keep_newer(actor_rows, &mut new, joining);
        }
        // Flags of the earlier rows carry over: kept rows count already, received rows do not count yet.
        (new.counts, new.confirmed, new.inherited) = (actor_rows.counts, actor_rows.confirmed, actor_rows.inherited);
        let old = std::mem::replace(actor_rows, new.of_edition(self.edition()));
        if old.diverged && self.shape.is_cache() {
            self.disown(joining.actor, &old, actor_rows, losing);
        }
        // Unchanged rows are no change, so watchers receive nothing for them.
        let row_of = |actor_rows: &ActorRows, id, cells: &Cells| actor_rows.find(id, cells).map(|(_, state)| state.row);
        for (_, state) in actor_rows.live() {
            let was = row_of(&old, state.cell, &self.cells).unwrap_or_default();
            if (was.added, was.removed) != (state.row.added, state.row.removed) {
                self.count(state.cell, &was, &state.row, old.counts, joining);
            }
        }
        for (_, state) in old.live() {
            if row_of(actor_rows, state.cell, &self.cells).is_none() {
                self.count(state.cell, &state.row, &Row::default(), old.counts, joining);
            }
        }
        self.drop_copy(joining.actor, &old, Some(actor_rows), joining.keys);
    }

    /// Keeps newer rows of the old copy. Rows from a sender other than their owner lack rows that changed before their piece
    /// was cut, and the rows known here may be later. O(slots).
    fn keep_newer(&mut self, old: &ActorRows, new: &mut ActorRows, joining: &mut Joining<'_, '_>) {
        for (slot, state) in old.used() {
            let sink = new.get(slot);
            // A slot that the new rows do not contain was retired, unless the snapshot would have had to contain it.
            let retired = sink.row.version == 0 && state.row.version <= new.floor;
            if state.row.version <= sink.row.version || retired {
                continue;
            }
            if self.displace(new, slot, &state, state.cell != sink.cell, joining) {
                new.put(slot, state, &self.cells);
                if state.cell != sink.cell {
                    self.move_row(&sink, &state, new.counts, joining);
                }
                if old.without_value.contains(&state.cell) {
                    new.without_value.insert(state.cell);
                }
            }
        }
    }
}
