//! The rows of a structure by actor, and the aggregates derived from them, behind one lock. The entry points are `commit`
//! for this node's own rows and [`Ledger::apply`] for all other rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, Bounds, Kind, Version, key};

use crate::counter::below::{Below, Debts};
use crate::counter::resets::Resets;

use crate::counter::journal::{Journal, Mark};
use crate::counter::watch::ChangeSink;
use crate::hlc::Stamp;
use crate::index::Index;
use crate::index::nodes::Sum;
use crate::keyspace::cell::Flag;
use crate::keyspace::cells::Cells;
use crate::keyspace::id::{CellId, EMPTY, KeyOf};
use crate::keyspace::key::CellKey;
use crate::keyspace::keys::Keys;
use crate::rows::actor_rows::ActorRows;
use crate::rows::registers::Registers;
use crate::rows::writer::{OwnRowWriter, counts_nothing};
use crate::shape::Shape;
use crate::time::Time;

/// Number of rows that are read together before they are written one by one, so that their memory accesses overlap.
pub(super) const TOGETHER: usize = 32;

#[derive(Debug)]
pub(crate) struct Ledger {
    pub(super) shape: Shape,
    pub(super) actor: Actor,
    pub(super) own: OwnRowWriter,
    pub(super) actors: BTreeMap<Actor, ActorRows>,
    pub(super) cells: Arc<Cells>,
    pub(super) index: Index,
    pub(super) resets: Resets,
    pub(super) registers: Registers,
    pub(super) journal: Journal,
    /// The latest write of a cache that was restored from saved state.
    pub(super) restored: Stamp,
    /// When the restore happened.
    pub(super) restored_at: Time,
    /// Number of keys that are blocks rather than single hosts.
    pub(super) blocks: usize,
    /// Cells that were still pinned when their last row was dropped. Each sweep tries again to remove them.
    pub(super) unused: Vec<CellId>,
    /// The last edition number given to any actor's rows.
    pub(super) editions: u64,
    /// Gauges that nodes have taken below zero.
    pub(super) below: Below,
    /// The highest count that this node, or all other nodes together, ever had for one key.
    pub(super) most: u64,
    /// Number of keys in the index.
    pub(super) indexed: u64,
    /// This node is leaving: its gauges are zero from now on, whatever the cells say.
    pub(super) closed: bool,
}

impl Ledger {
    pub(crate) fn new(shape: Shape, bounds: Bounds, actor: Actor, cells: Arc<Cells>) -> Self {
        let mut all_rows = BTreeMap::new();
        all_rows.insert(actor.clone(), ActorRows::ours());
        Self {
            shape,
            actor,
            own: OwnRowWriter::default(),
            actors: all_rows,
            cells,
            index: Index::new(shape.kind()),
            resets: Resets::default(),
            registers: Registers::new(bounds),
            journal: Journal::default(),
            restored: Stamp::default(),
            restored_at: Time(0),
            blocks: 0,
            unused: Vec::new(),
            editions: 0,
            below: Below::default(),
            most: 0,
            indexed: 0,
            closed: false,
        }
    }

    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    pub(crate) fn all_actor_rows(&self) -> &BTreeMap<Actor, ActorRows> {
        &self.actors
    }

    pub(crate) fn actor_rows(&self, actor: &Actor) -> Option<&ActorRows> {
        self.actors.get(actor)
    }

    pub(crate) fn actor_rows_mut(&mut self, actor: &Actor) -> Option<&mut ActorRows> {
        self.actors.get_mut(actor)
    }

