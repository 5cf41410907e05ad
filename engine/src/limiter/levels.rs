//! Keeps the levels of soft throttles over restarts, so that a restarted node does not admit the same tokens again.
//!
//! For each throttle, a cache that only this node uses has an entry under the throttle's name. The entry expires when the
//! throttle will be full again. Its value is the sum of the others' rows at that time, so that a new run subtracts only their
//! growth since. (Older builds wrote no value.) The entry is saved like any cache entry, expires by itself, and needs no rate:
//! the bucket lacks what it fills in the remaining time. An older state has less remaining time, so the bucket is as full as
//! the elapsed time has filled it. After the wall clock was set back, the bucket is emptier by at most one burst, or full if
//! the clock was set back by more than a cache accepts ([`MAX_DRIFT`](tallymesh_schemas::bounds::MAX_DRIFT)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::UnixMs;

use crate::cache::handle::Cache;
use crate::canary::{self, Canary};
use crate::limiter::throttle::Throttle;
use crate::time::{Now, Time};

/// Time between two checks of used throttles. A throttle that is full again within this time is not worth keeping.
const INTERVAL: Duration = Duration::from_secs(1);

/// The most throttles that one check handles, so that it does not delay other work.
const AT_ONCE: usize = 4096;

/// A throttle continues with the level that an earlier run saved.
fn levels_outlive_runs() -> bool {
    !canary::broken(Canary::LevelsForgotten)
}

/// The saved level of a throttle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// When the bucket is full.
    pub(super) full_at: Time,
    /// The sum of the other nodes' rows at that time.
    pub(super) heard: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Levels {
    cache: Cache,
    /// Throttles used since their last check.
    used: BTreeMap<Arc<str>, Arc<Throttle>>,
    due: Time,
    /// Both clocks at the moment of the last reading.
    clocks: Now,
}

impl Levels {
    pub(super) fn new(cache: Cache, now: Now) -> Self {
        Self { cache, used: BTreeMap::new(), due: now.mono, clocks: now }
    }

    fn unix_ms(&self, now: Time) -> UnixMs {
        self.clocks.unix_ms.after(now.since(self.clocks.mono))
    }

    /// The saved level of a throttle by name; `None` when it was full. O(1).
    pub(super) fn of(&self, name: &str, now: Time) -> Option<Level> {
        let unix_ms = self.unix_ms(now);
        let entry = self.cache.entry(name.as_bytes(), unix_ms).filter(|_| levels_outlive_runs())?;
        let full_at = now.after(entry.expires_ms.since(unix_ms));
        let heard = <[u8; 8]>::try_from(&*entry.value).ok().map(i64::from_le_bytes);
        Some(Level { full_at, heard })
    }

    /// Removes the entry of a throttle that is full and is being dropped.
    pub(super) fn forget(&mut self, name: &str, now: Time) {
        let unix_ms = self.unix_ms(now);
        self.used.remove(name);
        // An entry that cannot be removed expires by itself.
        let _ = self.cache.remove(name.as_bytes(), unix_ms);
    }

    /// Makes the next check due at once: a stopping node saves its levels.
    pub(super) fn hurry(&mut self) {
        self.due = Time(0);
    }

    /// Collects throttles that this node or another one has used, and once a second writes their levels.
    pub(super) fn handle_timeout<'a>(&mut self, used: impl Iterator<Item = &'a Arc<Throttle>>, now: Now) {
        self.clocks = now;
        self.used.extend(used.map(|throttle| (Arc::clone(throttle.name()), Arc::clone(throttle))));
        if now.mono < self.due {
            return;
        }
        for _ in 0..AT_ONCE {
            let Some((name, throttle)) = self.used.pop_first() else { break };
            let level = throttle.level(now.mono).filter(|(at, _)| *at > now.mono.after(INTERVAL));
            // Cache writes report a wall clock that was set back. Meanwhile no level is kept.
            let _ = match level {
                Some((at, heard)) => {
                    let left = at.since(now.mono) + Duration::from_millis(1);
                    self.cache.set(name.as_bytes(), &heard.to_le_bytes()[..], left, now.unix_ms).map(drop)
                }
                None => self.cache.remove(name.as_bytes(), now.unix_ms).map(drop),
            };
        }
        if self.used.is_empty() {
            self.due = now.mono.after(INTERVAL);
        }
    }
}
