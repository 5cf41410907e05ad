//! Reading and writing a cache on one node, and a plain map behind a lock.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tallymesh_engine::{Cache, Replica};
use tallymesh_schemas::Class;

use crate::input;
use crate::measure::{Contender, interleaved, ns_each};
use crate::replicas;
use crate::report::Group;

/// Keys that are read and written.
const KEYS: usize = 100_000;

/// Reads or writes of one run.
const N: usize = 50_000;

/// The wall clock of the measurement.
const NOW_MS: u64 = 1_700_000_000_000;

type Map = RwLock<HashMap<String, Arc<[u8]>>>;

fn value() -> Arc<[u8]> {
    Arc::from([7_u8; 100].as_slice())
}

fn filled(keys: &[String]) -> (Replica, Cache, Map) {
    let (replica, structure) = replicas::alone(Class::Cache);
    let cache = Cache::of(&structure).expect("a cache");
    let map = Map::default();
    for key in keys {
        cache.set(key.as_bytes(), value(), Duration::ZERO, NOW_MS).expect("a good entry");
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
                ns_each(N, || draws.iter().for_each(|at| drop(black_box(cache.get(key(at).as_bytes(), NOW_MS)))))
            }),
            Contender::new("RwLock<HashMap>", || {
                let get = |at| map.read().expect("nobody panicked").get(key(at)).cloned();
                ns_each(N, || draws.iter().for_each(|at| drop(black_box(get(at)))))
            }),
        ],
    );
    let shared = value();
    let sets = interleaved(
        rounds,
        vec![
            Contender::new("tallymesh", || {
                let set = |at| cache.set(key(at).as_bytes(), Arc::clone(&shared), Duration::ZERO, NOW_MS);
                ns_each(N, || draws.iter().for_each(|at| assert!(black_box(set(at)).is_ok())))
            }),
            Contender::new("RwLock<HashMap>", || {
                let set = |at| map.write().expect("nobody panicked").insert(key(at).to_owned(), Arc::clone(&shared));
                ns_each(N, || draws.iter().for_each(|at| drop(set(at))))
            }),
        ],
    );
    let text = |what: &str| format!("{what} a cache entry of 100 bytes, {KEYS} keys, one thread");
    vec![Group::new(text("get"), "ns", gets), Group::new(text("set"), "ns", sets)]
}
