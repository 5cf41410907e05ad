//! Caches on replicas that are joined by wires: what wins, what travels, what is refused, and what goes when.

#[allow(dead_code)]
mod late;
#[allow(dead_code)]
mod wire;

use std::time::Duration;

use late::{KEY, cache, cache_wire, comes_after_a_removal, get, remove, set};
use tallymesh_engine::{CacheError, Event, Life, Stamp};
use tallymesh_schemas::bounds;
use tallymesh_schemas::message::{Delta, Message};
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, WireRow};
use wire::{Wire, is_delta, read};

/// I2. A write that was on its way while its removal went round does not come back.
#[test]
fn what_comes_after_its_removal_is_not_read() {
    assert_eq!(comes_after_a_removal(), None);
}

/// Two writes at one stamp: all agree, a removal first, and whoever writes is not asked.
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
    wire.now.unix_ms += 1000;
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

/// I5. A relay tells a row that it knows to be outdone without its value, and dies before it tells what outdoes it. What is read then
/// comes from the owner, however far the row has gone without.
#[test]
fn a_value_that_a_relay_kept_to_itself_comes_from_the_owner() {
    let mut wire = cache_wire(&["a", "relay", "c", "e"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    let owner = wire.replicas[0].actor().clone();
    for at in [2, 3] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    }
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"of a"[..]));
    wire.down(0, 1);
    wire.now.unix_ms += 1000;
    set(&mut wire, 1, KEY, b"of relay");
    wire.up(1, 2);
    wire.up(2, 3);
    let relay = wire.replicas[1].actor().clone();
    let its_own = |bytes: &[u8]| matches!(read(bytes), Message::Delta(delta) if delta.actor == relay);
    pass_but(&mut wire, &[(1, 2), (2, 1), (2, 3), (3, 2)], its_own);
    let have = |wire: &Wire, at: usize| {
        wire.structure(at).held().iter().find(|held| held.actor == owner).map_or(0, |held| held.applied)
    };
    assert_eq!((have(&wire, 2), have(&wire, 3), get(&wire, 2, KEY), get(&wire, 3, KEY)), (1, 1, None, None));
    wire.down(1, 2);
    wire.replicas
        .iter_mut()
        .for_each(|replica| replica.handle_member(wire.now, &relay.node, relay.incarnation, Life::Dead));
    wire.up(0, 2);
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3], "by its owner, the next one and the one behind");
}

/// A write was lost with the node that had it, and another one's value with it, which it had outdone: that one is the last write that
/// there is, and nothing is read; until somebody comes who has the value.
#[test]
fn a_value_that_nobody_has_is_not_replaced_by_an_earlier_one() {
    let mut wire = cache_wire(&["a", "relay", "c", "e"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    let owner = wire.replicas[0].actor().clone();
    for at in [2, 3] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    }
    set(&mut wire, 2, KEY, b"of c");
    wire.now.unix_ms += 1000;
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    wire.now.unix_ms += 1000;
    set(&mut wire, 1, KEY, b"of relay");
    wire.up(1, 2);
    wire.up(2, 3);
    let relay = wire.replicas[1].actor().clone();
    let its_own = |bytes: &[u8]| matches!(read(bytes), Message::Delta(delta) if delta.actor == relay);
    pass_but(&mut wire, &[(1, 2), (2, 1), (2, 3), (3, 2)], its_own);
    wire.down(1, 2);
    wire.replicas
        .iter_mut()
        .for_each(|replica| replica.handle_member(wire.now, &relay.node, relay.incarnation, Life::Dead));
    wire.run(20);
    assert_eq!([2, 3].map(|at| get(&wire, at, KEY)), [None, None], "the last write's value is lost");
    wire.structure(2).audit().unwrap();
    wire.up(0, 2);
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3], "who has it tells it");
}

