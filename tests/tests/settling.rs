//! When a simulated cluster counts as converged: not before its last fault has happened and every node has noticed it.

use std::time::Duration;

use tallymesh_engine::Time;
use tallymesh_harness::swarm::{Detail, draw, run};
use tallymesh_harness::{Builder, Fault, Step, check, series};
use tallymesh_schemas::Kind;

const SECOND: Duration = Duration::from_secs(1);

/// Until a node reads a clock that was set back, it is in windows that no other node has, and lacks nothing there. The cluster
/// converges when the node has come to the windows of the others.
#[test]
fn a_clock_that_was_set_back_is_read_before_the_cluster_has_converged() {
    let mut cluster = Builder::new(1)
        .nodes(["a", "b"])
        .series([series("logins", Kind::GaugeTable, 10, 6)])
        .skew(Duration::ZERO)
        .start();
    cluster.run_for(SECOND).unwrap();
    cluster.fault(&Fault::Set("a".to_owned(), 3_600_000));
    cluster.run_for(SECOND * 3).unwrap();
    let window = cluster.with("b", |node| node.count_events("logins", b"key", 1)).unwrap();
    cluster.run_for(SECOND).unwrap();
    // Thirty seconds behind.
    cluster.fault(&Fault::Set("a".to_owned(), -3_630_000));
    assert_eq!(check::pending(&cluster), ["a has not turned logins back to its clock"]);
    let took = cluster.settle().unwrap();
    assert!(took > SECOND * 10, "{took:?}");
    cluster.run_for(SECOND * 10).unwrap();
    assert_eq!(cluster.events("a", "logins", b"key").get(&window), Some(&1));
}

/// The load of a run can end before its faults: here a clock is set back two seconds later. Convergence is promised after that.
#[test]
fn a_run_of_the_swarm_converges_after_its_last_fault() {
    let mut plan = draw(0);
    plan.nodes = vec!["a".to_owned(), "b".to_owned()];
    plan.series = vec![series("logins", Kind::GaugeTable, 10, 6)];
    (plan.asked, plan.caches, plan.gauges, plan.saves) = (None, Vec::new(), Vec::new(), None);
    (plan.load.events, plan.length) = (9000, SECOND * 4);
    let at = Time(0).after(plan.length + SECOND * 2);
    plan.script = vec![Step { at, fault: Fault::Set("a".to_owned(), -90_000) }];
    let outcome = run(&plan, Detail::Hash);
    assert_eq!(outcome.failure, None);
    assert!(outcome.settled > SECOND * 10, "{:?}", outcome.settled);
}
