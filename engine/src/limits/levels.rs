//! How full soft throttles are, over restarts: what has been admitted is not admitted once more.
//!
//! What is kept of a throttle is when it will be full again, as an entry of its name that expires then, in a cache of this
//! node's own. The value is what the throttle had heard of the others, so that it takes off what their rows say beyond that. (An
//! older build wrote no value.) So it is saved as caches are, goes by itself, and needs no rate to be understood: a bucket lacks
//! what it fills in the time that is left. A state that is old has less of that time left: a bucket is as full as time has filled
//! it since. Behind a wall clock that was set back it is emptier, by a burst at most, or full where that was by more than a cache
//! believes ([`MAX_DRIFT`](tallymesh_schemas::limits::MAX_DRIFT)).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::throttle::Throttle;
use crate::cache::Cache;
use crate::canary::{self, Canary};
use crate::time::{Now, Time};

/// Between two looks at what was used. What is full again within that time is not worth keeping.
const INTERVAL: Duration = Duration::from_secs(1);

/// Throttles that one look takes up, so that nobody waits long for it.
const AT_ONCE: usize = 4096;

/// How a throttle stood when it was kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Level {
    /// When it is full.
    pub(super) full_at: Time,
    /// What it had heard of the others.
    pub(super) heard: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Levels {
    cache: Cache,
    /// Used since they were last looked at.
    used: BTreeMap<Arc<str>, Arc<Throttle>>,
    due: Time,
    /// Both clocks at one moment, as they were read last.
    clocks: Now,
}

impl Levels {
    pub(super) fn new(cache: Cache, now: Now) -> Self {
        Self { cache, used: BTreeMap::new(), due: now.mono, clocks: now }
    }

    fn unix_ms(&self, now: Time) -> u64 {
        let passed = u64::try_from(now.since(self.clocks.mono).as_millis()).unwrap_or(u64::MAX);
        self.clocks.unix_ms.saturating_add(passed)
    }

    /// How the throttle of a name stood; `None` when it was full. O(1).
    pub(super) fn of(&self, name: &str, now: Time) -> Option<Level> {
        let unix_ms = self.unix_ms(now);
        let entry = self.cache.entry(name.as_bytes(), unix_ms).filter(|_| !canary::broken(Canary::LevelsForgotten))?;
        let full_at = now.after(Duration::from_millis(entry.expires_ms.saturating_sub(unix_ms)));
        let heard = <[u8; 8]>::try_from(&*entry.value).ok().map(i64::from_le_bytes);
        Some(Level { full_at, heard })
    }

    /// A throttle is let go of: it is full.
    pub(super) fn forget(&mut self, name: &str, now: Time) {
        let unix_ms = self.unix_ms(now);
        self.used.remove(name);
        // Where it cannot be removed it expires.
        let _ = self.cache.remove(name.as_bytes(), unix_ms);
    }

    /// Whoever ends says how full they are at the next look.
    pub(super) fn hurry(&mut self) {
        self.due = Time(0);
    }

    /// Takes note of throttles that were used here or elsewhere, and once a second of how full they are.
    pub(super) fn handle_timeout<'a>(&mut self, used: impl Iterator<Item = &'a Arc<Throttle>>, now: Now) {
        self.clocks = now;
        self.used.extend(used.map(|throttle| (Arc::clone(throttle.name()), Arc::clone(throttle))));
        if now.mono < self.due {
            return;
        }
        for _ in 0..AT_ONCE {
            let Some((name, throttle)) = self.used.pop_first() else { break };
            let level = throttle.level(now.mono).filter(|(at, _)| *at > now.mono.after(INTERVAL));
            // A node whose wall clock was set back says so where its caches are written. It keeps nothing meanwhile.
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
