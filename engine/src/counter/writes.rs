//! The writer of a cache's own rows: writes, removes, evicts, and retires rows that are no longer needed.

use std::sync::Arc;

use tallymesh_schemas::{UnixMs, Version, bounds};

use crate::canary::{self, Canary};
use crate::counter::ledger::Ledger;
use crate::counter::views::Views;
use crate::counter::watch::ChangeSink;
use crate::hlc::Stamp;
use crate::keyspace::id::{CellId, EMPTY, KeyOf};
use crate::keyspace::keys::Keys;
use crate::rows::registers::Register;
use crate::rows::row::content_hash;

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This node is leaving.
    Closed,
    /// The node's stamps are ahead of its wall clock by this much.
    Ahead(std::time::Duration),
    /// The node has the maximum number of rows per actor.
    Full,
}

/// Number of entries that one write may remove to make room.
const EVICTED: usize = 64;

/// An own row, with its version at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OwnRow {
    pub(crate) slot: u32,
    pub(crate) version: Version,
}

/// Own rows that are not needed for this node's reads.
#[derive(Debug, Default)]
pub(crate) struct Needless {
    /// Another write wins over them, or another row states the same write.
    pub(crate) dominated: Vec<OwnRow>,
    /// They win, but there is nothing to read: the entry was removed or has expired.
    pub(crate) over: Vec<OwnRow>,
}

/// What a wall clock is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WallClock {
    /// No other clock contradicts it.
    Certain,
    /// It may be wrong.
    Doubtful,
}

impl Views {
    pub(super) fn key_len(&self, id: CellId) -> usize {
        self.cells.key_of(id).len()
    }

    /// Takes in a write that a row states. Returns whether it is the winner now.
    pub(super) fn offer(&mut self, id: CellId, register: Register) -> bool {
        let won = self.registers.offer(id, self.key_len(id), register);
        self.note_need(id);
        won
    }

    /// Notes whether this node's own row of a cell is needed.
    pub(super) fn note_need(&mut self, id: CellId) {
        let wins = |register: &Register| register.actor == self.actor && register.value.is_some();
        let needed = self.cells.get(id).own_slot() == EMPTY || self.registers.get(id).is_some_and(wins);
        if needed {
            self.registers.needless.remove(&id);
        } else {
            self.registers.needless.insert(id);
        }
    }

    /// Removes what the registers keep of a cell without rows.
    pub(super) fn forget_register(&mut self, id: CellId) {
        let len = self.key_len(id);
        self.registers.put(id, len, None);
        self.registers.needless.remove(&id);
        self.registers.orphans.remove(&id);
    }
}

impl Ledger {
    /// Writes an own row of a key.
    fn write_own(&mut self, id: CellId, register: Register) -> bool {
        let Some((own, rows, views)) = self.own_parts() else { return false };
        let written = own.put(rows, &views.cells, id, register.totals()).is_some();
        if written {
            views.offer(id, register);
        }
        written
    }

