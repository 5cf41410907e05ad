//! A node's local rate limiter: the generic cell rate algorithm (ITU-T I.371) as a token bucket. It holds a changeable share of
//! the whole rate, and computes in integers without rounding.
//!
//! The level is counted in **grains**: a token is `period · UNITS` grains. So a share of `w` units of a rate of
//! `tokens` per `period` fills at exactly `tokens · w` grains per microsecond, and holds at most `burst · w · period` grains.

use std::time::Duration;

use tallymesh_schemas::Rate;

use crate::canary::{self, Canary};
use crate::limiter::share::{Base, UNITS};
use crate::time::Time;

/// The result of a request for tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The tokens were taken.
    Admitted,
    /// The tokens were not taken. `after` is the time until they fit if no other request takes any and no share moves; `None`
    /// when they exceed the burst of this node's share.
    Refused {
        /// How long to wait.
        after: Option<Duration>,
    },
}

impl Decision {
    /// Whether the tokens were taken.
    pub fn admitted(self) -> bool {
        self == Self::Admitted
    }
}

/// I9: a share that grows brings no tokens, because its previous holder may have used them.
fn growth_brings_no_tokens() -> bool {
    !canary::broken(Canary::BurstBrought)
}

/// A token bucket that holds a share of a rate.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: Rate,
    share: u64,
    /// When the share ends, whatever the driver does meanwhile.
    until: Time,
    level: u128,
    at: Time,
}

impl Bucket {
    /// An empty bucket without a share. O(1).
    pub fn new(rate: Rate, now: Time) -> Self {
        Self { rate, share: 0, until: Time::NEVER, level: 0, at: now }
    }

    /// A full bucket with the whole rate. O(1).
    pub fn whole(rate: Rate, now: Time) -> Self {
        let mut bucket = Self { rate, share: UNITS, until: Time::NEVER, level: 0, at: now };
        bucket.level = bucket.cap();
        bucket
    }

    /// An untouched bucket that has had its share since the epoch of `base` began. O(1).
    pub fn since(rate: Rate, base: Base, now: Time) -> Self {
        let mut bucket = Self { rate, share: base.units.min(UNITS), until: base.until, level: 0, at: base.since };
        bucket.settle(now);
        bucket
    }

    /// Extends the share, unless it has already ended. Returns whether it continues.
    pub(super) fn extend(&mut self, until: Time) -> bool {
        let goes_on = self.at < self.until;
        if goes_on {
            self.until = self.until.max(until);
        }
        goes_on
    }

    /// Grains of one token.
    fn token(&self) -> u128 {
        u128::from(self.rate.period_us()) * u128::from(UNITS)
    }

    fn cap(&self) -> u128 {
        u128::from(self.rate.burst()) * u128::from(self.share) * u128::from(self.rate.period_us())
    }

    fn speed(&self) -> u128 {
        u128::from(self.rate.tokens()) * u128::from(self.share)
    }

    /// Fills the bucket up to `now`, and drops a share that has ended meanwhile. A clock that goes back fills nothing.
    fn settle(&mut self, now: Time) {
        let upto = now.min(self.until);
        let passed = upto.0.saturating_sub(self.at.0);
        self.level = (self.level + self.speed() * u128::from(passed)).min(self.cap());
        self.at = self.at.max(now);
        if now >= self.until {
            (self.share, self.level) = (0, 0);
        }
    }

    /// Sets the share to `units` of [`UNITS`] until a moment. Tokens beyond the new share's burst are lost. A
    /// larger share brings no tokens, only faster filling. O(1).
    pub fn set_share(&mut self, now: Time, units: u64, until: Time) {
        self.settle(now);
        let before = self.cap();
        (self.share, self.until) = (units.min(UNITS), until);
        if !growth_brings_no_tokens() {
            self.level += self.cap().saturating_sub(before);
        }
        if now >= until {
            self.share = 0;
        }
        self.level = self.level.min(self.cap());
    }

    /// Changes the rate. The tokens in the bucket stay, as far as the new burst has room. O(1).
    pub fn set_rate(&mut self, now: Time, rate: Rate) {
        self.settle(now);
        let tokens = self.level / u128::from(self.rate.period_us());
        self.rate = rate;
        self.level = (tokens * u128::from(rate.period_us())).min(self.cap());
    }

    /// The share, in units of [`UNITS`].
    pub fn share(&mut self, now: Time) -> u64 {
        self.settle(now);
        self.share
    }

