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

use crate::counter::ages::Moment;
use crate::counter::marks::RowLeft;
use crate::counter::observed::{Observed, Walk};
use crate::counter::structure::{Entry, Structure};
use crate::counter::watch::ChangedKeys;
use crate::keyspace::hash::key_hash;
use crate::keyspace::totals::Totals;
use crate::time::{Now, Time};

/// Number of changed keys that wait to be observed. Beyond that, all entries are compared with their rows.
const CHANGES: usize = 1 << 16;

/// Number of keys that one step observes at most, and clears, and whose age it determines. While a step works, handles wait.
pub(crate) const STEP: usize = 1 << 9;

/// Number of rows that one step looks for at most. Each key may have a row of each actor.
const STEP_ROWS: usize = 1 << 16;

/// Number of expired entries that one step passes over at most, because another node clears them first.
const STEP_WALKED: usize = 1 << 13;

/// Number of other keys that a call of a handle observes at most.
const CALL: usize = 16;

/// Number of actors that one step marks at most.
const MARKED: usize = 64;

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
    changed: Arc<ChangedKeys>,
    observed: Mutex<Observed>,
}

impl GaugeCache {
    pub(crate) fn new(spec: GaugeCacheSpec, structure: Arc<Structure>) -> Self {
        let changed = structure.watchers.changed_keys(CHANGES);
        Self { spec, structure, changed, observed: Mutex::default() }
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
    /// [`KeyError`] when `key` is not a valid key, or when there is no room for another one; then nothing is counted.
    pub fn add(&self, key: &[u8], n: i64, now: Time) -> Result<(), KeyError> {
        let mut observed = self.observed.lock();
        self.observe(&mut observed, now, CALL);
        self.observe_one(&mut observed, key, now);
        if observed.ages.get(key).is_some_and(|changed| self.expired(changed, now)) {
            // Its old count must not return with this change.
            self.structure.clear(key)?;
        }
        self.structure.add(key, n)?;
        self.structure.commit();
        self.observe_one(&mut observed, key, now);
        let Some(most) = self.spec.max_elements else { return Ok(()) };
        for _ in 0..EVICTED {
            if observed.ages.len() as u64 <= most.get() {
                break;
            }
            // The changed entry is as young as any other entry that changed at the same moment.
            let oldest = observed.ages.oldest(None).map(|(_, oldest)| oldest).find(|oldest| *oldest != key).cloned();
            let Some(oldest) = oldest else { break };
            // An entry that has changed meanwhile is not the oldest one.
            if !self.observe_one(&mut observed, &oldest, now) {
                if !self.structure.clear_all(&[&oldest]) {
                    // The change is counted. A later change removes entries when there is room for the removal.
                    break;
                }
                self.observe_one(&mut observed, &oldest, now);
            }
        }
        Ok(())
    }

    /// Returns the count of a key; `None` when there is no entry.
    pub fn get(&self, key: &[u8], now: Time) -> Option<i64> {
        let mut observed = self.observed.lock();
        self.observe(&mut observed, now, CALL);
        self.observe_one(&mut observed, key, now);
        let changed = observed.ages.get(key)?;
        (!self.expired(changed, now)).then(|| self.structure.count(key, now).total)
    }

    /// Removes an entry on all nodes. Returns whether there was one. Concurrent counts of other nodes that are not known
    /// here stay.
    ///
    /// # Errors
    /// [`KeyError`] when `key` is not a valid key, or when there is no room for the rows that state the removal.
    pub fn remove(&self, key: &[u8], now: Time) -> Result<bool, KeyError> {
        let there = self.get(key, now).is_some();
        self.structure.clear(key)?;
        self.observe_one(&mut self.observed.lock(), key, now);
        Ok(there)
    }

    /// Returns at most `limit` entries behind `after`, in order of key. It reads in slices, and other calls do not wait for
    /// more than one of them.
    pub fn entries(&self, after: Option<&[u8]>, limit: usize, now: Time) -> Vec<Entry> {
        let mut page = Vec::new();
        let mut after = after.map(<[u8]>::to_vec);
        while page.len() < limit {
            let mut observed = self.observed.lock();
            let upto = self.observe_behind(&mut observed, after.as_deref(), now, STEP.min(limit - page.len()));
            let slice = observed.ages.behind(after.as_deref());
            let slice = slice.take_while(|(key, _)| upto.as_ref().is_none_or(|upto| *key <= upto));
            let there = slice.filter(|(_, at)| !self.expired(*at, now)).take(limit - page.len());
            let entry = |key: &Vec<u8>| Entry { key: key.clone(), count: self.structure.count(key, now).total };
            page.extend(there.map(|(key, _)| entry(key)));
            if upto.is_none() {
                break;
            }
            after = upto;
        }
        page
    }

    /// Number of entries, including expired entries that are not cleared yet. It observes all changes first, in steps.
    pub fn len(&self, now: Time) -> usize {
        let mut left = self.structure.keys() + self.changed.len() + self.observed.lock().ages.len() + STEP;
        loop {
            let mut observed = self.observed.lock();
            self.observe(&mut observed, now, STEP);
            let behind = observed.comparison.is_some() || self.changed.len() > 0;
            if left == 0 || !behind {
                return observed.ages.len();
            }
            // Other threads may go on changing entries.
            left = left.saturating_sub(STEP / 4);
        }
    }

    /// Whether there are no entries.
    pub fn is_empty(&self, now: Time) -> bool {
        self.len(now) == 0
    }

    fn expired(&self, changed: Moment, now: Time) -> bool {
        !self.spec.ttl.is_zero() && changed.age(now) >= self.spec.ttl
    }
}

/// Observing changes of the structure.
impl GaugeCache {
    /// Updates the ages of at most `most` entries by the changes since the last call. Reads of one entry do not wait for
    /// that: see [`GaugeCache::observe_one`].
    fn observe(&self, observed: &mut Observed, now: Time, most: usize) {
        self.commit(observed);
        let for_comparison = if observed.comparison.is_some() { most / 4 } else { 0 };
        let listed = self.changed.take_behind(observed.taken.as_deref(), most - for_comparison);
        observed.taken = listed.last().filter(|_| listed.len() == most - for_comparison).cloned();
        let left = most - listed.len();
        for key in listed {
            let rows = self.structure.rows_left(&key);
            observed.ages.note(key, &rows, now);
        }
        if let Some(comparison) = &observed.comparison {
            let after = comparison.upto.clone();
            let upto = self.compare_behind(observed, after.as_deref(), now, left);
            observed.note_compared(upto);
        }
    }

