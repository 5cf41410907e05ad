//! Clocks that differ, and rows that come behind the end of their window.

use tallymesh_schemas::UnixMs;

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
    assert_eq!(Some(&series(&wire, 0).spec().window_at(UnixMs(wire.now.unix_ms.0 - 12_000))), windows.last());
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

/// A node that lacks rows of a window stops asking a peer that has dropped the window.
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

/// A node's clock was an hour ahead for three seconds. The node loses no counts, and counts in the window of the other nodes
/// as soon as its clock is right.
#[test]
fn a_node_whose_clock_was_an_hour_ahead_counts_with_the_others_at_once() {
    for by in [3_600_000, 3 * 365 * 86_400_000, -3_600_000, -3 * 365 * 86_400_000] {
        let mut wire = wire(&["a", "b"]);
        add(&mut wire, 0, "k", 5);
        wire.run(10);
        add(&mut wire, 0, "k", 6);
        wire.run(1);
        wire.clock_off = Some((0, by));
        for _ in 0..3 {
            wire.run(1);
            add(&mut wire, 0, "k", 100);
        }
        assert_ne!(series(&wire, 0).current(), series(&wire, 1).current(), "{by}: it is elsewhere");
        add(&mut wire, 1, "k", 10);
        wire.clock_off = None;
        wire.run(2);
        assert_eq!(series(&wire, 0).current(), series(&wire, 1).current(), "{by}");
        add(&mut wire, 0, "k", 1);
        wire.run(1);
        everywhere(&wire, "k", &[17, 5, 0]);
        let counters = [0, 1].map(|at| wire.replicas[at].counters());
        assert_eq!(counters.map(|counters| counters.conflicts), [0, 0], "{by}: nobody else writes its rows");
        assert_eq!(counters.map(|counters| counters.clock_steps), [2, 0], "{by}: there and back");
        wire.run(50);
        assert_eq!(wire.replicas[0].structures().len(), 1 + 4, "{by}: what was kept aside is gone");
        everywhere(&wire, "k", &[0, 0, 0]);
    }
}

/// What was counted on a clock that was ahead is in the window that the clock said, when its time comes.
#[test]
fn what_was_counted_ahead_is_there_when_its_window_comes() {
    let mut wire = wire(&["a", "b"]);
    wire.run(1);
    wire.clock_off = Some((0, 70_000));
    wire.run(1);
    assert_eq!(series(&wire, 0).current(), series(&wire, 1).current() + 7);
    add(&mut wire, 0, "k", 100);
    wire.clock_off = None;
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
    add(&mut wire, 0, "k", 1);
    wire.run(30);
    everywhere(&wire, "k", &[0, 0, 0]);
    wire.run(40);
    assert_eq!(counts(&wire, 0, "k"), counts(&wire, 1, "k"));
}

/// A node's clock goes back behind windows that the node dropped. Other nodes may still hold this node's rows of these
/// windows, so the node does not write them a second time.
#[test]
fn a_node_does_not_write_a_dropped_window_again() {
    let mut wire = wire(&["a", "b"]);
    // b keeps more windows than a.
    let mut long = SeriesSpec::new(SeriesName::new("long").unwrap(), Kind::GaugeTable, 10, 30);
    long.max_delay = Duration::ZERO;
    let mut short = long.clone();
    short.windows = 3;
    let now = wire.now;
    let kept: Vec<_> = [short, long]
        .into_iter()
        .enumerate()
        .map(|(at, spec)| wire.replicas[at].replicate_series(now, spec, Arc::new(|| ())).unwrap())
        .collect();
    for _ in 0..12 {
        kept[0].add(b"k", 1).unwrap();
        wire.run(10);
    }
    let total = |wire: &Wire| kept[1].count(Scope::Key(b"k"), 0..=30, wire.now.mono).total;
    assert_eq!(total(&wire), 12);
    wire.clock_off = Some((0, -90_000));
    wire.run(2);
    kept[0].add(b"k", 1).unwrap();
    wire.run(5);
    wire.clock_off = None;
    wire.run(2);
    kept[0].add(b"k", 1).unwrap();
    wire.run(2);
    assert_eq!(total(&wire), 13);
    assert_eq!(wire.replicas[0].counters().conflicts, 0);
}

/// Every digest says what its sender's clock shows: offsets are known, and while one is beyond the bound it is counted.
#[test]
fn the_clocks_of_peers_are_known() {
    let mut wire = wire(&["a", "b"]);
    assert_eq!(wire.replicas[0].clock_bound(), Some(Duration::from_secs(10)), "the shortest window");
    wire.clock_off = Some((0, 12_000));
    wire.run(5);
    let clocks = wire.replicas[1].clocks();
    assert_eq!(clocks.len(), 1);
    assert!(clocks[0].beyond && (11_000..=13_000).contains(&clocks[0].ahead_ms), "{clocks:?}");
    let counted = wire.replicas[1].counters().clocks_off;
    assert!(counted > 1);
    wire.clock_off = None;
    // Its clock for windows goes at half pace until it is right.
    wire.run(5);
    assert!(wire.replicas[0].windows_ahead(wire.now) > Duration::from_secs(5));
    wire.run(30);
    let clocks = wire.replicas[1].clocks();
    assert!(!clocks[0].beyond && clocks[0].ahead_ms.abs() < 1500, "{clocks:?}");
    assert!(events(&mut wire, 1).iter().any(|event| matches!(event, Event::ClockRight { .. })));
}
