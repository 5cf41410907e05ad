//! A gauge cache as handles and driver share it: counters by name that go when nobody has changed them for long.
//!
//! The counts are those of a [`Structure`] of events: rows of all runs count, and to remove an entry is to clear what is
//! known of it, so that what is counted at the same time stays. When an entry last changed is for each node to say, by what
//! came to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_schemas::GaugeCacheSpec;
use tallymesh_schemas::key::KeyError;

use crate::row::key_hash;
use crate::structure::{Entry, Structure};
use crate::time::Time;
use crate::watch::Watch;

/// Changes that wait to be looked at. When there are more, all entries are taken to have changed.
const CHANGES: usize = 1 << 16;

/// Entries that one change removes at most where there are too many.
const EVICTED: usize = 64;

/// By how much later each next node clears what has expired. Who is first is another one for each key.
const TURN: Duration = Duration::from_secs(5);

/// A gauge cache: names, each with a count that all nodes add to and that expires after its last change anywhere.
///
/// All methods may be called from any number of threads. They take a lock of the gauge cache and the ledger's.
pub struct GaugeCache {
    spec: GaugeCacheSpec,
    structure: Arc<Structure>,
    watch: Arc<Watch>,
    ages: Mutex<Ages>,
}

/// When the entries last changed, as was seen here.
#[derive(Default)]
struct Ages {
    by_key: BTreeMap<Vec<u8>, Time>,
    by_age: BTreeSet<(Time, Vec<u8>)>,
}

impl Ages {
    fn set(&mut self, key: Vec<u8>, changed: Option<Time>) {
        let was = match changed {
            Some(now) => self.by_key.insert(key.clone(), now),
            None => self.by_key.remove(&key),
        };
        if let Some(was) = was {
            self.by_age.remove(&(was, key.clone()));
        }
        if let Some(now) = changed {
            self.by_age.insert((now, key));
        }
    }
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
            if ages.by_key.len() as u64 <= most.get() {
                break;
            }
            // The one that is added to is as young as any other that has changed in the same moment.
            let oldest = ages.by_age.iter().map(|(_, oldest)| oldest).find(|oldest| *oldest != key).cloned();
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
        let changed = *ages.by_key.get(key)?;
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
        use std::ops::Bound;
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let there = ages.by_key.range::<[u8], _>((from, Bound::Unbounded)).filter(|(_, at)| !self.expired(**at, now));
        let entry = |key: &Vec<u8>| Entry { key: key.clone(), count: self.structure.count(key, now).total };
        there.take(limit).map(|(key, _)| entry(key)).collect()
    }

    /// Entries, those included that have expired and are not cleared yet.
    pub fn len(&self, now: Time) -> usize {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        ages.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self, now: Time) -> bool {
        self.len(now) == 0
    }

    fn expired(&self, changed: Time, now: Time) -> bool {
        !self.spec.ttl.is_zero() && now.since(changed) >= self.spec.ttl
    }

    /// What has expired does not come back with the next change.
    fn expire(&self, key: &[u8], now: Time) -> Result<(), KeyError> {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        if ages.by_key.get(key).is_some_and(|changed| self.expired(*changed, now)) {
            self.structure.clear(key)?;
            self.observe(&mut ages, now);
        }
        Ok(())
    }

    /// Takes note of what has changed since the last look: it changed now.
    fn observe(&self, ages: &mut Ages, now: Time) {
        self.structure.commit();
        let (mut changed, lost) = self.watch.take();
        if lost > 0 {
            // What is there, and what may be no more.
            changed = self.structure.keys_under(&[]);
            changed.extend(ages.by_key.keys().cloned());
        }
        changed.sort_unstable();
        changed.dedup();
        for key in changed {
            let there = self.structure.is_there(&key);
            ages.set(key, there.then_some(now));
        }
    }

    /// Clears what has expired, each node in its turn: whoever is first does it for all, and if he is gone, the next one.
    pub(crate) fn look_after(&self, now: Time) {
        let mut ages = self.ages.lock();
        self.observe(&mut ages, now);
        let expired = ages.by_age.iter().take_while(|(changed, _)| self.expired(*changed, now));
        let due = expired.filter(|(changed, key)| now.since(*changed) >= self.spec.ttl + self.turn(key));
        let due: Vec<_> = due.map(|(_, key)| key.clone()).collect();
        for key in due {
            // A key that is there is a key.
            let _ = self.structure.clear(&key);
        }
        self.observe(&mut ages, now);
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
    /// Whether anything is counted for a key that was not cleared, be it zero.
    fn is_there(&self, key: &[u8]) -> bool {
        self.ledger.read().is_there(key, &self.keys)
    }

    /// This node's place among those that rows are known of, in order of name, and how many these are.
    fn place(&self) -> (usize, usize) {
        let ledger = self.ledger.read();
        let nodes: BTreeSet<_> = ledger.partials().keys().map(|actor| &actor.node).collect();
        let place = nodes.iter().position(|node| **node == ledger.actor().node);
        (place.unwrap_or(0), nodes.len().max(1))
    }
}
