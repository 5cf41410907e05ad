//! What a cache continues to read when the rows behind it are dropped: a node is forgotten, a run is renewed, a copy was
//! wrong, a process restarts, or a value was lost on all nodes.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, Version};

use crate::counter::ledger::Ledger;
use crate::hlc::Stamp;
use crate::keyspace::id::{CellId, EMPTY};
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::registers::Register;
use crate::rows::row::Row;
use crate::rows::slots::Slot;
use crate::rows::writer::OwnRowWriter;
use crate::time::Time;

/// Number of rounds after which a value that no replica sends counts as lost.
const LOST_AFTER: u32 = 10;

impl Ledger {
    /// Handles an actor's row that returned to an earlier write. Only a node with a wrong clock does that.
    pub(super) fn replace_newer(&mut self, id: CellId, actor: &Actor, old: &Row, new: &Row) {
        let taken = self.registers.get(id).is_some_and(|register| register.is_of(actor, old));
        if taken && (new.stamp(), new.content() == 0) < (old.stamp(), old.content() == 0) {
            self.stop_reading(id, None);
        }
    }

    /// Stops reading the winner of a cell. Removals in the rows of the cell continue to supersede older writes. A removal of
    /// the actor `besides` does not, because that actor is about to write something else.
    pub(super) fn stop_reading(&mut self, id: CellId, besides: Option<&Actor>) {
        let others = self.actors.iter().filter(|(actor, _)| Some(*actor) != besides);
        let rows = others.filter_map(|(actor, actor_rows)| Some((actor, actor_rows.find(id, &self.cells)?.1.row)));
        let removals = rows.filter(|(_, row)| row.content() == 0).map(|(actor, row)| (row.stamp(), actor));
        let removal = removals.max().map(|(stamp, actor)| Register::without_value(stamp, 0, actor.clone()));
        let len = self.key_len(id);
        self.registers.put(id, len, removal);
    }

    /// Handles an actor's rows that were wrong and were replaced by a snapshot: stops reading values of the actor that the
    /// actor does not have. Until the snapshot is complete they stay readable, because otherwise writes that they may
    /// rightly supersede would become readable.
    pub(super) fn disown(
        &mut self,
        actor: &Actor,
        old: &ActorRows,
        new: &ActorRows,
        mut losing: BTreeMap<CellId, Register>,
    ) {
        for (_, Slot { row, cell, .. }) in old.live() {
            let sink = new.find(cell, &self.cells).map(|(_, state)| state.row);
            let read = self.registers.get(cell).filter(|register| register.is_of(actor, &row));
            if read.is_none_or(|register| sink.is_some_and(|sink| register.says(&sink))) {
                continue;
            }
            self.stop_reading(cell, None);
            let lost = losing.remove(&cell).filter(|lost| sink.is_some_and(|sink| lost.says(&sink)));
            if let Some(register) = lost {
                self.offer(cell, register);
            } else {
                self.note_need(cell);
            }
        }
    }

    /// Republishes the readable values of an actor whose rows are about to be dropped, so that they stay readable. Only for
    /// rows above `after`.
    pub(super) fn republish_lost(&mut self, actor: &Actor, actor_rows: &ActorRows, after: Version) {
        if !self.shape.is_cache() || self.closed {
            return;
        }
        for (_, Slot { row, cell, .. }) in actor_rows.live().filter(|(_, state)| state.row.version > after) {
            let register = self.registers.get(cell).filter(|register| register.is_of(actor, &row)).cloned();
            if register.is_some_and(|register| self.republish(cell, register)) {
                self.note_need(cell);
            }
        }
    }

