//! A throttle on one node, protected by one lock that is held briefly. Its [`Strategy`] decides.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tallymesh_schemas::{ThrottleSpec, bounds};

use crate::counter::structure::Counter;
use crate::limiter::bucket::Decision;
use crate::limiter::heard::Past;
use crate::limiter::reach::Reach;
use crate::limiter::share::{Base, Share, UNITS};
use crate::limiter::strategy::{Limit, Request, Strategy};
use crate::limiter::target::Quota;
use crate::time::Time;

#[derive(Debug)]
struct State {
    limit: Limit,
    /// Whether it is in the list of throttles used since the last exchange.
    listed: bool,
    /// Whether the configuration names it. Such a throttle stays when it is idle.
    declared: bool,
    decisions: Decisions,
}

/// What a throttle has decided on this node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Decisions {
    /// Requests that it has admitted.
    pub admitted: u64,
    /// Requests that it has refused, and uses without a request that were not within the limit.
    pub refused: u64,
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
        u64::from(self.actors.saturating_sub(1).max(self.reach.others()))
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
        let limit = Limit::new(spec, &ground.read(), born.heard, born.past, born.now);
        let state = State { limit, listed: false, declared: false, decisions: Decisions::default() };
        Self { name, counter, state: Mutex::new(state), list, ground }
    }

    /// The throttle's name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The throttle's limit.
    pub fn spec(&self) -> ThrottleSpec {
        self.state.lock().limit.spec
    }

    /// Takes `n` tokens if they are available. A request for more than the burst never succeeds. O(1), no allocation.
    #[inline]
    pub fn take(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        let decision = self.decide(now, n, Request::Take);
        if decision.admitted() {
            self.counter.add(i64::try_from(n).unwrap_or(bounds::STEP));
        }
        decision
    }

    /// Gives back `n` tokens that were just taken and not used, as far as there is room for them. O(1).
    pub fn give_back(&self, now: Time, n: u64) {
        self.state.lock().limit.give_back(now, n);
        self.counter.add(-i64::try_from(n).unwrap_or(bounds::STEP));
    }

    /// Whether `n` tokens could be taken now. Takes none. O(1).
    pub fn check(self: &Arc<Self>, now: Time, n: u64) -> Decision {
        self.decide(now, n, Request::Check)
    }

    /// Counts `n` tokens that were used without a request. A soft limit carries the excess as a debt. A hard limit takes
    /// the available tokens, and the rest exceeds the limit. Returns whether the tokens were within the limit.
    pub fn inc(self: &Arc<Self>, now: Time, n: u64) -> bool {
        let n = n.min(bounds::STEP.unsigned_abs());
        let within = self.decide(now, n, Request::Take).admitted();
        if !within {
            self.state.lock().limit.force(now, n);
        }
        self.counter.add(i64::try_from(n).unwrap_or(bounds::STEP));
        within
    }

    #[inline]
    fn decide(self: &Arc<Self>, now: Time, n: u64, request: Request) -> Decision {
        let mut state = self.state.lock();
        state.limit.learn(now, self.counter.others());
        let decision = if state.limit.rests() {
            // The lock is held until the tokens are taken: other nodes learn what the base loses only after that.
            let base = self.ground.read();
            state.limit.stand_on(now, &base);
            state.limit.decide(now, n, request)
        } else {
            state.limit.decide(now, n, request)
        };
        let newly = request == Request::Take && !std::mem::replace(&mut state.listed, true);
        if request == Request::Take {
            let Decisions { admitted, refused } = &mut state.decisions;
            *(if decision.admitted() { admitted } else { refused }) += 1;
        }
        drop(state);
        if newly && let Some(list) = self.list.upgrade() {
            list.lock().push(Arc::clone(self));
        }
        decision
    }

    /// What it has decided since it was created. A throttle that the configuration names is created once.
    pub fn decisions(&self) -> Decisions {
        self.state.lock().decisions
    }

    /// The throttle's status.
    pub fn standing(&self, now: Time) -> Standing {
        let count = self.counter.count(now);
        let mut state = self.state.lock();
        let limit = &mut state.limit;
        limit.learn(now, self.counter.others());
        limit.stand_on(now, &self.ground.read());
        let (assumed_at, assumed) = limit.whole.assumed(now);
        Standing {
            spec: limit.spec,
            tokens: limit.tokens(now),
            share: limit.share(now),
            demand: limit.demand(),
            admitted: count.total,
            local: count.local,
            heard_rate: limit.whole.heard_rate(now),
            assumed,
            assumed_ago: now.since(assumed_at),
            actors: count.actors,
            stalest: count.stalest,
            reach: limit.reach,
        }
    }

    /// Subtracts what others have admitted. Their rows have grown by `grown` since the last call.
    pub(super) fn hear(&self, now: Time, grown: u64) {
        self.state.lock().limit.whole.hear(now, self.counter.others(), grown);
    }

    /// Marks it as named by the configuration.
    pub(super) fn declare(&self) {
        self.state.lock().declared = true;
    }

    /// The configuration does not name it any more.
    pub(super) fn undeclare(&self) {
        self.state.lock().declared = false;
    }

    /// Whether the configuration names it, so that the table keeps it while it is idle and unused.
    pub(super) fn is_declared(&self) -> bool {
        self.state.lock().declared
    }

    /// The sum of the others' rows.
    pub(super) fn others(&self) -> i64 {
        self.counter.others()
    }

    /// Changes the limit. Counted tokens stay counted. Returns whether it became hard: such a throttle has no tokens before it
    /// has a share.
    pub(super) fn set_spec(&self, now: Time, spec: ThrottleSpec) -> bool {
        self.state.lock().limit.set_spec(now, spec)
    }

    /// The size of the limit in units, and its smallest useful share.
    pub(super) fn quota(&self) -> Quota {
        Quota { whole: UNITS, least: UNITS.div_ceil(self.spec().rate.burst()) }
    }

    /// Evaluates the requests of the last `passed`. Returns the demand: the units of the whole that this node could use.
    pub(super) fn demand(&self, passed: Duration) -> u64 {
        let mut state = self.state.lock();
        let rate = state.limit.spec.rate;
        match &mut state.limit.strategy {
            Strategy::Soft => 0,
            Strategy::Hard(hard) => hard.measure(rate, passed),
        }
    }

    /// Ends the rest: from now on the throttle is shared out, and [`Throttle::set_share`] sets its share.
    pub(super) fn wake(&self, now: Time) {
        let mut state = self.state.lock();
        state.limit.stand_on(now, &self.ground.read());
        if let Strategy::Hard(hard) = &mut state.limit.strategy {
            hard.wake();
        }
    }

    /// Lets a throttle rest if no caller on this node uses it and its bucket is as if it was never used. Returns whether it
    /// rests; a soft one does.
    pub(super) fn rest(&self, now: Time) -> bool {
        let mut state = self.state.lock();
        let base = self.ground.read();
        let listed = state.listed;
        match &mut state.limit.strategy {
            Strategy::Soft => true,
            Strategy::Hard(hard) => !listed && hard.rest(now, &base),
        }
    }

    /// Sets this node's share.
    pub(super) fn set_share(&self, now: Time, share: Share) {
        if let Strategy::Hard(hard) = &mut self.state.lock().limit.strategy {
            hard.bucket.set_share(now, share.units, share.until);
        }
    }

    /// Whether a caller on this node could use it.
    pub(super) fn is_wanted(&self) -> bool {
        self.state.lock().limit.demand() > 0
    }

    /// Records that this node's admissions were sent, and which nodes it can reach.
    pub(super) fn exchanged(&self, now: Time, reach: Reach) {
        let mut state = self.state.lock();
        state.listed = false;
        let limit = &mut state.limit;
        limit.learn(now, self.counter.others());
        limit.whole.exchanged(now);
        limit.set_reach(now, reach);
    }

    /// When the bucket is full, and the sum of the others' rows at that time; `None` if this bucket does not enforce the limit.
    pub(super) fn level(&self, now: Time) -> Option<(Time, i64)> {
        let limit = &mut self.state.lock().limit;
        limit.learn(now, self.counter.others());
        limit.uses_whole().then(|| (limit.whole.full_at(now), limit.whole.heard()))
    }

    /// Continues at the level where an earlier run ended.
    pub(super) fn resume(&self, now: Time, full_at: Time, past: &Past) {
        self.state.lock().limit.whole.resume(now, full_at, past);
    }

    /// Whether nothing has to be remembered. Then its count goes to zero, and its row is retired. This also applies while a
    /// caller has a handle: the count of a throttle is what was admitted since it was last idle.
    pub(super) fn is_idle(&self, now: Time) -> bool {
        let mut state = self.state.lock();
        state.limit.learn(now, self.counter.others());
        let idle = !state.listed && state.limit.is_untouched(now);
        let own = self.counter.own();
        if idle && own != 0 {
            self.counter.add(own.saturating_neg());
        }
        idle
    }
}
