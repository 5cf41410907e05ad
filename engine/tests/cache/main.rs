//! Caches on replicas that are joined by wires: what wins, what is refused, what travels, and what goes when.

mod away;
mod clocks;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../disk/mod.rs"]
mod disk;
mod goes;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../late/mod.rs"]
mod late;
mod liars;
mod travels;
mod verifies;
#[allow(dead_code, reason = "each test crate uses its part")]
#[path = "../wire/mod.rs"]
mod wire;

use std::num::NonZeroU64;
use std::time::Duration;

use late::{KEY, cache, cache_config, cache_spec, cache_wire, comes_after_a_removal, get, remove, set};
use tallymesh_engine::{CacheError, Event, Stamp};
use tallymesh_schemas::entries::{EntryWriter, WireEntry};
use tallymesh_schemas::message::{CacheEntries, Message};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Bounds, UnixMs, Version, bounds};
use wire::{Wire, encoded, read};

/// A live entry: key, value and stamp.
type Live = (Vec<u8>, Vec<u8>, Stamp);

/// What all nodes have: the live entries with their stamps, and what was taken in.
fn state(wire: &Wire, at: usize) -> (Vec<Live>, Vec<(Actor, u64)>) {
    let cache = cache(wire, at);
    cache.audit().unwrap();
    let entries = cache.entries(None, usize::MAX, wire.now.unix_ms).into_iter();
    (entries.map(|entry| (entry.key, entry.value.to_vec(), entry.stamp)).collect(), cache.seen())
}

/// That some nodes have the same.
fn assert_agreed(wire: &Wire, nodes: impl IntoIterator<Item = usize>) {
    let mut nodes = nodes.into_iter();
    let first = nodes.next().unwrap();
    let expected = state(wire, first);
    for at in nodes {
        assert_eq!(state(wire, at), expected, "{} and {}", wire.node(at), wire.node(first));
        assert_eq!(cache(wire, at).fingerprint(UnixMs::ZERO), cache(wire, first).fingerprint(UnixMs::ZERO));
    }
}

/// The number of the session in which a node wants entries from a peer.
fn session(wire: &mut Wire, to: usize, from: usize) -> u64 {
    let peer = wire.node(from);
    wire.down(to, from);
    wire.up(to, from);
    wire.wait_a_little();
    let mut bytes = Vec::new();
    while wire.replicas[to].poll_transmit(&peer, &mut bytes) {
        if let Message::CacheReport(report) = read(&bytes) {
            return report.session;
        }
        bytes.clear();
    }
    panic!("no report");
}

/// Entries of a run as a message of a session, without a mark.
fn entries_of(
    wire: &Wire,
    run: Actor,
    (session, position): (u64, u64),
    entries: &[(u64, Stamp, &[u8], &[u8])],
) -> Vec<u8> {
    let mut batch = EntryWriter::default();
    for (number, stamp, key, value) in entries {
        batch.push(&WireEntry { run: 0, number: *number, stamp: stamp.0, key, expires_ms: 0, value: Some(value) });
    }
    let structure = cache(wire, 0).id();
    let (runs, entries) = (vec![run], &*batch.finish());
    encoded(&Message::CacheEntries(CacheEntries { structure, session, position, runs, entries, mark: None }))
}

/// I2. A write that was on its way while its removal went round does not come back.
#[test]
fn what_comes_after_its_removal_is_not_read() {
    assert_eq!(comes_after_a_removal(), None);
}

/// Three nodes write one key with the same stamp. All nodes choose the same winner, whichever node wrote it. A removal wins.
#[test]
fn writes_of_one_moment_have_one_winner() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    let pairs = [(0, 1), (0, 2), (1, 2)];
    pairs.iter().for_each(|(a, b)| wire.down(*a, *b));
    set(&mut wire, 0, KEY, b"of a");
    set(&mut wire, 1, KEY, b"of b");
    set(&mut wire, 2, KEY, b"of c");
    let stamps: Vec<_> =
        (0..3).map(|at| cache(&wire, at).entry(KEY, wire.now.unix_ms).map(|entry| entry.stamp)).collect();
    assert_eq!(stamps[0], stamps[1], "the same moment");
    pairs.iter().for_each(|(a, b)| wire.up(*a, *b));
    wire.run(10);
    assert!(get(&wire, 0, KEY).is_some());
    assert_agreed(&wire, 0..3);
}

/// I6. A value in a structure of counters is refused.
#[test]
fn a_value_in_a_structure_of_counters_is_refused() {
    let mut counters = Wire::new(&["a", "b"]);
    counters.up(0, 1);
    counters.talk();
    let mut rows = RowWriter::new(Version(0));
    let state = RowState::Content { key: Some(KEY), stamp: 7, expires_ms: 0, value: b"value" };
    rows.push(WireRow { slot: 0, version: Version(1), state });
    let bytes = counters.told_by(0, counters.structure(0).id(), (0, 1), None, &rows.finish());
    let error = counters.give(0, 1, &bytes).unwrap_err();
    assert!(error.to_string().contains("a value in a structure of gauge tables"), "{error}");
}

