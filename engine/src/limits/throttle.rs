//! A throttle on one node: soft or hard, behind one short lock.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tallymesh_schemas::{OnPartition, Strength, ThrottleSpec, limits};

use super::bucket::{Bucket, Decision, UNITS};
use super::escrow::{Base, Share};
use super::heard::Past;
use super::soft::Soft;
use super::target::Quota;
use crate::structure::Counter;
use crate::time::Time;

/// Whom this node can hear of those that it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Reach {
    /// Nodes that live, this one included.
    pub alive: u32,
    /// Nodes that are known and have not left or been forgotten, this one included.
    pub known: u32,
    /// For hard limits: no founder is missing.
    pub founders: bool,
}

impl Reach {
    /// Nobody is missing.
    pub const ALONE: Self = Self { alive: 1, known: 1, founders: true };

    fn part(self) -> u64 {
        u64::from(self.alive.max(1)) * 1000 / u64::from(self.known.max(1))
    }
}

#[derive(Debug)]
struct State {
    spec: ThrottleSpec,
    soft: Soft,
    hard: Bucket,
    reach: Reach,
    /// Tokens that were asked for since the last look.
    asked: u64,
    /// The most that were asked for at once.
    at_once: u64,
    demand: u64,
    /// It is on the list of those that were used since the last exchange.
    listed: bool,
    /// A hard one that nobody shares out now: its bucket is that of the base in this epoch.
    rests: Option<u64>,
    /// Tokens were taken since it rests.
    taken: bool,
    /// The configuration names it: it stays when it is idle.
    declared: bool,
}

/// Throttles that were used since the last exchange.
pub(super) type Listed = Mutex<Vec<Arc<Throttle>>>;

/// What all hard throttles that rest may use. Written before anybody else is told of what it has lost.
pub(super) type Ground = Arc<RwLock<Base>>;

/// A throttle. Cheap to share; all methods may be called from any thread, and take one lock that only this throttle's
/// callers share.
#[derive(Debug)]
pub struct Throttle {
    name: Arc<str>,
    counter: Counter,
    state: Mutex<State>,
    list: Weak<Listed>,
    ground: Ground,
}

/// How a throttle stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Standing {
    /// What it is.
    pub spec: ThrottleSpec,
    /// Tokens that are there on this node; fewer than none when others have used more than it knew.
    pub tokens: i64,
    /// This node's share, in units of [`UNITS`].
    pub share: u64,
    /// What this node could use, in the same units.
    pub demand: u64,
    /// What all have admitted since the throttle was idle, as it is known here.
    pub admitted: i64,
    /// What this node has admitted of it.
    pub local: i64,
    /// What others admit in a second, as it is heard.
    pub heard_rate: u64,
    /// Tokens that others admitted at a moment that this node does not know, because it was not there or kept no history. They
    /// count for the latest moment at which it can have been, so that this node admits too little and never too much.
    pub assumed: u64,
    /// How long ago that moment was.
    pub assumed_ago: Duration,
    /// Nodes whose counts are known, this one included.
    pub actors: u32,
    /// How old the oldest of what is known may be.
    pub stalest: Duration,
    /// Whom this node hears.
    pub reach: Reach,
}

/// With what a throttle begins.
pub(super) struct Born<'a> {
    /// When it is made.
    pub(super) now: Time,
    /// What the rows of the others say.
    pub(super) heard: i64,
    /// What is known of how that came.
    pub(super) past: &'a Past,
}

impl Standing {
    /// Other nodes that are known, whether or not anything of theirs has come.
    pub fn others(&self) -> u64 {
        u64::from(self.actors.max(self.reach.known).saturating_sub(1))
    }

    /// What the others can have admitted of a soft throttle and this node has not received: a burst each, and what the rate
    /// gave since the stalest of them was heard.
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

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What it is.
    pub fn spec(&self) -> ThrottleSpec {
        self.state.lock().spec
    }

    /// Takes `n` tokens if they are there. A request for more than the burst never is. O(1), no allocation.
    #[inline]
    pub fn take(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        let decision = self.decide(now, n, true);
        if decision.admitted() {
            self.counter.add(i64::try_from(n).unwrap_or(limits::STEP));
        }
        decision
    }

    /// Gives back `n` tokens that were taken a moment ago and not used, as far as there is room for them. O(1).
    pub fn give_back(&self, now: Time, n: u64) {
        let mut state = self.state.lock();
        match state.spec.strength {
            Strength::Soft => state.soft.give_back(now, n),
            Strength::Hard => state.hard.give_back(now, n),
        }
        drop(state);
        self.counter.add(-i64::try_from(n).unwrap_or(limits::STEP));
    }

