//! What a user of the simulator meets first: wrong names, services that fail, checkers of his own, limits that settle.

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tallymesh_harness::{
    Builder, Class, Cluster, Context, Limits, NoService, Service, Strength, ThrottleSpec, address, quick_config, spec,
};

const SECOND: Duration = Duration::from_secs(1);
const TABLE: &str = "shared_named_throttles";

/// Takes a token every 50 ms, and panics when the test asks for it.
#[derive(Default)]
struct Work {
    taken: u64,
    panics: bool,
}

impl Service for Work {
    fn tick(&mut self, node: &mut Context<'_>) {
        assert!(!self.panics, "out of work");
        self.taken += u64::from(node.take(TABLE, "t", 1).admitted());
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

struct Idle;

impl Service for Idle {
    fn tick(&mut self, _: &mut Context<'_>) {}

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

fn working() -> Cluster {
    let throttle = ThrottleSpec::new("100/1s".parse().unwrap(), Strength::Hard);
    let limits = Limits::founded(&["a", "b", "c"], SECOND * 6).throttle(TABLE, "t", throttle);
    let table = spec(TABLE, Class::SharedNamedThrottles);
    Builder::new(9).structures([table]).config(quick_config()).limits(limits).service(|_| Work::default()).start()
}

#[test]
fn a_script_names_a_node_that_does_not_exist() {
    for (script, name) in [
        ("at 0s crash a; at 1s cut a,d from c", "d"),
        ("at 0s jump d 3s", "d"),
        ("at 0s forget d at a", "d"),
        ("at 0s lie a dead d", "d"),
        ("at 0s stop a'; at 1s twin a", "a'"),
    ] {
        let mut cluster = Builder::new(9).start();
        let failure = cluster.script(script).unwrap_err();
        let what = format!("there is no node \"{name}\"; the nodes are a, b, c");
        assert!(failure.what.ends_with(&what) && failure.what.starts_with("step \"at "), "{script}: {failure}");
        cluster.run_for(SECOND * 2).unwrap();
        assert_eq!(cluster.trace().marked("crash"), 0, "{script}: no step runs");
    }
    let mut cluster = Builder::new(9).start();
    cluster.script("at 0s twin a; at 1s stop a'").unwrap();
    cluster.script("at 1s resume a'").unwrap();
    cluster.run_for(SECOND * 2).unwrap();
    assert_eq!(cluster.trace().marked("twin"), 1);
}

#[test]
fn a_restore_without_the_way_to_it() {
    let mut cluster = Builder::new(9).start();
    cluster.script("at 1s restore a 1s").unwrap();
    let failure = cluster.run_for(SECOND * 2).unwrap_err();
    assert!(failure.what.contains("Cluster::again"), "{failure}");
}

#[test]
fn a_service_that_is_not_there() {
    let mut cluster = working();
    let why = |cluster: &mut Cluster, node: &str| cluster.with_service(node, |_: &mut Work, _| ()).unwrap_err();
    cluster.with_service("a", |_: &mut Work, _| ()).unwrap();
    let other = cluster.with_service("a", |_: &mut Idle, _| ()).unwrap_err();
    assert!(matches!(&other, NoService::Other { node, wanted } if node == "a" && wanted.ends_with("Idle")), "{other}");
    cluster.script("at 0s crash a; at 0s stop b; at 0s leave c").unwrap();
    cluster.run_for(SECOND / 100).unwrap();
    assert_eq!(why(&mut cluster, "a"), NoService::NotRunning("a".to_owned()));
    assert_eq!(why(&mut cluster, "b"), NoService::Stopped("b".to_owned()));
    assert_eq!(why(&mut cluster, "c"), NoService::Leaving("c".to_owned()));
    let mut bare = Builder::new(9).start();
    assert_eq!(why(&mut bare, "a"), NoService::None("a".to_owned()));
}

#[test]
fn a_service_that_panics() {
    let mut cluster = working();
    cluster.run_for(SECOND * 2).unwrap();
    cluster.with_service("b", |work: &mut Work, _| work.panics = true).unwrap();
    let failure = cluster.run_for(SECOND).unwrap_err();
    assert_eq!(failure.what, "b: the service panicked: out of work");
    assert_eq!(failure.seed, 9);
    assert!((SECOND * 2..SECOND * 3).contains(&Duration::from_micros(failure.at.0)), "{failure}");
    assert!(failure.to_string().starts_with("seed 9, at 2."), "{failure}");
}

#[test]
fn a_checker_of_a_test_runs_at_every_step() {
    let mut cluster = Builder::new(9).start();
    let steps = Rc::new(Cell::new(0));
    let count = Rc::clone(&steps);
    cluster.observe(move |cluster| {
        count.set(count.get() + 1);
        let read = cluster.count("b", "inbound_cidr", &address(1));
        if read <= 2 { Ok(()) } else { Err(format!("b reads {read}")) }
    });
    cluster.run_for(SECOND).unwrap();
    assert!(steps.get() > 20, "{}", steps.get());
    cluster.with("a", |node| node.add("inbound_cidr", &address(1), 3));
    let failure = cluster.run_for(SECOND).unwrap_err();
    assert_eq!((failure.what.as_str(), failure.seed), ("b reads 3", 9));
    assert!(failure.at.0 < 1_200_000, "at the step in which the row arrived: {failure}");

    let mut cluster = Builder::new(9).start();
    cluster.observe(|cluster| {
        assert!(cluster.now().0 < 500_000, "too late");
        Ok(())
    });
    assert_eq!(cluster.run_for(SECOND).unwrap_err().what, "a checker panicked: too late");
}

/// Services and limits rest while the cluster settles, and work again afterwards.
#[test]
fn a_cluster_with_limits_settles() {
    let mut cluster = working();
    cluster.run_for(SECOND * 20).unwrap();
    let taken = |cluster: &mut Cluster| {
        ["a", "b", "c"].map(|node| cluster.with_service(node, |work: &mut Work, _| work.taken).unwrap()).iter().sum()
    };
    let before: u64 = taken(&mut cluster);
    assert!(before > 0);
    cluster.settle().unwrap();
    assert_eq!(taken(&mut cluster), before, "the services rested");
    cluster.run_for(SECOND * 30).unwrap();
    assert!(taken(&mut cluster) > before + 200, "the shares came back");
    cluster.settle().unwrap();
}
