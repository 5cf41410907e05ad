//! A gauge cache, shared by handles and driver: counters by name that expire when they have not changed for long.
//!
//! The counts are those of a [`Structure`] of events. Rows of all runs count. The removal of an entry clears the totals that
//! are known of it, so concurrent counts stay. Each node determines the last change of an entry from the rows that reach it.
//! [Marks](crate::counter::marks) state the age of rows that arrive late.
#![allow(clippy::cast_possible_truncation, reason = "the remainder is below the number of nodes")]

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::{Actor, GaugeCacheSpec, Incarnation, UnixMs, Version};

use crate::counter::ages::{Ages, Moment};
use crate::counter::marks::RowLeft;
use crate::counter::structure::{Entry, Structure};
use crate::counter::watch::Watch;
use crate::keyspace::hash::key_hash;
use crate::keyspace::totals::Totals;
use crate::time::{Now, Time};

/// Number of changes that wait in the queue. Beyond that, all entries are treated as changed.
const CHANGES: usize = 1 << 16;

/// Number of entries that one change removes at most when there are too many.
const EVICTED: usize = 64;

/// The delay of each next node in clearing an expired entry. The first node is a different one for each key.
const TURN: Duration = Duration::from_secs(5);

/// On nodes that have restarted or joined, an entry may stay longer by this fraction of its time to live.
const MARKS_PER_TTL: u32 = 8;

/// A node marks an actor's rows at most once per second.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// A gauge cache: names, each with a count that all nodes add to. An entry expires some time after its last change on any
/// node.
///
/// All methods may be called from any number of threads. They take a lock of the gauge cache and the ledger lock.
pub struct GaugeCache {
    spec: GaugeCacheSpec,
    structure: Arc<Structure>,
    watch: Arc<Watch>,
    ages: Mutex<Ages>,
}

impl GaugeCache {
    pub(crate) fn new(spec: GaugeCacheSpec, structure: Arc<Structure>) -> Self {
        let watch = structure.watch(CHANGES, Arc::new(|| ()));
        Self { spec, structure, watch, ages: Mutex::default() }
    }

    /// The configuration of the gauge cache.
    pub fn spec(&self) -> &GaugeCacheSpec {
        &self.spec
    }

    /// The structure that holds its counts.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// Adds `n`; a negative `n` subtracts. Creates the entry if there is none. If there are then too many entries, the
    /// oldest are removed.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a valid key; then nothing is counted.
    pub fn add(&self, key: &[u8], n: i64, now: Time) -> Result<(), KeyError> {
        self.expire(key, now)?;
        self.structure.add(key, n)?;
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let Some(most) = self.spec.max_elements else { return Ok(()) };
        for _ in 0..EVICTED {
            if ages.len() as u64 <= most.get() {
                break;
            }
            // The changed entry is as young as any other entry that changed at the same moment.
            let oldest = ages.oldest().map(|(_, oldest)| oldest).find(|oldest| *oldest != key).cloned();
            let Some(oldest) = oldest else { break };
            self.structure.clear(&oldest)?;
            self.observe(&mut ages, now);
        }
        Ok(())
    }

