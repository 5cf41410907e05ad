//! A replicated structure, shared by handles and driver: counting and reading from any thread.
#![allow(clippy::indexing_slicing, reason = "positions are inside a key that this node has encoded")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, Kind, NodeName, StructureId, StructureSpec};

use crate::counter::below::Debts;
use crate::counter::ledger::Ledger;
use crate::counter::published::{Changed, Changes, Freshness};
use crate::counter::watch::{Growth, Watch, Watchers};
use crate::keyspace::cell::{Added, Cell, Flag};
use crate::keyspace::id::{CellId, KeyOf};
use crate::keyspace::keys::Keys;
use crate::keyspace::quota::Quota;
use crate::keyspace::totals::Totals;
use crate::primitive::{AtomicBool, AtomicU64, AtomicUsize, Ordering, RwLock};
use crate::shape::Shape;
use crate::time::Time;
use crate::wake::Wake;

/// A structure: a set of keys, each with a count. The count is this node's own part plus the rows received from other nodes.
///
/// All methods may be called from any number of threads. Counting takes the lock of one of 128 shards of the keys for
/// reading, or no lock with a [`Counter`]. Every method that reads the rows takes the structure's single ledger lock.
pub struct Structure {
    spec: StructureSpec,
    pub(crate) shape: Shape,
    pub(crate) keys: Keys,
    pub(crate) ledger: RwLock<Ledger>,
    pub(crate) watchers: Watchers,
    /// Number of cells that are listed as changed and not committed yet.
    pub(crate) pending: AtomicUsize,
    wake: Wake,
    pub(crate) head: AtomicU64,
    pub(crate) freshness: Freshness,
    /// What has changed, for digests.
    pub(crate) changes: Changes,
    /// Whether any key was reset.
    cleared: AtomicBool,
    /// The bounds that this structure has reached.
    pub(crate) tally: bound::Tally,
    /// Additions that were refused.
    refused: AtomicU64,
    /// By how much other actors' gauges are below zero.
    debts: Arc<Debts>,
    /// The configuration does not name it any more.
    pub(super) detached: AtomicBool,
}

/// A cluster-wide count as this node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Count {
    /// The total: this node's own part and the rows of the other actors that count.
    pub total: i64,
    /// This node's own part.
    pub local: i64,
    /// Number of actors that count in this structure, this node included.
    pub actors: u32,
    /// How long ago the stalest of them was last confirmed as current on this node; zero when there is no other actor.
    pub stalest: Duration,
}

/// A key and its count.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Entry {
    /// The key's bytes; [`key::display`] makes them readable.
    pub key: Vec<u8>,
    /// Its count.
    pub count: i64,
}

impl Structure {
    /// A structure that lists itself in `changed` when it has changed. `quota` counts its keys.
    pub(crate) fn new(
        spec: StructureSpec,
        actor: Actor,
        seed: u64,
        wake: Wake,
        changed: &Arc<Changed>,
        quota: Quota,
    ) -> Self {
        let shape = Shape::of(spec.class);
        let keys = Keys::new(shape, seed, quota);
        let ledger = Ledger::new(shape, actor, Arc::clone(keys.cells()));
        let structure = Self {
            debts: Arc::clone(ledger.debts()),
            ledger: RwLock::new(ledger),
            keys,
            watchers: Watchers::default(),
            pending: AtomicUsize::new(0),
            wake,
            head: AtomicU64::new(0),
            freshness: Freshness::new(),
            changes: Changes::new(changed),
            cleared: AtomicBool::new(false),
            tally: bound::Tally::default(),
            refused: AtomicU64::new(0),
            detached: AtomicBool::new(false),
            shape,
            spec,
        };
        structure.publish(&mut structure.ledger.write());
        structure
    }

    /// The configuration of the structure.
    pub fn spec(&self) -> &StructureSpec {
        &self.spec
    }

    /// The structure's id on the wire.
    pub fn id(&self) -> StructureId {
        self.spec.name.id()
    }

