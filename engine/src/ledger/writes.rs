//! The writer of a cache's own rows: writes, removes, makes room, takes over, and retires what nobody needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_schemas::{Actor, Class, Version};

use super::Ledger;
use super::registers::{Register, Registers};
use crate::canary::{self, Canary};
use crate::keys::Keys;
use crate::partial::Partial;
use crate::radix::KeyOf;
use crate::row::{Row, content_hash};
use crate::slots::{CellId, EMPTY, Slot};
use crate::stamp::Stamp;
use crate::time::Time;
use crate::watch::Told;

/// Why nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This node leaves.
    Closed,
    /// The node's stamps are so far ahead of its wall clock.
    Ahead(std::time::Duration),
    /// The node has as many rows as it may have.
    Full,
}

/// Entries that one write may remove to make room.
const EVICTED: usize = 64;

/// One of our own rows, as it was at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnRow {
    pub(crate) slot: u32,
    pub(crate) version: Version,
}

/// Our own rows that need not be there for what is read here.
#[derive(Debug, Default)]
pub(crate) struct Needless {
    /// Another write wins over them, or tells the same.
    pub(crate) dominated: Vec<OwnRow>,
    /// They win, and there is nothing to be read: the entry was removed, or has expired.
    pub(crate) over: Vec<OwnRow>,
}

/// Looks after which a value that nobody tells is taken for lost.
const LOST_AFTER: u32 = 10;

impl Ledger {
    /// Whether its rows are registers.
    pub(crate) fn is_cache(&self) -> bool {
        self.class == Class::Cache
    }

    pub(crate) fn registers(&self) -> &Registers {
        &self.registers
    }

    fn key_len(&self, id: CellId) -> usize {
        self.cells.key_of(id).len()
    }

    /// Takes in a write that a row tells of; whether it is what is read from now on.
    pub(super) fn offer(&mut self, id: CellId, register: Register) -> bool {
        let won = self.registers.offer(id, self.key_len(id), register);
        self.note_need(id);
        won
    }

    /// A row of an actor was taken back for an earlier write. Only a node whose clock was wrong does that.
    pub(super) fn take_back(&mut self, id: CellId, actor: &Actor, old: &Row, new: &Row) {
        let taken = self.registers.get(id).is_some_and(|register| register.is_of(actor, old));
        if taken && (new.stamp(), new.content() == 0) < (old.stamp(), old.content() == 0) {
            self.let_go(id);
        }
    }

