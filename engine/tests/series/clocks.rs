//! Clocks that differ, and rows that come behind the end of their window.

use super::*;

/// Clocks that differ by less than a window blur its edge; nothing is lost.
#[test]
fn a_clock_that_is_a_little_ahead_loses_nothing() {
    let mut wire = wire(&["a", "b"]);
    wire.run(8);
    wire.clock_off = Some((0, 4000));
    wire.run(1);
    add(&mut wire, 0, "k", 1);
    add(&mut wire, 1, "k", 10);
    wire.talk();
    assert_eq!(counts(&wire, 0, "k"), [1, 10, 0], "a is in the next window");
    assert_eq!(counts(&wire, 1, "k"), [10, 0, 0]);
    wire.run(1);
    everywhere(&wire, "k", &[1, 10, 0]);
    assert!(!events(&mut wire, 1).iter().any(|event| matches!(event, Event::ClockOff { .. })));
}

fn events(wire: &mut Wire, at: usize) -> Vec<Event> {
    std::iter::from_fn(|| wire.replicas[at].poll_event()).collect()
}

#[test]
fn a_clock_that_is_far_off_is_reported() {
    let mut wire = wire(&["a", "b"]);
    wire.clock_off = Some((0, 60_000));
    wire.run(3);
    let off = |event: &Event| match event {
        Event::ClockOff { peer, by, ahead } => Some((peer.clone(), by.as_secs(), *ahead)),
        _ => None,
    };
    let said: Vec<_> = events(&mut wire, 1).iter().filter_map(off).collect();
    assert_eq!(said, [(name("a"), 60, true)], "once");
    let said: Vec<_> = events(&mut wire, 0).iter().filter_map(off).collect();
    assert_eq!(said, [(name("b"), 60, false)]);
}

/// A clock that goes back brings no window back and begins none twice.
#[test]
fn a_clock_that_goes_back_doubles_nothing() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 1);
    wire.run(10);
    add(&mut wire, 0, "k", 2);
    wire.run(1);
    let window = series(&wire, 0).current();
    wire.clock_off = Some((0, -12_000));
    wire.run(4);
    assert_eq!(series(&wire, 0).current(), window);
    add(&mut wire, 0, "k", 3);
    wire.run(1);
    everywhere(&wire, "k", &[5, 1, 0]);
    // As long as the clock is back by, and once more, and it is as it was.
    let mut windows = Vec::new();
    for _ in 0..30 {
        wire.run(1);
        windows.push(series(&wire, 0).current());
    }
    assert!(windows.is_sorted());
    assert_eq!(Some(&series(&wire, 0).spec().window_at(wire.now.unix_ms - 12_000)), windows.last());
}

/// Rows of a window that this node has dropped are not taken, whatever way they come.
#[test]
fn what_comes_after_its_window_is_ignored() {
    let mut wire = wire(&["a", "b"]);
    wire.down(0, 1);
    add(&mut wire, 0, "k", 5);
    wire.wait(29);
    // a is still in the last window that knows of it, b is a little ahead.
    wire.clock_off = Some((1, 2000));
    let now = wire.now_at(1);
    wire.replicas[1].handle_timeout(now);
    wire.up(0, 1);
    wire.talk();
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 5]);
    assert_eq!(counts(&wire, 1, "k"), [0, 0, 0]);
    wire.run(3);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// Whoever missed rows of a window that its peer has dropped stops to ask for them.
#[test]
fn rows_of_a_window_that_a_peer_has_dropped_are_not_asked_for_for_ever() {
    let mut wire = wire(&["a", "b"]);
    wire.clock_off = Some((1, -12_000));
    wire.run(20);
    add(&mut wire, 0, "k", 5);
    // Only digests arrive, until a has dropped the window and b has not.
    for _ in 0..32 {
        wire.wait(1);
        for (from, to) in [(0, 1), (1, 0)] {
            for bytes in wire.take(from, to).into_iter().filter(|bytes| matches!(read(bytes), Message::Digest(_))) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
    }
    let wants = |wire: &Wire| wire.replicas[1].counters().wants_out;
    let before = wants(&wire);
    assert!(before > 0, "b knows that something is missing");
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0], "a has dropped it");
    let held = wire.replicas[1].structures().iter().filter(|window| window.held().len() > 1).count();
    wire.run(7);
    let after = wants(&wire);
    wire.run(2);
    assert!(held > 3, "b keeps it still");
    assert_eq!(wants(&wire), after, "after {} more", after - before);
}
