//! The limits of one structure on one node. Connects throttles and pools with escrow, and escrow with the structure's
//! rows.
#![allow(clippy::indexing_slicing, reason = "a shard's number is taken modulo the number of shards")]

pub(crate) mod error;
pub(crate) mod report;
mod sharing;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{NodeName, Strength, ThrottleSpec, bounds};

use crate::cache::handle::Cache;
use crate::counter::structure::Structure;
use crate::limiter::escrow::founding::Founding;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::heard::{Heard, Past};
use crate::limiter::levels::{Level, Levels};
use crate::limiter::limiter::error::LimitError;
use crate::limiter::limiter::sharing::Sharing;
use crate::limiter::pool::Pool;
use crate::limiter::reach::Reach;
use crate::limiter::throttle::{Born, Ground, Listed, Throttle};
use crate::time::{Now, Time};
use crate::wake::Wake;

/// Number of name tables. Threads that use different names rarely use the same table.
const SHARDS: usize = 64;

/// The most changed rows that may wait. If there are more, the limiter scans all rows.
const WATCHED: usize = 1 << 16;

/// Admissions in this time before a kill may be missing in the saved state: one check of levels, and one save.
const UNWRITTEN: Duration = Duration::from_secs(2);

/// The limit that a scope's configuration gives to a name.
pub type Scopes = Box<dyn Fn(&str) -> Option<ThrottleSpec> + Send + Sync>;

/// Throttles by the hash of their name.
type Shard = RwLock<HashTable<Arc<Throttle>>>;

/// The limits of one structure on one node.
pub struct Limiter {
    structure: Arc<Structure>,
    shards: Box<[Shard]>,
    /// Seeded, so that an outsider cannot know which names collide.
    hasher: FixedState,
    sharing: Mutex<Sharing>,
    declared: RwLock<BTreeMap<Box<str>, ThrottleSpec>>,
    scopes: RwLock<Option<Scopes>>,
    count: AtomicUsize,
    started: Time,
    woken: Arc<AtomicBool>,
    listed: Arc<Listed>,
    ground: Ground,
}

