//! A limit of how many may be open at a time: permits, of which every node holds some.

use std::sync::Arc;

use parking_lot::Mutex;

use super::escrow::Share;
use super::target::Quota;
use crate::structure::Counter;
use crate::time::Time;

#[derive(Debug)]
struct State {
    maximum: u64,
    permits: u64,
    until: Time,
    in_use: u64,
    /// More were asked for than there were, since the last look.
    refused: u64,
    demand: u64,
}

/// Permits of one limit on this node. No two nodes ever have the same one, and only idle ones move.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    counter: Counter,
    state: Mutex<State>,
}

/// How a pool stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct PoolStanding {
    /// Permits of the whole cluster.
    pub maximum: u64,
    /// Permits that this node has.
    pub permits: u64,
    /// Those of them that are in use here.
    pub in_use: u64,
    /// What is open in the whole cluster, as it is known here.
    pub open: i64,
}

/// A permit, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
}

impl Permit {
    /// Whether more are in use on this node than it has permits for: it was cut off for so long that others may have taken
    /// them up. Who wants the limit to hold then closes what it has open.
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

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// A permit, if there is one on this node. O(1).
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

    /// How it stands.
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

    /// What this node could use: what is in use, what was refused, and a little more so that it need not wait.
    pub(super) fn demand(&self) -> u64 {
        let mut state = self.state.lock();
        let refused = std::mem::take(&mut state.refused);
        let wanted = state.in_use.saturating_add(refused);
        let wanted = if wanted == 0 { 0 } else { wanted.saturating_add(wanted / 8 + 1) };
        state.demand = wanted.max(state.demand - state.demand.div_ceil(8)).min(state.maximum);
        state.demand
    }

    /// Lets go of up to so many that are idle, and says how many.
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
