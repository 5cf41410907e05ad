//! What a cache continues to read when the rows behind it are dropped: a node is forgotten, a run is renewed, a copy was
//! wrong, a process restarts, or a value was lost on all nodes.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, Version};

use crate::counter::actors::{Copies, Others};
use crate::counter::join::Joining;
use crate::counter::ledger::Ledger;
use crate::counter::views::Views;
use crate::hlc::Stamp;
use crate::keyspace::id::{CellId, EMPTY};
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::registers::Register;
use crate::rows::row::Row;
use crate::rows::slots::Slot;
use crate::time::Time;

/// Number of rounds after which a value that no replica sends counts as lost.
const LOST_AFTER: u32 = 10;

/// What a node that starts over as a new run continues to state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    /// The writes that it made itself after the restore.
    OwnWrites,
}

impl Joining<'_, '_> {
    /// Handles an actor's row that returned to an earlier write. Only a node with a wrong clock does that.
    pub(super) fn replace_newer(&mut self, id: CellId, old: &Row, new: &Row) {
        let taken = self.views.registers.get(id).is_some_and(|register| register.is_of(self.actor, old));
        if taken && (new.stamp(), new.content() == 0) < (old.stamp(), old.content() == 0) {
            self.views.stop_reading(id, self.others);
        }
    }

    /// Handles an actor's rows that were wrong and were replaced by a snapshot: stops reading values of the actor that the
    /// actor does not have. Until the snapshot is complete they stay readable, because otherwise writes that they may
    /// rightly supersede would become readable.
    pub(super) fn disown(&mut self, old: &ActorRows, new: &ActorRows, mut losing: BTreeMap<CellId, Register>) {
        let views = &mut *self.views;
        for (_, Slot { row, cell, .. }) in old.live() {
            let now = new.find(cell, &views.cells).map(|(_, state)| state.row);
            let read = views.registers.get(cell).filter(|register| register.is_of(self.actor, &row));
            if read.is_none_or(|register| now.is_some_and(|now| register.says(&now))) {
                continue;
            }
            views.stop_reading(cell, self.others);
            let lost = losing.remove(&cell).filter(|lost| now.is_some_and(|now| lost.says(&now)));
            if let Some(register) = lost {
                views.offer(cell, register);
            } else {
                views.note_need(cell);
            }
        }
    }
}

impl Views {
    /// Stops reading the winner of a cell, unless a row of `others` states the same write: the winner is then that row's actor.
    /// Removals in the rows of `others` continue to supersede older writes. The actor besides them is about to write something
    /// else.
    pub(super) fn stop_reading(&mut self, id: CellId, others: Others<'_>) {
        let rows = others.iter().filter_map(|(actor, rows)| Some((actor, rows.find(id, &self.cells)?.1.row)));
        let rows: Vec<_> = rows.collect();
        let winner = self.registers.get(id);
        let stated = rows.iter().filter(|(_, row)| winner.is_some_and(|winner| winner.says(row)));
        if let Some(actor) = stated.map(|(actor, _)| *actor).max() {
            self.registers.set_actor(id, actor.clone());
            self.note_need(id);
            return;
        }
        let removals = rows.iter().filter(|(_, row)| row.content() == 0).map(|(actor, row)| (row.stamp(), *actor));
        let removal = removals.max().map(|(stamp, actor)| Register::without_value(stamp, 0, actor.clone()));
        let len = self.key_len(id);
        self.registers.put(id, len, removal);
    }

    /// Drops rows of an actor that are replaced by `others`, or by nothing. Afterwards the readable values of those rows may
    /// have no row on any node.
    pub(super) fn drop_copy(&mut self, actor: &Actor, rows: &ActorRows, others: Option<&ActorRows>, keys: &Keys) {
        self.drop_rows(rows, keys);
        self.note_unowned(actor, rows, others);
    }

    /// Notes which writes stay readable although the rows of their actor were dropped or replaced. They stay because other
    /// rows of their key exist.
    fn note_unowned(&mut self, actor: &Actor, old: &ActorRows, new: Option<&ActorRows>) {
        if !self.shape.is_cache() {
            return;
        }
        for (_, Slot { row, cell, .. }) in old.live() {
            let stated =
                new.and_then(|new| new.find(cell, &self.cells)).is_some_and(|(_, new)| new.row.stamp() == row.stamp());
            if !stated && self.registers.get(cell).is_some_and(|register| register.is_of(actor, &row)) {
                self.registers.orphans.insert(cell);
            }
        }
    }
}

impl Ledger {
    /// Republishes the readable values of an actor whose rows are about to be dropped, so that they stay readable. Only for
    /// rows above `after`.
    pub(super) fn republish_lost(&mut self, actor: &Actor, actor_rows: &ActorRows, after: Version) {
        if !self.views.shape.is_cache() || self.closed {
            return;
        }
        for (_, Slot { row, cell, .. }) in actor_rows.live().filter(|(_, state)| state.row.version > after) {
            let register = self.views.registers.get(cell).filter(|register| register.is_of(actor, &row)).cloned();
            if register.is_some_and(|register| self.republish(cell, register)) {
                self.views.note_need(cell);
            }
        }
    }