    /// The kind of its keys.
    pub fn kind(&self) -> Kind {
        self.shape.kind()
    }

    /// Returns whether a run's rows have an effect after the run has ended.
    pub(crate) fn keeps_runs(&self) -> bool {
        self.shape.keeps_runs()
    }

    /// Adds `n` to this node's own part; a negative `n` removes. One step moves a count by at most
    /// [`bounds::STEP`](tallymesh_schemas::bounds::STEP), 2^40, in either direction. A larger `n` is clamped to that without
    /// an error, so callers that take `n` from outside check it first. O(1); no allocation for an existing key.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind, when there is no room for another key, or when this node's
    /// total of additions or removals for the key is at its bound, [`bounds::TOTAL`](tallymesh_schemas::bounds::TOTAL). Then
    /// nothing is counted.
    #[inline]
    pub fn add(&self, key: &[u8], n: i64) -> Result<(), KeyError> {
        let counted = match self.keys.with(key, |id, cell| self.touch(id, cell.add(n))) {
            Some(counted) => counted,
            None => self.add_new(key, n)?,
        };
        if !counted {
            self.refused();
            return Err(KeyError::Total);
        }
        Ok(())
    }

    /// Adds to a key that has no cell yet. Returns whether it counted. It is a function of its own, so that additions to the
    /// other keys do not save the registers that it needs.
    #[inline(never)]
    fn add_new(&self, key: &[u8], n: i64) -> Result<bool, KeyError> {
        key::check(self.kind(), key)?;
        self.with_or_new(key, |id, cell| self.touch(id, cell.add(n)))
    }

    /// Returns the counter of a key, for keys that are counted often. Adding through it needs no lookup.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind, or when there is no room for another key.
    pub fn counter(self: &Arc<Self>, key: &[u8]) -> Result<Counter, KeyError> {
        key::check(self.kind(), key)?;
        let id = self.with_or_new(key, |id, cell| {
            // Lists the cell although nothing changed, so that a sweep removes it if it never counts.
            self.touch(id, cell.add(0));
            cell.hold();
            id
        })?;
        Ok(Counter { structure: Arc::clone(self), id })
    }

    /// Handles the result of an addition. Returns whether it counted.
    #[inline]
    pub(super) fn touch(&self, id: CellId, added: Added) -> bool {
        if added == Added::First {
            // Increments the count before the cell is listed, so a commit never takes more cells off the list than `pending`
            // counts.
            let before = self.pending.fetch_add(1, Ordering::SeqCst);
            self.keys.list(id);
            if before == 0 || before + 1 == self.spec.max_pending {
                (self.wake)();
            }
        }
        added != Added::Refused
    }

    /// Counts an addition that was refused because a total is at its bound.
    #[cold]
    fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of additions refused because a total was at its bound, and per actor how often its gauges went
    /// below zero, both since the last call.
    pub(crate) fn take_faults(&self) -> (u64, BTreeMap<Actor, u64>) {
        (self.refused.swap(0, Ordering::Relaxed), self.debts.take_falls())
    }

    /// Number of changed keys that wait for a commit.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Writes the local changes into the rows. Reads that cover more than one key call it themselves.
    pub(crate) fn commit(&self) {
        if self.pending() > 0 {
            self.commit_locked(&mut self.ledger.write());
        }
    }

    #[inline(never)]
    pub(crate) fn commit_locked(&self, ledger: &mut Ledger) {
        if self.pending() == 0 {
            return;
        }
        let mut dirty = Vec::new();
        self.keys.drain(&mut dirty);
        self.pending.fetch_sub(dirty.len(), Ordering::SeqCst);
        self.watchers.with_sink(|changed| ledger.commit(&mut dirty, &self.keys, changed));
        self.tally.reached_times(Bound::Rows, ledger.take_rows_without_room());
        self.publish(ledger);
        self.cleared.store(ledger.has_resets(), Ordering::Relaxed);
    }

