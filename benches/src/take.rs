//! Taking tokens on one node: from a throttle at hand, and by name among many. Only ours shares the limit with a cluster, except
//! for Redis, which shares it by asking a server each time.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::{Quota, RateLimiter};
use limitador::limit::{Context, Limit, Namespace};
use tallymesh_engine::limiter::{Founding, Limiter, Reach};
use tallymesh_engine::{Now, Replica, Time};
use tallymesh_schemas::{Class, NodeName, Strength, ThrottleSpec, UnixMs};

use crate::input;
use crate::measure::{Contender, Figure, interleaved, ns_each};
use crate::redis::Redis;
use crate::replicas;
use crate::report::Group;

/// Names of throttles.
pub const NAMES: usize = 100_000;

/// Takes in a run.
const TAKES: usize = 50_000;

/// Requests to a server in a run.
const ASKED: usize = 2_000;

/// Tokens a second and at once, so many that they are never used up.
const PLENTY: u32 = u32::MAX;

/// A moment at which [`Throttles`] have their share in their hands.
pub const READY: Time = Time(4_000_000);

/// Throttles that are never used up, with this node's share in its hands.
pub struct Throttles {
    replica: Replica,
    /// What has them.
    pub limiter: Limiter,
    /// Their names.
    pub names: Vec<String>,
    began: Instant,
}

impl Throttles {
    /// So many throttles on a node that is the only founder.
    ///
    /// # Panics
    /// When what it makes up is refused.
    pub fn new(strength: Strength, names: usize) -> Self {
        let (replica, structure) = replicas::alone(Class::SharedNamedThrottles);
        let node = NodeName::new("a").expect("a good name");
        let founding = Founding::new([node.clone()], Duration::from_secs(1)).expect("a founder");
        let limiter = Limiter::new(structure, Some(founding), node, 1, Time(0), Arc::new(|| ()));
        let names: Vec<_> = (0..names).map(|n| format!("throttle-{n}")).collect();
        let rate = "4000000000/1ms".parse().expect("a rate");
        for name in &names {
            limiter.declare(name, ThrottleSpec::new(rate, strength), Time(0)).expect("a throttle");
        }
        let mut throttles = Self { replica, limiter, names, began: Instant::now() };
        // Virtual time until the share is founded.
        (1..=30).for_each(|tenth| throttles.turn(Time(tenth * 100_000)));
        throttles
    }

    /// The time, which goes on from when the share was founded.
    #[inline]
    pub fn now(&self) -> Time {
        Time(READY.0 + self.began.elapsed().as_micros() as u64)
    }

    /// What the driver does now and then.
    pub fn turn(&mut self, now: Time) {
        let now = Now { mono: now, unix_ms: UnixMs(now.0 / 1000) };
        self.limiter.handle_timeout(now, Reach::ALONE, &[]);
        self.replica.handle_changes(now);
        self.replica.handle_timeout(now);
    }

    /// Takes one token by name.
    #[inline]
    pub fn take(&self, name: &str) -> bool {
        let now = self.now();
        self.limiter.resolve(name, now).is_some_and(|throttle| throttle.take(now, 1).admitted())
    }
}

/// The generic cell rate algorithm as one atomic: the theoretical arrival time, moved on with each admission.
#[derive(Debug)]
pub struct Plain {
    arrival: AtomicU64,
    began: Instant,
}

impl Default for Plain {
    fn default() -> Self {
        Self { arrival: AtomicU64::new(0), began: Instant::now() }
    }
}

impl Plain {
    /// Takes one token.
    #[inline]
    pub fn take(&self) -> bool {
        let now = self.began.elapsed().as_nanos() as u64;
        let moved = self.arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |at| {
            let next = at.max(now) + 1;
            (next - now <= 1_000_000_000_000).then_some(next)
        });
        moved.is_ok()
    }
}

fn plenty() -> Quota {
    Quota::per_second(NonZeroU32::new(PLENTY).unwrap_or(NonZeroU32::MIN))
}

/// Nanoseconds of processor time a take; all of them have to be admitted.
fn ns_a_take(mut take: impl FnMut(usize) -> bool) -> f64 {
    let mut admitted = 0;
    let ns = ns_each(TAKES, || admitted = (0..TAKES).filter(|i| black_box(take(*i))).count());
    assert_eq!(admitted, TAKES, "tokens were used up: that is not what is measured");
    ns
}