/// An owner tells a row without its value, since it knows of a later write, and both are gone before anybody has heard of that. Who has the
/// value tells it.
#[test]
fn a_value_that_its_owner_kept_to_itself_comes_from_who_has_it() {
    let mut wire = cache_wire(&["a", "b", "c", "later"]);
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        wire.down(a, b);
    }
    set(&mut wire, 0, KEY, b"of a");
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    wire.now.unix_ms += 1000;
    set(&mut wire, 3, KEY, b"later");
    wire.up(0, 3);
    wire.talk();
    wire.down(0, 3);
    wire.up(0, 2);
    let (owner, later) = (wire.replicas[0].actor().clone(), wire.replicas[3].actor().clone());
    pass_but(
        &mut wire,
        &[(0, 2), (2, 0)],
        |bytes| matches!(read(bytes), Message::Delta(delta) if delta.actor == later),
    );
    assert_eq!(
        (get(&wire, 2, KEY), wire.structure(2).rows_of(&owner).len()),
        (None, 1),
        "the row came without its value"
    );
    wire.down(0, 2);
    wire.up(1, 2);
    wire.run(5);
    assert_eq!([1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"of a"; 2]);
}

/// The same with a row that comes in a snapshot, of which another one sends the rest.
#[test]
fn a_value_that_the_first_sender_of_a_snapshot_kept_to_itself_comes_from_who_has_it() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 0, b"before", b"v");
    wire.run(3);
    for (a, b) in [(0, 2), (1, 2)] {
        wire.down(a, b);
    }
    for key in [KEY, b"l", b"m"] {
        set(&mut wire, 0, key, &[b'v'; 40_000]);
    }
    wire.run(3);
    let owner = wire.replicas[0].actor().clone();
    let rows = wire.structure(1).rows_of(&owner);
    let row = |key: &[u8]| rows.iter().find(|(of, _)| of == key).unwrap().1;
    let (hollow, second, last) = (row(KEY), row(b"l"), row(b"m").version);
    let told = |wire: &Wire, after: u64, upto: u64, snapshot: bool, rows: &[u8]| {
        let (structure, actor, floor) = (wire.structure(0).id(), owner.clone(), hollow.version);
        let (since, known, fingerprint) = (0, after, None);
        let delta = Delta {
            structure,
            actor,
            since,
            keys_complete: known,
            after,
            upto,
            low_water: floor,
            snapshot,
            fingerprint,
            rows,
        };
        let mut bytes = Vec::new();
        Message::Delta(delta).encode(&mut bytes).unwrap();
        bytes
    };
    wire.give(0, 1, &told(&wire, last, last + 1, false, &[])).unwrap();
    wire.down(0, 1);
    wire.up(0, 2);
    let mut piece = RowWriter::new(0);
    let state = RowState::Content { key: Some(b"before"), stamp: row(b"before").added, expires_ms: 0, value: b"v" };
    piece.push(WireRow { slot: 0, version: 1, state });
    let state = RowState::Live { key: Some(KEY), added: hollow.added, removed: hollow.removed };
    piece.push(WireRow { slot: 1, version: hollow.version, state });
    let (stamp, value) = (second.added, &[b'v'; 40_000][..]);
    let state = RowState::Content { key: Some(b"l"), stamp, expires_ms: 0, value };
    piece.push(WireRow { slot: 2, version: second.version, state });
    wire.give(0, 2, &told(&wire, 0, second.version, true, &piece.finish())).unwrap();
    wire.down(0, 2);
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    wire.up(1, 2);
    wire.run(8);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "b has sent the rest");
    let read = [KEY, b"l", b"m"].map(|key| get(&wire, 2, key).unwrap_or_default().len());
    assert_eq!(read, [40_000; 3]);
}

/// Lets some talk for three seconds; what is not passed is lost.
fn pass_but(wire: &mut Wire, ways: &[(usize, usize)], lost: impl Fn(&[u8]) -> bool) {
    for _ in 0..30 {
        wire.wait_a_little();
        for _ in 0..4 {
            for (from, to) in ways {
                for bytes in wire.take(*from, *to).into_iter().filter(|bytes| !lost(bytes)) {
                    wire.give(*from, *to, &bytes).unwrap();
                }
            }
        }
    }
}

fn delta_with(wire: &Wire, version: u64, stamp: u64, value: &[u8]) -> Vec<u8> {
    let mut rows = RowWriter::new(version - 1);
    let state = RowState::Content { key: Some(KEY), stamp, expires_ms: 0, value };
    rows.push(WireRow { slot: 0, version, state });
    delta_of_a(wire, version - 1, version, None, &rows.finish())
}

