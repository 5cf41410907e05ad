//! The demonstration in its short form, as plain text.

use crate::support::tally;

#[test]
fn the_demonstration_ends_with_all_nodes_agreeing() {
    let demo = tally(&["demo", "--plain", "--seconds", "8"]);
    let output = demo.ok();
    assert!(!output.contains('\x1b'), "plain output moves no cursor");
    for part in [
        "all linked to each other",
        "A change was seen on all nodes after:",
        "lazy, snapped cidrtree 'inbound_cidr', view 'global'",
        "relay-0-2 opens 1 from 198.18.0.7; then 198.18.0.7: 4 are counted and 4 are allowed",
        "relay-0-2 opens 2 from 198.18.0.8; then 198.18.0.0/24: 6 are counted and 6 are allowed",
        "relay-0-2 opens 0 from 198.18.0.9; then 198.18.0.0/24: 6 are counted and 6 are allowed",
        "relay-0-2 has received that, and takes 40 more; then refused, it is used up",
        "relay-0-3 reads 6 connections from 198.18.0.0/24",
        "3. relay-0-3 is cut off; both sides go on",
        "What happens now: no packet passes between the sides",
        "the throttle on relay-0-3: in a partition:",
        "4. relay-0-3 is back",
        "copies in all: converged",
        "all 3 nodes agree with what was counted",
    ] {
        assert!(output.contains(part), "{part:?} in\n{output}");
    }
    tally(&["demo", "--nodes", "1"]).fails(2);
    tally(&["demo", "--output", "json"]).fails(2);
}