    /// Writes local changes into the rows, so that they are observed, and notes whether changed keys were lost.
    fn commit(&self, observed: &mut Observed) {
        self.structure.commit();
        if self.changed.take_lost() {
            observed.note_lost();
        }
    }

    /// Updates the age of one entry, if it has changed. Returns whether it has.
    fn observe_one(&self, observed: &mut Observed, key: &[u8], now: Time) -> bool {
        let listed = self.changed.take_one(key);
        if !listed && !observed.is_unsure_of(key) {
            return false;
        }
        let (before, rows) = (observed.ages.get(key), self.structure.rows_left(key));
        if listed {
            observed.ages.note(key.to_vec(), &rows, now);
        } else {
            observed.ages.compare(key.to_vec(), &rows, now);
        }
        observed.ages.get(key) != before
    }

    /// Updates the ages of entries behind a key. Returns the last key of these; `None` when there are no further entries.
    fn observe_behind(&self, observed: &mut Observed, after: Option<&[u8]>, now: Time, most: usize) -> Option<Vec<u8>> {
        self.commit(observed);
        let known = observed.ages.behind(after).nth(most.saturating_sub(1)).map(|(key, _)| key.clone());
        let listed = self.changed.take_behind(after, most);
        let last_listed = listed.last().filter(|_| listed.len() == most).cloned();
        for key in listed {
            let rows = self.structure.rows_left(&key);
            observed.ages.note(key, &rows, now);
        }
        let compared = observed.comparison.is_some().then(|| self.compare_behind(observed, after, now, most)).flatten();
        [known, last_listed, compared].into_iter().flatten().min()
    }

    /// Compares about `most` entries behind a key with their rows. Returns the last of them; `None` when there are no more.
    fn compare_behind(&self, observed: &mut Observed, after: Option<&[u8]>, now: Time, most: usize) -> Option<Vec<u8>> {
        // Keys that have rows, and entries that may have no rows any more.
        let mut keys = self.structure.keys_behind(after, most);
        let known: Vec<_> = observed.ages.behind(after).take(most).map(|(key, _)| key.clone()).collect();
        let full = [&keys, &known].into_iter().filter(|keys| keys.len() >= most);
        let upto = full.map(|keys| keys.last().cloned().unwrap_or_default()).min();
        keys.extend(known);
        keys.sort_unstable();
        keys.dedup();
        for key in keys.into_iter().filter(|key| upto.as_ref().is_none_or(|upto| key <= upto)) {
            let rows = self.structure.rows_left(&key);
            observed.ages.compare(key, &rows, now);
        }
        upto
    }
}

/// Upkeep, in steps.
impl GaugeCache {
    /// Begins to determine unknown ages and to clear expired entries, unless that is under way.
    pub(crate) fn begin_upkeep(&self) {
        if !self.spec.ttl.is_zero() {
            let mut observed = self.observed.lock();
            observed.settling.begin();
            observed.clearing.begin();
        }
    }

    /// Whether work is left that does not wait for the next interval.
    pub(crate) fn has_work(&self) -> bool {
        self.is_behind() || self.observed.lock().is_walking()
    }

    /// Whether many changes wait to be observed.
    pub(crate) fn is_behind(&self) -> bool {
        self.changed.len() >= STEP
    }