impl Limiter {
    /// The limits of a structure. Hard limits need a founding, and a `nonce` that no other process of the node draws. `wake`
    /// is called when [`Limiter::handle_timeout`] should run.
    pub fn new(
        structure: Arc<Structure>,
        founding: Option<Founding>,
        node: NodeName,
        nonce: u64,
        now: Time,
        wake: Wake,
    ) -> Self {
        let woken = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&woken);
        let wake: Wake = Arc::new(move || {
            if !flag.swap(true, Ordering::AcqRel) {
                wake();
            }
        });
        let escrow = founding.map(|founding| Escrow::new(founding, node, nonce, now));
        let watch = escrow.as_ref().map(|_| structure.watch_under(&[key::SHARING], WATCHED, wake));
        let ground = Ground::default();
        let sharing = Sharing {
            escrow,
            watch,
            grown: structure.growth(WATCHED),
            heard: Heard::new(now),
            reported: BTreeSet::new(),
            compare_at: now,
            pools: BTreeMap::new(),
            hard: BTreeMap::new(),
            ground: Arc::clone(&ground),
            rescan_at: now,
            rescan: None,
            learns: false,
            look_at: now,
            looked: now,
            tick_at: now,
            ticked: now,
            shard: 0,
            stale_shards: 0,
            reach: Reach::ALONE,
            levels: None,
        };
        let hasher = FixedState::with_seed(nonce);
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let declared = RwLock::default();
        Self {
            structure,
            shards,
            hasher,
            sharing: Mutex::new(sharing),
            declared,
            scopes: RwLock::default(),
            count: AtomicUsize::new(0),
            started: now,
            woken,
            listed: Arc::default(),
            ground,
        }
    }

    /// From now on, keeps the levels of soft throttles in a cache, and continues with the levels that an earlier run has kept
    /// there. Must be called before throttles are used; existing throttles are set to their kept levels. The cache belongs to
    /// this node and is not replicated ([`Replica::keep`](crate::replica::Replica::keep)): other nodes have their own buckets.
    /// O(throttles).
    pub fn keep(&self, cache: Cache, now: Now) {
        let levels = Levels::new(cache, now);
        let mut sharing = self.sharing.lock();
        for throttle in self.throttles() {
            if let Some(level) = levels.of(throttle.name(), now.mono) {
                let past = sharing.heard.take(throttle.name().as_bytes(), throttle.others());
                throttle.resume(now.mono, level.full_at, &beyond(past, level));
            }
        }
        sharing.levels = Some(levels);
    }

    /// The most that an earlier run of this node may have admitted of a soft throttle without this run's knowledge. Without
    /// saved state: one burst. Otherwise: what that run had not written when it ended. Zero once a bucket that was empty at the
    /// start would be full.
    pub fn earlier_run(&self, spec: &ThrottleSpec, now: Time) -> u64 {
        let rate = spec.rate;
        if rate.within(now.since(self.started)) >= rate.burst() {
            return 0;
        }
        let unwritten = self.sharing.lock().levels.is_some().then(|| rate.within(UNWRITTEN).saturating_add(1));
        unwritten.unwrap_or(u64::MAX).min(rate.burst())
    }

    /// Sets the function that gives the throttles of undeclared names, those of scopes. Such a throttle exists from the moment
    /// at which any node in the cluster uses it.
    pub fn scopes(&self, of: Scopes) {
        *self.scopes.write() = Some(of);
    }

    /// The configured limit of a name.
    fn configured(&self, name: &str) -> Option<ThrottleSpec> {
        let declared = self.declared.read().get(name).copied();
        declared.or_else(|| self.scopes.read().as_ref().and_then(|of| of(name)))
    }

    /// The structure.
    pub fn structure(&self) -> &Arc<Structure> {
        &self.structure
    }

    fn shard(&self, name: &str) -> (&Shard, u64) {
        let hash = self.hasher.hash_one(name);
        (&self.shards[(hash >> 32) as usize % SHARDS], hash)
    }

    /// An existing throttle.
    #[inline]
    pub fn find(&self, name: &str) -> Option<Arc<Throttle>> {
        let (shard, hash) = self.shard(name);
        shard.read().find(hash, |throttle| **throttle.name() == *name).cloned()
    }

    /// Declares the throttle of a name, and updates it if it exists.
    ///
    /// # Errors
    /// As [`Limiter::throttle`].
    pub fn declare(&self, name: &str, spec: ThrottleSpec, now: Time) -> Result<(), LimitError> {
        self.throttle(name, spec, now)?.declare();
        self.declared.write().insert(name.into(), spec);
        Ok(())
    }

    /// The configuration does not name a throttle any more. It goes when it is idle and nobody uses it.
    pub fn undeclare(&self, name: &str) {
        self.declared.write().remove(name);
        self.find(name).into_iter().for_each(|throttle| throttle.undeclare());
    }

    /// The throttle of a name that exists, is declared, or has a scope.
    #[inline]
    pub fn resolve(&self, name: &str, now: Time) -> Option<Arc<Throttle>> {
        self.find(name).or_else(|| {
            let spec = self.configured(name)?;
            self.throttle(name, spec, now).ok()
        })
    }

    /// Why [`Limiter::resolve`] does not find a declared throttle, or that of a scope; `None` if the name is neither.
    pub fn why_unresolved(&self, name: &str, now: Time) -> Option<LimitError> {
        let spec = self.configured(name)?;
        self.throttle(name, spec, now).err()
    }

    /// The throttle of a name. Creates it if necessary, and updates it to `spec`: a changed rate keeps the counted tokens.
    /// O(1).
    ///
    /// # Errors
    /// [`LimitError`] when the name is not valid, or when the throttle is hard and there are no founders.
    pub fn throttle(&self, name: &str, spec: ThrottleSpec, now: Time) -> Result<Arc<Throttle>, LimitError> {
        if let Some(found) = self.find(name).filter(|found| found.spec() == spec) {
            return Ok(found);
        }
        key::throttle(name)?;
        let mut sharing = self.sharing.lock();
        if spec.strength == Strength::Hard && sharing.escrow.is_none() {
            return Err(LimitError::NoFounders(name.to_owned()));
        }
        if sharing.pools.contains_key(name) {
            return Err(LimitError::Taken(name.to_owned()));
        }
        let throttle = self.made(&mut sharing, name, spec, now)?;
        if throttle.set_spec(now, spec) {
            sharing.wake(&throttle, now);
            sharing.tick_at = now;
        }
        Ok(throttle)
    }

    /// The throttle of a valid name. A new one behaves as if it had always existed. A new hard one rests until a caller uses
    /// it.
    fn made(
        &self,
        sharing: &mut Sharing,
        name: &str,
        spec: ThrottleSpec,
        now: Time,
    ) -> Result<Arc<Throttle>, KeyError> {
        if let Some(throttle) = self.find(name) {
            return Ok(throttle);
        }
        let counter = self.structure.counter(name.as_bytes())?;
        let (listed, ground) = (Arc::downgrade(&self.listed), Arc::clone(&self.ground));
        // Move recent growth into the samples before reading the sum, so that no growth is missing from both.
        let grown = sharing.grown.take_of(name.as_bytes());
        if grown > 0 {
            sharing.heard.note(name.as_bytes().to_vec(), now, grown);
        }
        let heard = counter.others();
        let past = sharing.heard.take(name.as_bytes(), heard);
        let level = sharing.levels.as_ref().and_then(|levels| levels.of(name, now));
        let born = Born { now, heard, past: &past };
        let throttle = Arc::new(Throttle::new(name.into(), spec, counter, listed, ground, born));
        if let Some(level) = level {
            throttle.resume(now, level.full_at, &beyond(past, level));
        }
        throttle.exchanged(now, sharing.reach);
        let (shard, hash) = self.shard(name);
        let hasher = |throttle: &Arc<Throttle>| self.hasher.hash_one(&**throttle.name());
        shard.write().insert_unique(hash, Arc::clone(&throttle), hasher);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(throttle)
    }

    /// The pool of a name with `maximum` permits in the whole cluster. Creates it if necessary.
    ///
    /// # Errors
    /// [`LimitError`] when the name is not valid or belongs to a throttle, there are no founders, or `maximum` is out of range.
    pub fn pool(&self, name: &str, maximum: u64, now: Time) -> Result<Arc<Pool>, LimitError> {
        key::throttle(name)?;
        if !bounds::PERMITS.contains(&maximum) {
            return Err(LimitError::Permits(maximum));
        }
        let mut sharing = self.sharing.lock();
        let sharing = &mut *sharing;
        if self.find(name).is_some() || self.declared.read().contains_key(name) {
            return Err(LimitError::Taken(name.to_owned()));
        }
        let Some(escrow) = &mut sharing.escrow else { return Err(LimitError::NoFounders(name.to_owned())) };
        let pool = match sharing.pools.get(name) {
            Some(pool) => Arc::clone(pool),
            None => {
                let pool = Arc::new(Pool::new(name.into(), maximum, self.structure.counter(name.as_bytes())?));
                sharing.pools.insert(name.into(), Arc::clone(&pool));
                pool
            }
        };
        pool.set_maximum(maximum);
        escrow.share_out(name, pool.quota(), None);
        sharing.tick_at = now;
        Ok(pool)
    }

    /// The existing throttles, in order of name. O(names).
    pub fn throttles(&self) -> Vec<Arc<Throttle>> {
        let mut list: Vec<_> =
            self.shards.iter().flat_map(|shard| shard.read().iter().cloned().collect::<Vec<_>>()).collect();
        list.sort_by(|a, b| a.name().cmp(b.name()));
        list
    }

    /// The existing and the declared throttles, in order of name. O(names).
    pub fn all(&self, now: Time) -> Vec<Arc<Throttle>> {
        let declared: Vec<Box<str>> = self.declared.read().keys().cloned().collect();
        let _there: Vec<_> = declared.iter().map(|name| self.resolve(name, now)).collect();
        self.throttles()
    }

    /// The throttles that the configuration names, in order of name. O(names).
    pub fn declared(&self, now: Time) -> Vec<Arc<Throttle>> {
        let declared: Vec<Box<str>> = self.declared.read().keys().cloned().collect();
        declared.iter().filter_map(|name| self.resolve(name, now)).collect()
    }

    /// Number of existing throttles. O(1).
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there are no throttles.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pool of a name, if it exists.
    pub fn find_pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.sharing.lock().pools.get(name).cloned()
    }

    /// The existing pools, in order of name.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.sharing.lock().pools.values().cloned().collect()
    }
}

/// The admissions of others since a level was kept.
fn beyond(past: Past, level: Level) -> Past {
    // An older build did not keep this sum. Its state included everything that it had received.
    let known = level.heard.map_or(past.before, |heard| u64::try_from(heard).unwrap_or(0));
    Past { before: past.before.saturating_sub(known), ..past }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("structure", &self.structure.spec().name).finish_non_exhaustive()
    }
}
