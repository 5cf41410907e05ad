//! Series that keep more or fewer windows from now on, on one node after the other.

use super::{add, counts, everywhere, series, wire};

fn keep_windows(wire: &mut super::Wire, at: usize, windows: u32) {
    let (now, series) = (wire.now, series(wire, at));
    wire.replicas[at].keep_windows(now, &series, windows);
}

/// A count in a window that every node keeps is the same on all of them, whatever else they keep. A node that keeps more windows
/// than its peers does not take their rows of an earlier window for those of another process.
#[test]
fn counts_stay_when_a_node_keeps_more_windows_and_fewer() {
    let mut wire = wire(&["a", "b", "c"]);
    for n in 1..=6 {
        add(&mut wire, 0, "k", n);
        add(&mut wire, 1, "k", 10 * n);
        wire.talk();
        wire.run(10);
    }
    everywhere(&wire, "k", &[0, 66, 55]);
    for (at, windows) in [(0, 6), (2, 5), (1, 2)] {
        keep_windows(&mut wire, at, windows);
        wire.run(3);
    }
    assert_eq!(counts(&wire, 0, "k"), [0, 66, 55, 0, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [0, 66]);
    assert_eq!(counts(&wire, 2, "k"), [0, 66, 55, 0, 0]);
    keep_windows(&mut wire, 1, 6);
    add(&mut wire, 1, "k", 7);
    wire.run(7);
    wire.run(31);
    // Four windows later, both have kept what was counted since.
    for at in [0, 1] {
        assert_eq!(counts(&wire, at, "k"), [0, 0, 0, 0, 7, 66], "{}", wire.node(at));
    }
    for replica in &wire.replicas {
        assert_eq!((replica.counters().conflicts, replica.counters().divergences), (0, 0));
    }
    assert!(wire.replicas[0].check_windows(1 << 12).is_err() && wire.replicas[0].check_windows(4).is_ok());
}

/// A node whose series already has the number does nothing.
#[test]
fn the_same_number_changes_nothing() {
    let mut wire = wire(&["a", "b"]);
    add(&mut wire, 0, "k", 3);
    wire.talk();
    let before: Vec<_> = wire.replicas[0].structures().iter().map(|held| held.id()).collect();
    keep_windows(&mut wire, 0, 3);
    let after: Vec<_> = wire.replicas[0].structures().iter().map(|held| held.id()).collect();
    assert_eq!(before, after);
    everywhere(&wire, "k", &[3, 0, 0]);
}