/// Whether the caller holds the throttle or looks it up by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handle {
    Held,
    Looked,
}

fn ours<'a>(who: &str, strength: Strength, names: usize, draws: &'a [u32], handle: Handle) -> Contender<'a> {
    let mut throttles = Throttles::new(strength, names);
    Contender::new(who, move || {
        let first = throttles.limiter.resolve(&throttles.names[0], throttles.now());
        let ns = match first {
            Some(throttle) if handle == Handle::Held => ns_a_take(|_| throttle.take(throttles.now(), 1).admitted()),
            _ => ns_a_take(|i| throttles.take(&throttles.names[draws[i] as usize])),
        };
        let now = throttles.now();
        throttles.turn(now);
        ns
    })
}

fn at_hand(rounds: usize) -> Group {
    let governor = RateLimiter::direct(plenty());
    let plain = Plain::default();
    let figures = interleaved(
        rounds,
        vec![
            ours("tallymesh, soft", Strength::Soft, 1, &[], Handle::Held),
            ours("tallymesh, hard", Strength::Hard, 1, &[], Handle::Held),
            Contender::new("governor, one limit, local", move || ns_a_take(|_| governor.check().is_ok())),
            Contender::new("plain cell rate algorithm in one atomic, local", move || ns_a_take(|_| plain.take())),
        ],
    );
    Group::new("take a token, the limit at hand", "ns", figures)
}

fn by_name(rounds: usize) -> Group {
    let draws = input::draws(TAKES, NAMES, 7);
    let names: Vec<_> = (0..NAMES).map(|n| format!("throttle-{n}")).collect();
    let governor = RateLimiter::keyed(plenty());
    let limitador = limitador::RateLimiter::new(2 * NAMES as u64);
    let namespace: Namespace = "bench".into();
    let variable = "name".try_into().expect("an expression");
    limitador.add_limit(Limit::new("bench", u64::from(PLENTY), 3600, Vec::new(), vec![variable]));
    let (draws, names) = (draws.as_slice(), names.as_slice());
    let name = |i: usize| &names[draws[i] as usize];
    let figures = interleaved(
        rounds,
        vec![
            ours("tallymesh, soft", Strength::Soft, NAMES, draws, Handle::Looked),
            ours("tallymesh, hard", Strength::Hard, NAMES, draws, Handle::Looked),
            Contender::new("governor, keyed, local", move || ns_a_take(|i| governor.check_key(name(i)).is_ok())),
            Contender::new("limitador in memory, one limit by name, local", move || {
                ns_a_take(|i| {
                    let context: Context<'_> = HashMap::from([("name".to_owned(), name(i).clone())]).into();
                    let said = limitador.check_rate_limited_and_update(&namespace, &context, 1);
                    said.is_ok_and(|said| !said.limited)
                })
            }),
        ],
    );
    Group::new(format!("take a token by name, {NAMES} names"), "ns", figures)
}

/// Against a server that is asked each time. Elapsed time, not processor time: what one waits for.
fn asked(rounds: usize) -> Option<Group> {
    let mut redis = match Redis::start() {
        Ok(redis) => redis,
        Err(why) => {
            eprintln!("Redis is left out: {why}");
            return None;
        }
    };
    let throttles = Throttles::new(Strength::Hard, 1);
    let elapsed = |take: &mut dyn FnMut(usize) -> bool| {
        let start = Instant::now();
        let admitted = (0..ASKED).filter(|i| take(*i)).count();
        assert_eq!(admitted, ASKED, "tokens were used up, or the server failed");
        start.elapsed().as_nanos() as f64 / ASKED as f64
    };
    let figures: Vec<Figure> = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh, hard, by name", move || elapsed(&mut |_| throttles.take(&throttles.names[0]))),
            Contender::new("Redis, the cell rate algorithm as a script, one connection", move || {
                elapsed(&mut |i| redis.take(&format!("throttle-{}", i % 100)).unwrap_or(false))
            }),
        ],
    );
    Some(Group::new("take a token, elapsed", "ns", figures))
}

/// All of it.
pub fn measure(rounds: usize) -> Vec<Group> {
    [Some(at_hand(rounds)), Some(by_name(rounds)), asked(rounds)].into_iter().flatten().collect()
}