    /// Whether `n` tokens could be taken now. Takes none. O(1).
    pub fn check(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        self.decide(now, n, false)
    }

    /// Counts `n` without asking: something that has happened anyway. It is owed where the limit is soft; where it is hard,
    /// as much as there is is taken, and the rest is beyond the limit. Whether it was within.
    pub fn inc(self: &Arc<Self>, now: Time, n: u64) -> bool {
        let n = n.min(limits::STEP.unsigned_abs());
        let within = self.decide(now, n, true).admitted();
        if !within {
            self.state.lock().force(now, n);
        }
        self.counter.add(i64::try_from(n).unwrap_or(limits::STEP));
        within
    }

    #[inline]
    fn decide(self: &Arc<Self>, now: Time, n: u64, take: bool) -> Decision {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        let decision = if state.rests() {
            // Held until it is taken: what the base loses is told to others only after that.
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

    /// How it stands.
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

    /// Takes off what others have admitted. Their rows have grown by `grown` since this was called last.
    pub(super) fn hear(&self, now: Time, grown: u64) {
        self.state.lock().soft.hear(now, self.counter.others(), grown);
    }

    /// The configuration names it.
    pub(super) fn declare(&self) {
        self.state.lock().declared = true;
    }

    /// Whether the table lets go of it when it is idle and nobody has it.
    pub(super) fn is_declared(&self) -> bool {
        self.state.lock().declared
    }

    /// What the rows of the others say.
    pub(super) fn others(&self) -> i64 {
        self.counter.others()
    }

    /// Sets what it is. What was counted stays counted.
    pub(super) fn set_spec(&self, now: Time, spec: ThrottleSpec) {
        let mut state = self.state.lock();
        if state.spec != spec {
            state.soft.set_rate(now, spec.rate, u64::from(spec.epsilon));
            state.hard.set_rate(now, spec.rate);
            state.spec = spec;
        }
    }

    /// What the whole of it means to those who share it.
    pub(super) fn quota(&self) -> Quota {
        let state = self.state.lock();
        Quota { whole: UNITS, least: UNITS.div_ceil(state.spec.rate.burst()) }
    }

    /// Looks at what was asked for in the last `passed`, and says what this node could use of the whole, in units.
    pub(super) fn demand(&self, passed: Duration) -> u64 {
        let mut state = self.state.lock();
        let rate = state.spec.rate;
        let micros = u128::from(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1));
        let units = |part: u128, of: u128| {
            let units = part * u128::from(UNITS) / of.max(1);
            u64::try_from(units).unwrap_or(UNITS).min(UNITS)
        };
        let asked = u128::from(state.asked.min(limits::STEP.unsigned_abs()));
        let steady = units(asked * u128::from(rate.period_us()), u128::from(rate.tokens()) * micros);
        let fresh = steady.max(units(u128::from(state.at_once), u128::from(rate.burst())));
        // It grows at once, and halves in a quarter of a second.
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

    /// It is shared out from now on: [`Throttle::set_share`] says what it has.
    pub(super) fn wake(&self, now: Time) {
        let mut state = self.state.lock();
        state.stand_on(now, &self.ground.read());
        (state.rests, state.taken) = (None, false);
    }

    /// Lets a hard throttle rest that nobody on this node asks for, and whose bucket is as if nobody ever had. Whether it
    /// did.
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

    /// Whether somebody on this node could use it.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.lock().demand > 0
    }

    /// What was admitted here has been told, and this is whom we hear.
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

    /// When it is full, and what it had heard of the others then; `None` where its bucket is not what limits.
    pub(super) fn level(&self, now: Time) -> Option<(Time, i64)> {
        let mut state = self.state.lock();
        self.learn(&mut state, now);
        state.is_soft().then(|| (state.soft.full_at(now), state.soft.heard()))
    }

    /// It goes on where an earlier run has ended.
    pub(super) fn resume(&self, now: Time, full_at: Time, past: &Past) {
        self.state.lock().soft.resume(now, full_at, past);
    }

    /// Whether nothing of it has to be remembered; then its count goes to zero, and its row is retired. Also where somebody has
    /// its handle: the count of a throttle is what was admitted since it was idle.
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

    /// Whether its soft bucket limits, at least while founders are missing.
    fn is_soft(&self) -> bool {
        self.spec.strength == Strength::Soft || self.spec.on_partition == OnPartition::FailOpen
    }

    /// Brings the bucket of a throttle that rests to what the base is now. In another epoch it is one that nobody has taken
    /// from yet, as far as that is so.
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

    /// Counts what was not admitted: owed where it is soft.
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