/// A delta of the first node's rows, of what changed in `(after, upto]`.
fn delta_of_a(wire: &Wire, after: u64, upto: u64, fingerprint: Option<u64>, rows: &[u8]) -> Vec<u8> {
    wire.told_by(0, wire.structure(0).id(), (after, upto), fingerprint, rows)
}

/// An owner states another fingerprint than its rows have here, so all of them are fetched anew. Until the last has come
/// everything is read as before: if it were not, a write that it outdoes would be read in its place.
#[test]
fn what_comes_anew_is_read_meanwhile() {
    let mut wire = cache_wire(&["a", "b"]);
    for key in [KEY, b"l", b"m"] {
        set(&mut wire, 0, key, &[b'v'; 40_000]);
    }
    wire.run(5);
    wire.give(0, 1, &delta_of_a(&wire, 3, 3, Some(7), &[])).unwrap();
    assert!(wire.replicas[1].counters().divergences > 0, "b takes its rows for others than a has");
    for bytes in wire.take(1, 0) {
        wire.give(1, 0, &bytes).unwrap();
    }
    let pieces: Vec<_> = wire.take(0, 1).into_iter().filter(|bytes| is_delta(bytes)).collect();
    assert!(pieces.len() > 1, "it comes in pieces");
    wire.give(0, 1, &pieces[0]).unwrap();
    for key in [KEY, b"l", b"m"] {
        assert_eq!(get(&wire, 1, key).as_deref(), Some(&[b'v'; 40_000][..]), "{key:?}");
    }
    for piece in &pieces[1..] {
        wire.give(0, 1, piece).unwrap();
    }
    assert!(wire.replicas[1].counters().replaced > 0, "all have come anew");
    assert_eq!(get(&wire, 1, b"m").as_deref(), Some(&[b'v'; 40_000][..]));
    wire.assert_same(0, 1);
}

/// What an owner has never written goes when its rows have come anew, and what it has written there is read.
#[test]
fn what_its_owner_does_not_have_goes() {
    let mut wire = cache_wire(&["a", "b"]);
    set(&mut wire, 0, KEY, b"right");
    wire.run(3);
    let mut rows = RowWriter::new(1);
    let stamp = Stamp::at(wire.now.unix_ms + 1000).0;
    rows.push(WireRow {
        slot: 0,
        version: 2,
        state: RowState::Content { key: None, stamp, expires_ms: 0, value: b"wrong" },
    });
    rows.push(WireRow {
        slot: 1,
        version: 3,
        state: RowState::Content { key: Some(b"none"), stamp, expires_ms: 0, value: b"wrong" },
    });
    wire.give(0, 1, &delta_of_a(&wire, 1, 3, None, &rows.finish())).unwrap();
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"wrong"[..]));
    for key in [b"l", b"m"] {
        set(&mut wire, 0, key, b"right");
    }
    wire.run(20);
    assert!(wire.replicas[1].counters().replaced > 0, "all have come anew");
    assert_eq!((get(&wire, 1, KEY).as_deref(), get(&wire, 1, b"none")), (Some(&b"right"[..]), None));
    wire.assert_same(0, 1);
}

