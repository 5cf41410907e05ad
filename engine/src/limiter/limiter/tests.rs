//! One founder in virtual time.

use tallymesh_schemas::{Class, Incarnation, StructureName, StructureSpec, UnixMs};

use super::*;
use crate::limiter::throttle::Decisions;
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
            let now = Now { mono: self.now, unix_ms: UnixMs(self.now.0 / 1000) };
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

/// A throttle that becomes hard admits nothing before it has a share, also when it was hard before.
#[test]
fn a_throttle_that_becomes_hard_has_no_tokens_before_it_has_a_share() {
    let mut alone = Alone::new();
    let spec = |strength| ThrottleSpec::new("10/1s".parse().unwrap(), strength);
    let with = |alone: &Alone, strength| alone.limiter.throttle("campaign 1", spec(strength), alone.now).unwrap();
    let throttle = with(&alone, Strength::Hard);
    assert!(throttle.take(alone.now, 10).admitted());
    for _ in 0..2 {
        assert!(with(&alone, Strength::Soft).take(alone.now, 10).admitted());
        assert!(!with(&alone, Strength::Hard).take(alone.now, 1).admitted());
        alone.run(Duration::from_millis(400));
        assert!(!throttle.take(alone.now, 4).admitted() && throttle.take(alone.now, 1).admitted());
        alone.run(Duration::from_secs(10));
        assert_eq!(alone.visited(), 0, "it rests again");
        assert!(throttle.take(alone.now, 10).admitted());
    }
}

/// What the configuration names is listed, and each throttle counts its decisions: not those of mere checks.
#[test]
fn declared_throttles_are_listed_with_their_decisions() {
    let alone = Alone::new();
    let spec = ThrottleSpec::new("10/1s".parse().unwrap(), Strength::Soft);
    let now = alone.now;
    alone.limiter.declare("named", spec, now).unwrap();
    assert!(alone.hard(1).take(now, 1).admitted(), "it is not declared");
    let listed = alone.limiter.declared(now);
    assert_eq!(listed.iter().map(|throttle| &**throttle.name()).collect::<Vec<_>>(), ["named"]);
    assert_eq!(alone.limiter.len(), 2);
    let named = &listed[0];
    assert!(named.check(now, 1).admitted() && !named.check(now, 100).admitted());
    assert_eq!(named.decisions(), Decisions::default());
    assert!(named.take(now, 3).admitted() && named.take(now, 3).admitted() && !named.take(now, 100).admitted());
    assert!(!named.inc(now, 100), "a use beyond the limit");
    assert_eq!(named.decisions(), Decisions { admitted: 2, refused: 2 });
}