    /// Writes the local count of a counter's key into its row, whether or not the key is listed as changed.
    pub(crate) fn commit_cell(&self, ledger: &mut Ledger, counter: &Counter) {
        self.watchers.with_sink(|changed| ledger.commit(&mut vec![counter.id], &self.keys, changed));
        self.publish(ledger);
    }

    /// Returns the count of a key. O(1).
    pub fn count(&self, key: &[u8], now: Time) -> Count {
        let (totals, others) = self.keys.with(key, |_, cell| (cell.totals(), cell.others())).unwrap_or_default();
        let local = self.local(key, totals);
        self.with_freshness(local.saturating_add(others), local, now)
    }

    /// Returns the count of a key for a limit. Like [`Structure::count`], but every node's row below zero counts as zero.
    /// O(1).
    pub fn taken(&self, key: &[u8]) -> i64 {
        let taken = |id, cell: &Cell| cell.own().max(0).saturating_add(self.others_taken(id, cell));
        self.keys.with(key, taken).unwrap_or(0)
    }

    /// The other actors' count for a limit.
    #[inline]
    fn others_taken(&self, id: CellId, cell: &Cell) -> i64 {
        let owed = if cell.has(Flag::InDebt) { self.debts.of(id) } else { 0 };
        cell.others().saturating_add(owed)
    }

    /// Returns the sum of all counts under an address block, after a commit of local changes. O(key length) plus one pass
    /// over neighbouring sums, independent of the number of keys under the block. For a single address it equals
    /// [`Structure::count`].
    pub fn count_net(&self, net: IpNet, now: Time) -> Count {
        let net = key::canonical(net);
        if net.prefix_len() == net.max_prefix_len() {
            let (key, n) = key::from_net(net);
            return self.count(&key[..n], now);
        }
        self.commit();
        let sum = self.ledger.read().views().sum_net(net);
        self.with_freshness(sum.all, sum.own, now)
    }

    /// What this node's totals of a key count.
    #[inline(always)]
    fn local(&self, key: &[u8], totals: Totals) -> i64 {
        if self.cleared.load(Ordering::Relaxed) {
            self.ledger.read().views().own_value(key, totals)
        } else {
            totals.value()
        }
    }

    fn with_freshness(&self, total: i64, local: i64, now: Time) -> Count {
        let (actors, stalest) = self.freshness(now);
        Count { total, local, actors, stalest }
    }

    /// Returns one node's count for a key: for gauges from its latest run, for events from all of its runs; `None` when this
    /// node knows nothing of that node. It includes rows of a dead node, which the cluster-wide view leaves out.
    pub fn count_from(&self, node: &NodeName, key: &[u8]) -> Option<i64> {
        self.commit();
        let ledger = self.ledger.read();
        ledger.latest(node)?;
        let id = self.keys.find(key);
        let rows = ledger
            .counted_runs(node)
            .filter_map(|(actor, actor_rows)| Some((actor, id?, actor_rows.find(id?, ledger.cells())?.1)));
        Some(rows.fold(0, |sum, (actor, id, state)| sum.saturating_add(ledger.views().value(actor, id, &state.row))))
    }

    /// Returns the latest run of a node of which this node holds rows.
    pub fn latest(&self, node: &NodeName) -> Option<Actor> {
        self.ledger.read().latest(node).map(|(actor, _)| actor.clone())
    }

    /// Number of keys known on this node.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Starts to report every key whose count changes on this node, whatever the origin of the change. A watcher that does
    /// not read loses the oldest changes beyond `capacity` and receives the number of lost changes.
    pub fn watch(&self, capacity: usize, wake: Wake) -> Arc<Watch> {
        self.watchers.add(capacity, &[], wake)
    }

    /// Like [`Structure::watch`], for keys that begin with `prefix` only.
    pub(crate) fn watch_under(&self, prefix: &[u8], capacity: usize, wake: Wake) -> Arc<Watch> {
        self.watchers.add(capacity, prefix, wake)
    }

