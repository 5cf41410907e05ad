//! A replica of a cache: one entry for each key, the last write of it.
//!
//! The entries form a lattice. The join keeps, for each key, the greater of two writes ([`Rank`]). It is a maximum, so it is
//! commutative, associative, idempotent and monotone, and it reads no clock. The **context** states which writes the replica
//! has taken in. For each of them it holds that write or a later one of the same key, or it held that and has collected it as
//! stable (invariant V). So an arriving write that the context covers, of a key without entry, is superseded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{Actor, Bounds, NodeName, OverBudget, UnixMs, bounds};

use crate::budget::NodeBudget;
use crate::cache::context::{Context, PLACES};
use crate::cache::derived::Derived;
use crate::cache::ending::Ending;
use crate::cache::entry::{Content, Entry, Rank};
use crate::cache::log::Log;
use crate::cache::received::Received;
use crate::cache::runs::RunTable;
use crate::cache::slots::{SlotId, Slots};
use crate::canary::{self, Canary};
use crate::hlc::{HybridClock, Stamp};

/// The most entries that one write removes because the cache is larger than its bounds.
const EVICTED: usize = 64;

/// Positions of the log that are kept with their contexts.
const CHECKPOINTS: usize = 16;

/// A write, as it is written or received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) stamp: Stamp,
    pub(crate) run: &'a Actor,
    pub(crate) number: u64,
    pub(crate) expires_ms: UnixMs,
    /// `None` for a removal.
    pub(crate) value: Option<&'a [u8]>,
}

/// Why a write of this node failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The node is leaving.
    Closed,
    /// Its stamp would be ahead of the wall clock by this much.
    Ahead(Duration),
    /// There is no room for another key.
    Full,
    /// Key and value do not fit within what all objects of the node may hold.
    Budget(OverBudget),
}

/// What became of a received write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// It is the entry of its key now.
    Wins,
    /// It is here already, or a later one is, or was.
    Loses,
    /// There is no room for another key, or for a longer value.
    NoRoom,
}

/// Whether entries have to fit within the budget of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Checked,
    /// They are kept in any case: they were saved.
    Unchecked,
}

/// A replica of a cache.
#[derive(Debug)]
pub(crate) struct CacheMap {
    pub(super) me: Actor,
    /// What all objects of the node hold together.
    pub(super) budget: Arc<NodeBudget>,
    /// Whether entries have to fit within it.
    pub(super) fit: Fit,
    pub(super) slots: Slots,
    pub(super) log: Log,
    pub(super) runs: RunTable,
    /// The writes that were taken in.
    pub(super) seen: Context,
    /// Runs that it has ended and still states.
    pub(super) endings: BTreeMap<NodeName, Ending>,
    /// Removals that were taken in and are no longer held.
    pub(super) collected: Context,
    pub(super) clock: HybridClock,
    pub(super) received: Received,
    pub(super) derived: Derived,
    /// The keys in order, once somebody has listed them.
    pub(super) order: Order,
    /// Own writes up to this one were sent to all linked peers.
    pub(super) sent: u64,
    /// Positions in the log, each with a context that has everything up to it.
    pub(super) checkpoints: Vec<(u64, Context)>,
    /// What has changed since it was saved, if the node saves.
    pub(super) unsaved: Option<Unsaved>,
    /// Writes that count as taken in although this replica never held them: what existed when it joined without them.
    pub(super) skipped: Context,
    /// When it joined without them. Earlier writes that it has not skipped may be older than the skipped ones.
    pub(super) joined: Stamp,
    /// It begins at the context of the first peer that reports.
    pub(super) is_joining: bool,
    /// It takes in only what is written after it joined, so it skips what its peers cannot send.
    pub(super) may_skip: bool,
    pub(super) closed: bool,
    /// Runs in marks for which the context had no room, since this was last asked.
    pub(super) refused_runs: u64,
    /// Entries that this node has removed to keep the cache within its bounds.
    pub(super) evicted: u64,
}

/// What has changed since it was saved.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Slots whose entries have changed.
    pub(crate) slots: BTreeSet<SlotId>,
    /// Keys that have no entry any more.
    pub(crate) gone: BTreeSet<Box<[u8]>>,
}

/// The keys in order.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) keys: BTreeMap<Box<[u8]>, SlotId>,
    /// The keys of slots below this one are in it.
    pub(super) built: SlotId,
}

impl CacheMap {
    /// An empty cache. `seed` is a secret: see [`Slots`].
    pub(crate) fn new(me: Actor, bounds: Bounds, seed: u64, budget: Arc<NodeBudget>) -> Self {
        Self {
            me,
            budget,
            fit: Fit::Checked,
            slots: Slots::new(seed),
            log: Log::default(),
            runs: RunTable::default(),
            seen: Context::default(),
            endings: BTreeMap::new(),
            collected: Context::default(),
            clock: HybridClock::default(),
            received: Received::default(),
            derived: Derived::new(bounds),
            order: Order::default(),
            sent: 0,
            checkpoints: Vec::new(),
            unsaved: None,
            skipped: Context::default(),
            joined: Stamp::default(),
            is_joining: false,
            may_skip: false,
            closed: false,
            refused_runs: 0,
            evicted: 0,
        }
    }

