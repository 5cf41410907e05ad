//! The limits of one structure on one node. Connects throttles and pools with escrow, and escrow with the structure's
//! rows.

mod sharing;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use foldhash::quality::FixedState;
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use tallymesh_schemas::bound;
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Bound, NodeName, Strength, ThrottleSpec, bounds};

use crate::cache::Cache;
use crate::counter::structure::Structure;
use crate::counter::watch::Grown;
use crate::difference::Difference;
use crate::limiter::agreement::Agreement;
use crate::limiter::escrow::Escrow;
use crate::limiter::escrow::founding::Founding;
use crate::limiter::escrow::tenure::Begins;
use crate::limiter::heard::{Heard, Past};
use crate::limiter::levels::{Level, Levels};
use crate::limiter::limiter::sharing::{LOOK, Sharing};
use crate::limiter::pool::Pool;
use crate::limiter::reach::Reach;
use crate::limiter::throttle::{Born, Ground, Listed, Throttle};
use crate::time::{Now, Time};
use crate::wake::Wake;

/// Number of name tables. Threads that use different names rarely use the same table.
const SHARDS: usize = 64;

/// Time between two exchanges while a limit is in use.
const EXCHANGE: Duration = Duration::from_millis(25);

/// Shortest time between two checks of rows that change continuously.
const BREATH: Duration = Duration::from_millis(2);

/// The most changed rows that may wait. If there are more, the limiter scans all rows.
const WATCHED: usize = 1 << 16;

/// Why a limit cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// The name is not valid.
    #[error(transparent)]
    Name(#[from] KeyError),
    /// A hard limit needs founders to be divided among.
    #[error(
        "\"{0}\" is to be hard, and there are no founders to divide it among: list them in limits, on all nodes alike"
    )]
    NoFounders(String),
    /// A throttle and a pool of permits cannot have the same name.
    #[error(
        "\"{0}\" is the name of a throttle or of permits already, and cannot be that of the other: choose another name"
    )]
    Taken(String),
    /// The number of permits is zero or too large.
    #[error("{0} permits: there are {min} to {max}", min = bounds::PERMITS.start(), max = bounds::PERMITS.end())]
    Permits(u64),
}

/// The most throttles on this node that exist because other nodes use them. Beyond that, the limiter keeps only a history of a
/// name.
const THROTTLES: usize = 1 << 20;

/// Time between two comparisons with the configurations of other nodes.
const COMPARE: Duration = Duration::from_secs(1);

/// The most differences that the limiter remembers as reported.
const REPORTED: usize = 1024;

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

/// The state of a limit in escrow, for display.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holding {
    /// The founders whose share this node holds, and for how long if it receives no further answer.
    pub holds: Vec<(NodeName, Duration)>,
    /// What this node waits for, if it is a founder and does not have its own share yet.
    pub begins: Option<Begins>,
    /// Units that this node has lent.
    pub lent: BTreeMap<NodeName, u64>,
    /// Units that this node has borrowed.
    pub borrowed: BTreeMap<NodeName, u64>,
    /// All founders.
    pub founders: Vec<NodeName>,
    /// How long a founder keeps its share without news from another founder.
    pub reclaim_after: Duration,
    /// Rows received from nodes with other founders or another `reclaim_after`.
    pub strangers: u64,
}

impl Limiter {
    /// The bounds reached since the start.
    pub fn bounds(&self) -> Vec<bound::Report> {
        let place = Some(self.structure.spec().name.to_string());
        let sharing = self.sharing.lock();
        let reports = sharing.escrow.as_ref().map(|escrow| escrow.board.reports()).unwrap_or_default();
        reports.into_iter().map(|report| bound::Report { place: place.clone(), ..report }).collect()
    }

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
            look_at: now,
            looked: now,
            tick_at: now,
            ticked: now,
            shard: 0,
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

