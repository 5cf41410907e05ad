//! How a throttle decides. The strategy is chosen when the throttle is made.
//!
//! Both strategies know the whole limit: a soft one admits from it, and a hard one needs to know when it is idle in the whole
//! cluster, and what to admit if it fails open.

use std::time::Duration;

use tallymesh_schemas::{OnPartition, Rate, Strength, ThrottleSpec, bounds};

use crate::limiter::bucket::{Bucket, Decision};
use crate::limiter::heard::Past;
use crate::limiter::reach::Reach;
use crate::limiter::share::{Base, UNITS};
use crate::limiter::soft::{Others, Soft};
use crate::time::Time;

/// What a caller asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// To take the tokens.
    Take,
    /// Whether the tokens could be taken.
    Check,
}

/// The limit of one throttle, and its level.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) spec: ThrottleSpec,
    pub(super) reach: Reach,
    /// The whole limit, as far as this node knows: its own admissions and those that it has learned of.
    pub(super) whole: Soft,
    pub(super) strategy: Strategy,
}

#[derive(Debug)]
pub(super) enum Strategy {
    /// Admits from the whole limit.
    Soft,
    /// Admits from this node's share.
    Hard(Hard),
}

/// The share of a hard throttle.
#[derive(Debug)]
pub(super) struct Hard {
    pub(super) bucket: Bucket,
    /// While the throttle is not shared out: its bucket is that of the base in this epoch.
    rests: Option<u64>,
    /// Whether tokens were taken since it began to rest.
    taken: bool,
    /// Tokens requested since the last measurement.
    asked: u64,
    /// The largest single request since then.
    at_once: u64,
    /// The units that this node could use.
    demand: u64,
}

impl Limit {
    /// A limit as it would be now if it had always existed. `heard` is the sum of the others' rows.
    pub(super) fn new(spec: ThrottleSpec, base: &Base, heard: i64, past: &Past, now: Time) -> Self {
        let strategy = match spec.strength {
            Strength::Soft => Strategy::Soft,
            Strength::Hard => Strategy::Hard(Hard::resting(spec.rate, base, now)),
        };
        let whole = Soft::since(spec.rate, u64::from(spec.epsilon), heard, past, now);
        Self { spec, reach: Reach::ALONE, whole, strategy }
    }

    /// Changes the limit. Counted tokens stay counted. Returns whether it became hard: then it has no share yet.
    pub(super) fn set_spec(&mut self, now: Time, spec: ThrottleSpec) -> bool {
        if self.spec == spec {
            return false;
        }
        self.spec = spec;
        self.whole.set_rate(now, spec.rate, u64::from(spec.epsilon));
        match (&mut self.strategy, spec.strength) {
            (Strategy::Hard(hard), Strength::Hard) => hard.bucket.set_rate(now, spec.rate),
            (Strategy::Soft, Strength::Hard) => {
                self.strategy = Strategy::Hard(Hard::without_share(spec.rate, now));
                return true;
            }
            (_, Strength::Soft) => self.strategy = Strategy::Soft,
        }
        false
    }

    /// Learns what others have admitted: the sum of their rows. O(1).
    #[inline]
    pub(super) fn learn(&mut self, now: Time, others: i64) {
        self.whole.learn(now, others);
    }

    /// Sets which nodes this node can reach.
    pub(super) fn set_reach(&mut self, now: Time, reach: Reach) {
        if self.reach != reach {
            self.reach = reach;
            let divides = matches!(self.strategy, Strategy::Soft) && self.spec.on_partition == OnPartition::FairShare;
            self.whole.set_part(now, if divides { reach.part() } else { 1000 });
        }
    }

    /// Whether it is a hard limit that is not shared out.
    #[inline]
    pub(super) fn rests(&self) -> bool {
        matches!(&self.strategy, Strategy::Hard(hard) if hard.rests.is_some())
    }

    /// Whether it admits from the whole limit, at least while founders are missing.
    pub(super) fn uses_whole(&self) -> bool {
        matches!(self.strategy, Strategy::Soft) || self.spec.on_partition == OnPartition::FailOpen
    }

    /// Updates the bucket of a resting throttle to the current base.
    pub(super) fn stand_on(&mut self, now: Time, base: &Base) {
        if let Strategy::Hard(hard) = &mut self.strategy {
            hard.stand_on(self.spec.rate, now, base);
        }
    }

    /// Decides on `n` tokens. O(1), no allocation.
    #[inline(always)]
    pub(super) fn decide(&mut self, now: Time, n: u64, request: Request) -> Decision {
        let on_partition = self.spec.on_partition;
        match &mut self.strategy {
            Strategy::Soft if on_partition == OnPartition::FailClosed && self.reach.alive < self.reach.known => {
                Decision::Refused { after: None }
            }
            Strategy::Soft => {
                let others = if self.reach.others() == 0 { Others::None } else { Others::Some };
                from_whole(&mut self.whole, now, n, request, others)
            }
            Strategy::Hard(hard) => {
                hard.note(n, request);
                let decision = match on_partition {
                    OnPartition::FailClosed if !self.reach.founders => Decision::Refused { after: None },
                    OnPartition::FailOpen if !self.reach.founders => {
                        from_whole(&mut self.whole, now, n, request, Others::None)
                    }
                    _ if request == Request::Take => hard.bucket.take(now, n),
                    _ => hard.bucket.check(now, n),
                };
                hard.taken |= hard.rests.is_some() && request == Request::Take && decision.admitted();
                decision
            }
        }
    }

