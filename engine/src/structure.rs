//! A replicated structure as handles and driver share it: counting and reading from any thread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, Cell as CellKind, Kind, NodeName, StructureId, StructureSpec};

use crate::cell::{self, Added, Cell};
use crate::keys::Keys;
use crate::ledger::{Debts, Ledger};
use crate::primitive::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, RwLock};
use crate::radix::KeyOf;
use crate::slots::CellId;
use crate::time::Time;
use crate::watch::{Growth, Watch, Watchers};

/// Called when something changed that the driver should look at; from any thread, and it must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// A structure: keys, each with a count that is this node's own part and what the other nodes have told.
///
/// All methods may be called from any number of threads. Counting takes the lock of one of 128 shards of the keys for
/// reading, or none with a [`Counter`]; whatever has to look at the rows takes the structure's one ledger lock.
pub struct Structure {
    spec: StructureSpec,
    pub(crate) keys: Keys,
    pub(crate) ledger: RwLock<Ledger>,
    pub(crate) watchers: Watchers,
    /// Cells that are listed as changed and not committed yet.
    pub(crate) pending: AtomicUsize,
    wake: Wake,
    pub(crate) head: AtomicU64,
    counted: AtomicU32,
    stalest: AtomicU64,
    /// Whether anything was cleared.
    cleared: AtomicBool,
    /// The bounds that were reached in it.
    pub(crate) tally: bound::Tally,
    /// Of a cache: by how many milliseconds the cluster's time is ahead of this node's wall clock, if that is far behind.
    pub(crate) lead: AtomicU64,
    /// What the cluster's time is at most until that is looked at again.
    pub(crate) lead_upto: AtomicU64,
    /// Additions that were refused.
    refused: AtomicU64,
    /// What others owe where their gauges are below zero.
    debts: Arc<Debts>,
}

