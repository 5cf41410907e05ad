//! Caches while a clock is ahead: writes that other nodes do not accept, and what they hide.

#[allow(dead_code, reason = "each test crate uses its part")]
mod late;
#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::time::Duration;

use late::{KEY, cache, cache_wire, get, set};

const HOUR_MS: i64 = 3_600_000;

/// I5. The clock of b is an hour ahead, and b reads what it has written meanwhile. So it does not take what a writes. c refuses
/// the write of b, and gets the value of a from d, although c has a link to b and none to a.
#[test]
fn a_value_that_a_peer_from_the_future_does_not_have_comes_from_another() {
    let mut wire = cache_wire(&["a", "b", "c", "d"]);
    wire.down(0, 2);
    wire.run(5);
    wire.clock_off = Some((1, HOUR_MS));
    wire.run(2);
    set(&mut wire, 1, KEY, b"of b, ahead");
    wire.run(2);
    assert_eq!(get(&wire, 2, KEY), None, "c refuses it");
    set(&mut wire, 0, KEY, b"of a");
    wire.run(15);
    let read = [0, 2, 3].map(|at| get(&wire, at, KEY).unwrap_or_default());
    assert_eq!(read, [b"of a"; 3]);
}

/// A node whose clock was ahead writes again what it has written meanwhile, in the same order, with stamps that others accept. What the others wrote
/// meanwhile is older.
#[test]
fn what_was_written_ahead_is_written_again_when_the_clock_is_right() {
    let mut wire = cache_wire(&["a", "b", "c"]);
    wire.clock_off = Some((1, HOUR_MS));
    wire.run(2);
    for value in [b"first", b"other"] {
        set(&mut wire, 1, KEY, value);
        set(&mut wire, 1, value, value);
    }
    wire.run(2);
    set(&mut wire, 0, KEY, b"of a");
    wire.run(2);
    wire.clock_off = None;
    wire.run(10);
    for at in 0..3 {
        assert_eq!(get(&wire, at, KEY).as_deref(), Some(&b"other"[..]));
        let stamp = |key: &[u8]| cache(&wire, at).entry(key, wire.now.unix_ms).unwrap().stamp;
        assert!(
            stamp(b"first") < stamp(b"other")
                && stamp(b"other").unix_ms() <= wire.now.unix_ms.after(Duration::from_secs(60))
        );
    }
}

/// While its clock is ahead, a node does not keep the others' writes of other keys from anybody.
#[test]
fn a_clock_that_is_ahead_hides_only_the_keys_that_it_writes() {
    let mut wire = cache_wire(&["a", "b"]);
    wire.clock_off = Some((1, HOUR_MS));
    wire.run(2);
    set(&mut wire, 1, KEY, b"ahead");
    set(&mut wire, 0, KEY, b"of a");
    set(&mut wire, 0, b"other", b"of a");
    wire.run(5);
    assert_eq!([0, 1].map(|at| get(&wire, at, b"other").unwrap_or_default()), [b"of a"; 2]);
    assert_eq!([0, 1].map(|at| get(&wire, at, KEY).unwrap_or_default()), [&b"of a"[..], b"ahead"]);
    assert!(wire.replicas[0].counters().ahead > 0);
}