    /// Republishes a readable write that has no row, if its key has a current row: an own row, or a row whose owner
    /// confirmed it after the restore. If a third write had superseded both, that row would have been retired before the
    /// third one. Without a current row, perhaps no node holds a row of the key any more. Then the write waits, and it is
    /// removed with the last row of its key.
    pub(super) fn republish_unowned(&mut self) {
        if self.closed {
            return;
        }
        let orphans: Vec<_> = self.views.registers.orphans.iter().copied().collect();
        for id in orphans {
            let Some(register) = self.views.registers.get(id).cloned() else { continue };
            let rows = self.actors.iter().filter_map(|(actor, actor_rows)| {
                let current = actor == self.actor() || actor_rows.confirmed > self.restored_at;
                Some((current, actor_rows.find(id, &self.views.cells)?.1.row))
            });
            let (mut known, mut stated) = (false, false);
            for (current, row) in rows {
                stated |= register.says(&row);
                known |= current;
            }
            if stated || (known && self.republish(id, register)) {
                self.views.note_need(id);
                self.views.registers.orphans.remove(&id);
            }
        }
    }

    fn republish(&mut self, id: CellId, register: Register) -> bool {
        let Some((own, rows, views)) = self.own_parts() else { return false };
        let written = own.put(rows, &views.cells, id, register.totals()).is_some();
        if written {
            views.registers.set_actor(id, views.actor.clone());
        }
        written
    }

    /// Renews a readable write of the old run: republishes it under the new run.
    pub(super) fn renew_register(&mut self, id: CellId, was: &Actor, row: &Row) {
        if let Some(register) = self.views.registers.get(id).filter(|register| register.is_of(was, row)).cloned() {
            self.republish(id, register);
        }
        self.views.note_need(id);
    }

    /// Settles a cache after a restore. The rows were saved at different moments, so a value may be restored although
    /// another restored row, without its value, supersedes it. Such a superseded value is not readable, and neither is a
    /// superseded write that arrives later. The clock then gives no stamp before any of the rows.
    pub(crate) fn settle_registers(&mut self, now: Time) {
        self.restored_at = now;
        let mut latest = Stamp::default();
        // Nearly all rows are read unchanged; only the others take memory here.
        let mut beyond: BTreeMap<CellId, ((Stamp, bool, u64), &Actor)> = BTreeMap::new();
        for (actor, actor_rows) in self.actors.iter() {
            for (_, Slot { row, cell, .. }) in actor_rows.live() {
                let says = (row.stamp(), row.content() == 0, row.content());
                latest = latest.max(says.0);
                let outdone = |register: &Register| (register.stamp, register.content == 0, register.content) < says;
                if self.views.registers.get(cell).is_none_or(outdone) {
                    beyond.entry(cell).and_modify(|known| *known = (says, actor).max(*known)).or_insert((says, actor));
                }
            }
        }
        self.views.registers.clock.observe(latest);
        self.restored = self.restored.max(latest);
        let beyond: Vec<_> = beyond.into_iter().map(|(id, (says, actor))| (id, says, actor.clone())).collect();
        for (id, (stamp, _, content), actor) in beyond {
            self.views.offer(id, Register::without_value(stamp, content, actor));
        }
    }

    /// Starts over as a new run and drops all earlier rows.
    pub(crate) fn start_over(&mut self, actor: Actor, keep: Keep, keys: &Keys) {
        let before = std::mem::take(&mut self.actors);
        let was = self.begin_run(actor);
        before.iter().for_each(|(actor, _)| self.journal.forget(actor));
        if let Some(old) = before.get(&was) {
            for (_, state) in old.live() {
                self.views.cells.get(state.cell).set_own_slot(EMPTY);
                if keep == Keep::OwnWrites && state.row.stamp() > self.restored {
                    self.renew_register(state.cell, &was, &state.row);
                }
            }
        }
        for Copies { rows, staging, .. } in before.into_all() {
            if let Some(staging) = staging {
                self.views.drop_rows(&staging, keys);
            }
            self.views.drop_rows(&rows, keys);
        }
    }

    /// Returns the version of an actor's first row whose value is neither held here nor superseded.
    pub(crate) fn missing_value(&mut self, actor: &Actor) -> Option<Version> {
        let Views { cells, registers, .. } = &self.views;
        let rows = self.actors.get_mut(actor)?;
        let lacking = |rows: &ActorRows, id| {
            let row = rows.find(id, cells).map(|(_, state)| state.row);
            row.filter(|row| registers.lacks(id, row))
        };
        let settled: Vec<_> = rows.without_value.iter().copied().filter(|id| lacking(rows, *id).is_none()).collect();
        for id in settled {
            rows.without_value.remove(&id);
        }
        rows.without_value.iter().filter_map(|id| Some(rows.find(*id, cells)?.1.row.version)).min()
    }

    /// A row without value has no effect as long as the write that superseded it at its sender may still arrive. After many
    /// rounds without that write, it was lost together with the nodes that held it. The row is then the winner, and the key
    /// reads as empty.
    pub(super) fn note_lost(&mut self) {
        let actors: Vec<Actor> = self
            .actors
            .iter()
            .filter(|(_, actor_rows)| !actor_rows.without_value.is_empty())
            .map(|(actor, _)| actor.clone())
            .collect();
        for actor in actors {
            let lacks = self.missing_value(&actor).is_some();
            let Some(actor_rows) = self.actors.get_mut(&actor) else { continue };
            actor_rows.rounds_without_value = if lacks { actor_rows.rounds_without_value.saturating_add(1) } else { 0 };
            if actor_rows.rounds_without_value < LOST_AFTER {
                continue;
            }
            let lost: Vec<_> = actor_rows
                .without_value
                .iter()
                .filter_map(|id| Some((*id, actor_rows.find(*id, &self.views.cells)?.1.row)))
                .collect();
            for (id, row) in lost {
                self.views.offer(id, Register::without_value(row.stamp(), row.content(), actor.clone()));
            }
        }
    }
}