/// A write was read that came with a part of a snapshot, of which nobody has the rest: it was begun again with less, or its sender is
/// gone. Who reads it tells it, as another write is there that it outdoes.
#[test]
fn what_came_with_a_part_of_a_snapshot_is_told_by_who_reads_it() {
    for again in [false, true] {
        let mut wire = cache_wire(&["a", "b", "c"]);
        set(&mut wire, 0, KEY, b"earlier");
        wire.run(3);
        wire.down(0, 1);
        wire.down(0, 2);
        wire.down(1, 2);
        wire.up(0, 1);
        let piece = |wire: &Wire, upto: u64, floor: u64, rows: &[u8]| {
            let (structure, actor) = (wire.structure(0).id(), wire.replicas[0].actor().clone());
            let (since, known, after, snapshot, fingerprint) = (0, 0, 0, true, None);
            let delta = Delta {
                structure,
                actor,
                since,
                keys_complete: known,
                after,
                upto,
                low_water: floor,
                snapshot,
                fingerprint,
                rows,
            };
            let mut bytes = Vec::new();
            Message::Delta(delta).encode(&mut bytes).unwrap();
            bytes
        };
        let mut rows = RowWriter::new(0);
        let stamp = Stamp::at(wire.now.unix_ms + 1000).0;
        let state = RowState::Content { key: Some(KEY), stamp, expires_ms: 0, value: b"later" };
        rows.push(WireRow { slot: 0, version: 3, state });
        wire.give(0, 1, &piece(&wire, 4, 2, &rows.finish())).unwrap();
        if again {
            wire.give(0, 1, &piece(&wire, 1, 6, &[])).unwrap();
        }
        assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"later"[..]));
        wire.down(0, 1);
        let owner = wire.replicas[0].actor().clone();
        for at in [1, 2] {
            let now = wire.now_at(at);
            wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
        }
        wire.up(1, 2);
        wire.run(20);
        assert_eq!([1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"later"; 2], "{again}");
        assert!(!wire.structure(1).held().iter().any(|held| held.replacing), "nobody has the rest");
        wire.structure(1).audit().unwrap();
    }
}

/// A row had moved on while its owner's rows were on their way, and then the owner was gone: the copy that is furthest lacks it. Who
/// reads the write that it had told tells it from then on, as another write is there that it outdoes.
#[test]
fn what_a_further_copy_lacks_is_told_by_who_reads_it() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        wire.down(a, b);
    }
    set(&mut wire, 1, KEY, b"earlier");
    wire.up(1, 2);
    wire.run(3);
    wire.down(1, 2);
    wire.now.unix_ms += 1000;
    set(&mut wire, 0, KEY, b"later");
    wire.up(0, 2);
    wire.run(3);
    wire.down(0, 2);
    wire.up(0, 1);
    for bytes in wire.take(0, 1).into_iter().filter(|bytes| !is_delta(bytes)) {
        wire.give(0, 1, &bytes).unwrap();
    }
    let mut rows = RowWriter::new(0);
    let (stamp, value) = (Stamp::at(wire.now.unix_ms).0, &b"v"[..]);
    rows.push(WireRow {
        slot: 1,
        version: 4,
        state: RowState::Content { key: Some(b"other"), stamp, expires_ms: 0, value },
    });
    let (structure, actor, rows) = (wire.structure(0).id(), wire.replicas[0].actor().clone(), rows.finish());
    let delta = Delta {
        structure,
        actor: actor.clone(),
        since: 0,
        keys_complete: 0,
        after: 0,
        upto: 5,
        low_water: 3,
        snapshot: false,
        fingerprint: None,
        rows: &rows,
    };
    let mut bytes = Vec::new();
    Message::Delta(delta).encode(&mut bytes).unwrap();
    wire.give(0, 1, &bytes).unwrap();
    wire.down(0, 1);
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &actor.node, actor.incarnation, Life::Dead);
    }
    wire.up(1, 2);
    wire.run(20);
    assert!(wire.replicas[2].counters().replaced > 0, "c has taken b's copy");
    for at in [1, 2] {
        assert_eq!(get(&wire, at, KEY).as_deref(), Some(&b"later"[..]), "{at}");
        assert_eq!(get(&wire, at, b"other").as_deref(), Some(&b"v"[..]), "{at}");
    }
    wire.assert_same(1, 2);
}

/// Somebody has removed a key. An owner whose clock had been ahead takes back what outdid that, and says an earlier write in its
/// place: the removal outdoes it.
#[test]
fn what_is_taken_back_makes_room_for_a_removal() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    set(&mut wire, 2, KEY, b"first");
    wire.talk();
    remove(&mut wire, 2, KEY);
    wire.talk();
    let stamp = |ms: i64| Stamp::at(wire.now.unix_ms.saturating_add_signed(ms)).0;
    for (version, stamp, value) in [(1, stamp(1000), &b"ahead"[..]), (2, stamp(-1000), b"taken back to")] {
        wire.give(0, 1, &delta_with(&wire, version, stamp, value)).unwrap();
        assert_eq!(get(&wire, 1, KEY).as_deref(), (version == 1).then_some(value));
        wire.structure(1).audit().unwrap();
    }
}

