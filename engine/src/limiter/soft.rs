//! The soft limiter: every node decides locally, from its own admissions and the admissions of others that it has received.
#![allow(clippy::cast_possible_truncation, reason = "microseconds of a process's life fit in 64 bits")]

use std::time::Duration;

use tallymesh_schemas::Rate;

use crate::limiter::bucket::Decision;
use crate::limiter::heard::{Past, Sample};
use crate::time::Time;

/// A bucket of the whole rate on one node. It subtracts the admissions of other nodes when they arrive.
///
/// Other nodes may have admitted more than the bucket holds. Then it has a debt of at most one burst, so that many admissions
/// that arrive at once after a silence do not block everything for long.
#[derive(Clone, Debug)]
pub struct Soft {
    rate: Rate,
    /// The part of the burst that may be used between two exchanges, in thousandths.
    epsilon: u64,
    /// In grains: a token is as many grains as the period has microseconds, so that the bucket fills in whole grains.
    level: i128,
    /// This node's part of the whole rate, in thousandths. It is less than the whole only during a partition that divides the
    /// rate.
    part: u64,
    at: Time,
    /// The sum of the other nodes' rows, as last received.
    heard: i64,
    /// Tokens subtracted since the last exact figure because that sum grew.
    learnt: u64,
    /// Tokens that others admitted at an unknown time. They count as admitted at this moment.
    assumed: Sample,
    /// Tokens admitted on this node since the last exchange.
    unshared: u64,
    /// Tokens received from others in the current second, and their average per second.
    heard_now: u64,
    heard_since: Time,
    heard_rate: u64,
}

const THOUSAND: u64 = 1000;

/// Whether other nodes may admit from the same limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Others {
    /// This node is alone, or acts as if it was.
    None,
    /// Others admit at the same time, so only a part of the burst may be used between two exchanges.
    Some,
}

impl Soft {
    /// A full bucket. `epsilon` is the part of the burst that may be used between two exchanges, in thousandths; `heard` is the
    /// sum of the others' rows now.
    pub fn new(rate: Rate, epsilon: u64, heard: i64, now: Time) -> Self {
        let mut soft = Self {
            rate,
            epsilon: epsilon.clamp(1, THOUSAND),
            level: 0,
            part: THOUSAND,
            at: now,
            heard,
            learnt: 0,
            assumed: (now, 0),
            unshared: 0,
            heard_now: 0,
            heard_since: now,
            heard_rate: 0,
        };
        soft.level = soft.cap();
        soft
    }

    /// A bucket as it would be now if it had always existed and had received `past` when it happened. `heard` is the sum
    /// of the others' rows now.
    pub(super) fn since(rate: Rate, epsilon: u64, heard: i64, past: &Past, now: Time) -> Self {
        let began = past.began.min(now);
        let mut soft = Self::new(rate, epsilon, heard, began);
        soft.go_through(past, now);
        soft
    }

    /// Subtracts what others admitted before this bucket was created. The bucket's state is as of `past.began`.
    fn go_through(&mut self, past: &Past, now: Time) {
        self.assumed = (self.at, past.before);
        self.charge(past.before);
        for (at, n) in &past.samples {
            self.settle((*at).min(now));
            self.charge(*n);
        }
        self.settle(now);
        (self.heard_since, self.heard_now) = (now, 0);
    }

    /// Continues the bucket of an earlier run: it is full at `full_at`, except for what others have admitted since.
    pub(super) fn resume(&mut self, now: Time, full_at: Time, past: &Past) {
        let mut soft = Self::new(self.rate, self.epsilon, self.heard, past.began.min(now));
        soft.fill_until(soft.at, full_at);
        soft.go_through(past, now);
        soft.set_part(now, self.part);
        *self = soft;
    }

    fn charge(&mut self, n: u64) {
        self.level = self.level.saturating_sub(i128::from(n).saturating_mul(self.token())).max(-self.cap());
    }

    fn token(&self) -> i128 {
        i128::from(self.rate.period_us()) * i128::from(THOUSAND)
    }

    fn cap(&self) -> i128 {
        i128::from(self.rate.burst()) * i128::from(self.rate.period_us()) * i128::from(self.part)
    }