    /// Works on: observes changes, determines unknown ages, and clears expired entries. Handles about `most` keys at most,
    /// and returns their number. `cluster_ms` is the time of the cluster's clock, if that is certain.
    pub(crate) fn work(&self, now: Now, cluster_ms: Option<UnixMs>, most: usize) -> usize {
        let actors = self.structure.actors();
        let most = most.min(STEP_ROWS / actors.max(1)).max(1);
        let mut observed = self.observed.lock();
        let waiting = self.changed.len();
        self.observe(&mut observed, now.mono, most);
        let settled = self.settle(&mut observed, cluster_ms, now.mono, most);
        let cleared = self.clear_expired(&mut observed, now.mono, most);
        let compared = if observed.comparison.is_some() { most } else { 0 };
        // A key costs as much as the number of actors that may have rows of it.
        waiting.min(most).max(settled).max(cleared).max(compared).saturating_mul((actors * STEP / STEP_ROWS).max(1))
    }

    /// Tries again to determine unknown ages.
    fn settle(&self, observed: &mut Observed, cluster_ms: Option<UnixMs>, now: Time, most: usize) -> usize {
        let Walk::Behind(after) = &observed.settling else { return 0 };
        let keys = if cluster_ms.is_some() { observed.ages.doubtful(after.as_deref(), most) } else { Vec::new() };
        observed.settling = match keys.last() {
            Some(last) if keys.len() == most => Walk::Behind(Some(last.clone())),
            _ => Walk::Over,
        };
        let settled = keys.len();
        for key in keys {
            let rows = self.structure.rows_left(&key);
            observed.ages.settle(key, &rows, cluster_ms, now);
        }
        settled
    }

    /// Clears expired entries, each node in its turn: the first node clears an entry for all nodes, and if that node is
    /// gone, the next one does.
    fn clear_expired(&self, observed: &mut Observed, now: Time, most: usize) -> usize {
        let Walk::Behind(at) = &observed.clearing else { return 0 };
        let place = self.structure.place();
        let is_due = |changed: Moment, key: &[u8]| changed.age(now) >= self.spec.ttl + turn(key, place);
        let (mut due, mut walk) = (Vec::new(), Walk::Over);
        let expired = observed.ages.oldest(at.as_ref()).take_while(|(changed, _)| self.expired(*changed, now));
        for (walked, entry) in (1..).zip(expired) {
            if is_due(entry.0, &entry.1) {
                due.push(entry.1.clone());
            }
            if walked == STEP_WALKED || due.len() == most {
                walk = Walk::Behind(Some(entry.clone()));
                break;
            }
        }
        observed.clearing = walk;
        // An entry that has changed meanwhile is not due.
        due.retain(|key| {
            self.observe_one(observed, key, now);
            observed.ages.get(key).is_some_and(|changed| is_due(changed, key))
        });
        // An entry stays if there is no room for its removal. It is not read, and a later walk tries again.
        self.structure.clear_all(&due);
        for key in &due {
            self.observe_one(observed, key, now);
        }
        due.len()
    }

    /// Writes marks for the nodes that receive the rows later: marks this node's own rows if they have changed, and the rows
    /// of actors that no longer write marks. `cluster_ms` is the time of the cluster's clock.
    pub(crate) fn mark(&self, now: Time, cluster_ms: UnixMs) {
        if self.spec.ttl.is_zero() {
            return;
        }
        let interval = (self.spec.ttl / MARKS_PER_TTL).max(LEAST_INTERVAL);
        let (ours, place) = (self.structure.actor(), self.structure.place().0);
        let others = interval * 2 + TURN * u32::try_from(place).unwrap_or(u32::MAX);
        let patience = |actor: &Actor| if *actor == ours { Duration::ZERO } else { others };
        let mut observed = self.observed.lock();
        observed.ages.forget_gone(|actor| self.structure.holds(actor));
        let covered = |actor: &Actor, version| self.structure.marked(actor, version).is_some();
        for (actor, upto) in observed.ages.unmarked(now, MARKED, (interval, patience), covered) {
            if self.structure.mark(&actor, upto, cluster_ms) {
                observed.ages.note_marked(&actor, upto);
            }
        }
    }
}

/// How long after the first node a node clears a key. `place` is its place among so many nodes.
fn turn(key: &[u8], (place, nodes): (usize, usize)) -> Duration {
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

    /// Writes a mark: the rows of an actor up to a version changed for the last time before `unix_ms`. Returns whether there was
    /// room.
    fn mark(&self, actor: &Actor, upto: Version, unix_ms: UnixMs) -> bool {
        let mut ledger = self.ledger.write();
        let mark = ledger.next_mark(actor);
        let fits = self.raise_if_it_fits(&mark, Totals { added: upto.0, removed: unix_ms.0 });
        self.commit_locked(&mut ledger);
        fits
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
