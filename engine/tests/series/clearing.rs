//! Keys that are cleared.

use super::*;

/// A node clears an entry. The clearing removes the counts that this node knew, and keeps the counts that it did not know.
#[test]
fn clearing_removes_only_what_the_node_knew() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    add(&mut wire, 1, "k", 7);
    add(&mut wire, 1, "other", 1);
    wire.run(10);
    add(&mut wire, 1, "k", 3);
    wire.talk();
    everywhere(&wire, "k", &[3, 12, 0]);
    // b keeps counting before it receives the clearing, two nodes clear at the same time, and c receives the clearing first.
    wire.down(0, 1);
    wire.down(1, 2);
    add(&mut wire, 1, "k", 100);
    clear(&mut wire, 0, "k");
    clear(&mut wire, 2, "k");
    wire.run(1);
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [103, 12, 0]);
    assert_eq!(counts(&wire, 2, "k"), [0, 0, 0]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.run(2);
    everywhere(&wire, "k", &[100, 0, 0]);
    everywhere(&wire, "other", &[0, 1, 0]);
    add(&mut wire, 0, "k", 1);
    wire.talk();
    everywhere(&wire, "k", &[101, 0, 0]);
    let keys: Vec<_> = series(&wire, 0).windows()[0].list_all().entries(10).into_iter().map(|e| e.key).collect();
    assert_eq!(keys, [b"k".to_vec()], "what clears is not listed");
}

/// A node clears a row that counts zero like any other row. Otherwise a node that had cleared less of it at the same time would
/// bring the rest back.
#[test]
fn to_clear_what_counts_nothing_clears_it() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 1);
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    clear(&mut wire, 2, "k");
    add(&mut wire, 0, "k", -1);
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.up(0, 2);
    wire.up(1, 2);
    wire.run(2);
    everywhere(&wire, "k", &[0, 0, 0]);
    // So it does in a run that takes over what it has cleared.
    let (now, run) = (wire.now, wire.replicas[1].actor().incarnation);
    wire.replicas[1].renew(now, run).unwrap();
    wire.run(2);
    everywhere(&wire, "k", &[0, 0, 0]);
}

/// Who clears what somebody else has cleared does not rely on that one's word: it may be forgotten.
#[test]
fn each_clearing_stands_by_itself() {
    let mut wire = wire(&["a", "b", "c"]);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    clear(&mut wire, 2, "k");
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.talk();
    wire.down(0, 2);
    wire.down(1, 2);
    let now = wire.now;
    wire.replicas[1].forget(now, &name("c"));
    wire.run(1);
    assert_eq!(counts(&wire, 0, "k"), [0, 0, 0]);
    assert_eq!(counts(&wire, 1, "k"), [0, 0, 0]);
}

/// The clearing arrives before the row that it clears.
#[test]
fn a_row_that_was_cleared_before_it_arrived_counts_nothing() {
    let mut wire = wire(&["a", "b", "c"]);
    wire.down(0, 2);
    add(&mut wire, 0, "k", 5);
    wire.talk();
    clear(&mut wire, 1, "k");
    wire.talk();
    assert_eq!(counts(&wire, 2, "k"), [0, 0, 0]);
    wire.up(0, 2);
    wire.run(1);
    everywhere(&wire, "k", &[0, 0, 0]);
    add(&mut wire, 0, "k", -2);
    wire.talk();
    everywhere(&wire, "k", &[-2, 0, 0]);
}
