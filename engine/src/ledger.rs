//! The rows of a structure, actor by actor, and the aggregates that follow them. Behind one lock; the way in is
//! `commit` for our own rows and [`Ledger::apply`] for everybody else's.

mod apply;
mod cleared;

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use tallymesh_schemas::{Actor, Cell as CellKind, Class, Incarnation, Kind, NodeName, Version, key, limits};

pub(crate) use apply::Applied;
pub use apply::ApplyError;
use cleared::Cleared;

use crate::canary::{self, Canary};
use crate::cell::Cell;
use crate::cells::Cells;
use crate::index::Index;
use crate::keys::Keys;
use crate::own::{Own, counts_nothing};
use crate::partial::Partial;
use crate::primitive::Arc;
use crate::radix::{KeyOf, Sum};
use crate::row::{Row, key_hash, row_hash};
use crate::slots::{CellId, EMPTY};
use crate::time::Time;

/// References to a cell that the table of keys and the ledger's numbering hold.
const NUMBERED: usize = 1;

#[derive(Debug)]
pub(crate) struct Ledger {
    class: Class,
    actor: Actor,
    own: Own,
    partials: BTreeMap<Actor, Partial>,
    cells: Cells,
    index: Index,
    cleared: Cleared,
    /// Keys that are blocks rather than single hosts.
    blocks: usize,
    /// Cells without rows that somebody still held when their last row went; tried again at each sweep.
    unused: Vec<Arc<Cell>>,
    /// Our gauges are zero from now on, whatever the cells say: this node leaves.
    closed: bool,
}

impl Ledger {
    pub(crate) fn new(class: Class, actor: Actor) -> Self {
        let mut partials = BTreeMap::new();
        partials.insert(actor.clone(), Partial::ours());
        Self {
            class,
            actor,
            own: Own::default(),
            partials,
            cells: Cells::default(),
            index: Index::new(class.kind()),
            cleared: Cleared::default(),
            blocks: 0,
            unused: Vec::new(),
            closed: false,
        }
    }

    pub(crate) fn actor(&self) -> &Actor {
        &self.actor
    }

    pub(crate) fn partials(&self) -> &BTreeMap<Actor, Partial> {
        &self.partials
    }

    pub(crate) fn partial(&self, actor: &Actor) -> Option<&Partial> {
        self.partials.get(actor)
    }

    pub(crate) fn partial_mut(&mut self, actor: &Actor) -> Option<&mut Partial> {
        self.partials.get_mut(actor)
    }

    /// The latest run of a node that rows are known of.
    pub(crate) fn latest(&self, node: &NodeName) -> Option<(&Actor, &Partial)> {
        self.runs(node).next_back()
    }

    /// The runs of a node that rows are known of, in order. Of gauges the latest one alone is what the node counts.
    pub(crate) fn runs(&self, node: &NodeName) -> impl DoubleEndedIterator<Item = (&Actor, &Partial)> + Clone {
        let first = Actor::new(node.clone(), Incarnation(0));
        let last = Actor::new(node.clone(), Incarnation(u64::MAX));
        self.partials.range(first..=last)
    }

    /// The runs of a node whose rows make up what it counts.
    pub(crate) fn counted_runs(&self, node: &NodeName) -> impl Iterator<Item = (&Actor, &Partial)> {
        let skip = if self.keeps_runs() { 0 } else { self.runs(node).count().saturating_sub(1) };
        self.runs(node).skip(skip)
    }

    /// Whether what a run has counted outlives it.
    pub(crate) fn keeps_runs(&self) -> bool {
        self.class.cell() == CellKind::Events
    }