    /// Collects by how much the other actors' counts of each key grow, except for the rows that divide limits into shares.
    pub(crate) fn growth(&self, capacity: usize) -> Arc<Growth> {
        self.watchers.growth(capacity, key::SHARING)
    }

    /// Returns the other actors' count for a key, as this node knows it. O(1).
    pub fn others(&self, key: &[u8]) -> i64 {
        self.keys.with(key, |id, cell| self.others_taken(id, cell)).unwrap_or(0)
    }

    /// Recomputes every cached aggregate from the rows.
    ///
    /// # Errors
    /// Names the aggregate that differs. That is a fault of the engine; the simulator calls this after every step.
    pub fn audit(&self) -> Result<(), String> {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        self.audit_changes(&ledger)?;
        ledger.audit()
    }

    /// Bytes of rows, logs and indexes, without allocator overhead.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.ledger.read().bytes()
    }

    /// Which actors count, or their rows, have changed: what reads show follows.
    pub(crate) fn refresh(&self, ledger: &Ledger) {
        self.freshness.expire();
        self.cleared.store(ledger.has_resets(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Structure").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

/// The counter of one key, looked up once. Cheap to clone. Adding takes a few nanoseconds and no lock.
#[derive(Debug)]
pub struct Counter {
    structure: Arc<Structure>,
    id: CellId,
}

impl Clone for Counter {
    fn clone(&self) -> Self {
        self.cell().hold();
        Self { structure: Arc::clone(&self.structure), id: self.id }
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.cell().unpin();
    }
}

impl Counter {
    #[inline]
    fn cell(&self) -> &Cell {
        self.structure.keys.cells().get(self.id)
    }

    /// Adds `n` to this node's own part; a negative `n` removes. As in [`Structure::add`], a step beyond 2^40 in either
    /// direction counts as 2^40. At the bound of the total it counts nothing, and the replica's counters report that.
    #[inline]
    pub fn add(&self, n: i64) {
        if !self.structure.touch(self.id, self.cell().add(n)) {
            self.structure.refused();
        }
    }

    /// Adds `n` > 0 if the cluster-wide count, as known on this node, is at most `limit` afterwards. Returns whether it
    /// added. Exact among the threads of this node; other nodes may admit concurrently, from their own knowledge. An `n`
    /// below zero counts as zero, and an `n` above 2^40 as 2^40. A node's row below zero counts as zero.
    #[must_use]
    pub fn add_within(&self, n: i64, limit: i64) -> bool {
        let others = |cell: &Cell| self.structure.others_taken(self.id, cell);
        let added = self.cell().add_within(n, limit, others);
        self.structure.touch(self.id, added)
    }

    /// Counts one until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.add(1);
        Hold { counter: self.clone() }
    }

    /// Counts one until the guard is dropped, if the cluster-wide count, as known on this node, is at most `limit`
    /// afterwards.
    #[must_use]
    pub fn try_hold(&self, limit: i64) -> Option<Hold> {
        self.add_within(1, limit).then(|| Hold { counter: self.clone() })
    }

    /// This node's own part.
    pub(crate) fn own(&self) -> i64 {
        self.cell().own()
    }

    /// The other actors' count for limits: rows below zero count as zero.
    #[inline]
    pub(crate) fn others(&self) -> i64 {
        self.structure.others_taken(self.id, self.cell())
    }

    /// Returns the count. O(1), no lock.
    pub fn count(&self, now: Time) -> Count {
        let (cell, key) = (self.cell(), self.structure.keys.cells().key_of(self.id));
        let local = self.structure.local(&key, cell.totals());
        self.structure.with_freshness(local.saturating_add(cell.others()), local, now)
    }
}

/// A guard that counts one until it is dropped.
#[derive(Debug)]
pub struct Hold {
    counter: Counter,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.counter.add(-1);
    }
}