    /// The throttle of a name that exists, is declared, or has a scope.
    #[inline]
    pub fn resolve(&self, name: &str, now: Time) -> Option<Arc<Throttle>> {
        self.find(name).or_else(|| {
            let spec = self.configured(name)?;
            self.throttle(name, spec, now).ok()
        })
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
        throttle.set_spec(now, spec);
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

    /// The pool of a name, if it exists.
    pub fn find_pool(&self, name: &str) -> Option<Arc<Pool>> {
        self.sharing.lock().pools.get(name).cloned()
    }

    /// The existing pools, in order of name.
    pub fn pools(&self) -> Vec<Arc<Pool>> {
        self.sharing.lock().pools.values().cloned().collect()
    }

    /// The state of a limit in escrow.
    pub fn holding(&self, name: &str, now: Time) -> Option<Holding> {
        let sharing = self.sharing.lock();
        let escrow = sharing.escrow.as_ref()?;
        let holds = escrow.holdings().into_iter().map(|(node, until)| (node.clone(), until.since(now)));
        Some(Holding {
            holds: holds.collect(),
            begins: escrow.begins(),
            lent: escrow.lent(name),
            borrowed: escrow.borrowed(name),
            founders: escrow.founding().founders().to_vec(),
            reclaim_after: escrow.founding().reclaim_after(),
            strangers: escrow.strangers(),
        })
    }

    /// Whether this node is a founder that does not have its own share yet.
    pub fn is_founding(&self) -> bool {
        self.sharing.lock().escrow.as_ref().is_some_and(|escrow| escrow.begins().is_some())
    }

    /// This node's units of a limit now, for the checkers of the simulator; zero when it holds none.
    pub fn units(&self, name: &str, now: Time) -> u64 {
        let sharing = self.sharing.lock();
        let Some(escrow) = sharing.escrow.as_ref() else { return 0 };
        if sharing.hard.contains_key(name) || sharing.pools.contains_key(name) {
            let share = escrow.share(name);
            return if now < share.until { share.units } else { 0 };
        }
        let base = escrow.base();
        if now < base.until { base.units } else { 0 }
    }

    /// Completes the configuration. Other nodes must have the same hard limits as this node has now: declared throttles,
    /// permits, and the patterns in `scopes`. Must be called before time passes. Limits that a program creates later are
    /// compared by the nodes that use them.
    pub fn seal(&self, scopes: &[(String, ThrottleSpec)]) {
        let mut sharing = self.sharing.lock();
        let declared = self.declared.read();
        let Sharing { escrow: Some(escrow), pools, .. } = &mut *sharing else { return };
        let mut agreement = Agreement::new(escrow.founding());
        let scopes = scopes.iter().map(|(name, spec)| (name.as_str(), spec));
        let all = declared.iter().map(|(name, spec)| (&**name, spec)).chain(scopes);
        for (name, spec) in all.filter(|(_, spec)| spec.strength == Strength::Hard) {
            agreement.throttle(name, spec);
        }
        for (name, pool) in pools.iter() {
            agreement.permits(name, pool.quota().whole);
        }
        escrow.agree(agreement);
    }

    /// The differences between the hard limits of other nodes and this node's.
    pub fn differences(&self) -> Vec<Difference> {
        self.sharing.lock().escrow.as_ref().map(Escrow::differences).unwrap_or_default()
    }

    /// Whether the share of a hard limit is out of use because another node has another configuration. O(processes).
    pub fn differs(&self, name: &str) -> bool {
        self.sharing.lock().escrow.as_ref().is_some_and(|escrow| escrow.is_in_conflict(name))
    }

    /// The [`Limiter::differences`] that were not returned before: each is reported once. Compares once a second.
    pub fn take_differences(&self, now: Time) -> Vec<Difference> {
        let mut sharing = self.sharing.lock();
        if now < sharing.compare_at {
            return Vec::new();
        }
        sharing.compare_at = now.after(COMPARE);
        let all = sharing.escrow.as_ref().map(Escrow::differences).unwrap_or_default();
        let new: Vec<_> = all.into_iter().filter(|difference| !sharing.reported.contains(difference)).collect();
        if sharing.reported.len() + new.len() > REPORTED {
            sharing.reported.clear();
        }
        sharing.reported.extend(new.iter().cloned());
        new
    }

    /// Begins to give everything back. [`Limiter::has_left`] returns whether that is complete.
    pub fn leave(&self) {
        let mut sharing = self.sharing.lock();
        if let Some(escrow) = &mut sharing.escrow {
            escrow.leave();
        }
        if let Some(levels) = &mut sharing.levels {
            levels.hurry();
        }
    }

    /// Whether this node holds nothing any more.
    pub fn has_left(&self) -> bool {
        self.sharing.lock().escrow.as_ref().is_none_or(Escrow::has_left)
    }

    /// The latest time to call [`Limiter::handle_timeout`].
    pub fn poll_timeout(&self) -> Time {
        let sharing = self.sharing.lock();
        if self.woken.load(Ordering::Acquire) {
            sharing.tick_at.min(sharing.ticked.after(BREATH))
        } else {
            sharing.tick_at
        }
    }

    /// Handles passed time and changed rows: processes the rows of other nodes, moves shares, and writes this node's rows.
    /// `reach` states which nodes the membership sees; `forgotten` are the nodes that an operator has forgotten.
    pub fn handle_timeout(&self, clocks: Now, reach: Reach, forgotten: &[NodeName]) {
        let now = clocks.mono;
        self.woken.store(false, Ordering::Release);
        let mut sharing = self.sharing.lock();
        sharing.ticked = now;
        sharing.learn(&self.structure, now, forgotten);
        self.take_up(&mut sharing, now);
        let used = std::mem::take(&mut *self.listed.lock());
        used.iter().for_each(|throttle| sharing.wake(throttle, now));
        sharing.share(&self.structure, now);
        let founders = sharing.escrow.as_ref().is_none_or(Escrow::hears_founders);
        let reach = Reach { founders, ..reach };
        let changed = std::mem::replace(&mut sharing.reach, reach) != reach;
        let (heard, lost) = self.apply_growth(&mut sharing, now);
        used.iter().for_each(|throttle| throttle.exchanged(now, reach));
        if let Some(levels) = &mut sharing.levels {
            levels.handle_timeout(used.iter().chain(&heard), clocks);
        }
        if changed || lost {
            self.throttles().iter().for_each(|throttle| throttle.exchanged(now, reach));
        }
        let used = !used.is_empty() || !heard.is_empty();
        self.sweep(&mut sharing, now);
        let hard = sharing.hard.values().any(|throttle| throttle.is_wanted()) || !sharing.pools.is_empty();
        let next = now.after(if used || hard { EXCHANGE } else { LOOK * 2 });
        let due = sharing.escrow.as_ref().map_or(next, |escrow| escrow.poll_timeout().max(Time(now.0 + 1000)));
        sharing.tick_at = next.min(due);
    }

    /// Subtracts the admissions of other nodes as soon as they arrive: later, the bucket would have been full in the meantime.
    /// Creates a throttle if its rate is known; for other names, keeps the history. Returns the throttles with news, and
    /// whether news was lost.
    fn apply_growth(&self, sharing: &mut Sharing, now: Time) -> (Vec<Arc<Throttle>>, bool) {
        let Grown { keys, lost } = sharing.grown.take();
        if lost {
            sharing.heard.lost(now);
        }
        let mut heard = Vec::new();
        for (key, grown) in keys {
            let Ok(name) = std::str::from_utf8(&key) else { continue };
            if let Some(throttle) = self.find(name) {
                throttle.hear(now, grown);
                heard.push(throttle);
                continue;
            }
            if grown == 0 {
                continue;
            }
            sharing.heard.note(key.clone(), now, grown);
            let room = self.count.load(Ordering::Relaxed) < THROTTLES && !sharing.pools.contains_key(name);
            if let Some(spec) = self.configured(name).filter(|_| room && key::throttle(name).is_ok()) {
                heard.extend(self.made(sharing, name, spec, now).ok());
            }
        }
        (heard, lost)
    }

    /// Creates the throttles that other nodes ask this founder for, so that it can lend from them.
    fn take_up(&self, sharing: &mut Sharing, now: Time) {
        let asked = sharing.escrow.as_mut().map(Escrow::take_asked).unwrap_or_default();
        for (name, rate) in asked {
            let taken = sharing.pools.contains_key(&*name);
            let full = sharing.hard.len() >= bounds::SHARED_NAMES;
            if let (true, Some(escrow)) = (full, &sharing.escrow) {
                escrow.board.tally.reached(Bound::SharedNames);
            }
            if taken || full || key::throttle(&name).is_err() {
                continue;
            }
            let spec = self.configured(&name);
            let spec = spec.unwrap_or_else(|| ThrottleSpec::new(rate, Strength::Hard));
            if let Ok(throttle) = self.made(sharing, &name, spec, now) {
                sharing.wake(&throttle, now);
            }
        }
    }

    /// Drops idle throttles, one shard at a time: those that only the table holds and that have nothing to remember. A caller
    /// that uses one again finds it in the same state. Throttles that the configuration names stay.
    fn sweep(&self, sharing: &mut Sharing, now: Time) {
        sharing.shard = (sharing.shard + 1) % SHARDS;
        let shard = &self.shards[sharing.shard];
        if !shard.read().is_empty() {
            let Sharing { levels, .. } = &mut *sharing;
            shard.write().retain(|throttle| {
                let goes = throttle.is_idle(now) && Arc::strong_count(throttle) == 1 && !throttle.is_declared();
                if let Some(levels) = levels.as_mut().filter(|_| goes) {
                    levels.forget(throttle.name(), now);
                }
                self.count.fetch_sub(usize::from(goes), Ordering::Relaxed);
                !goes
            });
        }
        sharing.heard.sweep(now, |name| self.structure.others(name));
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

#[cfg(test)]
mod tests {
    use tallymesh_schemas::{Class, Incarnation, StructureName, StructureSpec};

    use super::*;
    use crate::replica::{Config, Replica};

    const NAMES: usize = 100_000;

    /// One founder in virtual time.
    struct Alone {
        replica: Replica,
        limiter: Limiter,
        now: Time,
    }

    impl Alone {
        fn new() -> Self {
            let node = NodeName::new("a").unwrap();
            let config =
                Config { idle_after: Duration::from_secs(2), retention: Duration::from_secs(6), ..Config::default() };
            let mut replica = Replica::new(config, node.clone(), Incarnation(1));
            let name = StructureName::new("shared_named_throttles").unwrap();
            let spec = StructureSpec::new(name, Class::SharedNamedThrottles);
            let structure = replica.replicate(spec, Arc::new(|| ())).unwrap();
            let founding = Founding::new([node.clone()], Duration::from_secs(1)).unwrap();
            let limiter = Limiter::new(structure, Some(founding), node, 1, Time(0), Arc::new(|| ()));
            let mut alone = Self { replica, limiter, now: Time(0) };
            alone.run(Duration::from_secs(3));
            alone
        }

        fn run(&mut self, time: Duration) {
            let end = self.now.after(time);
            while self.now < end {
                self.now = self.now.after(Duration::from_millis(100));
                let now = Now { mono: self.now, unix_ms: self.now.0 / 1000 };
                self.limiter.handle_timeout(now, Reach::ALONE, &[]);
                self.replica.handle_changes(now);
                self.replica.handle_timeout(now);
            }
        }

        fn hard(&self, n: usize) -> Arc<Throttle> {
            let spec = ThrottleSpec::new("10/1s".parse().unwrap(), Strength::Hard);
            self.limiter.throttle(&format!("campaign {n}"), spec, self.now).unwrap()
        }

        /// The number of limits that a tick visits.
        fn visited(&self) -> usize {
            let sharing = self.limiter.sharing.lock();
            sharing.hard.len().max(sharing.escrow.as_ref().unwrap().shared())
        }
    }

    /// No tick visits hard throttles without callers, and they are usable at once when a caller asks.
    #[test]
    fn idle_hard_throttles_cost_nothing() {
        let mut alone = Alone::new();
        let rows = alone.limiter.structure.keys();
        for n in 0..NAMES {
            assert!(alone.hard(n).check(alone.now, 10).admitted());
        }
        for n in 0..NAMES / 10 {
            assert!(alone.hard(n).take(alone.now, 5).admitted());
        }
        alone.run(Duration::from_millis(100));
        assert_eq!(alone.visited(), NAMES / 10);
        let held: Vec<_> = (0..3).map(|n| alone.hard(n)).collect();
        alone.run(Duration::from_secs(10));
        assert_eq!(alone.visited(), 0);
        // A caller with a handle keeps its throttle. Of the others nothing is left, not even rows.
        assert_eq!(alone.limiter.throttles().len(), held.len());
        alone.run(Duration::from_secs(10));
        assert!(alone.limiter.structure.keys() <= rows + held.len(), "{} keys", alone.limiter.structure.keys());
        // They are as full as before, whether or not they were dropped, and no fuller.
        for throttle in [Arc::clone(&held[0]), alone.hard(7), alone.hard(NAMES + 1)] {
            assert!(throttle.take(alone.now, 10).admitted());
            assert!(!throttle.take(alone.now, 1).admitted());
        }
        alone.run(Duration::from_millis(100));
        assert_eq!(alone.visited(), 3);
    }

    /// A used throttle is freed with its limiter when no caller has it.
    #[test]
    fn what_nobody_has_is_not_kept() {
        let alone = Alone::new();
        let throttle = alone.hard(1);
        assert!(throttle.take(alone.now, 1).admitted());
        let kept = Arc::downgrade(&throttle);
        drop(throttle);
        assert_eq!(kept.strong_count(), 2, "it is in the table and on the list");
        drop(alone);
        assert_eq!(kept.strong_count(), 0);
    }

    /// Tokens taken while a throttle rested are not available again in another epoch.
    #[test]
    fn what_was_taken_stays_taken() {
        let mut alone = Alone::new();
        let throttle = alone.hard(1);
        assert!(throttle.take(alone.now, 10).admitted());
        let base = *alone.limiter.ground.read();
        *alone.limiter.ground.write() = crate::limiter::share::Base { epoch: base.epoch + 1, ..base };
        assert!(!throttle.take(alone.now, 1).admitted());
        alone.run(Duration::from_millis(200));
        assert!(!throttle.take(alone.now, 3).admitted() && throttle.take(alone.now, 1).admitted());
    }
}