    /// What is read of a cell is read no more. Removals that rows tell of it go on outdoing what was written before them.
    fn let_go(&mut self, id: CellId) {
        let rows =
            self.partials.iter().filter_map(|(actor, partial)| Some((actor, partial.find(id, &self.cells)?.1.row)));
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
            self.let_go(cell);
            let lost = losing.remove(&cell).filter(|lost| told.is_some_and(|told| lost.says(&told)));
            if let Some(register) = lost {
                self.offer(cell, register);
            } else {
                self.note_need(cell);
            }
        }
    }

    /// Notes whether our own row of a cell is needed.
    fn note_need(&mut self, id: CellId) {
        let wins = |register: &Register| register.actor == self.actor && register.value.is_some();
        let needed = self.cells.get(id).own_slot() == EMPTY || self.registers.get(id).is_some_and(wins);
        if needed {
            self.registers.needless.remove(&id);
        } else {
            self.registers.needless.insert(id);
        }
    }

    /// Lets go of what is kept of a cell without rows.
    pub(super) fn forget_register(&mut self, id: CellId) {
        let len = self.key_len(id);
        self.registers.put(id, len, None);
        self.registers.needless.remove(&id);
        self.registers.orphans.remove(&id);
    }

    /// Puts a write into our own row of a key.
    fn tell(&mut self, id: CellId, register: Register) -> bool {
        let totals = (register.stamp.0, register.content);
        let Some((own, partial, cells)) = self.own_parts() else { return false };
        let told = own.put(partial, cells, id, totals).is_some();
        if told {
            self.offer(id, register);
        }
        told
    }

    /// Writes a value, or with none removes what is there. An entry that is too much is removed at its own stamp, so that
    /// only what was written before it goes with it.
    pub(crate) fn write_register(
        &mut self,
        keys: &Keys,
        key: &[u8],
        value: Option<(u64, Arc<[u8]>)>,
        unix_ms: u64,
        told: &mut Told<'_>,
    ) -> Result<Stamp, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let stamp = self.registers.clock.next(unix_ms).map_err(Refused::Ahead)?;
        let id = keys.with_or_new(key, |id, _| id);
        self.enter(id);
        let content = value.as_ref().map_or(0, |(expires_ms, value)| content_hash(*expires_ms, value));
        let (expires_ms, value) = value.map_or((0, None), |(expires_ms, value)| (expires_ms, Some(value)));
        let actor = self.actor.clone();
        if !self.tell(id, Register { stamp, content, actor, expires_ms, value }) {
            self.drop_if_unused(id, keys);
            return Err(Refused::Full);
        }
        told.changed(|| key);
        for _ in 0..EVICTED {
            let Some(excess) = self.registers.excess(unix_ms).filter(|excess| *excess != id) else { break };
            if !self.evict(excess) {
                break;
            }
            told.changed(|| self.cells.key_of(excess));
        }
        Ok(stamp)
    }

    fn evict(&mut self, id: CellId) -> bool {
        let Some(stamp) = self.registers.get(id).map(|register| register.stamp) else { return false };
        let actor = self.actor.clone();
        self.tell(id, Register::without_value(stamp, 0, actor))
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
    fn adopt(&mut self) {
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
        let mut latest: BTreeMap<CellId, ((Stamp, bool, u64), &Actor)> = BTreeMap::new();
        for (actor, partial) in &self.partials {
            for (_, Slot { row, cell, .. }) in partial.live() {
                let says = (row.stamp(), row.content() == 0, row.content());
                latest.entry(cell).and_modify(|known| *known = (says, actor).max(*known)).or_insert((says, actor));
            }
        }
        let latest: Vec<_> = latest.into_iter().map(|(id, (says, actor))| (id, says, actor.clone())).collect();
        for (id, says, actor) in latest {
            let (stamp, _, content) = says;
            self.registers.clock.observe(stamp);
            self.restored = self.restored.max(stamp);
            let outdone = |register: &Register| (register.stamp, register.content == 0, register.content) < says;
            if self.registers.get(id).is_none_or(outdone) {
                self.offer(id, Register::without_value(stamp, content, actor));
            }
        }
    }

    /// Starts over as another run that knows nothing of what was known; `keep` says that what this run has written itself,
    /// since it took back what was saved, is its own to tell, and stays.
    pub(crate) fn start_over(&mut self, actor: Actor, keep: bool, keys: &Keys) {
        let partials = std::mem::take(&mut self.partials);
        let was = std::mem::replace(&mut self.actor, actor.clone());
        self.own = super::Own::default();
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
    fn note_lost(&mut self) {
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

    /// Looks after a cache by the wall clock: lets go of values that have expired, and tells anew what was written while
    /// the clock was too far ahead, which nobody has taken, once it is right again.
    pub(crate) fn look_after(&mut self, unix_ms: u64, keys: &Keys) {
        let cells = &self.cells;
        for id in self.registers.spend(unix_ms, |id| cells.key_of(id).len()) {
            self.note_need(id);
        }
        self.adopt();
        self.note_lost();
        if !self.registers.clock.is_beyond(unix_ms) {
            return;
        }
        let beyond = |stamp: Stamp| stamp.beyond(unix_ms).is_some();
        // Of all rows: one that loses to what is told anew has to go on losing.
        let rows = self.partials.values().flat_map(|partial| partial.live().map(|(_, state)| state.row.stamp()));
        let latest = rows.filter(|stamp| !beyond(*stamp)).max();
        self.registers.clock.set_back(latest.unwrap_or_default());
        let Some(own) = self.partials.get(&self.actor) else { return };
        let future = own.live().map(|(_, state)| (state.row, state.cell)).filter(|(row, _)| beyond(row.stamp()));
        let mut future: Vec<_> = future.collect();
        future.sort_unstable_by_key(|(row, _)| row.stamp());
        for (row, id) in future {
            let Ok(stamp) = self.registers.clock.next(unix_ms) else { return };
            let won = self.registers.get(id).filter(|register| register.is_of(&self.actor, &row)).cloned();
            let len = self.key_len(id);
            match won {
                Some(register) => {
                    self.registers.put(id, len, None);
                    self.tell(id, Register { stamp, ..register });
                }
                // Outdone by a write that is still further ahead.
                None => self.retire_cell(id, keys),
            }
        }
    }

    /// Our own rows that nobody needs here and that were not named before. What is over by now is named only after the
    /// time by which clocks may differ, so that nobody's next write comes before it.
    pub(crate) fn take_needless(&mut self, unix_ms: u64, most: usize) -> Needless {
        let mut named = Needless::default();
        let mut ids = Vec::new();
        let Some(own) = self.partials.get(&self.actor) else { return named };
        for id in &self.registers.needless {
            let slot = self.cells.get(*id).own_slot();
            let row = OwnRow { slot, version: own.get(slot).row.version };
            let settled = |register: &Register| {
                Stamp::at(unix_ms) > register.stamp && {
                    let age = unix_ms - register.stamp.unix_ms();
                    std::time::Duration::from_millis(age) > tallymesh_schemas::limits::MAX_DRIFT
                }
            };
            match self.registers.get(*id) {
                Some(register) if register.is_of(&self.actor, &own.get(slot).row) => {
                    let early = canary::broken(Canary::RemovalForgotten) || canary::broken(Canary::RoundsSkipped);
                    if !settled(register) && !early {
                        continue;
                    }
                    named.over.push(row);
                }
                _ => named.dominated.push(row),
            }
            ids.push(*id);
            if ids.len() >= most {
                break;
            }
        }
        for id in ids {
            self.registers.needless.remove(&id);
        }
        named
    }

    /// Whether our row is as it was, and no actor has another one of its key.
    pub(crate) fn is_alone(&self, row: &OwnRow) -> bool {
        self.unchanged(row).is_some_and(|id| self.cells.get(id).rows() == 1)
    }

    fn unchanged(&self, row: &OwnRow) -> Option<CellId> {
        let state = self.partials.get(&self.actor)?.get(row.slot);
        (state.is_live() && state.row.version == row.version).then_some(state.cell)
    }

    /// Retires one of our rows, if it is as it was.
    pub(crate) fn retire_register(&mut self, row: &OwnRow, keys: &Keys) {
        if let Some(id) = self.unchanged(row) {
            self.retire_cell(id, keys);
        }
    }

    fn retire_cell(&mut self, id: CellId, keys: &Keys) {
        let slot = self.cells.get(id).own_slot();
        if let Some((own, partial, cells)) = self.own_parts() {
            own.vacate(partial, cells, slot);
        }
        self.registers.needless.remove(&id);
        self.drop_if_unused(id, keys);
    }

    /// What is read of a cache, against the rows (I10).
    pub(super) fn audit_registers(&self) -> Result<(), String> {
        let cells = &self.cells;
        self.registers.audit(|id| cells.key_of(id).len())?;
        for (id, _) in self.cells.indexed() {
            let register = self.registers.get(id);
            let rows =
                self.partials.values().filter_map(|partial| partial.find(id, &self.cells)).map(|(_, state)| state.row);
            let removal = rows.filter(|row| row.content() == 0).map(|row| row.stamp()).max();
            let read = register.filter(|register| register.content != 0).map(|register| register.stamp);
            if removal.is_some() && read.is_some() && removal >= read {
                return Err(format!("{:?} is read though it was removed", &*self.cells.key_of(id)));
            }
        }
        match self.registers.iter().find(|(id, _)| !self.cells.get(*id).is_indexed()) {
            Some((id, _)) => Err(format!("a write is kept of cell {id}, which has no rows")),
            None => Ok(()),
        }
    }
}
