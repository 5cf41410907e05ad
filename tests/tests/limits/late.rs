//! Soft throttles that are made late decide as those that were always there (I11): swept, restarted, made by a program after
//! the others have used them.

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Limits, quick_config, spec};
use tallymesh_schemas::{Class, Strength, ThrottleSpec};

const TABLE: &str = "shared_named_throttles";
const SECOND: Duration = Duration::from_secs(1);
const NODES: [&str; 3] = ["a", "b", "c"];

fn throttle() -> ThrottleSpec {
    ThrottleSpec::new("100/10m".parse().unwrap(), Strength::Soft)
}

fn limits() -> Limits {
    Limits::founded(&["a"], SECOND * 6)
}

fn builder(limits: Limits) -> Builder {
    let table = spec(TABLE, Class::SharedNamedThrottles);
    Builder::new(3).nodes(NODES).structures([table]).config(quick_config()).limits(limits)
}

fn take(cluster: &mut Cluster, node: &str) -> bool {
    cluster.with(node, |node| node.take(TABLE, "t", 90).admitted()).unwrap()
}

/// Ten idle seconds, in which throttles that nobody uses are swept; then each node in turn, three seconds apart.
fn in_turn(mut cluster: Cluster) -> u64 {
    cluster.run_for(SECOND * 10).unwrap();
    for node in NODES {
        take(&mut cluster, node);
        cluster.run_for(SECOND * 3).unwrap();
    }
    cluster.admissions().of("t").unwrap().admitted
}

#[test]
fn a_declared_throttle_that_was_idle() {
    assert_eq!(in_turn(builder(limits().throttle(TABLE, "t", throttle())).start()), 90);
}

#[test]
fn a_throttle_that_a_program_makes_after_others_have_used_it() {
    assert_eq!(in_turn(builder(limits().late_throttle(TABLE, "t", throttle())).start()), 90);
}

/// What others had admitted long ago does not count any more.
#[test]
fn a_bucket_has_filled_since() {
    let quick = ThrottleSpec::new("100/10s".parse().unwrap(), Strength::Soft);
    let mut cluster = builder(limits().late_throttle(TABLE, "t", quick)).start();
    cluster.run_for(SECOND * 5).unwrap();
    assert!(take(&mut cluster, "a"));
    cluster.run_for(SECOND * 2).unwrap();
    assert!(!take(&mut cluster, "b"), "there are 30");
    cluster.run_for(SECOND * 7).unwrap();
    assert!(take(&mut cluster, "c"), "there are 100");
}

/// A node that has the others' rows, and its own levels, from its disk.
#[test]
fn restarts_with_state() {
    for limits in [limits().throttle(TABLE, "t", throttle()), limits().late_throttle(TABLE, "t", throttle())] {
        let mut cluster = builder(limits).saves(SECOND).start();
        cluster.run_for(SECOND * 10).unwrap();
        assert!(take(&mut cluster, "a"));
        cluster.run_for(SECOND * 5).unwrap();
        for reboots in ["at 0s reboot b", "at 0s reboot a", "at 0s reboot a,b,c"] {
            cluster.script(reboots).unwrap();
            cluster.run_for(SECOND * 5).unwrap();
            NODES.iter().for_each(|node| assert!(!take(&mut cluster, node), "{reboots}: {node}"));
        }
        assert_eq!(cluster.trace().marked("reboot"), 5, "the fault bit");
    }
}

/// A node that keeps no state has the others' rows when they come again. What its own earlier run has admitted it does not know, and
/// the bound says so.
#[test]
fn restarts_without_state() {
    for limits in [limits().throttle(TABLE, "t", throttle()), limits().late_throttle(TABLE, "t", throttle())] {
        let mut cluster = builder(limits).start();
        cluster.run_for(SECOND * 10).unwrap();
        assert!(take(&mut cluster, "a"));
        cluster.run_for(SECOND).unwrap();
        cluster.script("at 0s restart b").unwrap();
        cluster.run_for(SECOND * 5).unwrap();
        assert!(!take(&mut cluster, "b"));
        cluster.script("at 0s restart a").unwrap();
        cluster.run_for(SECOND * 5).unwrap();
        ["b", "c"].iter().for_each(|node| assert!(!take(&mut cluster, node), "{node} has heard it"));
        let now = cluster.structure("a", TABLE).1.mono;
        let limiters = cluster.node("a").process().unwrap().limiters();
        let earlier: Vec<_> = limiters.values().map(|limiter| limiter.earlier_run(&throttle(), now)).collect();
        assert_eq!(earlier, [100]);
        take(&mut cluster, "a");
        assert!(cluster.admissions().of("t").unwrap().admitted <= 100 + earlier[0]);
    }
}