/// I6. A value in a structure of counters is refused, and one that is far ahead is not taken, and told of once.
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
    let far = Stamp::at(wire.now.unix_ms + bounds::MAX_DRIFT.as_millis() as u64 + 10);
    let bytes = delta_with(&wire, 1, far.0, b"far ahead");
    for _ in 0..3 {
        wire.give(0, 1, &bytes).unwrap();
    }
    assert_eq!(get(&wire, 1, KEY), None);
    let event = wire.replicas[1].poll_event();
    assert!(matches!(event, Some(Event::Ahead { by, .. }) if by > bounds::MAX_DRIFT), "{event:?}");
    assert_eq!(wire.replicas[1].poll_event(), None);
    // Time goes by, and it is not ahead any more.
    wire.now.unix_ms += 1000;
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

/// A run that goes on as another takes along what is read, with the stamps that it had.
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

/// A node whose clock is behind by more than a minute takes what the others write, if most clocks agree: it reads what wins. What it
/// writes comes behind what it has read. Also where its clock shows a time before 1970, which is handed in as 0.
#[test]
fn a_clock_that_is_far_behind_reads_what_wins() {
    for behind in [61_000, 3_600_000, i64::MAX] {
        let mut wire = cache_wire(&["a", "b", "c"]);
        wire.clock_off = Some((1, -behind));
        wire.run(3);
        set(&mut wire, 1, KEY, b"of b, and before");
        wire.run(2);
        set(&mut wire, 0, KEY, b"of a");
        for second in 0..5_u8 {
            set(&mut wire, 2, &[b'c', second], b"of c");
            wire.run(1);
        }
        let read = [0, 1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default());
        assert_eq!(read, [b"of a"; 3], "{behind}");
        assert!((0..5).all(|second| get(&wire, 1, &[b'c', second]).is_some()), "{behind}: it takes all");
        set(&mut wire, 1, KEY, b"of b, and later");
        wire.run(2);
        let read = [0, 1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default());
        assert_eq!(read, [b"of b, and later"; 3], "{behind}");
        // While nobody can be heard, and when its clock is right again, it stays so.
        wire.down(0, 1);
        wire.down(1, 2);
        wire.run(30);
        set(&mut wire, 1, KEY, b"of b, alone");
        wire.up(0, 1);
        wire.clock_off = None;
        wire.run(5);
        let read = [0, 1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default());
        assert_eq!(read, [b"of b, alone"; 3], "{behind}");
        assert_eq!(wire.replicas[1].clocks().iter().map(|clock| clock.beyond).collect::<Vec<_>>(), [false]);
    }
}

/// Two clocks are no majority. A node takes at least those writes that are within the bound, also where later ones come with them.
#[test]
fn writes_within_the_bound_are_taken_with_others_that_are_not() {
    let mut wire = cache_wire(&["a", "b"]);
    wire.clock_off = Some((1, -63_000));
    wire.run(2);
    for second in 0..10_u8 {
        set(&mut wire, 0, &[b'k', second], b"of a");
        wire.run(1);
    }
    let taken: Vec<_> = (0..10).map(|second| get(&wire, 1, &[b'k', second]).is_some()).collect();
    assert_eq!(taken, [true, true, true, true, true, true, true, false, false, false]);
    assert!(wire.replicas[1].counters().ahead > 0);
    let clocks = wire.replicas[1].clocks();
    assert!(clocks[0].beyond && clocks[0].ahead_ms > 60_000, "the bound of caches applies: {clocks:?}");
}

/// A clock that is ahead of most others moves nobody: what is written by it is not taken, and afterwards told anew.
#[test]
fn a_clock_that_is_far_ahead_moves_nobody() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    wire.clock_off = Some((1, 3_600_000));
    wire.run(3);
    set(&mut wire, 1, KEY, b"of b, ahead");
    wire.run(2);
    set(&mut wire, 0, KEY, b"of a");
    wire.run(2);
    assert_eq!([0, 2].map(|at| get(&wire, at, KEY).unwrap_or_default()), [b"of a"; 2]);
    wire.clock_off = None;
    wire.run(5);
    let read = [0, 1, 2].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of b, ahead"; 3], "it was told anew, as of now");
}
