//! A throttle on one node: soft or hard, protected by one lock that is held briefly.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tallymesh_schemas::{OnPartition, Strength, ThrottleSpec, bounds};

use crate::counter::structure::Counter;
use crate::limiter::bucket::{Bucket, Decision};
use crate::limiter::heard::Past;
use crate::limiter::reach::Reach;
use crate::limiter::share::{Base, Share, UNITS};
use crate::limiter::soft::Soft;
use crate::limiter::target::Quota;
use crate::time::Time;

#[derive(Debug)]
struct State {
    spec: ThrottleSpec,
    soft: Soft,
    hard: Bucket,
    reach: Reach,
    /// Tokens requested since the last measurement.
    asked: u64,
    /// The largest single request since then.
    at_once: u64,
    demand: u64,
    /// Whether it is in the list of throttles used since the last exchange.
    listed: bool,
    /// For a hard throttle that is not shared out now: its bucket is that of the base in this epoch.
    rests: Option<u64>,
    /// Whether tokens were taken since it began to rest.
    taken: bool,
    /// Whether the configuration names it. Such a throttle stays when it is idle.
    declared: bool,
}

/// Throttles that were used since the last exchange.
pub(super) type Listed = Mutex<Vec<Arc<Throttle>>>;

/// The base that all resting hard throttles may use. Reduced before any other node learns what this node gives away.
pub(super) type Ground = Arc<RwLock<Base>>;

/// A throttle. Cheap to share. All methods may be called from any thread, and take one lock that only callers of this throttle
/// share.
#[derive(Debug)]
pub struct Throttle {
    name: Arc<str>,
    counter: Counter,
    state: Mutex<State>,
    list: Weak<Listed>,
    ground: Ground,
}

/// The status of a throttle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Standing {
    /// The throttle's limit.
    pub spec: ThrottleSpec,
    /// Tokens available on this node; negative when other nodes have used more than this node knew.
    pub tokens: i64,
    /// This node's share, in units of [`UNITS`].
    pub share: u64,
    /// The share that this node could use, in the same units.
    pub demand: u64,
    /// Tokens that all nodes have admitted since the throttle was last idle, as far as this node knows.
    pub admitted: i64,
    /// The part of them that this node has admitted.
    pub local: i64,
    /// Tokens that other nodes admit per second, as received.
    pub heard_rate: u64,
    /// Tokens that others admitted at an unknown time, because this node was not running or kept no history. They count at the
    /// latest possible moment, so that this node may admit too little and never too much.
    pub assumed: u64,
    /// How long ago that moment was.
    pub assumed_ago: Duration,
    /// Nodes whose counts are known, including this one.
    pub actors: u32,
    /// The maximum age of the oldest known count.
    pub stalest: Duration,
    /// Which nodes this node can reach.
    pub reach: Reach,
}

/// The initial state of a throttle.
pub(super) struct Born<'a> {
    /// When it is created.
    pub(super) now: Time,
    /// The sum of the others' rows.
    pub(super) heard: i64,
    /// The known history of that sum.
    pub(super) past: &'a Past,
}

impl Standing {
    /// Other known nodes, whether or not this node has received counts from them.
    pub fn others(&self) -> u64 {
        u64::from(self.actors.max(self.reach.known).saturating_sub(1))
    }

    /// The most that others can have admitted of a soft throttle and this node has not received: one burst per node, plus what
    /// the rate gave since the oldest of their counts.
    pub fn unheard_at_worst(&self) -> u64 {
        self.others().saturating_mul(self.spec.rate.burst().saturating_add(self.spec.rate.within(self.stalest)))
    }
}

impl Throttle {
    pub(super) fn new(
        name: Arc<str>,
        spec: ThrottleSpec,
        counter: Counter,
        list: Weak<Listed>,
        ground: Ground,
        born: Born<'_>,
    ) -> Self {
        let (now, base) = (born.now, *ground.read());
        let state = State {
            spec,
            soft: Soft::since(spec.rate, u64::from(spec.epsilon), born.heard, born.past, now),
            hard: Bucket::since(spec.rate, base, now),
            reach: Reach::ALONE,
            asked: 0,
            at_once: 0,
            demand: 0,
            listed: false,
            rests: Some(base.epoch),
            taken: false,
            declared: false,
        };
        Self { name, counter, state: Mutex::new(state), list, ground }
    }

    /// The throttle's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The throttle's limit.
    pub fn spec(&self) -> ThrottleSpec {
        self.state.lock().spec
    }

    /// Takes `n` tokens if they are available. A request for more than the burst never succeeds. O(1), no allocation.
    #[inline]
    pub fn take(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        let decision = self.decide(now, n, true);
        if decision.admitted() {
            self.counter.add(i64::try_from(n).unwrap_or(bounds::STEP));
        }
        decision
    }

