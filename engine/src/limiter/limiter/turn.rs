//! One turn of a limiter, which the driver calls: the rows of other nodes come in, and shares and rows go out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Strength, ThrottleSpec, bounds, key};

use crate::counter::watch::Grown;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::limiter::sharing::{LOOK, Sharing};
use crate::limiter::limiter::{Limiter, SHARDS};
use crate::limiter::reach::Reach;
use crate::limiter::throttle::Throttle;
use crate::time::{Now, Time};

/// Time between two exchanges while a limit is in use.
const EXCHANGE: Duration = Duration::from_millis(25);

/// Shortest time between two checks of rows that change continuously.
const BREATH: Duration = Duration::from_millis(2);

/// Throttles that one turn refreshes, but at least those of one shard.
const REFRESHED: usize = 1 << 12;

/// The most throttles on this node that exist because other nodes use them. Beyond that, the limiter keeps only a history of a
/// name.
const THROTTLES: usize = 1 << 20;

impl Limiter {
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
            sharing.stale_shards = SHARDS;
        }
        self.refresh_stale(&mut sharing, now);
        let used = !used.is_empty() || !heard.is_empty();
        self.sweep(&mut sharing, now);
        let hard = sharing.hard.values().any(|throttle| throttle.is_wanted()) || !sharing.pools.is_empty();
        let next = now.after(if used || hard { EXCHANGE } else { LOOK * 2 });
        let due = sharing.escrow.as_ref().map_or(next, |escrow| escrow.poll_timeout().max(Time(now.0 + 1000)));
        let left = if sharing.learns || sharing.stale_shards > 0 { now.after(BREATH) } else { next };
        sharing.tick_at = next.min(due).min(left);
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

    /// Lets throttles read the rows and the reach again, some shards in each turn, after news was lost or the reach has changed.
    /// Throttles in use have the reach already.
    fn refresh_stale(&self, sharing: &mut Sharing, now: Time) {
        let shards = SHARDS * REFRESHED / self.count.load(Ordering::Relaxed).max(REFRESHED);
        let left = sharing.stale_shards.saturating_sub(shards.max(1));
        for shard in self.shards.iter().take(sharing.stale_shards).skip(left) {
            let throttles: Vec<_> = shard.read().iter().cloned().collect();
            throttles.iter().for_each(|throttle| throttle.exchanged(now, sharing.reach));
        }
        sharing.stale_shards = left;
    }

    /// Creates the throttles that other nodes ask this founder for, so that it can lend from them.
    fn take_up(&self, sharing: &mut Sharing, now: Time) {
        let asked = sharing.escrow.as_mut().map(Escrow::take_asked).unwrap_or_default();
        for (name, rate) in asked {
            let taken = sharing.pools.contains_key(&*name);
            let full = sharing.hard.len() >= bounds::SHARED_NAMES;
            if let (true, Some(escrow)) = (full, &sharing.escrow) {
                escrow.no_room_for_name();
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
