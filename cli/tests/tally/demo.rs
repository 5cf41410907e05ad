//! The demonstration in its short form, as a program would read it.

use crate::support::tally;

#[test]
fn the_demonstration_ends_with_all_nodes_agreeing() {
    let demo = tally(&["demo", "--plain", "--seconds", "8"]);
    let told = demo.ok();
    assert!(!told.contains('\x1b'), "plain output moves no cursor");
    for part in [
        "all linked to each other",
        "A change was seen on all nodes after:",
        "lazy, snapped cidrtree 'inbound_cidr', view 'global'",
        "3. relay-0-3 is cut off; both sides go on",
        "4. relay-0-3 is back",
        "asked on every node: converged",
        "all 3 nodes agree with what was counted",
    ] {
        assert!(told.contains(part), "{part:?} in\n{told}");
    }
    tally(&["demo", "--nodes", "1"]).fails(2);
    tally(&["demo", "--output", "json"]).fails(2);
}