    /// Returns the version of an actor's first row whose value is neither held here nor superseded.
    pub(crate) fn missing_value(&mut self, actor: &Actor) -> Option<Version> {
        let (cells, registers) = (&self.cells, &self.registers);
        let actor_rows = self.actors.get_mut(actor)?;
        let mut hollow = std::mem::take(&mut actor_rows.without_value);
        let row = |actor_rows: &ActorRows, id: CellId| actor_rows.find(id, cells).map(|(_, state)| state.row);
        hollow.retain(|id| row(actor_rows, *id).is_some_and(|row| registers.lacks(*id, &row)));
        let first = hollow.iter().filter_map(|id| Some(row(actor_rows, *id)?.version)).min();
        actor_rows.without_value = hollow;
        first
    }

    /// By how much other actors' rows are below zero, readable without the ledger lock.
    pub(crate) fn debts(&self) -> &Arc<Debts> {
        self.below.debts()
    }

    /// The journal of changed actors, including this node's own rows.
    pub(crate) fn journal(&mut self) -> &mut Journal {
        if let Some(own) = self.actors.get(&self.actor) {
            self.journal.note_own(&self.actor, (own.applied, own.fingerprint()));
        }
        &mut self.journal
    }

    /// The actors that have changed behind a mark.
    pub(crate) fn changed_behind(&self, mark: Mark) -> impl Iterator<Item = (Mark, &Actor)> {
        self.journal.behind(mark)
    }

    /// How long ago this copy of an actor's rows was last confirmed as current; `None` when it never was, or when rows are
    /// still missing.
    pub(crate) fn age(&self, actor: &Actor, actor_rows: &ActorRows, now: Time) -> Option<Duration> {
        if *actor == self.actor {
            return Some(Duration::ZERO);
        }
        (actor_rows.confirmed > Time(0) && actor_rows.is_complete()).then(|| now.since(actor_rows.confirmed))
    }