    fn speed(&self) -> i128 {
        i128::from(self.rate.tokens()) * i128::from(self.part)
    }

    fn settle(&mut self, now: Time) {
        let passed = now.0.saturating_sub(self.at.0);
        self.level = (self.level + self.speed() * i128::from(passed)).min(self.cap());
        self.at = self.at.max(now);
    }

    /// Subtracts what others have admitted since the last call; `all` is the sum of their rows. O(1).
    #[inline]
    pub fn learn(&mut self, now: Time, all: i64) {
        if all == self.heard {
            return;
        }
        self.settle(now);
        // A row that disappears, because its node restarts or its count is idle, gives no tokens back.
        let more = u64::try_from(all.saturating_sub(self.heard)).unwrap_or(0);
        self.heard = all;
        self.learnt = self.learnt.saturating_add(more);
        self.charge(more);
        self.heard_now = self.heard_now.saturating_add(more);
    }

    /// As [`Soft::learn`]; `grown` is the growth of the others' rows since the last call of this method. It also covers growth
    /// that the sum hides because another row disappeared at the same time. O(1).
    pub fn hear(&mut self, now: Time, all: i64, grown: u64) {
        self.learn(now, all);
        let hidden = grown.saturating_sub(std::mem::take(&mut self.learnt));
        if hidden > 0 {
            self.settle(now);
            self.charge(hidden);
            self.heard_now = self.heard_now.saturating_add(hidden);
        }
    }

    /// Records that this node's admissions have been sent to the others.
    pub fn exchanged(&mut self, now: Time) {
        self.unshared = 0;
        self.rate_heard(now);
    }

    /// Computes how much the others admit per second.
    fn rate_heard(&mut self, now: Time) {
        let passed = now.since(self.heard_since);
        if passed >= Duration::from_secs(1) {
            let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
            let rate = self.heard_now.saturating_mul(1_000_000) / micros.max(1);
            self.heard_rate =
                if rate > self.heard_rate { rate } else { self.heard_rate - (self.heard_rate - rate).div_ceil(2) };
            (self.heard_now, self.heard_since) = (0, now);
        }
    }

    /// Takes `n` tokens if they are available. O(1), no allocation.
    #[inline]
    pub fn take(&mut self, now: Time, n: u64, others: Others) -> Decision {
        let decision = self.check(now, n, others);
        if decision.admitted() {
            self.level -= i128::from(n) * self.token();
            self.unshared = self.unshared.saturating_add(n);
        }
        decision
    }

    /// Puts back `n` taken and unused tokens, as far as there is room. O(1).
    pub fn give_back(&mut self, now: Time, n: u64) {
        self.settle(now);
        self.level = (self.level + i128::from(n) * self.token()).min(self.cap());
        self.unshared = self.unshared.saturating_sub(n);
    }

    /// Counts `n` tokens that were used without a request. O(1).
    pub fn owe(&mut self, now: Time, n: u64) {
        self.settle(now);
        self.level = (self.level - i128::from(n) * self.token()).max(-self.cap());
        self.unshared = self.unshared.saturating_add(n);
    }

    /// Whether `n` tokens could be taken. O(1).
    #[inline]
    pub fn check(&mut self, now: Time, n: u64, others: Others) -> Decision {
        self.settle(now);
        let wanted = i128::from(n) * self.token();
        if wanted > self.cap() || self.speed() == 0 {
            return Decision::Refused { after: None };
        }
        if wanted > self.level {
            let speed = u128::try_from(self.speed()).unwrap_or(1);
            let micros = (wanted - self.level).unsigned_abs().div_ceil(speed);
            return Decision::Refused { after: u64::try_from(micros).ok().map(Duration::from_micros) };
        }
        if others == Others::Some && self.unshared > 0 && self.unshared.saturating_add(n) > self.between_exchanges() {
            return Decision::Refused { after: Some(Duration::from_millis(10)) };
        }
        Decision::Admitted
    }

    /// Tokens that may be used between two exchanges.
    pub fn between_exchanges(&self) -> u64 {
        (self.rate.burst().saturating_mul(self.epsilon) / THOUSAND).max(1)
    }