    /// Gives back `n` tokens that were just taken and not used, as far as there is room for them. O(1).
    pub fn give_back(&self, now: Time, n: u64) {
        let mut state = self.state.lock();
        match state.spec.strength {
            Strength::Soft => state.soft.give_back(now, n),
            Strength::Hard => state.hard.give_back(now, n),
        }
        drop(state);
        self.counter.add(-i64::try_from(n).unwrap_or(bounds::STEP));
    }

    /// Whether `n` tokens could be taken now. Takes none. O(1).
    pub fn check(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        self.decide(now, n, false)
    }

    /// Counts `n` tokens that were used without a request. A soft limit carries the excess as a debt. A hard limit takes
    /// the available tokens, and the rest exceeds the limit. Returns whether the tokens were within the limit.
    pub fn inc(self: &Arc<Self>, now: Time, n: u64) -> bool {
        let n = n.min(bounds::STEP.unsigned_abs());
        let within = self.decide(now, n, true).admitted();
        if !within {
            self.state.lock().force(now, n);
        }
        self.counter.add(i64::try_from(n).unwrap_or(bounds::STEP));
        within
    }

    #[inline]
    fn decide(self: &Arc<Self>, now: Time, n: u64, take: bool) -> Decision {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        let decision = if state.rests() {
            // The lock is held until the tokens are taken: other nodes learn what the base loses only after that.
            let base = self.ground.read();
            state.stand_on(now, &base);
            let decision = state.decide(now, n, take);
            state.taken |= take && decision.admitted();
            decision
        } else {
            state.decide(now, n, take)
        };
        let newly = take && !std::mem::replace(&mut state.listed, true);
        drop(state);
        if newly && let Some(list) = self.list.upgrade() {
            list.lock().push(Arc::clone(self));
        }
        decision
    }

    #[inline]
    fn learn(&self, state: &mut State, now: Time) {
        state.soft.learn(now, self.counter.others());
    }

    /// The throttle's status.
    pub fn standing(&self, now: Time) -> Standing {
        let count = self.counter.count(now);
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        state.stand_on(now, &self.ground.read());
        let hard = state.spec.strength == Strength::Hard;
        let (assumed_at, assumed) = state.soft.assumed(now);
        let tokens =
            if hard { i64::try_from(state.hard.tokens(now)).unwrap_or(i64::MAX) } else { state.soft.tokens(now) };
        Standing {
            spec: state.spec,
            tokens,
            share: if hard { state.hard.share(now) } else { state.soft.part() * UNITS / 1000 },
            demand: state.demand,
            admitted: count.total,
            local: count.local,
            heard_rate: state.soft.heard_rate(now),
            assumed,
            assumed_ago: now.since(assumed_at),
            actors: count.actors,
            stalest: count.stalest,
            reach: state.reach,
        }
    }

    /// Subtracts what others have admitted. Their rows have grown by `grown` since the last call.
    pub(super) fn hear(&self, now: Time, grown: u64) {
        self.state.lock().soft.hear(now, self.counter.others(), grown);
    }

    /// Marks it as named by the configuration.
    pub(super) fn declare(&self) {
        self.state.lock().declared = true;
    }

    /// Whether the configuration names it, so that the table keeps it while it is idle and unused.
    pub(super) fn is_declared(&self) -> bool {
        self.state.lock().declared
    }

    /// The sum of the others' rows.
    pub(super) fn others(&self) -> i64 {
        self.counter.others()
    }

    /// Changes the limit. Counted tokens stay counted.
    pub(super) fn set_spec(&self, now: Time, spec: ThrottleSpec) {
        let mut state = self.state.lock();
        if state.spec != spec {
            state.soft.set_rate(now, spec.rate, u64::from(spec.epsilon));
            state.hard.set_rate(now, spec.rate);
            state.spec = spec;
        }
    }

    /// The size of the limit in units, and its smallest useful share.
    pub(super) fn quota(&self) -> Quota {
        let state = self.state.lock();
        Quota { whole: UNITS, least: UNITS.div_ceil(state.spec.rate.burst()) }
    }

