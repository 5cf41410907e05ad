//! What is read of a cache, when the rows go that told it: with a node that is forgotten, a run that goes on as another, a copy
//! that was wrong, a process that restarts, a value that nobody has any more.

use std::collections::BTreeMap;

use tallymesh_schemas::{Actor, Version};

use super::Ledger;
use super::registers::Register;
use crate::keys::Keys;
use crate::own::Own;
use crate::partial::Partial;
use crate::row::Row;
use crate::slots::{CellId, EMPTY, Slot};
use crate::stamp::Stamp;
use crate::time::Time;

/// Looks after which a value that nobody tells is taken for lost.
const LOST_AFTER: u32 = 10;

impl Ledger {
    /// A row of an actor was taken back for an earlier write. Only a node whose clock was wrong does that.
    pub(super) fn take_back(&mut self, id: CellId, actor: &Actor, old: &Row, new: &Row) {
        let taken = self.registers.get(id).is_some_and(|register| register.is_of(actor, old));
        if taken && (new.stamp(), new.content() == 0) < (old.stamp(), old.content() == 0) {
            self.let_go(id, None);
        }
    }

    /// What is read of a cell is read no more. Removals that rows tell of it go on outdoing what was written before them; those of
    /// `besides` do not, since it is about to tell something else.
    pub(super) fn let_go(&mut self, id: CellId, besides: Option<&Actor>) {
        let others = self.partials.iter().filter(|(actor, _)| Some(*actor) != besides);
        let rows = others.filter_map(|(actor, partial)| Some((actor, partial.find(id, &self.cells)?.1.row)));
        let removals = rows.filter(|(_, row)| row.content() == 0).map(|(actor, row)| (row.stamp(), actor));
        let removal = removals.max().map(|(stamp, actor)| Register::without_value(stamp, 0, actor.clone()));
        let len = self.key_len(id);
        self.registers.put(id, len, removal);
    }

    /// An actor's rows turned out not to be what it has, and have come anew: what is read of one that it does not have is
    /// read no more. Until they have come it is: in its place would be read what it may rightly have outdone.
    pub(super) fn disown(
        &mut self,
        actor: &Actor,
        old: &Partial,
        new: &Partial,
        mut losing: BTreeMap<CellId, Register>,
    ) {
        for (_, Slot { row, cell, .. }) in old.live() {
            let told = new.find(cell, &self.cells).map(|(_, state)| state.row);
            let read = self.registers.get(cell).filter(|register| register.is_of(actor, &row));
            if read.is_none_or(|register| told.is_some_and(|told| register.says(&told))) {
                continue;
            }
            self.let_go(cell, None);
            let lost = losing.remove(&cell).filter(|lost| told.is_some_and(|told| lost.says(&told)));
            if let Some(register) = lost {
                self.offer(cell, register);
            } else {
                self.note_need(cell);
            }
        }
    }

    /// Takes over what is read of an actor whose rows are about to go, of those above `after`, so that it is read on.
    pub(super) fn take_over(&mut self, actor: &Actor, partial: &Partial, after: Version) {
        if !self.is_cache() || self.closed {
            return;
        }
        for (_, Slot { row, cell, .. }) in partial.live().filter(|(_, state)| state.row.version > after) {
            let register = self.registers.get(cell).filter(|register| register.is_of(actor, &row)).cloned();
            if register.is_some_and(|register| self.tell_as_ours(cell, register)) {
                self.note_need(cell);
            }
        }
    }

    /// Notes which writes are read on though the rows of their actor are gone, or are others now, because other rows of their key
    /// are there.
    pub(super) fn note_orphans(&mut self, actor: &Actor, old: &Partial, new: Option<&Partial>) {
        if !self.is_cache() {
            return;
        }
        for (_, Slot { row, cell, .. }) in old.live() {
            let told = new
                .and_then(|new| new.find(cell, &self.cells))
                .is_some_and(|(_, told)| told.row.stamp() == row.stamp());
            if !told && self.registers.get(cell).is_some_and(|register| register.is_of(actor, &row)) {
                self.registers.orphans.insert(cell);
            }
        }
    }

