//! Permits: a limit on how many may be open at one time. Every node holds some of the permits.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::counter::structure::Counter;
use crate::limiter::share::Share;
use crate::limiter::target::Quota;
use crate::time::Time;

#[derive(Debug)]
struct State {
    maximum: u64,
    permits: u64,
    until: Time,
    in_use: u64,
    /// Refused requests since the last measurement.
    refused: u64,
    demand: u64,
}

/// The permits of one limit on this node. No two nodes ever have the same permit, and only idle permits move.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    counter: Counter,
    state: Mutex<State>,
}

/// The status of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PoolStanding {
    /// Permits in the whole cluster.
    pub maximum: u64,
    /// Permits on this node.
    pub permits: u64,
    /// Permits in use on this node.
    pub in_use: u64,
    /// Permits open in the whole cluster, as far as this node knows.
    pub open: i64,
}

/// A permit. Dropping it returns it.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
}

impl Permit {
    /// Whether this node uses more permits than it has. That happens when it was cut off for so long that other nodes may have
    /// taken the permits over. To keep the limit, the service then closes what it has open.
    pub fn is_overdue(&self, now: Time) -> bool {
        let mut state = self.pool.state.lock();
        state.in_use > state.permits(now)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        state.in_use = state.in_use.saturating_sub(1);
        drop(state);
        self.pool.counter.add(-1);
    }
}

impl State {
    fn permits(&mut self, now: Time) -> u64 {
        if now >= self.until {
            self.permits = 0;
        }
        self.permits
    }
}

impl Pool {
    pub(super) fn new(name: Arc<str>, maximum: u64, counter: Counter) -> Self {
        let state = State { maximum, permits: 0, until: Time::NEVER, in_use: 0, refused: 0, demand: 0 };
        Self { name, counter, state: Mutex::new(state) }
    }

    /// The name of the pool.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Opens a permit if this node has a free one. O(1).
    #[must_use]
    pub fn try_open(self: &Arc<Self>, now: Time) -> Option<Permit> {
        let mut state = self.state.lock();
        if state.in_use >= state.permits(now) {
            state.refused = state.refused.saturating_add(1);
            return None;
        }
        state.in_use += 1;
        drop(state);
        self.counter.add(1);
        Some(Permit { pool: Arc::clone(self) })
    }

    /// The status of the pool.
    pub fn standing(&self, now: Time) -> PoolStanding {
        let open = self.counter.count(now).total;
        let mut state = self.state.lock();
        PoolStanding { maximum: state.maximum, permits: state.permits(now), in_use: state.in_use, open }
    }

    pub(super) fn set_maximum(&self, maximum: u64) {
        self.state.lock().maximum = maximum;
    }

    pub(super) fn quota(&self) -> Quota {
        Quota { whole: self.state.lock().maximum, least: 1 }
    }

    /// The permits that this node could use: those in use, those refused, and a few more to avoid waiting.
    pub(super) fn demand(&self) -> u64 {
        let mut state = self.state.lock();
        let refused = std::mem::take(&mut state.refused);
        let wanted = state.in_use.saturating_add(refused);
        let wanted = if wanted == 0 { 0 } else { wanted.saturating_add(wanted / 8 + 1) };
        state.demand = wanted.max(state.demand - state.demand.div_ceil(8)).min(state.maximum);
        state.demand
    }

    /// Releases up to `units` idle permits. Returns how many.
    pub(super) fn release(&self, units: u64) -> u64 {
        let mut state = self.state.lock();
        let idle = state.permits.saturating_sub(state.in_use).min(units);
        state.permits -= idle;
        idle
    }

    pub(super) fn in_use(&self) -> u64 {
        self.state.lock().in_use
    }

    pub(super) fn set_share(&self, now: Time, share: Share) {
        let mut state = self.state.lock();
        (state.permits, state.until) = (share.units, share.until);
        state.permits(now);
    }
}