    /// Evaluates the requests of the last `passed`. Returns the demand: the units of the whole that this node could use.
    pub(super) fn demand(&self, passed: Duration) -> u64 {
        let mut state = self.state.lock();
        let rate = state.spec.rate;
        let micros = u128::from(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1));
        let units = |part: u128, of: u128| {
            let units = part * u128::from(UNITS) / of.max(1);
            u64::try_from(units).unwrap_or(UNITS).min(UNITS)
        };
        let asked = u128::from(state.asked.min(bounds::STEP.unsigned_abs()));
        let steady = units(asked * u128::from(rate.period_us()), u128::from(rate.tokens()) * micros);
        let fresh = steady.max(units(u128::from(state.at_once), u128::from(rate.burst())));
        // Demand grows at once, and halves in a quarter of a second.
        let faded = state.demand - state.demand.div_ceil(4);
        let least = UNITS / 1024;
        state.demand = if fresh >= faded {
            fresh
        } else if faded < least {
            0
        } else {
            faded
        };
        (state.asked, state.at_once) = (0, 0);
        state.demand
    }

    /// Ends the rest: from now on the throttle is shared out, and [`Throttle::set_share`] sets its share.
    pub(super) fn wake(&self, now: Time) {
        let mut state = self.state.lock();
        state.stand_on(now, &self.ground.read());
        (state.rests, state.taken) = (None, false);
    }

    /// Lets a hard throttle rest if no caller on this node uses it and its bucket is as if it was never used. Returns whether
    /// it rests.
    pub(super) fn rest(&self, now: Time) -> bool {
        let mut state = self.state.lock();
        let base = self.ground.read();
        let idle = !state.listed && state.demand == 0 && state.asked == 0;
        let rests = idle && state.hard.share(now) == base.units && state.hard.is_full(now);
        if rests {
            (state.rests, state.taken) = (Some(base.epoch), false);
        }
        rests
    }

    /// Sets this node's share.
    pub(super) fn set_share(&self, now: Time, share: Share) {
        self.state.lock().hard.set_share(now, share.units, share.until);
    }

    /// Whether a caller on this node could use it.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.lock().demand > 0
    }

    /// Records that this node's admissions were sent, and which nodes it can reach.
    pub(super) fn exchanged(&self, now: Time, reach: Reach) {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        state.soft.exchanged(now);
        state.listed = false;
        if state.reach != reach {
            state.reach = reach;
            let shares = state.spec.strength == Strength::Soft && state.spec.on_partition == OnPartition::FairShare;
            let part = if shares { reach.part() } else { 1000 };
            state.soft.set_part(now, part);
        }
    }

    /// When the bucket is full, and the sum of the others' rows at that time; `None` if this bucket does not enforce the limit.
    pub(super) fn level(&self, now: Time) -> Option<(Time, i64)> {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        state.is_soft().then(|| (state.soft.full_at(now), state.soft.heard()))
    }

    /// Continues at the level where an earlier run ended.
    pub(super) fn resume(&self, now: Time, full_at: Time, past: &Past) {
        self.state.lock().soft.resume(now, full_at, past);
    }

    /// Whether nothing has to be remembered. Then its count goes to zero, and its row is retired. This also applies while a
    /// caller has a handle: the count of a throttle is what was admitted since it was last idle.
    pub(super) fn is_idle(&self, now: Time) -> bool {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        let hard = state.spec.strength == Strength::Hard;
        let shared = hard && (!state.rests() || state.taken);
        let idle = !state.listed && state.demand == 0 && !shared && state.soft.is_full(now);
        let own = self.counter.own();
        if idle && own != 0 {
            self.counter.add(own.saturating_neg());
        }
        idle
    }
}

impl State {
    #[inline]
    fn rests(&self) -> bool {
        self.spec.strength == Strength::Hard && self.rests.is_some()
    }

    /// Whether its soft bucket enforces the limit, at least while founders are missing.
    fn is_soft(&self) -> bool {
        self.spec.strength == Strength::Soft || self.spec.on_partition == OnPartition::FailOpen
    }

    /// Updates the bucket of a resting throttle to the current base. In another epoch, the bucket counts as untouched since
    /// that epoch began, or only from now on if tokens were taken from it.
    fn stand_on(&mut self, now: Time, base: &Base) {
        let Some(epoch) = self.rests else { return };
        if epoch == base.epoch && self.hard.extend(base.until) {
            return;
        }
        let since = if self.taken { now } else { base.since };
        self.hard = Bucket::since(self.spec.rate, Base { since, ..*base }, now);
        self.rests = Some(base.epoch);
    }

    #[inline]
    fn decide(&mut self, now: Time, n: u64, take: bool) -> Decision {
        let alone = self.reach.known <= 1;
        match self.spec.strength {
            Strength::Soft
                if self.spec.on_partition == OnPartition::FailClosed && self.reach.alive < self.reach.known =>
            {
                Decision::Refused { after: None }
            }
            Strength::Soft if take => self.soft.take(now, n, alone),
            Strength::Soft => self.soft.check(now, n, alone),
            Strength::Hard => {
                if take {
                    self.asked = self.asked.saturating_add(n);
                    self.at_once = self.at_once.max(n);
                }
                match self.spec.on_partition {
                    OnPartition::FailClosed if !self.reach.founders => Decision::Refused { after: None },
                    OnPartition::FailOpen if !self.reach.founders && take => self.soft.take(now, n, true),
                    OnPartition::FailOpen if !self.reach.founders => self.soft.check(now, n, true),
                    _ if take => self.hard.take(now, n),
                    _ => self.hard.check(now, n),
                }
            }
        }
    }

    /// Counts tokens that were not admitted: a soft limit carries them as a debt.
    fn force(&mut self, now: Time, n: u64) {
        match self.spec.strength {
            Strength::Soft => self.soft.owe(now, n),
            Strength::Hard => {
                let there = self.hard.tokens(now).min(n);
                self.hard.take(now, there);
                self.taken = true;
            }
        }
    }
}