    /// Takes in only what is written from now on.
    pub(crate) fn start_in_the_middle(&mut self) {
        self.is_joining = true;
        self.may_skip = true;
    }

    /// Whether it has skipped no writes.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_joining && self.skipped.len() == 0
    }

    /// A peer reports what it has. A replica that joins without the earlier content begins there. If it has written something, it
    /// takes in everything instead, because what it would skip may be later than that. What it has restored may lack what an
    /// earlier process has skipped.
    pub(crate) fn begin_at(&mut self, said: &Context, unix_ms: UnixMs) {
        if !std::mem::take(&mut self.is_joining) {
            return;
        }
        if self.held() == 0 {
            self.seen.join(said);
            self.joined = Stamp::at(unix_ms);
        }
        self.skipped.join(&self.seen);
        self.skipped.lower(&self.me, 0);
    }

    /// The last position of the log.
    pub(crate) fn log_end(&self) -> u64 {
        self.log.end()
    }

    /// The writes that were taken in.
    pub(crate) fn seen(&self) -> &Context {
        &self.seen
    }

    /// The runs that entries name.
    pub(crate) fn runs(&self) -> &RunTable {
        &self.runs
    }

    /// Up to which write a run's writes were skipped, and up to which its removals were collected.
    pub(crate) fn passed_over(&self, run: &Actor) -> (u64, u64) {
        let number = |context: &Context| Some(context.reached(run)).filter(|number| *number < u64::MAX).unwrap_or(0);
        (number(&self.skipped), number(&self.collected))
    }

    /// The entries behind a position of the log, in order.
    pub(crate) fn behind(&self, position: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.log.behind(position).filter_map(|(at, slot)| Some((at, self.slots.get(slot)?)))
    }

    /// The entry of a key, removed ones included.
    #[inline]
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.slots.get(self.slots.find(key)?)
    }

    /// The writer of an entry.
    pub(crate) fn writer(&self, entry: &Entry) -> &Actor {
        self.runs.get(entry.run).unwrap_or(&self.me)
    }

    /// The latest run of a node that has written: one whose writes are counted, or one that an entry still names.
    pub(crate) fn latest(&self, node: &NodeName) -> Option<&Actor> {
        let counted = self.seen.runs().map(|(run, _)| run);
        let named = self.runs.iter().map(|(run, _)| run);
        counted.chain(named).filter(|run| run.node == *node).max()
    }

    /// The number of this run's last write.
    pub(crate) fn head(&self) -> u64 {
        self.seen.reached(&self.me)
    }

    /// Writes or removes a key under the next stamp, and makes room if the cache is larger than its bounds. Passes each key
    /// that changes to `changed`.
    pub(crate) fn write(
        &mut self,
        key: &[u8],
        value: Option<(UnixMs, &[u8])>,
        unix_ms: UnixMs,
        mut changed: impl FnMut(&[u8]),
    ) -> Result<Stamp, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        let stamp = self.clock.next(unix_ms).map_err(Refused::Ahead)?;
        self.received.note(stamp);
        if !self.write_at(key, value, stamp) {
            return Err(self.refuse_write(key, value.map_or(0, |(_, value)| value.len())));
        }
        changed(key);
        for _ in 0..EVICTED {
            let Some(slot) = self.derived.excess(unix_ms) else { break };
            let Some((evicted, at)) = self.slots.get(slot).map(|entry| (entry.key().to_vec(), entry.stamp)) else {
                break;
            };
            if evicted == key || !self.write_at(&evicted, None, at) {
                break;
            }
            self.evicted += 1;
            changed(&evicted);
        }
        Ok(stamp)
    }

    /// Writes a key as this run's next write. Returns whether there was room.
    pub(super) fn write_at(&mut self, key: &[u8], value: Option<(UnixMs, &[u8])>, stamp: Stamp) -> bool {
        let me = self.me.clone();
        let number = self.head() + 1;
        let (expires_ms, value) = value.map_or((UnixMs::ZERO, None), |(expires_ms, value)| (expires_ms, Some(value)));
        if !self.install(&Write { key, stamp, run: &me, number, expires_ms, value }) {
            return false;
        }
        self.seen.raise(&me, number);
        true
    }

    /// Joins a received write. The writes of its run up to `reached` were taken in.
    pub(crate) fn join(&mut self, write: &Write<'_>, reached: u64) -> Joined {
        self.clock.observe(write.stamp);
        let Some(old) = self.get(write.key) else {
            let is_superseded = write.number <= reached && !canary::broken(Canary::SupersededTaken);
            if is_superseded {
                return Joined::Loses;
            }
            if write.stamp < self.joined {
                self.skipped.admit(write.run, write.number, PLACES);
                return Joined::Loses;
            }
            return if self.install(write) { Joined::Wins } else { Joined::NoRoom };
        };
        if !write.rank().wins(&self.rank(old)) {
            return Joined::Loses;
        }
        if self.install(write) { Joined::Wins } else { Joined::NoRoom }
    }

    fn rank<'a>(&'a self, entry: &'a Entry) -> Rank<'a> {
        let value = (entry.expires_ms, entry.value());
        Rank::new(entry.stamp, value, (self.writer(entry), entry.number))
    }

    /// Number of readable entries at a time.
    pub(crate) fn len(&self, unix_ms: UnixMs) -> u64 {
        self.derived.entries.saturating_sub(self.derived.expired(unix_ms))
    }

    /// Number of keys that are held, removed ones included.
    pub(crate) fn held(&self) -> usize {
        self.slots.len()
    }

    /// Entries that this node has removed to keep the cache within its bounds.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// What follows from the entries.
    pub(crate) fn derived(&self) -> &Derived {
        &self.derived
    }

    /// Memory in bytes, without the overhead of the allocator.
    pub(crate) fn heap_bytes(&self) -> usize {
        let order: usize = self.order.keys.keys().map(|key| key.len() + 40).sum();
        let contents = usize::try_from(self.derived.bytes).unwrap_or(usize::MAX) + self.slots.len() * 16;
        self.slots.bytes() + self.log.bytes() + self.derived.heap_bytes() + order + contents
    }

    /// A write with this stamp was received.
    pub(crate) fn note_received(&mut self, stamp: Stamp) {
        self.received.note(stamp);
    }

    /// This run.
    pub(crate) fn me(&self) -> &Actor {
        &self.me
    }

    /// A position up to which a peer with this context has everything.
    pub(crate) fn start_for(&self, reported: &Context) -> u64 {
        self.checkpoints.iter().rev().find(|(_, context)| context.is_within(reported)).map_or(0, |(at, _)| *at)
    }

    /// Notes what was received up to the end of the log, so that a peer that has it can begin there. Keeps fewer and fewer of
    /// the older notes.
    pub(crate) fn note_position(&mut self) {
        if self.checkpoints.last().is_some_and(|(at, _)| *at == self.log.end()) {
            return;
        }
        let mut context = self.seen.clone();
        self.runs.add_highest(&mut context);
        self.checkpoints.push((self.log.end(), context));
        if self.checkpoints.len() > CHECKPOINTS {
            let mut at = 0;
            self.checkpoints.retain(|_| {
                at += 1;
                at % 2 == 0
            });
        }
    }

    /// This replica counts more of a run as taken in than its owner has written: another member has lied, or another process was
    /// in that run. The replica does not know what it lacks, and takes in the run's writes again.
    pub(crate) fn distrust(&mut self, run: &Actor) {
        self.seen.lower(run, 0);
        self.skipped.lower(run, 0);
    }

    /// No peer can send the writes of a run up to this one, because all have joined without them. Neither has this replica.
    pub(crate) fn skip(&mut self, run: &Actor, upto: u64) {
        if self.seen.admit(run, upto, bounds::ACTORS_CONTENDED) {
            self.skipped.admit(run, upto, bounds::ACTORS_CONTENDED);
        }
    }

    /// Own writes up to this one were sent to all linked peers.
    pub(crate) fn note_sent(&mut self, upto: Option<u64>) {
        self.sent = upto.unwrap_or(0);
    }

    /// Runs in marks for which the context had no room, since the last call.
    pub(crate) fn take_refused_runs(&mut self) -> u64 {
        std::mem::take(&mut self.refused_runs)
    }

    /// No more writes of this node.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }
}

impl<'a> Write<'a> {
    fn rank(&self) -> Rank<'a> {
        Rank::new(self.stamp, (self.expires_ms, self.value), (self.run, self.number))
    }

    /// The entry that states this write, without its position and the number of its run.
    pub(super) fn entry(&self) -> Entry {
        let bytes: Arc<[u8]> = match self.value {
            Some(value) => [self.key, value].concat().into(),
            None => self.key.into(),
        };
        Entry {
            bytes,
            stamp: self.stamp,
            number: self.number,
            expires_ms: if self.value.is_some() { self.expires_ms } else { UnixMs::ZERO },
            position: 0,
            run: 0,
            key_len: u16::try_from(self.key.len()).unwrap_or(u16::MAX),
            content: if self.value.is_some() { Content::Value } else { Content::Removed },
            over_own: false,
        }
    }
}
