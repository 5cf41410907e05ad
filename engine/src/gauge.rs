//! A gauge cache as handles and driver share it: counters by name that go when nobody has changed them for long.
//!
//! The counts are those of a [`Structure`] of events: rows of all runs count, and to remove an entry is to clear what is
//! known of it, so that what is counted at the same time stays. When an entry last changed is for each node to say, by what
//! came to it; of rows that come late, [marks](crate::ledger) say how old they are.

mod ages;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_schemas::key::KeyError;
use tallymesh_schemas::{Actor, GaugeCacheSpec, Version};

use self::ages::{Ages, Moment};
use crate::ledger::RowLeft;
use crate::row::key_hash;
use crate::structure::{Entry, Structure};
use crate::time::{Now, Time};
use crate::watch::Watch;

/// Changes that wait to be looked at. When there are more, all entries are taken to have changed.
const CHANGES: usize = 1 << 16;

/// Entries that one change removes at most where there are too many.
const EVICTED: usize = 64;

/// By how much later each next node clears what has expired. Who is first is another one for each key.
const TURN: Duration = Duration::from_secs(5);

/// An entry stays longer by this part of its time to live at most, on nodes that have restarted or joined.
const MARKS_PER_TTL: u32 = 8;

/// Rows are marked once a second at most.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// A gauge cache: names, each with a count that all nodes add to and that expires after its last change anywhere.
///
/// All methods may be called from any number of threads. They take a lock of the gauge cache and the ledger's.
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

    /// How it is configured.
    pub fn spec(&self) -> &GaugeCacheSpec {
        &self.spec
    }

    /// The structure below.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    /// Adds `n`, negative to take away; makes the entry if there is none. Where that makes too many, the oldest go.
    ///
    /// # Errors
    /// [`KeyError`] when the key is none; nothing is counted then.
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
            // The one that is added to is as young as any other that has changed in the same moment.
            let oldest = ages.oldest().map(|(_, oldest)| oldest).find(|oldest| *oldest != key).cloned();
            let Some(oldest) = oldest else { break };
            self.structure.clear(&oldest)?;
            self.observe(&mut ages, now);
        }
        Ok(())
    }

    /// What is counted for a key; `None` when there is no entry.
    pub fn get(&self, key: &[u8], now: Time) -> Option<i64> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let changed = ages.get(key)?;
        (!self.expired(changed, now)).then(|| self.structure.count(key, now).total)
    }

    /// Removes an entry, on all nodes; whether there was one. What is counted elsewhere at the same time, and is not known
    /// here yet, stays.
    ///
    /// # Errors
    /// [`KeyError`] when the key is none.
    pub fn remove(&self, key: &[u8], now: Time) -> Result<bool, KeyError> {
        let there = self.get(key, now).is_some();
        self.structure.clear(key)?;
        self.observe(&mut self.ages.lock(), now);
        Ok(there)
    }

    /// Entries behind `after` in order of key, at most `limit`.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, now: Time) -> Vec<Entry> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let there = ages.behind(after).filter(|(_, at)| !self.expired(*at, now));
        let entry = |key: &Vec<u8>| Entry { key: key.clone(), count: self.structure.count(key, now).total };
        there.take(limit).map(|(key, _)| entry(key)).collect()
    }

    /// Entries, those included that have expired and are not cleared yet.
    pub fn len(&self, now: Time) -> usize {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        ages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self, now: Time) -> bool {
        self.len(now) == 0
    }

    fn expired(&self, changed: Moment, now: Time) -> bool {
        !self.spec.ttl.is_zero() && changed.age(now) >= self.spec.ttl
    }

    /// What has expired does not come back with the next change.
    fn expire(&self, key: &[u8], now: Time) -> Result<(), KeyError> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        if ages.get(key).is_some_and(|changed| self.expired(changed, now)) {
            self.structure.clear(key)?;
            self.observe(&mut ages, now);
        }
        Ok(())
    }

    /// Takes note of what has changed since the last look.
    fn observe(&self, ages: &mut Ages, now: Time) {
        self.structure.commit();
        let (mut changed, lost) = self.watch.take();
        if lost > 0 {
            // What is there, and what may be no more.
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

    /// Clears what has expired, each node in its turn: whoever is first does it for all, and if that node is gone, the next one.
    /// Says how old the rows are, for those that get them later. `cluster_ms` is what the clock of the cluster shows, if that is
    /// certain.
    pub(crate) fn maintain(&self, now: Now, cluster_ms: Option<u64>) {
        let mut ages = self.ages.lock();
        let Now { mono: now, .. } = now;
        self.observe(&mut ages, now);
        for key in ages.doubtful() {
            let rows = self.structure.rows_left(&key);
            ages.settle(key, &rows, cluster_ms, now);
        }
        let expired = ages.oldest().take_while(|(changed, _)| self.expired(*changed, now));
        let due = expired.filter(|(changed, key)| changed.age(now) >= self.spec.ttl + self.turn(key));
        let due: Vec<_> = due.map(|(_, key)| key.clone()).collect();
        for key in due {
            // A key that is there is a key.
            let _ = self.structure.clear(&key);
        }
        self.observe(&mut ages, now);
        if let Some(cluster_ms) = cluster_ms.filter(|_| !self.spec.ttl.is_zero()) {
            self.mark(&mut ages, now, cluster_ms);
        }
    }

    /// Marks our own rows where they have changed, and those of others that do not do it themselves.
    fn mark(&self, ages: &mut Ages, now: Time, cluster_ms: u64) {
        let interval = (self.spec.ttl / MARKS_PER_TTL).max(LEAST_INTERVAL);
        let (ours, place) = (self.structure.actor(), self.structure.place().0);
        let others = interval * 2 + TURN * u32::try_from(place).unwrap_or(u32::MAX);
        let patience = |actor: &Actor| if *actor == ours { Duration::ZERO } else { others };
        ages.retain(|actor| self.structure.progress(actor).is_some());
        let covered = |actor: &Actor, version| self.structure.marked(actor, version).is_some();
        for (actor, upto) in ages.unmarked(now, (interval, patience), covered) {
            self.structure.mark(&actor, upto, cluster_ms);
        }
    }

    /// How long after the first node this one clears a key.
    fn turn(&self, key: &[u8]) -> Duration {
        let (place, nodes) = self.structure.place();
        let first = (key_hash(key) % nodes as u64) as usize;
        TURN * u32::try_from((place + nodes - first) % nodes).unwrap_or(u32::MAX)
    }
}

impl fmt::Debug for GaugeCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GaugeCache").field("name", &self.spec.name).finish_non_exhaustive()
    }
}

impl Structure {
    /// The rows of a key that were not cleared, also those that count zero.
    fn rows_left(&self, key: &[u8]) -> Vec<RowLeft> {
        self.ledger.read().rows_left(key, &self.keys)
    }

    fn actor(&self) -> Actor {
        self.ledger.read().actor().clone()
    }

    fn marked(&self, actor: &Actor, version: Version) -> Option<u64> {
        self.ledger.read().marked(actor, version)
    }

    /// Says that the rows of an actor up to a version have changed before that time.
    fn mark(&self, actor: &Actor, upto: Version, unix_ms: u64) {
        let mut ledger = self.ledger.write();
        let mark = ledger.next_mark(actor);
        self.raise(&mark, upto, unix_ms);
        self.commit_locked(&mut ledger);
    }

    /// This node's place among those that rows are known of, in order of name, and how many these are.
    fn place(&self) -> (usize, usize) {
        let ledger = self.ledger.read();
        let nodes: BTreeSet<_> = ledger.all_actor_rows().keys().map(|actor| &actor.node).collect();
        let place = nodes.iter().position(|node| **node == ledger.actor().node);
        (place.unwrap_or(0), nodes.len().max(1))
    }
}