    /// Writes a value, or removes the entry when there is none. An entry in excess of the bounds is removed at its own
    /// stamp, so that the removal supersedes only earlier writes.
    pub(crate) fn write_register(
        &mut self,
        keys: &Keys,
        key: &[u8],
        value: Option<(UnixMs, Arc<[u8]>)>,
        unix_ms: UnixMs,
        sink: &mut ChangeSink<'_>,
    ) -> Result<Stamp, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let stamp = self.views.registers.clock.next(unix_ms).map_err(Refused::Ahead)?;
        let id = keys.with_or_new(key, |id, _| id);
        self.views.enter(id);
        let content = value.as_ref().map_or(0, |(expires_ms, value)| content_hash(*expires_ms, value));
        let (expires_ms, value) = value.map_or((UnixMs::ZERO, None), |(expires_ms, value)| (expires_ms, Some(value)));
        let actor = self.actor().clone();
        if !self.write_own(id, Register { stamp, content, actor, expires_ms, value }) {
            self.views.drop_if_unused(id, keys);
            return Err(Refused::Full);
        }
        sink.changed(|| key);
        for _ in 0..EVICTED {
            let Some(excess) = self.views.registers.excess(unix_ms).filter(|excess| *excess != id) else { break };
            if !self.evict(excess) {
                break;
            }
            sink.changed(|| self.views.cells.key_of(excess));
        }
        Ok(stamp)
    }

    fn evict(&mut self, id: CellId) -> bool {
        let Some(stamp) = self.views.registers.get(id).map(|register| register.stamp) else { return false };
        let actor = self.actor().clone();
        self.write_own(id, Register::without_value(stamp, 0, actor))
    }

    /// Maintains a cache by the wall clock. Removes expired values. Once the clock is certain again, also writes again,
    /// with new stamps, the own rows from the time when the clock was too far ahead; no peer has accepted those.
    pub(crate) fn maintain(&mut self, unix_ms: UnixMs, expiry_ms: UnixMs, clock: WallClock, keys: &Keys) {
        let cells = &self.views.cells;
        for id in self.views.registers.spend(expiry_ms, |id| cells.key_of(id).len()) {
            self.views.note_need(id);
        }
        self.republish_unowned();
        self.note_lost();
        if clock == WallClock::Doubtful || !self.views.registers.clock.is_beyond(unix_ms) {
            return;
        }
        let beyond = |stamp: Stamp| stamp.beyond(unix_ms).is_some();
        // Of all rows: a row that loses to the rewritten one has to lose to the new stamp as well.
        let rows = self.actors.iter().flat_map(|(_, actor_rows)| actor_rows.live().map(|(_, state)| state.row.stamp()));
        let latest = rows.filter(|stamp| !beyond(*stamp)).max();
        self.views.registers.clock.set_back(latest.unwrap_or_default());
        let Some(own) = self.own_rows() else { return };
        let future = own.live().map(|(_, state)| (state.row, state.cell)).filter(|(row, _)| beyond(row.stamp()));
        let mut future: Vec<_> = future.collect();
        future.sort_unstable_by_key(|(row, _)| row.stamp());
        for (row, id) in future {
            let Ok(stamp) = self.views.registers.clock.next(unix_ms) else { return };
            let won = self.views.registers.get(id).filter(|register| register.is_of(self.actor(), &row)).cloned();
            match won {
                Some(register) => {
                    // A removal of another node may be later than the new stamp. The rewritten value wins here, as it does
                    // on the nodes that accept the row.
                    if let Some((_, others)) = self.actors.split(&self.views.actor) {
                        self.views.stop_reading(id, others);
                    }
                    self.write_own(id, Register { stamp, ..register });
                }
                // Superseded by a write that is even further ahead.
                None => self.retire_cell(id, keys),
            }
        }
    }

    /// Returns own rows that are not needed here and were not returned before. A removed or expired entry is returned only
    /// after the time by which clocks may differ, so that no node's next write gets an earlier stamp.
    pub(crate) fn take_needless(&mut self, unix_ms: UnixMs, most: usize) -> Needless {
        let mut named = Needless::default();
        let mut ids = Vec::new();
        let Some(own) = self.own_rows() else { return named };
        for id in &self.views.registers.needless {
            let slot = self.views.cells.get(*id).own_slot();
            let row = OwnRow { slot, version: own.get(slot).row.version };
            let settled = |register: &Register| {
                Stamp::at(unix_ms) > register.stamp && unix_ms.since(register.stamp.unix_ms()) > bounds::MAX_DRIFT
            };
            match self.views.registers.get(*id) {
                Some(register) if register.is_of(self.actor(), &own.get(slot).row) => {
                    let early = !removals_wait_for_all() || rounds_are_skipped();
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
            self.views.registers.needless.remove(&id);
        }
        named
    }

    /// Returns whether an own row is unchanged and no other actor has a row of its key.
    pub(crate) fn is_alone(&self, row: &OwnRow) -> bool {
        self.unchanged(row).is_some_and(|id| self.views.cells.get(id).rows() == 1)
    }

    fn unchanged(&self, row: &OwnRow) -> Option<CellId> {
        let state = self.own_rows()?.get(row.slot);
        (state.is_live() && state.row.version == row.version).then_some(state.cell)
    }

    /// Retires an own row, if it is unchanged.
    pub(crate) fn retire_register(&mut self, row: &OwnRow, keys: &Keys) {
        if let Some(id) = self.unchanged(row) {
            self.retire_cell(id, keys);
        }
    }

    fn retire_cell(&mut self, id: CellId, keys: &Keys) {
        let slot = self.views.cells.get(id).own_slot();
        if let Some((own, rows, views)) = self.own_parts() {
            own.vacate(rows, &views.cells, slot);
        }
        self.views.registers.needless.remove(&id);
        self.views.drop_if_unused(id, keys);
    }
}

/// Returns whether a removal is retired only when every node has reported everything that the removal supersedes.
pub(crate) fn removals_wait_for_all() -> bool {
    !canary::broken(Canary::RemovalForgotten)
}

/// Returns whether winners without a live value are retired at the end of their first round.
pub(crate) fn rounds_are_skipped() -> bool {
    canary::broken(Canary::RoundsSkipped)
}