    /// Counts tokens that were not admitted: a soft limit carries them as a debt.
    pub(super) fn force(&mut self, now: Time, n: u64) {
        match &mut self.strategy {
            Strategy::Soft => self.whole.owe(now, n),
            Strategy::Hard(hard) => {
                let there = hard.bucket.tokens(now).min(n);
                hard.bucket.take(now, there);
                hard.taken = true;
            }
        }
    }

    /// Gives back `n` tokens that were just taken and not used, as far as there is room for them. O(1).
    pub(super) fn give_back(&mut self, now: Time, n: u64) {
        match &mut self.strategy {
            Strategy::Soft => self.whole.give_back(now, n),
            Strategy::Hard(hard) => hard.bucket.give_back(now, n),
        }
    }

    /// The available tokens; negative for a debt.
    pub(super) fn tokens(&mut self, now: Time) -> i64 {
        match &mut self.strategy {
            Strategy::Soft => self.whole.tokens(now),
            Strategy::Hard(hard) => i64::try_from(hard.bucket.tokens(now)).unwrap_or(i64::MAX),
        }
    }

    /// This node's part of the limit, in units of [`UNITS`].
    pub(super) fn share(&mut self, now: Time) -> u64 {
        match &mut self.strategy {
            Strategy::Soft => self.whole.part() * UNITS / 1000,
            Strategy::Hard(hard) => hard.bucket.share(now),
        }
    }

    /// The units that this node could use; zero for a soft limit.
    pub(super) fn demand(&self) -> u64 {
        match &self.strategy {
            Strategy::Soft => 0,
            Strategy::Hard(hard) => hard.demand,
        }
    }

    /// Whether the limit has nothing to remember.
    pub(super) fn is_untouched(&mut self, now: Time) -> bool {
        let ours = match &self.strategy {
            Strategy::Soft => true,
            Strategy::Hard(hard) => hard.rests.is_some() && !hard.taken && hard.demand == 0,
        };
        ours && self.whole.is_full(now)
    }
}

#[inline(always)]
fn from_whole(whole: &mut Soft, now: Time, n: u64, request: Request, others: Others) -> Decision {
    match request {
        Request::Take => whole.take(now, n, others),
        Request::Check => whole.check(now, n, others),
    }
}

impl Hard {
    /// A limit that is not shared out and that nobody has used.
    fn resting(rate: Rate, base: &Base, now: Time) -> Self {
        Self { rests: Some(base.epoch), bucket: Bucket::since(rate, *base, now), ..Self::without_share(rate, now) }
    }

    /// A limit that has no share and no tokens yet.
    fn without_share(rate: Rate, now: Time) -> Self {
        Self { bucket: Bucket::new(rate, now), rests: None, taken: false, asked: 0, at_once: 0, demand: 0 }
    }

    /// In another epoch, the bucket counts as untouched since that epoch began, or only from now on if tokens were taken from
    /// it.
    fn stand_on(&mut self, rate: Rate, now: Time, base: &Base) {
        let Some(epoch) = self.rests else { return };
        if epoch == base.epoch && self.bucket.extend(base.until) {
            return;
        }
        let since = if self.taken { now } else { base.since };
        self.bucket = Bucket::since(rate, Base { since, ..*base }, now);
        self.rests = Some(base.epoch);
    }

    #[inline]
    fn note(&mut self, n: u64, request: Request) {
        if request == Request::Take {
            self.asked = self.asked.saturating_add(n);
            self.at_once = self.at_once.max(n);
        }
    }

    /// Ends the rest.
    pub(super) fn wake(&mut self) {
        (self.rests, self.taken) = (None, false);
    }

    /// Begins to rest if there is no demand and the bucket is as if it was never used. Returns whether it rests.
    pub(super) fn rest(&mut self, now: Time, base: &Base) -> bool {
        let idle = self.demand == 0 && self.asked == 0;
        let rests = idle && self.bucket.share(now) == base.units && self.bucket.is_full(now);
        if rests {
            (self.rests, self.taken) = (Some(base.epoch), false);
        }
        rests
    }

    /// Evaluates the requests of the last `passed`. Returns the units of the whole that this node could use.
    pub(super) fn measure(&mut self, rate: Rate, passed: Duration) -> u64 {
        let micros = u128::from(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1));
        let units = |part: u128, of: u128| {
            let units = part * u128::from(UNITS) / of.max(1);
            u64::try_from(units).unwrap_or(UNITS).min(UNITS)
        };
        let asked = u128::from(self.asked.min(bounds::STEP.unsigned_abs()));
        let steady = units(asked * u128::from(rate.period_us()), u128::from(rate.tokens()) * micros);
        let fresh = steady.max(units(u128::from(self.at_once), u128::from(rate.burst())));
        // Demand grows at once, and halves in a quarter of a second.
        let faded = self.demand - self.demand.div_ceil(4);
        let least = UNITS / 1024;
        self.demand = if fresh >= faded {
            fresh
        } else if faded < least {
            0
        } else {
            faded
        };
        (self.asked, self.at_once) = (0, 0);
        self.demand
    }
}