/// A cluster-wide count as one node knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Count {
    /// Everything: our own part and what the others that count have told.
    pub total: i64,
    /// What was counted on this node.
    pub local: i64,
    /// Actors that count in this structure, this node included.
    pub actors: u32,
    /// How long ago the stalest of them was last known to be up to date here; zero when there is no other.
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
    pub(crate) fn new(spec: StructureSpec, actor: Actor, seed: u64, wake: Wake) -> Self {
        let keys = Keys::new(seed);
        let ledger = Ledger::new(spec.class, spec.bounds, actor, Arc::clone(keys.cells()));
        Self {
            debts: Arc::clone(ledger.debts()),
            ledger: RwLock::new(ledger),
            keys,
            watchers: Watchers::default(),
            pending: AtomicUsize::new(0),
            wake,
            head: AtomicU64::new(0),
            counted: AtomicU32::new(1),
            stalest: AtomicU64::new(Time::NEVER.0),
            cleared: AtomicBool::new(false),
            tally: bound::Tally::default(),
            lead: AtomicU64::new(0),
            lead_upto: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            spec,
        }
    }

    /// How it is configured.
    pub fn spec(&self) -> &StructureSpec {
        &self.spec
    }

    /// Its name on the wire.
    pub fn id(&self) -> StructureId {
        self.spec.name.id()
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.spec.class.kind()
    }

    /// Adds `n` to this node's own part; a negative `n` removes. One step moves a count by at most
    /// [`limits::STEP`](tallymesh_schemas::limits::STEP), 2^40, in either direction: a larger one counts as that much, and
    /// is no error. Who takes `n` from outside checks it first. O(1); no allocation for a key that is there.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind, or all that this node has added to it, or taken off it, is
    /// at its bound, [`limits::TOTAL`](tallymesh_schemas::limits::TOTAL); nothing is counted then.
    #[inline]
    pub fn add(&self, key: &[u8], n: i64) -> Result<(), KeyError> {
        let counted = match self.keys.with(key, |id, cell| self.touch(id, cell.add(n))) {
            Some(counted) => counted,
            None => {
                key::check(self.kind(), key)?;
                self.keys.with_or_new(key, |id, cell| self.touch(id, cell.add(n)))
            }
        };
        if !counted {
            self.refused();
            return Err(KeyError::Total);
        }
        Ok(())
    }

    /// The counter of a key, for keys that are counted often: adding through it looks nothing up.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind.
    pub fn counter(self: &Arc<Self>, key: &[u8]) -> Result<Counter, KeyError> {
        key::check(self.kind(), key)?;
        let id = self.keys.with_or_new(key, |id, cell| {
            // Listed although nothing changed, so that it is let go of if nothing ever does.
            self.touch(id, cell.add(0));
            cell.hold();
            id
        });
        Ok(Counter { structure: Arc::clone(self), id })
    }

    /// Says that there is something to be sent.
    pub(crate) fn wake(&self) {
        (self.wake)();
    }

    /// Takes note of what an addition has done. Whether it has counted.
    #[inline]
    fn touch(&self, id: CellId, added: Added) -> bool {
        if added == Added::First {
            // Counted before it is listed: what a commit takes off the list is never more than what is pending.
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

    /// Additions that were refused since this was asked last, because a total was at its bound, and who has taken gauges below
    /// zero how often.
    pub(crate) fn take_faults(&self) -> (u64, BTreeMap<Actor, u64>) {
        (self.refused.swap(0, Ordering::Relaxed), self.debts.take_falls())
    }

    /// Changed keys that wait to be committed.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// Writes what has changed here into the rows. Reads that look at more than one key do it themselves.
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
        if self.is_cache() {
            // Writes go into the rows at once, and wait only to be sent.
            self.pending.store(0, Ordering::SeqCst);
        } else {
            self.pending.fetch_sub(dirty.len(), Ordering::SeqCst);
        }
        self.watchers.with_sink(|changed| ledger.commit(&mut dirty, &self.keys, changed));
        self.tally.reached_times(Bound::Rows, ledger.take_rows_without_room());
        self.note_head(ledger);
        self.cleared.store(ledger.has_cleared(), Ordering::Relaxed);
    }

    /// Writes what a counter's key counts here into its row, whether or not the key is listed as changed.
    pub(crate) fn commit_cell(&self, ledger: &mut Ledger, counter: &Counter) {
        self.watchers.with_sink(|changed| ledger.commit(&mut vec![counter.id], &self.keys, changed));
        self.note_head(ledger);
    }

    /// The count of a key. O(1).
    pub fn count(&self, key: &[u8], now: Time) -> Count {
        let (totals, others) = self.keys.with(key, |_, cell| (cell.totals(), cell.others())).unwrap_or_default();
        let local = self.local(key, totals);
        self.with_freshness(local.saturating_add(others), local, now)
    }

    /// What a key counts for a limit: as [`Structure::count`], but that every node's row below zero counts as zero. O(1).
    pub fn taken(&self, key: &[u8]) -> i64 {
        let taken = |id, cell: &Cell| cell.own().max(0).saturating_add(self.others_taken(id, cell));
        self.keys.with(key, taken).unwrap_or(0)
    }

    /// What others count for a limit.
    #[inline]
    fn others_taken(&self, id: CellId, cell: &Cell) -> i64 {
        let owed = if cell.is_in_debt() { self.debts.of(id) } else { 0 };
        cell.others().saturating_add(owed)
    }

    /// The sum of all counts under an address block. O(key length) and one run over neighbouring sums, whatever lies
    /// under the block, after writing what has changed here since the last look. Of one address it is [`Structure::count`].
    pub fn count_net(&self, net: IpNet, now: Time) -> Count {
        let net = key::canonical(net);
        if net.prefix_len() == net.max_prefix_len() {
            let (key, n) = key::from_net(net);
            return self.count(&key[..n], now);
        }
        self.commit();
        let sum = self.ledger.read().sum_net(net);
        self.with_freshness(sum.all, sum.own, now)
    }

    /// What our totals of a key count.
    #[inline(always)]
    fn local(&self, key: &[u8], totals: (u64, u64)) -> i64 {
        if self.cleared.load(Ordering::Relaxed) {
            self.ledger.read().own_value(key, totals)
        } else {
            cell::value(totals)
        }
    }

    /// Clears a key of events: what all nodes have counted for it, as far as it is known here, counts no more, here and
    /// everywhere. What is counted at the same time and is not known here yet goes on counting. O(actors).
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a key of the structure's kind, or the structure holds gauges: those end when they
    /// are closed.
    pub fn clear(&self, key: &[u8]) -> Result<(), KeyError> {
        key::check(self.kind(), key)?;
        if self.spec.class.cell() != CellKind::Events {
            return Err(KeyError::Gauge);
        }
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        for (actor, row) in ledger.rows_of_key(key, &self.keys) {
            let note = key::cleared(&actor, key);
            self.raise(&note, row.added, row.removed);
        }
        self.commit_locked(&mut ledger);
        Ok(())
    }

    /// Raises our totals of a key to at least those given.
    pub(crate) fn raise(&self, key: &[u8], added: u64, removed: u64) {
        self.keys.with_or_new(key, |id, cell| self.touch(id, cell.raise(added, removed)));
    }

    fn with_freshness(&self, total: i64, local: i64, now: Time) -> Count {
        let stalest = Time(self.stalest.load(Ordering::Relaxed));
        Count { total, local, actors: self.counted.load(Ordering::Relaxed), stalest: now.since(stalest) }
    }

    /// What one node counts for a key: gauges in its latest run, events in all of its runs; `None` when nothing is known
    /// of that node. Rows that do not count in the cluster's view, because the node is dead, are shown all the same.
    pub fn count_from(&self, node: &NodeName, key: &[u8]) -> Option<i64> {
        self.commit();
        let ledger = self.ledger.read();
        ledger.latest(node)?;
        let id = self.keys.find(key);
        let rows = ledger
            .counted_runs(node)
            .filter_map(|(actor, actor_rows)| Some((actor, id?, actor_rows.find(id?, ledger.cells())?.1)));
        Some(rows.fold(0, |sum, (actor, id, state)| sum.saturating_add(ledger.value(actor, id, &state.row))))
    }

    /// The sum of what one node counts under an address block. O(rows of that node).
    pub fn count_net_from(&self, node: &NodeName, net: IpNet) -> Option<i64> {
        self.commit();
        let ledger = self.ledger.read();
        ledger.latest(node)?;
        let runs = ledger.counted_runs(node);
        Some(runs.fold(0, |sum, (actor, actor_rows)| sum.saturating_add(ledger.sum_net_of(actor, actor_rows, net))))
    }

    /// The latest run of a node that rows are known of here.
    pub fn latest(&self, node: &NodeName) -> Option<Actor> {
        self.ledger.read().latest(node).map(|(actor, _)| actor.clone())
    }

    /// Keys that are known here.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// Starts to tell of every key whose count changes here, whoever changed it. A watcher that does not read loses the
    /// oldest changes beyond `capacity` and is told how many.
    pub fn watch(&self, capacity: usize, wake: Wake) -> Arc<Watch> {
        self.watchers.add(capacity, &[], wake)
    }

    /// As [`Structure::watch`], of keys that begin with `prefix` only.
    pub(crate) fn watch_under(&self, prefix: &[u8], capacity: usize, wake: Wake) -> Arc<Watch> {
        self.watchers.add(capacity, prefix, wake)
    }

    /// Collects how much the others count more of each key, the rows by which limits are shared excepted.
    pub(crate) fn growth(&self, capacity: usize) -> Arc<Growth> {
        self.watchers.growth(capacity, key::SHARING)
    }

    /// What the others count of a key, as this node knows it. O(1).
    pub fn others(&self, key: &[u8]) -> i64 {
        self.keys.with(key, |id, cell| self.others_taken(id, cell)).unwrap_or(0)
    }

    /// Recomputes every cached aggregate from the rows.
    ///
    /// # Errors
    /// Says which one differs. That is a fault of the engine; the simulator looks for it after every step.
    pub fn audit(&self) -> Result<(), String> {
        let mut ledger = self.ledger.write();
        self.commit_locked(&mut ledger);
        ledger.audit()
    }

    /// Bytes of rows, logs and indexes, allocator overhead not included.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.ledger.read().bytes()
    }

    /// Sums up who counts and how fresh that is, for the reads to come.
    pub(crate) fn refresh(&self) {
        let ledger = self.ledger.read();
        let (mut counted, mut stalest) = (0, Time::NEVER);
        let mut parts = ledger.all_actor_rows().iter().peekable();
        while let Some((actor, actor_rows)) = parts.next() {
            // An earlier run counts nothing any more, so its rows cannot be out of date. The next one of its node follows.
            let earlier = parts.peek().is_some_and(|(next, _)| next.node == actor.node);
            counted += u32::from(actor_rows.counts);
            if actor_rows.counts && !earlier && actor != ledger.actor() {
                stalest = stalest.min(actor_rows.confirmed);
            }
        }
        self.counted.store(counted, Ordering::Relaxed);
        self.stalest.store(stalest.0, Ordering::Relaxed);
        self.cleared.store(ledger.has_cleared(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Structure").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

/// The counter of one key, resolved once. Cheap to clone; adding takes a few nanoseconds and no lock.
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

    /// Adds `n` to this node's own part; a negative `n` removes. A step beyond 2^40 either way counts as that much, as
    /// with [`Structure::add`]. At the bound of that it counts nothing, and the replica's counters say so.
    #[inline]
    pub fn add(&self, n: i64) {
        if !self.structure.touch(self.id, self.cell().add(n)) {
            self.structure.refused();
        }
    }

    /// Adds `n` > 0 if the cluster-wide count as known here is then at most `limit`. Whether it did. Exact among the
    /// threads of this node; other nodes may admit at the same time, by what they know. An `n` below zero counts as zero,
    /// and one above 2^40 as that much. Where a node has taken the count below zero, its part counts as zero.
    #[must_use]
    pub fn add_within(&self, n: i64, limit: i64) -> bool {
        let others = |cell: &Cell| self.structure.others_taken(self.id, cell);
        let added = self.cell().add_within(n, limit, others);
        self.structure.touch(self.id, added)
    }

    /// Counts one from now until the guard is dropped.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.add(1);
        Hold { counter: self.clone() }
    }

    /// Counts one until the guard is dropped, if the cluster-wide count as known here is then at most `limit`.
    #[must_use]
    pub fn try_hold(&self, limit: i64) -> Option<Hold> {
        self.add_within(1, limit).then(|| Hold { counter: self.clone() })
    }

    /// This node's own part.
    pub(crate) fn own(&self) -> i64 {
        self.cell().own()
    }

    /// What the others count, for limits: rows below zero count as zero.
    #[inline]
    pub(crate) fn others(&self) -> i64 {
        self.structure.others_taken(self.id, self.cell())
    }

    /// The count. O(1), no lock.
    pub fn count(&self, now: Time) -> Count {
        let (cell, key) = (self.cell(), self.structure.keys.cells().key_of(self.id));
        let local = self.structure.local(&key, cell.totals());
        self.structure.with_freshness(local.saturating_add(cell.others()), local, now)
    }
}

/// Something that counts one while it is open.
#[derive(Debug)]
pub struct Hold {
    counter: Counter,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.counter.add(-1);
    }
}