    /// Changes the rate. Counted tokens stay counted, as far as the new burst has room. O(1).
    pub fn set_rate(&mut self, now: Time, rate: Rate, epsilon: u64) {
        self.settle(now);
        let old = i128::from(self.rate.period_us());
        let level = self.level.saturating_mul(i128::from(rate.period_us())) / old;
        (self.rate, self.epsilon) = (rate, epsilon.clamp(1, THOUSAND));
        self.level = level.clamp(-self.cap(), self.cap());
    }

    /// Uses only `part` thousandths of the rate: the part of the cluster that this node can reach. O(1).
    pub fn set_part(&mut self, now: Time, part: u64) {
        self.settle(now);
        self.part = part.min(THOUSAND);
        self.level = self.level.min(self.cap());
    }

    /// The part of the rate that is used, in thousandths.
    pub fn part(&self) -> u64 {
        self.part
    }

    /// The available tokens; negative for a debt.
    pub fn tokens(&mut self, now: Time) -> i64 {
        self.settle(now);
        i64::try_from(self.level.div_euclid(self.token())).unwrap_or(0)
    }

    /// Whether the bucket is full and so has nothing to remember.
    pub fn is_full(&mut self, now: Time) -> bool {
        self.settle(now);
        self.level >= self.cap()
    }