    /// Takes `n` tokens if they are available. O(1), no allocation.
    pub fn take(&mut self, now: Time, n: u64) -> Decision {
        let decision = self.check(now, n);
        if decision.admitted() {
            self.level -= u128::from(n) * self.token();
        }
        decision
    }

    /// Puts back `n` taken and unused tokens, as far as there is room. The level never exceeds a full bucket, so no window sees
    /// more than if the tokens had stayed in the bucket. O(1).
    pub fn give_back(&mut self, now: Time, n: u64) {
        self.settle(now);
        self.level = (self.level + u128::from(n) * self.token()).min(self.cap());
    }

    /// Whether `n` tokens could be taken. O(1).
    pub fn check(&mut self, now: Time, n: u64) -> Decision {
        self.settle(now);
        let wanted = u128::from(n) * self.token();
        if wanted <= self.level {
            return Decision::Admitted;
        }
        if wanted > self.cap() || self.speed() == 0 {
            return Decision::Refused { after: None };
        }
        let micros = (wanted - self.level).div_ceil(self.speed());
        let after = u64::try_from(micros).ok().map(Duration::from_micros);
        Decision::Refused { after }
    }

    /// The whole tokens in the bucket.
    pub fn tokens(&mut self, now: Time) -> u64 {
        self.settle(now);
        u64::try_from(self.level / self.token()).unwrap_or(u64::MAX)
    }

    /// Whether the bucket is full.
    pub fn is_full(&mut self, now: Time) -> bool {
        self.settle(now);
        self.level == self.cap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = Rate> {
        (1..10_000_u64, 1..100_000_u64, 1..5_000_u64)
            .prop_map(|(tokens, ms, burst)| Rate::new(tokens, Duration::from_millis(ms), burst).unwrap())
    }

    proptest! {
        /// I9 for one node: no window admits more than the burst plus what the rate gives meanwhile, exactly.
        #[test]
        fn a_bucket_never_admits_more_than_burst_and_rate(
            rate in rate(), steps in prop::collection::vec((0..3_000_000_u64, 1..50_u64, 0..=UNITS), 1..200),
        ) {
            let mut now = Time(5);
            let mut bucket = Bucket::whole(rate, now);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (pause, n, share) in steps {
                now = Time(now.0 + pause);
                if share % 3 == 0 {
                    bucket.set_share(now, share, Time::NEVER);
                }
                while bucket.take(now, n).admitted() {
                    taken.push((now.0, n));
                }
            }
            for from in 0..taken.len() {
                let mut sum = 0_u128;
                for (at, n) in &taken[from..] {
                    sum += u128::from(*n);
                    let window = u128::from(at - taken[from].0);
                    prop_assert!((sum - u128::from(rate.burst()).min(sum)) * u128::from(rate.period_us()) <= window * u128::from(rate.tokens()));
                }
            }
        }

        /// A refusal states the first moment at which the tokens fit.
        #[test]
        fn a_refusal_says_exactly_how_long(rate in rate(), share in 1..=UNITS, n in 1..100_u64, pause in 0..1_000_000_u64) {
            let mut bucket = Bucket::new(rate, Time(0));
            bucket.set_share(Time(0), share, Time::NEVER);
            if let Decision::Refused { after: Some(after) } = bucket.check(Time(pause), n) {
                let at = Time(pause).after(after);
                prop_assert!(!bucket.clone().check(Time(at.0 - 1), n).admitted());
                prop_assert!(bucket.check(at, n).admitted());
            }
        }
    }

    #[test]
    fn a_share_ends_when_it_is_said_to_whether_or_not_anybody_looks() {
        let mut bucket = Bucket::new(Rate::new(1000, Duration::from_secs(1), 1000).unwrap(), Time(0));
        bucket.set_share(Time(0), UNITS, Time(1_000_000));
        assert_eq!(bucket.clone().tokens(Time(999_000)), 999);
        assert_eq!(bucket.take(Time(1_000_000), 1), Decision::Refused { after: None });
        assert_eq!(bucket.tokens(Time(9_000_000)), 0);
    }

    #[test]
    fn a_changed_rate_keeps_what_was_counted() {
        let mut bucket = Bucket::whole(Rate::new(10, Duration::from_secs(1), 10).unwrap(), Time(0));
        assert!(bucket.take(Time(0), 8).admitted());
        bucket.set_rate(Time(0), Rate::new(100, Duration::from_secs(60), 50).unwrap());
        assert_eq!(bucket.tokens(Time(0)), 2);
    }
}