/// A write that is far ahead is not taken and is reported once. What comes with it and is not ahead is taken. When time has
/// gone by, the first is taken as well.
#[test]
fn a_write_far_ahead_is_refused_until_its_time_comes() {
    let mut wire = cache_wire(&["a", "b"]);
    let session = session(&mut wire, 1, 0);
    while wire.replicas[1].poll_event().is_some() {}
    let far = Stamp::at(wire.now.unix_ms.after(bounds::MAX_DRIFT + Duration::from_millis(10)));
    let run = wire.replicas[0].actor().clone();
    let near = Stamp::at(wire.now.unix_ms);
    let both: [(u64, Stamp, &[u8], &[u8]); 2] = [(1, far, KEY, b"far ahead"), (2, near, b"near", b"present")];
    for position in 0..3 {
        let bytes = entries_of(&wire, run.clone(), (session, position), &both);
        wire.give(0, 1, &bytes).unwrap();
    }
    assert_eq!(get(&wire, 1, KEY), None);
    assert_eq!(get(&wire, 1, b"near").as_deref(), Some(&b"present"[..]));
    let event = wire.replicas[1].poll_event();
    assert!(matches!(event, Some(Event::Ahead { by, .. }) if by > bounds::MAX_DRIFT), "{event:?}");
    assert_eq!(wire.replicas[1].poll_event(), None);
    wire.now.unix_ms.0 += 1000;
    let bytes = entries_of(&wire, run, (session, 3), &both);
    wire.give(0, 1, &bytes).unwrap();
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"far ahead"[..]));
}

#[test]
fn what_a_cache_does_not_take() {
    let wire = cache_wire(&["a"]);
    let cache = cache(&wire, 0);
    let set = |key: &[u8], value: Vec<u8>| cache.set(key, value, Duration::ZERO, wire.now.unix_ms);
    assert_eq!(set(b"", vec![1]), Err(CacheError::Key { len: 0 }));
    assert_eq!(set(&[0; bounds::KEY_BYTES + 1], vec![1]), Err(CacheError::Key { len: bounds::KEY_BYTES + 1 }));
    let long = bounds::VALUE_BYTES + 1;
    assert_eq!(set(KEY, vec![1; long]), Err(CacheError::Value { len: long }));
    assert!(set(&[0xff, 0, 0], vec![0; bounds::VALUE_BYTES]).is_ok(), "any bytes");
    assert!(set(&[0xff, 0], Vec::new()).is_ok(), "a key that begins another, and no bytes at all");
    assert_eq!(cache.len(wire.now.unix_ms), 2);
    let keys: Vec<_> = cache.entries(None, 9, wire.now.unix_ms).into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, [vec![0xff, 0], vec![0xff, 0, 0]]);
    assert_eq!(cache.remove(b"none", wire.now.unix_ms), Ok(None));
    cache.audit().unwrap();
}

/// A cache with a bound removes the oldest entries on all nodes, and refuses what does not fit at all.
#[test]
fn a_bounded_cache_keeps_the_latest_entries() {
    let mut spec = cache_spec();
    spec.bounds = Bounds { elements: NonZeroU64::new(10), bytes: NonZeroU64::new(1000) };
    let mut wire = Wire::with(&["a", "b"], &cache_config(), &spec);
    wire.up(0, 1);
    wire.run(2);
    for n in 0..25_u8 {
        set(&mut wire, usize::from(n % 2), &[b'k', n], b"v");
        wire.run(1);
    }
    let keys = state(&wire, 0).0.into_iter().map(|(key, _, _)| key[1]).collect::<Vec<_>>();
    assert_eq!(keys, (15..25).collect::<Vec<_>>());
    assert_agreed(&wire, 0..2);
    let refused = cache(&wire, 0).set(KEY, vec![0; 1000], Duration::ZERO, wire.now.unix_ms);
    assert_eq!(refused, Err(CacheError::Bound { len: 1001 }));
    set(&mut wire, 0, KEY, &[7; 990]);
    wire.run(2);
    assert_eq!((cache(&wire, 1).value_bytes(), state(&wire, 1).0.len()), (1000, 4), "the bytes are bounded as well");
    assert_agreed(&wire, 0..2);
}

/// A node renews. Its new run writes its entries again, with the same stamps. Entries of other nodes stay theirs.
#[test]
fn a_run_takes_its_entries_along() {
    let mut wire = cache_wire(&["a", "b"]);
    set(&mut wire, 0, KEY, b"value");
    set(&mut wire, 0, b"gone", b"value");
    set(&mut wire, 1, b"of b", b"value");
    wire.run(2);
    remove(&mut wire, 0, b"gone");
    let before = state(&wire, 0).0;
    let now = wire.now;
    let run = wire.replicas[0].renew(now, tallymesh_schemas::Incarnation(9000)).unwrap();
    wire.run(10);
    assert_eq!(state(&wire, 1).0, before);
    assert_agreed(&wire, 0..2);
    let writer = |key: &[u8]| cache(&wire, 1).entry(key, wire.now.unix_ms).map(|entry| entry.actor);
    assert_eq!((writer(KEY), writer(b"of b")), (Some(run), Some(wire.replicas[1].actor().clone())));
}

/// A watcher hears of each key that changes, whatever the origin: a write, a removal, a received write.
#[test]
fn a_watcher_hears_of_every_change() {
    let mut wire = cache_wire(&["a", "b"]);
    let watch = cache(&wire, 1).watch(100, std::sync::Arc::new(|| ()));
    set(&mut wire, 0, b"of a", b"v");
    wire.run(2);
    set(&mut wire, 1, b"of b", b"v");
    remove(&mut wire, 1, b"of a");
    assert_eq!(watch.take(), (vec![b"of a".to_vec(), b"of b".to_vec(), b"of a".to_vec()], 0));
}