    /// Returns the count of a key; `None` when there is no entry.
    pub fn get(&self, key: &[u8], now: Time) -> Option<i64> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let changed = ages.get(key)?;
        (!self.expired(changed, now)).then(|| self.structure.count(key, now).total)
    }

    /// Removes an entry on all nodes. Returns whether there was one. Concurrent counts of other nodes that are not known
    /// here stay.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a valid key.
    pub fn remove(&self, key: &[u8], now: Time) -> Result<bool, KeyError> {
        let there = self.get(key, now).is_some();
        self.structure.clear(key)?;
        self.observe(&mut self.ages.lock(), now);
        Ok(there)
    }

    /// Returns at most `limit` entries behind `after`, in order of key.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, now: Time) -> Vec<Entry> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let there = ages.behind(after).filter(|(_, at)| !self.expired(*at, now));
        let entry = |key: &Vec<u8>| Entry { key: key.clone(), count: self.structure.count(key, now).total };
        there.take(limit).map(|(key, _)| entry(key)).collect()
    }

    /// Number of entries, including expired entries that are not cleared yet.
    pub fn len(&self, now: Time) -> usize {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        ages.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self, now: Time) -> bool {
        self.len(now) == 0
    }

    fn expired(&self, changed: Moment, now: Time) -> bool {
        !self.spec.ttl.is_zero() && changed.age(now) >= self.spec.ttl
    }

    /// Clears an expired entry, so that its old count does not return with the next change.
    fn expire(&self, key: &[u8], now: Time) -> Result<(), KeyError> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        if ages.get(key).is_some_and(|changed| self.expired(changed, now)) {
            self.structure.clear(key)?;
            self.observe(&mut ages, now);
        }
        Ok(())
    }

    /// Updates the ages by the changes since the last call.
    fn observe(&self, ages: &mut Ages, now: Time) {
        self.structure.commit();
        let (mut changed, lost) = self.watch.take();
        if lost > 0 {
            // Keys that exist, and keys that may no longer exist.
            changed = self.structure.keys_under(&[]);
            changed.extend(ages.behind(None).map(|(key, _)| key.clone()));
        }
        changed.sort_unstable();
        changed.dedup();
        for key in changed {
            let rows = self.structure.rows_left(&key);
            ages.note(key, &rows, now);
        }
    }

    /// Clears expired entries, each node in its turn: the first node clears an entry for all nodes, and if that node is
    /// gone, the next one does. Writes marks for the nodes that receive the rows later. `cluster_ms` is the time of the
    /// cluster's clock, if that is certain.
    pub(crate) fn maintain(&self, now: Now, cluster_ms: Option<UnixMs>) {
        let mut ages = self.ages.lock();
        let Now { mono: now, .. } = now;
        self.observe(&mut ages, now);
        for key in ages.doubtful() {
            let rows = self.structure.rows_left(&key);
            ages.settle(key, &rows, cluster_ms, now);
        }
        let expired = ages.oldest().take_while(|(changed, _)| self.expired(*changed, now));
        let place = self.structure.place();
        let due = expired.filter(|(changed, key)| changed.age(now) >= self.spec.ttl + turn(place, key));
        let due: Vec<_> = due.map(|(_, key)| key.clone()).collect();
        for key in due {
            // The key of an existing entry is always valid.
            let _ = self.structure.clear(&key);
        }
        self.observe(&mut ages, now);
        if let Some(cluster_ms) = cluster_ms.filter(|_| !self.spec.ttl.is_zero()) {
            self.mark(&mut ages, now, place.0, cluster_ms);
        }
    }

    /// Marks this node's own rows if they have changed, and the rows of actors that no longer write marks.
    fn mark(&self, ages: &mut Ages, now: Time, place: usize, cluster_ms: UnixMs) {
        let interval = (self.spec.ttl / MARKS_PER_TTL).max(LEAST_INTERVAL);
        let ours = self.structure.actor();
        let others = interval * 2 + TURN * u32::try_from(place).unwrap_or(u32::MAX);
        let patience = |actor: &Actor| if *actor == ours { Duration::ZERO } else { others };
        ages.forget_gone(|actor| self.structure.holds(actor));
        let covered = |actor: &Actor, version| self.structure.marked(actor, version).is_some();
        for (actor, upto) in ages.unmarked(now, (interval, patience), covered) {
            self.structure.mark(&actor, upto, cluster_ms);
        }
    }
}

/// How long after the first node this node clears a key. `place` is that of [`Structure::place`].
fn turn((place, nodes): (usize, usize), key: &[u8]) -> Duration {
    let first = (key_hash(key) % nodes as u64) as usize;
    TURN * u32::try_from((place + nodes - first) % nodes).unwrap_or(u32::MAX)
}

impl fmt::Debug for GaugeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GaugeCache").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

impl Structure {
    /// The rows of a key that were not cleared, including rows that count zero.
    fn rows_left(&self, key: &[u8]) -> Vec<RowLeft> {
        self.ledger.read().rows_left(key, &self.keys)
    }

    fn actor(&self) -> Actor {
        self.ledger.read().actor().clone()
    }

    fn marked(&self, actor: &Actor, version: Version) -> Option<u64> {
        self.ledger.read().marked(actor, version)
    }

    /// Writes a mark: the rows of an actor up to a version changed for the last time before `unix_ms`.
    fn mark(&self, actor: &Actor, upto: Version, unix_ms: UnixMs) {
        let mut ledger = self.ledger.write();
        let mark = ledger.next_mark(actor);
        self.raise(&mark, Totals { added: upto.0, removed: unix_ms.0 });
        self.commit_locked(&mut ledger);
    }

    /// This node's position among the nodes of which there are rows, in order of name, and the number of these nodes. O(nodes),
    /// however many runs each of them has had.
    fn place(&self) -> (usize, usize) {
        let ledger = self.ledger.read();
        let (mut place, mut nodes) = (0, 0);
        let mut next = ledger.actors().iter().next();
        while let Some((Actor { node, .. }, _)) = next {
            if *node == ledger.actor().node {
                place = nodes;
            }
            nodes += 1;
            let last = Actor::new(node.clone(), Incarnation(u64::MAX));
            next = ledger.actors().range((Bound::Excluded(last), Bound::Unbounded)).next();
        }
        (place, nodes.max(1))
    }
}
