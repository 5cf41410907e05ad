//! Wall clocks that are wrong.

use std::time::Duration;

use tallymesh_engine::CacheError;

use crate::late::{KEY, cache, cache_wire, get, remove, set};
use crate::wire::Wire;

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

/// A node's clock is far ahead of most other clocks. The other nodes do not accept the node's writes, and their clocks do not
/// move. The node writes its values again later.
#[test]
fn a_clock_that_is_far_ahead_moves_no_other_clock() {
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

fn write(wire: &mut Wire, at: usize) -> Result<(), CacheError> {
    let unix_ms = wire.now_at(at).unix_ms;
    cache(wire, at).set(KEY, b"later", Duration::ZERO, unix_ms).map(drop)
}

/// I5. The clock of b, which hears no other node, is an hour behind for less than a minute. b keeps the stamps of its writes, and
/// refuses to write: with an earlier stamp its last write would lose to the removal that it had superseded. Later b takes its
/// clock for right.
#[test]
fn a_clock_that_is_behind_for_a_moment_takes_nothing_back_where_no_other_is_heard() {
    for alone in [0, 90] {
        let mut wire = cache_wire(&["a", "b"]);
        set(&mut wire, 0, KEY, b"of a");
        wire.run(1);
        remove(&mut wire, 0, KEY);
        wire.run(1);
        set(&mut wire, 1, KEY, b"of b");
        wire.down(0, 1);
        wire.run(alone);
        wire.clock_off = Some((1, -3_600_000));
        wire.run(50);
        assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"of b"[..]), "alone for {alone} s");
        assert!(matches!(write(&mut wire, 1), Err(CacheError::Clock { .. })), "alone for {alone} s");
        wire.clock_off = None;
        wire.up(0, 1);
        wire.run(5);
        let read = [0, 1].map(|at| get(&wire, at, KEY).unwrap_or_default());
        assert_eq!(read, [b"of b"; 2], "alone for {alone} s");
        wire.down(0, 1);
        wire.clock_off = Some((1, -3_600_000));
        wire.run(63);
        assert_eq!(write(&mut wire, 1), Ok(()));
    }
}

/// The clock of a node that hears no other node is years ahead for some seconds. No entry expires for good.
#[test]
fn a_clock_that_is_ahead_for_a_moment_ends_no_entry_where_no_other_is_heard() {
    let mut wire = cache_wire(&["a", "b"]);
    wire.down(0, 1);
    wire.run(90);
    let unix_ms = wire.now_at(1).unix_ms;
    cache(&wire, 1).set(KEY, b"of b", Duration::from_secs(3600), unix_ms).unwrap();
    wire.run(1);
    wire.clock_off = Some((1, 94_608_000_000));
    wire.run(5);
    wire.clock_off = None;
    wire.run(5);
    assert_eq!(get(&wire, 1, KEY).as_deref(), Some(&b"of b"[..]));
}