    /// Notes which writes stay readable although the rows of their actor were dropped or replaced. They stay because other
    /// rows of their key exist.
    pub(super) fn note_unowned(&mut self, actor: &Actor, old: &ActorRows, new: Option<&ActorRows>) {
        if !self.shape.is_cache() {
            return;
        }
        for (_, Slot { row, cell, .. }) in old.live() {
            let sink = new
                .and_then(|new| new.find(cell, &self.cells))
                .is_some_and(|(_, sink)| sink.row.stamp() == row.stamp());
            if !sink && self.registers.get(cell).is_some_and(|register| register.is_of(actor, &row)) {
                self.registers.orphans.insert(cell);
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
        let orphans: Vec<_> = self.registers.orphans.iter().copied().collect();
        for id in orphans {
            let Some(register) = self.registers.get(id).cloned() else { continue };
            let rows = self.actors.iter().filter_map(|(actor, actor_rows)| {
                let current = *actor == self.actor || actor_rows.confirmed > self.restored_at;
                Some((current, actor_rows.find(id, &self.cells)?.1.row))
            });
            let (mut known, mut sink) = (false, false);
            for (current, row) in rows {
                sink |= register.says(&row);
                known |= current;
            }
            if sink || (known && self.republish(id, register)) {
                self.note_need(id);
                self.registers.orphans.remove(&id);
            }
        }
    }

    fn republish(&mut self, id: CellId, register: Register) -> bool {
        let Some((own, actor_rows, cells)) = self.own_parts() else { return false };
        let sink = own.put(actor_rows, cells, id, (register.stamp.0, register.content)).is_some();
        if sink {
            let actor = self.actor.clone();
            self.registers.set_actor(id, actor);
        }
        sink
    }

    /// Renews a readable write of the old run: republishes it under the new run.
    pub(super) fn renew_register(&mut self, id: CellId, was: &Actor, row: &Row) {
        if let Some(register) = self.registers.get(id).filter(|register| register.is_of(was, row)).cloned() {
            self.republish(id, register);
        }
        self.note_need(id);
    }

    /// Settles a cache after a restore. The rows were saved at different moments, so a value may be restored although
    /// another restored row, without its value, supersedes it. Such a superseded value is not readable, and neither is a
    /// superseded write that arrives later. The clock then gives no stamp before any of the rows.
    pub(crate) fn settle_registers(&mut self, now: Time) {
        self.restored_at = now;
        let mut latest = Stamp::default();
        // Nearly all rows are read unchanged; only the others take memory here.
        let mut beyond: BTreeMap<CellId, ((Stamp, bool, u64), &Actor)> = BTreeMap::new();
        for (actor, actor_rows) in &self.actors {
            for (_, Slot { row, cell, .. }) in actor_rows.live() {
                let says = (row.stamp(), row.content() == 0, row.content());
                latest = latest.max(says.0);
                let outdone = |register: &Register| (register.stamp, register.content == 0, register.content) < says;
                if self.registers.get(cell).is_none_or(outdone) {
                    beyond.entry(cell).and_modify(|known| *known = (says, actor).max(*known)).or_insert((says, actor));
                }
            }
        }
        self.registers.clock.observe(latest);
        self.restored = self.restored.max(latest);
        let beyond: Vec<_> = beyond.into_iter().map(|(id, (says, actor))| (id, says, actor.clone())).collect();
        for (id, (stamp, _, content), actor) in beyond {
            self.offer(id, Register::without_value(stamp, content, actor));
        }
    }

    /// Starts over as a new run and drops all earlier rows. With `keep` the writes that this run itself made after the
    /// restore are its own to announce, so they stay.
    pub(crate) fn start_over(&mut self, actor: Actor, keep: bool, keys: &Keys) {
        let all_rows = std::mem::take(&mut self.actors);
        let was = std::mem::replace(&mut self.actor, actor.clone());
        self.own = OwnRowWriter::default();
        let edition = self.edition();
        self.actors.insert(actor, ActorRows::ours().of_edition(edition));
        all_rows.keys().for_each(|actor| self.journal.forget(actor));
        if let Some(old) = all_rows.get(&was) {
            for (_, state) in old.live() {
                self.cells.get(state.cell).set_own_slot(EMPTY);
                if keep && state.row.stamp() > self.restored {
                    self.renew_register(state.cell, &was, &state.row);
                }
            }
        }
        for mut actor_rows in all_rows.into_values() {
            if let Some(shadow) = actor_rows.staging.take() {
                self.drop_rows(&shadow, keys);
            }
            self.drop_rows(&actor_rows, keys);
        }
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
                .filter_map(|id| Some((*id, actor_rows.find(*id, &self.cells)?.1.row)))
                .collect();
            for (id, row) in lost {
                self.offer(id, Register::without_value(row.stamp(), row.content(), actor.clone()));
            }
        }
    }
}