    /// Notes that this replica's knowledge of another actor has changed.
    pub(crate) fn note(&mut self, actor: &Actor) {
        self.journal.note(actor);
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.cells
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The highest version of this node's own rows.
    pub(crate) fn head(&self) -> Version {
        self.actors.get(&self.actor).map_or(0, |own| own.applied)
    }

    /// How many own rows found no free slot since the last call.
    pub(crate) fn take_rows_without_room(&mut self) -> u64 {
        self.own.take_without_room()
    }

    /// This node's own rows with their writer and the cells.
    pub(super) fn own_parts(&mut self) -> Option<(&mut OwnRowWriter, &mut ActorRows, &Cells)> {
        Some((&mut self.own, self.actors.get_mut(&self.actor)?, &self.cells))
    }

    /// Writes the own rows of the cells that have changed, in order of slot, so that the batch is short on the wire.
    pub(crate) fn commit(&mut self, dirty: &mut Vec<CellId>, keys: &Keys, sink: &mut ChangeSink<'_>) {
        let mut batch = Vec::with_capacity(dirty.len());
        for id in dirty.drain(..) {
            let cell = self.cells.get(id);
            if self.closed {
                cell.take();
            } else if self.shape.is_cache() {
                // Caches do not count.
                let totals = cell.take();
                cell.lower(totals.0, totals.1);
                if !cell.has(Flag::Indexed) {
                    self.park(id);
                }
            } else {
                // Sorting by one packed number takes half the time.
                batch.push(u64::from(cell.own_slot()) << 32 | u64::from(id));
            }
        }
        batch.sort_unstable();
        // Taken out of the map during the write, so that cells and sums can be changed as well.
        let Some(mut actor_rows) = self.actors.remove(&self.actor) else { return };
        let mut cleared = Vec::new();
        for together in batch.chunks(TOGETHER) {
            actor_rows.warm(together.iter().map(|at| (at >> 32) as u32).filter(|slot| *slot != EMPTY));
            for at in together {
                self.commit_cell(&mut actor_rows, *at as CellId, keys, &mut cleared, sink);
            }
        }
        self.actors.insert(self.actor.clone(), actor_rows);
        self.reclear(cleared, keys, sink);
        self.index.settle();
    }

    /// Writes the own row of a cell that has changed.
    pub(super) fn commit_cell(
        &mut self,
        actor_rows: &mut ActorRows,
        id: CellId,
        keys: &Keys,
        cleared: &mut Vec<CellKey>,
        sink: &mut ChangeSink<'_>,
    ) {
        let totals = self.cells.get(id).take();
        if !self.cells.get(id).has(Flag::Indexed) && counts_nothing(self.cells.get(id), totals) {
            return self.park(id);
        }
        self.enter(id);
        if let Some((old, new)) = self.own.write(actor_rows, &self.cells, id, totals) {
            if self.clears(id) {
                cleared.push(self.cells.key_of(id));
                return;
            }
            self.add_own(id, self.change(&self.actor, id, &old, &new));
            self.most = self.most.max(new.value().unsigned_abs());
            self.note_own_below(id, &old, &new);
            sink.changed(|| self.cells.key_of(id));
        }
        self.drop_if_unused(id, keys);
    }

    /// Adds a cell to the index if it is not in it.
    #[inline]
    pub(super) fn enter(&mut self, id: CellId) {
        if !self.cells.get(id).has(Flag::Indexed) {
            self.cells.get(id).set(Flag::Indexed);
            if !self.clears(id) {
                self.index.insert(id, &*self.cells);
                self.indexed += 1;
                self.blocks += usize::from(is_block(self.shape.kind(), &self.cells.key_of(id)));
            }
        }
    }

    #[inline(always)]
    pub(super) fn add_sum(&mut self, id: CellId, n: Sum) {
        self.index.add(id, n, &*self.cells);
    }

    /// Adds to this node's own count.
    pub(super) fn add_own(&mut self, id: CellId, n: i64) {
        self.add_sum(id, Sum { all: n, own: n });
    }

    /// Adds to the other actors' count.
    #[inline(always)]
    pub(super) fn add_others(&mut self, id: CellId, n: i64) {
        if n != 0 {
            let others = self.cells.get(id).add_others(n);
            self.most = self.most.max(others.unsigned_abs());
            self.add_sum(id, Sum { all: n, own: 0 });
        }
    }

    #[inline]
    pub(super) fn drop_if_unused(&mut self, id: CellId, keys: &Keys) {
        if self.cells.get(id).rows() == 0 {
            self.drop_unused(id, keys);
        }
    }

    pub(super) fn drop_unused(&mut self, id: CellId, keys: &Keys) {
        let cell = self.cells.get(id);
        cell.unset(Flag::Indexed);
        if !self.clears(id) {
            let key = self.cells.key_of(id);
            self.index.remove(&key);
            self.indexed -= 1;
            self.blocks -= usize::from(is_block(self.shape.kind(), &key));
        }
        if self.shape.is_cache() {
            self.forget_register(id);
        }
        // The sweep removes cells that are on its list.
        if self.cells.get(id).has(Flag::Parked) || !keys.remove_unused(id) {
            self.park(id);
        }
    }

    /// Puts a cell without rows on the list of the next sweep, once.
    pub(super) fn park(&mut self, id: CellId) {
        let cell = self.cells.get(id);
        if !cell.has(Flag::Parked) {
            cell.set(Flag::Parked);
            self.unused.push(id);
        }
    }

    /// Retires this node's idle zero rows and removes cells that are no longer pinned.
    pub(crate) fn sweep(&mut self, keys: &Keys, now: Time, idle: Duration) {
        let mut retired = Vec::new();
        // Rows of events stay until their structure is removed.
        if !self.shape.keeps_runs()
            && let Some((own, actor_rows, cells)) = self.own_parts()
        {
            own.retire(actor_rows, cells, now, idle, |id| retired.push(id));
        }
        for id in retired {
            self.drop_if_unused(id, keys);
        }
        let cells = &self.cells;
        self.unused.retain(|id| {
            let cell = cells.get(*id);
            // A cell that counts again has rows again. It is removed together with the last of them.
            if cell.has(Flag::Indexed) || cell.own() != 0 {
                cell.unset(Flag::Parked);
                return false;
            }
            !keys.remove_unused(*id)
        });
    }

    /// Purges retired rows that all peers have seen: see [`OwnRowWriter::raise_low_water`].
    pub(crate) fn raise_low_water(&mut self, acked: Version, now: Time, retention: Duration) {
        if let Some((own, actor_rows, _)) = self.own_parts() {
            own.raise_low_water(actor_rows, acked, now, retention);
        }
    }

    /// Returns an edition number that was not used in this ledger before.
    pub(super) fn edition(&mut self) -> u64 {
        self.editions += 1;
        self.editions
    }

    /// The sum under a key prefix of `bits` bits.
    pub(super) fn sum(&self, prefix: &[u8], bits: usize) -> Sum {
        self.index.sum(prefix, bits, &*self.cells)
    }

    /// The sum of the keys inside a block.
    pub(crate) fn sum_net(&self, net: IpNet) -> Sum {
        let most = self.most.saturating_mul(2).saturating_mul(self.indexed);
        // As a rule no sum can wrap, whatever the distribution of the keys.
        if most > i64::MAX as u64 { self.sum_net_slowly(net) } else { self.sum_net_of_tree(net) }
    }

    /// The same sum, computed key by key when counts are so large that 64-bit sums may have wrapped. O(keys in the block).
    pub(super) fn sum_net_slowly(&self, net: IpNet) -> Sum {
        let (first, n) = key::from_net(net);
        let (mut all, mut own) = (0_i128, 0_i128);
        let mut next = self.index.seek(&first[..n - 1], true, &*self.cells);
        while let Some(id) = next {
            let key = self.cells.key_of(id);
            match key::to_net(&key) {
                Ok(host) if net.contains(&host) => {
                    let part = self.own_value(&key, self.cells.get(id).totals());
                    (all, own) =
                        (all + i128::from(part) + i128::from(self.cells.get(id).others()), own + i128::from(part));
                }
                // A larger block that begins at the same address as this one.
                Ok(host) if host.contains(&net) => {}
                _ => break,
            }
            next = self.index.seek(&key, false, &*self.cells);
        }
        Sum { all: within(all), own: within(own) }
    }

    pub(super) fn sum_net_of_tree(&self, net: IpNet) -> Sum {
        let (key, n) = key::from_net(net);
        let mut sum = self.sum(&key[..n], 8 + usize::from(net.prefix_len()));
        if self.blocks > 0 {
            // Larger blocks that begin at the same address share the bytes up to their length, but they enclose the block.
            for len in 0..net.prefix_len() {
                let mut larger = key;
                larger[n - 1] = len;
                sum = sum.minus(self.sum(&larger[..n], n * 8));
            }
        }
        sum
    }

    /// The sum of one actor's rows inside a block. O(rows of the actor).
    pub(crate) fn sum_net_of(&self, actor: &Actor, actor_rows: &ActorRows, net: IpNet) -> i64 {
        let inside = actor_rows
            .live()
            .filter(|(_, state)| key::to_net(&self.cells.key_of(state.cell)).is_ok_and(|key| net.contains(&key)));
        within(inside.map(|(_, state)| i128::from(self.value(actor, state.cell, &state.row))).sum())
    }

    /// Bytes of rows, logs and index. The table of cells counts the cells.
    pub(crate) fn bytes(&self) -> usize {
        let all_rows: usize = self.actors.values().map(ActorRows::bytes).sum();
        all_rows + self.index.bytes() + self.resets.bytes() + self.registers.heap_bytes()
    }
}

/// The sum as readers see it: clamped to the range of `i64`.
pub(crate) fn within(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

fn is_block(kind: Kind, key: &[u8]) -> bool {
    kind == Kind::CidrTree && key::to_net(key).is_ok_and(|net| net.prefix_len() < net.max_prefix_len())
}
