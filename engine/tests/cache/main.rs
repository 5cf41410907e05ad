//! Caches on replicas that are joined by wires: what wins, what travels, what is refused, and what goes when.

mod clocks;
#[allow(dead_code)]
#[path = "../late/mod.rs"]
mod late;
mod snapshots;
mod values;
#[allow(dead_code)]
#[path = "../wire/mod.rs"]
mod wire;

use std::time::Duration;

use late::{KEY, cache, cache_wire, comes_after_a_removal, get, remove, set};
use tallymesh_engine::{CacheError, Event, Stamp};
use tallymesh_schemas::bounds;
use tallymesh_schemas::message::Message;
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, WireRow};
use tallymesh_schemas::{UnixMs, Version};
use wire::{Wire, is_delta, read};

/// I2. A write that was on its way while its removal went round does not come back.
#[test]
fn what_comes_after_its_removal_is_not_read() {
    assert_eq!(comes_after_a_removal(), None);
}

/// Two nodes write one key with the same stamp. All nodes choose the same winner, whichever node wrote it. A removal wins.
#[test]
fn writes_of_one_moment_have_one_winner() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        wire.down(a, b);
    }
    set(&mut wire, 0, KEY, b"of a");
    set(&mut wire, 1, KEY, b"of b");
    set(&mut wire, 2, KEY, b"of c");
    let stamps: Vec<_> =
        (0..3).map(|at| cache(&wire, at).entry(KEY, wire.now.unix_ms).map(|entry| entry.stamp)).collect();
    assert_eq!(stamps[0], stamps[1], "the same moment");
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        wire.up(a, b);
    }
    wire.run(10);
    let read = get(&wire, 0, KEY);
    assert!(read.is_some());
    assert_eq!((get(&wire, 1, KEY), get(&wire, 2, KEY)), (read.clone(), read));
}

/// Nothing is counted in a cache, and what somebody counts there all the same leaves nothing behind.
#[test]
fn counting_in_a_cache_leaves_no_key_behind() {
    let mut wire = cache_wire(&["a"]);
    wire.structure(0).add(KEY, 3).unwrap();
    assert_eq!(wire.structure(0).keys(), 1);
    let now = wire.now_at(0);
    wire.replicas[0].handle_changes(now);
    wire.run(60);
    assert_eq!(wire.structure(0).keys(), 0);
}

/// What the sender knows to be outdone travels without its value; what it reads, with it.
#[test]
fn only_what_is_read_travels_with_its_value() {
    let mut wire = cache_wire(&["a", "b"]);
    wire.down(0, 1);
    set(&mut wire, 0, KEY, b"outdone");
    wire.now.unix_ms.0 += 1000;
    set(&mut wire, 1, KEY, b"winner");
    wire.up(0, 1);
    // b tells a first, so that a knows when it tells b.
    for _ in 0..3 {
        for bytes in wire.take(1, 0) {
            wire.give(1, 0, &bytes).unwrap();
        }
        for bytes in wire.take(0, 1).into_iter().filter(|bytes| !is_delta(bytes)) {
            wire.give(0, 1, &bytes).unwrap();
        }
    }
    assert_eq!(get(&wire, 0, KEY).as_deref(), Some(&b"winner"[..]));
    let b = wire.node(1);
    wire.down(0, 1);
    wire.up(0, 1);
    let mut seen = 0;
    wire.wait(2);
    for _ in 0..3 {
        for bytes in wire.take(1, 0) {
            wire.give(1, 0, &bytes).unwrap();
        }
        for bytes in wire.take(0, 1) {
            if let Message::Delta(delta) = read(&bytes) {
                let mut rows = RowReader::new(delta.rows, delta.after);
                while let Some(row) = rows.next_row().unwrap() {
                    assert!(!matches!(row.state, RowState::Content { .. }), "{row:?} to {b}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 0, "the outdone row was told");
}

fn delta_with(wire: &Wire, version: u64, stamp: u64, value: &[u8]) -> Vec<u8> {
    let mut rows = RowWriter::new(Version(version - 1));
    let state = RowState::Content { key: Some(KEY), stamp, expires_ms: 0, value };
    rows.push(WireRow { slot: 0, version: Version(version), state });
    delta_of_a(wire, version - 1, version, None, &rows.finish())
}

/// A delta of the first node's rows, of what changed in `(after, upto]`.
fn delta_of_a(wire: &Wire, after: u64, upto: u64, fingerprint: Option<u64>, rows: &[u8]) -> Vec<u8> {
    wire.told_by(0, wire.structure(0).id(), (after, upto), fingerprint, rows)
}

/// I6. A replica refuses a value in a structure of counters. It ignores a write from a clock far ahead, and reports that once.
#[test]
fn values_out_of_place_are_refused() {
    let mut counters = Wire::new(&["a", "b"]);
    counters.up(0, 1);
    counters.talk();
    let bytes = delta_with(&counters, 1, 7, b"value");
    let error = counters.give(0, 1, &bytes).unwrap_err();
    assert!(error.to_string().contains("a value in a structure of gauge tables"), "{error}");

    let mut wire = cache_wire(&["a", "b"]);
    while wire.replicas[1].poll_event().is_some() {}
    let far = Stamp::at(UnixMs(wire.now.unix_ms.0 + bounds::MAX_DRIFT.as_millis() as u64 + 10));
    let bytes = delta_with(&wire, 1, far.0, b"far ahead");
    for _ in 0..3 {
        wire.give(0, 1, &bytes).unwrap();
    }
    assert_eq!(get(&wire, 1, KEY), None);
    let event = wire.replicas[1].poll_event();
    assert!(matches!(event, Some(Event::Ahead { by, .. }) if by > bounds::MAX_DRIFT), "{event:?}");
    assert_eq!(wire.replicas[1].poll_event(), None);
    // Time goes by, and it is not ahead any more.
    wire.now.unix_ms.0 += 1000;
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
    // What is counted in a cache by mistake is nothing.
    wire.structure(0).add(KEY, 5).unwrap();
    wire.structure(0).audit().unwrap();
    assert_eq!(wire.structure(0).rows_of(wire.replicas[0].actor()).len(), 2);
}

/// A node renews. Its new run republishes the entries that the node reads, with the same stamps.
#[test]
fn a_run_takes_its_entries_along() {
    let mut wire = cache_wire(&["a", "b"]);
    set(&mut wire, 0, KEY, b"value");
    set(&mut wire, 0, b"gone", b"value");
    wire.run(2);
    remove(&mut wire, 0, b"gone");
    let stamp = |wire: &Wire, at| cache(wire, at).entry(KEY, wire.now.unix_ms).map(|entry| entry.stamp);
    let before = stamp(&wire, 0);
    let now = wire.now;
    wire.replicas[0].renew(now, tallymesh_schemas::Incarnation(9000)).unwrap();
    wire.run(10);
    assert_eq!((stamp(&wire, 0), stamp(&wire, 1)), (before, before));
    assert_eq!(get(&wire, 1, b"gone"), None);
    wire.assert_same(0, 1);
    wire.assert_same(1, 0);
}