    /// When the bucket of the whole rate is full, if no tokens are taken. O(1).
    pub fn full_at(&mut self, now: Time) -> Time {
        self.settle(now);
        let whole = i128::from(self.rate.burst()) * self.token();
        let speed = u128::from(self.rate.tokens()) * u128::from(THOUSAND);
        let micros = (whole - self.level).max(0).unsigned_abs().div_ceil(speed.max(1));
        now.after(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// Sets the level so that the bucket is full at `full_at`, or later. The debt is at most one burst. O(1).
    pub fn fill_until(&mut self, now: Time, full_at: Time) {
        self.settle(now);
        let speed = i128::from(self.rate.tokens()) * i128::from(THOUSAND);
        let left = full_at.0.saturating_sub(now.0);
        let whole = i128::from(self.rate.burst()) * self.token();
        let level = whole.saturating_sub(speed.saturating_mul(i128::from(left)));
        self.level = self.level.min(level.max(-self.cap()));
    }

    /// What the others admit per second, as received.
    pub fn heard_rate(&mut self, now: Time) -> u64 {
        self.rate_heard(now);
        // Includes the current second as far as it has passed.
        self.heard_rate.max(self.heard_now)
    }

    /// The sum of the other nodes' rows, as last received.
    pub(super) fn heard(&self) -> i64 {
        self.heard
    }

    /// Tokens that others admitted at an unknown time, and the moment at which they count. Zero once the bucket would be full
    /// again in any case.
    pub(super) fn assumed(&mut self, now: Time) -> Sample {
        let whole = i128::from(self.rate.burst()) * self.token();
        let refilled =
            i128::from(now.since(self.assumed.0).as_micros() as u64) * i128::from(self.rate.tokens() * THOUSAND);
        if refilled >= whole * 2 {
            self.assumed.1 = 0;
        }
        self.assumed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str, burst: u64) -> Rate {
        text.parse::<Rate>().unwrap().with_burst(burst).unwrap()
    }

    proptest! {
        /// On a single node, a soft limit is exact.
        #[test]
        fn alone_it_never_admits_more_than_burst_and_rate(
            tokens in 1..1000_u64, burst in 1..1000_u64, steps in prop::collection::vec((0..1_000_000_u64, 1..20_u64), 1..200),
        ) {
            let rate = Rate::new(tokens, Duration::from_secs(1), burst).unwrap();
            let mut soft = Soft::new(rate, 950, 0, Time(0));
            let (mut now, mut taken) = (0, Vec::new());
            for (pause, n) in steps {
                now += pause;
                while soft.take(Time(now), n, Others::None).admitted() {
                    taken.push((now, n));
                }
            }
            for from in 0..taken.len() {
                let mut sum = 0;
                for (at, n) in &taken[from..] {
                    sum += n;
                    prop_assert!(sum.saturating_sub(burst) * 1_000_000 <= (at - taken[from].0) * tokens);
                }
            }
        }

        /// If every admission arrives before the next decision, several nodes act as one.
        #[test]
        fn nodes_that_hear_everything_are_exact(order in prop::collection::vec((0..3_usize, 0..200_000_u64), 1..300)) {
            let rate = rate("50/1s", 20);
            let mut nodes: Vec<_> = (0..3).map(|_| Soft::new(rate, 1000, 0, Time(0))).collect();
            let (mut used, mut now, mut whole) = ([0_i64; 3], 0, Soft::new(rate, 1000, 0, Time(0)));
            for (node, pause) in order {
                now += pause;
                let others: i64 = (0..3).filter(|i| *i != node).map(|i| used[i]).sum();
                nodes[node].learn(Time(now), others);
                nodes[node].exchanged(Time(now));
                let admitted = nodes[node].take(Time(now), 1, Others::Some).admitted();
                used[node] += i64::from(admitted);
                prop_assert!(!admitted || whole.take(Time(now), 1, Others::None).admitted());
            }
        }
    }

    proptest! {
        /// A bucket that is saved and restored at any time, also at another moment, is no fuller than without that.
        #[test]
        fn what_is_put_away_is_no_fuller_when_it_comes_back(
            tokens in 1..1000_u64, burst in 1..1000_u64, taken in 0..3000_u64, away in 0..10_000_000_u64, heard in 0..5000_i64,
        ) {
            let rate = Rate::new(tokens, Duration::from_secs(1), burst).unwrap();
            let mut soft = Soft::new(rate, 1000, 0, Time(0));
            soft.owe(Time(0), taken);
            soft.learn(Time(0), heard);
            let full_at = soft.full_at(Time(0));
            let mut other = Soft::new(rate, 1000, 0, Time(away));
            other.fill_until(Time(away), full_at);
            let (is, would) = (other.tokens(Time(away)), soft.tokens(Time(away)));
            prop_assert!(is <= would && would - is <= 1, "{is} of {would}");
        }
    }

    #[test]
    fn no_more_than_epsilon_is_used_between_two_exchanges() {
        let mut soft = Soft::new(rate("100/1s", 100), 250, 0, Time(0));
        assert_eq!((0..100).filter(|_| soft.take(Time(0), 1, Others::Some).admitted()).count(), 25);
        soft.exchanged(Time(0));
        assert!(soft.take(Time(0), 1, Others::Some).admitted());
        assert_eq!((0..100).filter(|_| soft.take(Time(0), 1, Others::None).admitted()).count(), 74);
    }

    /// A row that disappears does not hide the growth of another one.
    #[test]
    fn what_is_hidden_in_a_sum_is_taken_off() {
        let mut soft = Soft::new(rate("10/1h", 10), 1000, 8, Time(0));
        soft.hear(Time(0), 8, 8);
        assert_eq!(soft.tokens(Time(0)), 2);
        soft.learn(Time(0), 10);
        soft.hear(Time(0), 10, 2);
        assert_eq!(soft.tokens(Time(0)), 0, "what was learnt meanwhile is taken off once");
    }

    #[test]
    fn a_changed_rate_keeps_what_was_counted() {
        let mut soft = Soft::new(rate("10/1s", 10), 1000, 0, Time(0));
        assert!(soft.take(Time(0), 8, Others::None).admitted());
        soft.set_rate(Time(0), rate("100/60s", 50), 1000);
        assert_eq!(soft.tokens(Time(0)), 2);
    }

    #[test]
    fn what_is_heard_late_stops_for_one_burst_at_most() {
        let mut soft = Soft::new(rate("10/1s", 10), 1000, 5, Time(0));
        soft.learn(Time(0), 1_000_005);
        assert_eq!(soft.tokens(Time(0)), -10);
        soft.learn(Time(0), 3);
        assert_eq!(
            soft.check(Time(0), 1, Others::None),
            Decision::Refused { after: Some(Duration::from_millis(1100)) }
        );
    }
}
