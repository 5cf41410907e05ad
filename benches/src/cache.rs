//! Reading and writing a cache on one node, a plain map behind a lock, and a Redis server that is asked for each.

use std::collections::HashMap;
use std::hint::black_box;
use std::io;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tallymesh_engine::{Cache, Replica};
use tallymesh_schemas::UnixMs;

use crate::input;
use crate::measure::{Contender, Figure, interleaved, ns_each};
use crate::redis::Redis;
use crate::replicas;
use crate::report::Group;

/// Keys that are read and written.
const KEYS: usize = 100_000;

/// Reads or writes of one run.
const N: usize = 50_000;

/// Entries that a Redis server is asked for one by one in a run.
const ASKED: usize = 5_000;

/// Commands that it gets together where they are pipelined.
const PIPELINE: usize = 1_000;

/// The wall clock of the measurement.
const NOW_MS: u64 = 1_700_000_000_000;

type Map = RwLock<HashMap<String, Arc<[u8]>>>;

fn value() -> Arc<[u8]> {
    Arc::from([7_u8; 100].as_slice())
}

fn filled(keys: &[String]) -> (Replica, Cache, Map) {
    let (replica, cache) = replicas::cache_alone();
    let map = Map::default();
    for key in keys {
        cache.set(key.as_bytes(), value(), Duration::ZERO, UnixMs(NOW_MS)).expect("a good entry");
        map.write().expect("nobody panicked").insert(key.clone(), value());
    }
    (replica, cache, map)
}

/// The figures of this file.
///
/// # Panics
/// When an entry is refused.
pub fn measure(rounds: usize) -> Vec<Group> {
    let keys = input::keys(KEYS);
    let draws = input::draws(N, keys.len(), 11);
    let (_replica, cache, map) = filled(&keys);
    let key = |at: &u32| keys[*at as usize].as_str();
    let gets = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || {
                ns_each(N, || {
                    draws.iter().for_each(|at| drop(black_box(cache.get(key(at).as_bytes(), UnixMs(NOW_MS)))))
                })
            }),
            Contender::new("RwLock<HashMap>", || {
                let get = |at| map.read().expect("nobody panicked").get(key(at)).cloned();
                ns_each(N, || draws.iter().for_each(|at| drop(black_box(get(at)))))
            }),
        ],
    );
    let shared = value();
    // Both are given bytes and keep a copy of them, as a program does that has read or computed a value.
    let sets = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || {
                let set = |at| cache.set(key(at).as_bytes(), &shared, Duration::ZERO, UnixMs(NOW_MS));
                ns_each(N, || draws.iter().for_each(|at| assert!(black_box(set(at)).is_ok())))
            }),
            Contender::new("RwLock<HashMap>", || {
                let copy = || Arc::from(black_box(&*shared));
                let set = |at| map.write().expect("nobody panicked").insert(key(at).to_owned(), copy());
                ns_each(N, || draws.iter().for_each(|at| drop(set(at))))
            }),
        ],
    );
    let text = |what: &str| format!("{what} a cache entry of 100 bytes, {KEYS} keys, one thread");
    let against = "RwLock<HashMap>";
    let mut groups = vec![
        Group::new(text("get"), "ns", gets).want_ratio("≤ 1.1 × the map behind a lock", against, 1.1),
        Group::new(text("set"), "ns", sets).want_ratio("≤ 1.5 × the map behind a lock", against, 1.5),
    ];
    match against_redis(rounds, &keys, &draws, &cache) {
        Ok(more) => groups.extend(more),
        Err(why) => eprintln!("Redis is left out: {why}"),
    }
    groups
}

/// Elapsed time, not processor time: what one waits for. And what an entry takes.
fn against_redis(rounds: usize, keys: &[String], draws: &[u32], cache: &Cache) -> io::Result<Vec<Group>> {
    let mut redis = Redis::start()?;
    let text = String::from_utf8_lossy(&value()).into_owned();
    let empty = redis.used_memory()?;
    for part in keys.chunks(PIPELINE) {
        redis.send(part.iter().map(|key| ["SET", key, &text]))?;
        part.iter().try_for_each(|_| redis.answer().map(drop))?;
    }
    let theirs = (redis.used_memory()? - empty) as f64 / keys.len() as f64;
    let ours = cache.bytes() as f64 / keys.len() as f64;
    let figure = |who: &str, value| Figure { who: who.to_owned(), value };
    let bytes = vec![figure("tallymesh, as Cache::bytes says", ours), figure("Redis, as it says itself", theirs)];

    let key = |at: &u32| keys[*at as usize].as_str();
    let asked = draws.iter().take(ASKED).collect::<Vec<_>>();
    let shared = value();
    let redis = std::cell::RefCell::new(redis);
    let one_by_one = |command: &dyn Fn(&u32) -> Vec<String>| {
        elapsed(ASKED, || {
            for at in &asked {
                let words = command(at);
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                redis.borrow_mut().ask(&words).expect("the server answers");
            }
        })
    };
    let together = |command: &dyn Fn(&u32) -> Vec<String>| {
        let redis = &mut *redis.borrow_mut();
        elapsed(draws.len(), || {
            for part in draws.chunks(PIPELINE) {
                let words: Vec<_> = part.iter().map(command).collect();
                let words = words.iter().map(|words| words.iter().map(String::as_str).collect::<Vec<_>>());
                redis.send(words).expect("the server takes it");
                part.iter().for_each(|_| drop(redis.answer().expect("the server answers")));
            }
        })
    };
    let get = |at: &u32| vec!["GET".to_owned(), key(at).to_owned()];
    let set = |at: &u32| vec!["SET".to_owned(), key(at).to_owned(), text.clone()];
    let gets = vec![
        Contender::new("tallymesh", || {
            elapsed(draws.len(), || {
                draws.iter().for_each(|at| drop(black_box(cache.get(key(at).as_bytes(), UnixMs(NOW_MS)))))
            })
        }),
        Contender::new("Redis, one by one", || one_by_one(&get)),
        Contender::new("Redis, a thousand at a time", || together(&get)),
    ];
    let gets = interleaved(rounds, gets);
    let sets = vec![
        Contender::new("tallymesh", || {
            let set = |at| cache.set(key(at).as_bytes(), &shared, Duration::ZERO, UnixMs(NOW_MS));
            elapsed(draws.len(), || draws.iter().for_each(|at| assert!(set(at).is_ok())))
        }),
        Contender::new("Redis, one by one", || one_by_one(&set)),
        Contender::new("Redis, a thousand at a time", || together(&set)),
    ];
    let sets = interleaved(rounds, sets);
    let what = |what: &str| format!("{what} a cache entry of 100 bytes, {KEYS} keys, elapsed");
    Ok(vec![
        Group::new(what("get"), "ns", gets),
        Group::new(what("set"), "ns", sets),
        Group::new(format!("memory of a cache entry: key of 20 bytes, value of 100, {KEYS} keys"), "bytes", bytes)
            .want("≤ 230 bytes", 230.0),
    ])
}

fn elapsed(n: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / n as f64
}