    pub(crate) fn cells(&self) -> &Cells {
        &self.cells
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The highest version of our own rows.
    pub(crate) fn head(&self) -> Version {
        self.partials.get(&self.actor).map_or(0, |own| own.have)
    }

    /// Our own rows with their writer and the cells.
    fn own_parts(&mut self) -> Option<(&mut Own, &mut Partial, &mut Cells)> {
        Some((&mut self.own, self.partials.get_mut(&self.actor)?, &mut self.cells))
    }

    /// Writes the rows of the cells that have changed here, in order of slot, so that their batch is short on the wire.
    pub(crate) fn commit(&mut self, dirty: &mut Vec<Arc<Cell>>, keys: &Keys, mut changed: impl FnMut(&[u8])) {
        let mut batch = Vec::with_capacity(dirty.len());
        for cell in dirty.drain(..) {
            let (added, removed) = cell.take();
            if self.closed {
                continue;
            }
            if cell.id().is_none() && counts_nothing(cell.key(), (added, removed)) {
                self.park(cell);
                continue;
            }
            let id = self.number(&cell);
            batch.push((self.cells.get(id).own_slot, id, (added, removed)));
        }
        batch.sort_by_key(|(slot, ..)| *slot);
        let mut cleared = Vec::new();
        for (_, id, totals) in batch {
            let Some((own, partial, cells)) = self.own_parts() else { return };
            if let Some((old, new)) = own.write(partial, cells, id, totals) {
                if self.clears(id) {
                    cleared.push(self.cells.key_of(id).into());
                    continue;
                }
                self.add_own(id, self.own_change(id, &old, &new));
                changed(self.cells.key_of(id));
            }
            self.drop_if_unused(id, keys);
        }
        self.reclear(cleared, keys, &mut changed);
    }

    fn own_change(&self, id: CellId, old: &Row, new: &Row) -> i64 {
        self.value(&self.actor, id, new).wrapping_sub(self.value(&self.actor, id, old))
    }

    /// The number of a cell, which gets its place in the index with it.
    fn number(&mut self, cell: &Arc<Cell>) -> CellId {
        let (id, new) = self.cells.number(cell);
        if new && !self.clears(id) {
            self.index.insert(id, &self.cells);
            self.blocks += usize::from(is_block(self.class.kind(), cell.key()));
        }
        id
    }

    fn add_sum(&mut self, id: CellId, n: Sum) {
        self.index.add(id, n, &self.cells);
    }

    /// Adds to what we count ourselves.
    fn add_own(&mut self, id: CellId, n: i64) {
        self.add_sum(id, Sum { all: n, own: n });
    }

    /// Adds to what the others count.
    fn add_others(&mut self, id: CellId, n: i64) {
        if n != 0 {
            self.cells.get(id).cell.add_others(n);
            self.add_sum(id, Sum { all: n, own: 0 });
        }
    }

    fn drop_if_unused(&mut self, id: CellId, keys: &Keys) {
        if self.cells.get(id).rows > 0 {
            return;
        }
        if !self.clears(id) {
            self.index.remove(self.cells.key_of(id));
        }
        let cell = self.cells.free(id);
        self.blocks -= usize::from(is_block(self.class.kind(), cell.key()));
        if !keys.remove_unused(&cell, NUMBERED) {
            self.park(cell);
        }
    }

    /// Lists a cell without rows for the next sweep, once: a second reference would keep it for good.
    fn park(&mut self, cell: Arc<Cell>) {
        if !cell.set_parked(true) {
            self.unused.push(cell);
        }
    }

    /// Retires our idle zero rows and lets go of cells that nobody holds any more.
    pub(crate) fn sweep(&mut self, keys: &Keys, now: Time, idle: Duration) {
        let mut retired = Vec::new();
        // Rows of events go with their structure.
        if !self.keeps_runs()
            && let Some((own, partial, cells)) = self.own_parts()
        {
            own.retire(partial, cells, now, idle, |_, id| retired.push(id));
        }
        for id in retired {
            self.drop_if_unused(id, keys);
        }
        self.unused.retain(|cell| {
            // A cell that counts again has a number again, and is let go of from there.
            let stays = cell.id().is_none() && !keys.remove_unused(cell, NUMBERED) && cell.own() == 0;
            if !stays {
                cell.set_parked(false);
            }
            stays
        });
    }

    /// Purges what everybody has seen: see [`Own::raise_floor`].
    pub(crate) fn raise_floor(&mut self, acked: Version, now: Time, retention: Duration) {
        if let Some((own, partial, _)) = self.own_parts() {
            own.raise_floor(partial, acked, now, retention);
        }
    }

    /// Makes room for rows of an actor that are known from `since` on; whether there was none before and there is now.
    pub(crate) fn admit(&mut self, actor: &Actor, since: Version) -> bool {
        let new = !self.partials.contains_key(actor) && self.partials.len() < limits::ACTORS;
        if new {
            self.partials.insert(actor.clone(), Partial::new(since));
        }
        new
    }

    /// Lets an actor's rows count in what is read, or not (I4).
    pub(crate) fn set_counts(&mut self, actor: &Actor, counts: bool) {
        let Some(partial) = self.partials.get_mut(actor) else { return };
        if partial.counts == counts {
            return;
        }
        partial.counts = counts;
        let rows: Vec<_> = partial.live().map(|(_, state)| (state.cell, state.row)).collect();
        for (id, row) in rows {
            if self.clears(id) {
                continue;
            }
            let value = self.value(actor, id, &row);
            if !counts && canary::broken(Canary::DeadFolded) {
                continue;
            }
            self.add_others(id, if counts { value } else { value.wrapping_neg() });
        }
    }

    /// Drops an actor with all its rows: it was superseded or forgotten.
    pub(crate) fn drop_actor(&mut self, actor: &Actor, keys: &Keys) {
        self.set_counts(actor, false);
        if let Some(mut partial) = self.partials.remove(actor) {
            self.reclear(self.clearing_rows(&partial), keys, &mut |_| ());
            if let Some(shadow) = partial.shadow.take() {
                self.drop_rows(&shadow, keys);
            }
            self.drop_rows(&partial, keys);
        }
    }

    /// Takes the rows of a partial that is no longer part of the ledger off their cells.
    fn drop_rows(&mut self, partial: &Partial, keys: &Keys) {
        for (_, state) in partial.live() {
            self.cells.get_mut(state.cell).rows -= 1;
            self.drop_if_unused(state.cell, keys);
        }
    }

    /// Goes on as another run: what is open now becomes that run's, the old one's rows are dropped here as they are
    /// everywhere else.
    pub(crate) fn renew(&mut self, actor: Actor, keys: &Keys) {
        let Some(old) = self.partials.remove(&self.actor) else { return };
        let was = std::mem::replace(&mut self.actor, actor.clone());
        let cleared = self.clearing_rows(&old);
        self.own = Own::default();
        self.partials.insert(actor, Partial::ours());
        for (_, state) in old.live() {
            let counted = self.cells.get_mut(state.cell);
            (counted.own_slot, counted.rows) = (EMPTY, counted.rows - 1);
            // What was cleared of the old run's row is not there to be cleared in the new one's.
            let cleared = self.cleared_of(state.cell, &was);
            let (added, removed) = (state.row.added.min(cleared.0), state.row.removed.min(cleared.1));
            self.cells.get(state.cell).cell.lower(added, removed);
            let totals = (state.row.added - added, state.row.removed - removed);
            if let Some((own, partial, cells)) = self.own_parts() {
                own.write(partial, cells, state.cell, totals);
            }
            self.drop_if_unused(state.cell, keys);
        }
        self.reclear(cleared, keys, &mut |_| ());
    }

    /// Ends our counting: what is open is closed, so our gauges are zero; events have happened.
    pub(crate) fn close(&mut self, mut changed: impl FnMut(&[u8])) {
        self.closed = true;
        if self.keeps_runs() {
            return;
        }
        let Some(own) = self.partials.get(&self.actor) else { return };
        let rows: Vec<_> = own.live().map(|(_, state)| (state.cell, state.row)).collect();
        for (id, row) in rows {
            let Some((own, partial, cells)) = self.own_parts() else { return };
            let total = row.added.max(row.removed);
            if let Some((old, new)) = own.write(partial, cells, id, (total, total)) {
                self.add_own(id, self.own_change(id, &old, &new));
                changed(self.cells.key_of(id));
            }
        }
    }

    /// The sum under a key prefix of `bits` bits.
    fn sum(&self, prefix: &[u8], bits: usize) -> Sum {
        self.index.sum(prefix, bits, &self.cells)
    }

    /// The sum of the keys that lie in a block.
    pub(crate) fn sum_net(&self, net: IpNet) -> Sum {
        let net = key::canonical(net);
        let (key, n) = key::from_net(net);
        let mut sum = self.sum(&key[..n], 8 + usize::from(net.prefix_len()));
        if self.blocks > 0 {
            // Larger blocks that begin at the same address have the same bytes up to their length, but lie around it.
            for len in 0..net.prefix_len() {
                let mut larger = key;
                larger[n - 1] = len;
                sum = sum.minus(self.sum(&larger[..n], n * 8));
            }
        }
        sum
    }

    /// The sum of one actor's rows that lie in a block. O(its rows).
    pub(crate) fn sum_net_of(&self, actor: &Actor, partial: &Partial, net: IpNet) -> i64 {
        let inside = partial
            .live()
            .filter(|(_, state)| key::to_net(self.cells.key_of(state.cell)).is_ok_and(|key| net.contains(&key)));
        inside.fold(0, |sum, (_, state)| sum.wrapping_add(self.value(actor, state.cell, &state.row)))
    }

    /// Recomputes every aggregate from the rows (I10, and what I3 is built on) and says where one differs.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut others: BTreeMap<CellId, i64> = BTreeMap::new();
        let mut rows: BTreeMap<CellId, u32> = BTreeMap::new();
        let with_shadows =
            self.partials.iter().flat_map(|(a, p)| [Some((a, p, false)), p.shadow.as_deref().map(|s| (a, s, true))]);
        for (actor, partial, shadow) in with_shadows.flatten() {
            let mut fingerprint = 0_u64;
            for (_, state) in partial.live() {
                *rows.entry(state.cell).or_default() += 1;
                fingerprint = fingerprint.wrapping_add(row_hash(key_hash(self.cells.key_of(state.cell)), &state.row));
                if !shadow && partial.counts && *actor != self.actor && !self.clears(state.cell) {
                    let sum = others.entry(state.cell).or_default();
                    *sum = sum.wrapping_add(self.value(actor, state.cell, &state.row));
                }
            }
            if fingerprint != partial.fingerprint() {
                return Err(format!(
                    "fingerprint of {actor} is {:x}, its rows say {fingerprint:x}",
                    partial.fingerprint()
                ));
            }
        }
        for (id, counted) in self.cells.iter() {
            let sum = others.get(&id).copied().unwrap_or(0);
            if counted.cell.others() != sum {
                return Err(format!(
                    "{:?}: cached {} of others, rows say {sum}",
                    counted.cell.key(),
                    counted.cell.others()
                ));
            }
            let held = rows.get(&id).copied().unwrap_or(0);
            if counted.rows != held {
                return Err(format!("{:?}: {} rows noted, {held} there", counted.cell.key(), counted.rows));
            }
            if self.class.kind() == Kind::CidrTree && !self.clears(id) {
                let own = self.partials.get(&self.actor).and_then(|own| own.find(id));
                let own = own.map_or(0, |(_, state)| self.value(&self.actor, id, &state.row));
                let cached = self.sum(counted.cell.key(), counted.cell.key().len() * 8);
                let all = own.wrapping_add(sum);
                if cached != (Sum { all, own }) {
                    return Err(format!("{:?}: tree says {cached:?}, rows say {all} and {own}", counted.cell.key(),));
                }
            }
        }
        self.audit_cleared()
    }

    /// Bytes of rows, logs, numbering and index; the cells are counted by their table.
    pub(crate) fn bytes(&self) -> usize {
        let partials: usize = self.partials.values().map(Partial::bytes).sum();
        partials + self.cells.bytes() + self.index.bytes() + self.cleared.bytes()
    }
}

fn is_block(kind: Kind, key: &[u8]) -> bool {
    kind == Kind::CidrTree && key::to_net(key).is_ok_and(|net| net.prefix_len() < net.max_prefix_len())
}