    /// Takes over what is read without a row where that outdoes a row that its owner, or we, have now. Had something outdone
    /// both, they would have been retired before that was. Where there is no such row, none may have it any more, and it waits: with the
    /// last row of its key it goes.
    pub(super) fn adopt(&mut self) {
        if self.closed {
            return;
        }
        let orphans: Vec<_> = self.registers.orphans.iter().copied().collect();
        for id in orphans {
            let Some(register) = self.registers.get(id).cloned() else { continue };
            let rows = self.partials.iter().filter_map(|(actor, partial)| {
                let current = *actor == self.actor || partial.confirmed > self.restored_at;
                Some((current, partial.find(id, &self.cells)?.1.row))
            });
            let (mut known, mut told) = (false, false);
            for (current, row) in rows {
                told |= register.says(&row);
                known |= current;
            }
            if told || (known && self.tell_as_ours(id, register)) {
                self.note_need(id);
                self.registers.orphans.remove(&id);
            }
        }
    }

    fn tell_as_ours(&mut self, id: CellId, register: Register) -> bool {
        let Some((own, partial, cells)) = self.own_parts() else { return false };
        let told = own.put(partial, cells, id, (register.stamp.0, register.content)).is_some();
        if told {
            let actor = self.actor.clone();
            self.registers.set_actor(id, actor);
        }
        told
    }

    /// Goes on as another run with what is read of the old one's.
    pub(super) fn renew_register(&mut self, id: CellId, was: &Actor, row: &Row) {
        if let Some(register) = self.registers.get(id).filter(|register| register.is_of(was, row)).cloned() {
            self.tell_as_ours(id, register);
        }
        self.note_need(id);
    }

    /// Rows were taken back that were saved at different moments, some with a value that another row outdoes of which only that
    /// is known any more that it does. What is outdone is not read, nor what comes now and is. And no stamp is given that comes
    /// before any of them.
    pub(crate) fn settle_registers(&mut self, now: Time) {
        self.restored_at = now;
        let mut latest = Stamp::default();
        // Nearly all rows are read as they are: only the others take memory.
        let mut beyond: BTreeMap<CellId, ((Stamp, bool, u64), &Actor)> = BTreeMap::new();
        for (actor, partial) in &self.partials {
            for (_, Slot { row, cell, .. }) in partial.live() {
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

    /// Starts over as another run that knows nothing of what was known; `keep` says that what this run has written itself,
    /// since it took back what was saved, is its own to tell, and stays.
    pub(crate) fn start_over(&mut self, actor: Actor, keep: bool, keys: &Keys) {
        let partials = std::mem::take(&mut self.partials);
        let was = std::mem::replace(&mut self.actor, actor.clone());
        self.own = Own::default();
        let edition = self.edition();
        self.partials.insert(actor, Partial::ours().of_edition(edition));
        partials.keys().for_each(|actor| self.journal.forget(actor));
        if let Some(old) = partials.get(&was) {
            for (_, state) in old.live() {
                self.cells.get(state.cell).set_own_slot(EMPTY);
                if keep && state.row.stamp() > self.restored {
                    self.renew_register(state.cell, &was, &state.row);
                }
            }
        }
        for mut partial in partials.into_values() {
            if let Some(shadow) = partial.shadow.take() {
                self.drop_rows(&shadow, keys);
            }
            self.drop_rows(&partial, keys);
        }
    }

    /// A row without its value stands for nothing as long as the write may come that outdoes it where it was told. When it has not
    /// for long, it was lost with who had it: the row is the last write then, and nothing is read.
    pub(super) fn note_lost(&mut self) {
        let actors: Vec<Actor> = self
            .partials
            .iter()
            .filter(|(_, partial)| !partial.hollow.is_empty())
            .map(|(actor, _)| actor.clone())
            .collect();
        for actor in actors {
            let lacks = self.lacking(&actor).is_some();
            let Some(partial) = self.partials.get_mut(&actor) else { continue };
            partial.lacked = if lacks { partial.lacked.saturating_add(1) } else { 0 };
            if partial.lacked < LOST_AFTER {
                continue;
            }
            let lost: Vec<_> =
                partial.hollow.iter().filter_map(|id| Some((*id, partial.find(*id, &self.cells)?.1.row))).collect();
            for (id, row) in lost {
                self.offer(id, Register::without_value(row.stamp(), row.content(), actor.clone()));
            }
        }
    }
}
