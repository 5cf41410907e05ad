//! Rows of an actor that come anew, in pieces, and take the place of what was known of it when they are all here.
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

use super::Ledger;
use super::apply::{Applied, ApplyError, Joining};
use crate::canary::{self, Canary};
use crate::cells::Cells;
use crate::keys::Keys;
use crate::partial::Partial;
use crate::row::Row;
use crate::slots::Slot;

impl Ledger {
    /// Takes in a part of a snapshot. What was known is read on until all of it is here.
    pub(super) fn apply_snapshot(
        &mut self,
        partial: &mut Partial,
        delta: &Delta<'_>,
        joining: &mut Joining<'_, '_>,
    ) -> Result<Applied, ApplyError> {
        let since = partial.shadow.as_ref().map_or(partial.since, |shadow| shadow.since);
        if since == partial.since && !partial.diverged && partial.follows(delta.floor) {
            // No snapshot is needed, or not any more: it is a delta like any other.
            return self.apply_next(partial, delta, joining);
        }
        let mut shadow = partial.shadow.take().unwrap_or_else(|| Box::new(Partial::shadow(since)));
        if !shadow.follows(delta.floor) {
            self.drop_copy(joining.actor, &shadow, Some(partial), joining.keys);
            shadow = Box::new(Partial::shadow(since));
        }
        if delta.after > shadow.have || delta.since < since || delta.known > delta.since.max(shadow.known) {
            let after = shadow.have;
            partial.shadow = Some(shadow);
            return Ok(Applied::Gap { since, after, snapshot: true });
        }
        let mut joined = Ok(());
        if delta.upto > shadow.have {
            joined = self.join(&mut shadow, delta, joining);
            shadow.mix(delta.upto.max(delta.floor));
        }
        shadow.raise(delta.floor);
        let early = canary::broken(Canary::SnapshotSwappedEarly);
        let fingerprint = delta.fingerprint.or(early.then(|| shadow.fingerprint()));
        let complete = fingerprint.filter(|_| joined.is_ok() && (early || shadow.have >= partial.have));
        let Some(fingerprint) = complete else {
            if joined.is_ok() && since < partial.since && self.covers(&shadow, partial) {
                // Nobody says that it is all there is, but it is more than there was.
                self.replace(partial, *shadow, joining);
                return Ok(Applied::Replaced);
            }
            // A sender that has no more may still have less than we do: what is newer is to come from somebody else.
            partial.shadow = Some(shadow);
            return joined.map(|()| Applied::Part);
        };
        let anew = Applied::Gap { since, after: since, snapshot: true };
        let differs = if joining.verify {
            self.compare(&mut shadow, fingerprint, joining)
        } else {
            (since == 0 && fingerprint != shadow.fingerprint()).then_some(Applied::Doubted)
        };
        if let Some(differs) = differs {
            self.drop_copy(joining.actor, &shadow, Some(partial), joining.keys);
            // Pieces from more than one sender may lack together what moved on in between: it is begun again.
            return Ok(if differs == Applied::Doubted { anew } else { differs });
        }
        self.replace(partial, *shadow, joining);
        Ok(Applied::Replaced)
    }

    /// Nobody has what is missing of rows that were coming anew.
    pub(crate) fn give_up_snapshot(&mut self, actor: &Actor, keys: &Keys) {
        let Some(mut partial) = self.partials.remove(actor) else { return };
        if let Some(shadow) = partial.shadow.take() {
            self.drop_copy(actor, &shadow, Some(&partial), keys);
            self.index.settle();
        }
        self.partials.insert(actor.clone(), partial);
    }

    /// Whether rows that came anew tell all that these do, so that nothing is lost when they take their place. O(rows).
    fn covers(&self, new: &Partial, old: &Partial) -> bool {
        let covered = |state: &Slot| {
            let found = new.find(state.cell, &self.cells);
            found.is_some_and(|(_, found)| found.row.version >= state.row.version)
        };
        new.have >= old.have && !old.diverged && old.live().all(|(_, state)| covered(&state))
    }

    /// Puts rows that came anew in the place of what was known, in one step.
    fn replace(&mut self, partial: &mut Partial, mut new: Partial, joining: &mut Joining<'_, '_>) {
        if partial.has_log() {
            new.make_log();
        }
        let losing = new.losing.take().unwrap_or_default();
        if !joining.verify && !partial.diverged {
            self.keep_newer(partial, &mut new, joining);
        }
        // From here on; what was kept counts already, and what came did not.
        (new.counts, new.confirmed, new.inherited) = (partial.counts, partial.confirmed, partial.inherited);
        let old = std::mem::replace(partial, new.of_edition(self.edition()));
        if old.diverged && self.is_cache() {
            self.disown(joining.actor, &old, partial, losing);
        }
        // What is as it was has not changed, and nobody is told that it has.
        let row_of = |partial: &Partial, id, cells: &Cells| partial.find(id, cells).map(|(_, state)| state.row);
        for (_, state) in partial.live() {
            let was = row_of(&old, state.cell, &self.cells).unwrap_or_default();
            if (was.added, was.removed) != (state.row.added, state.row.removed) {
                self.count(state.cell, &was, &state.row, old.counts, joining);
            }
        }
        for (_, state) in old.live() {
            if row_of(partial, state.cell, &self.cells).is_none() {
                self.count(state.cell, &state.row, &Row::default(), old.counts, joining);
            }
        }
        self.drop_copy(joining.actor, &old, Some(partial), joining.keys);
    }

    /// Rows that came from somebody else than their owner lack what moved on before its turn came, and what is known here may be
    /// later. O(slots).
    fn keep_newer(&mut self, old: &Partial, new: &mut Partial, joining: &mut Joining<'_, '_>) {
        for (slot, state) in old.used() {
            let told = new.get(slot);
            // What is not told at all was retired, unless that would have been told.
            let retired = told.row.version == 0 && state.row.version <= new.floor;
            if state.row.version <= told.row.version || retired {
                continue;
            }
            if self.displace(new, slot, &state, state.cell != told.cell, joining) {
                new.put(slot, state, &self.cells);
                if state.cell != told.cell {
                    self.move_row(&told, &state, new.counts, joining);
                }
                if old.hollow.contains(&state.cell) {
                    new.hollow.insert(state.cell);
                }
            }
        }
    }
}
