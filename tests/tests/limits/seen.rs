//! What the checker of admissions sees: slow rates, idle load that comes elsewhere, throttles of scopes and those that a service
//! creates, and admissions that no checker recorded.

use tallymesh_harness::{Builder, Cluster, Context, Limits, quick_config, spec};
use tallymesh_schemas::{Class, Rate, ThrottleSpec};

use super::{RECLAIM, SECOND, TABLE, hard, soft};

const NODES: [&str; 3] = ["a", "b", "c"];

fn start(limits: Limits) -> Cluster {
    let table = spec(TABLE, Class::SharedNamedThrottles);
    Builder::new(41).nodes(NODES).structures([table]).config(quick_config()).limits(limits).start()
}

fn founded() -> Limits {
    Limits::founded(&NODES, RECLAIM)
}

/// Asks one node for three times the burst, and returns how much it got.
fn ask(cluster: &mut Cluster, node: &str, take: &dyn Fn(&mut Context<'_>) -> bool) -> u64 {
    let mut got = 0;
    for _ in 0..300 {
        got += u64::from(cluster.with(node, |node| take(node)).unwrap());
        cluster.run_for(SECOND / 100).unwrap();
    }
    got
}

/// The load pauses and comes back on another node. All nodes together have one bucket.
fn in_turn(limits: &Limits, pause: u32, rate: &str, take: &dyn Fn(&mut Context<'_>) -> bool) {
    let mut cluster = start(limits.clone());
    let (from, rate) = (cluster.now(), rate.parse::<Rate>().unwrap());
    let mut got = 0;
    for node in NODES {
        cluster.run_for(SECOND * pause).unwrap();
        got += ask(&mut cluster, node, take);
        cluster.check().unwrap();
    }
    let allowed = rate.burst() + rate.within(cluster.now().since(from));
    assert!((rate.burst()..=allowed).contains(&got), "{got} of {allowed} after pauses of {pause} s");
    assert_eq!(cluster.admissions().of("t").unwrap().overshoot, 0);
}

#[test]
fn load_that_pauses_and_comes_elsewhere() {
    for pause in [2, 5, 60] {
        let declared = founded().throttle(TABLE, "t", soft("100/10m"));
        in_turn(&declared, pause, "100/10m", &|node| node.take(TABLE, "t", 1).admitted());
        let scope = founded().scope(TABLE, soft("100/10m"));
        in_turn(&scope, pause, "100/10m", &|node| node.take(TABLE, "t", 1).admitted());
        let created = |node: &mut Context<'_>| node.take_as(TABLE, "t", soft("100/10m"), 1).unwrap().admitted();
        in_turn(&founded(), pause, "100/10m", &created);
    }
}

#[test]
fn periods_of_days() {
    for rate in ["100/11m", "100/1d", "100/7d"] {
        let declared = founded().throttle(TABLE, "t", soft(rate));
        in_turn(&declared, 2, rate, &|node| node.take(TABLE, "t", 1).admitted());
    }
}

/// In a partition each side has what it does not know that the other side has used. The checker says how much that was.
#[test]
fn a_throttle_that_a_service_creates_in_a_partition() {
    let created = |spec: ThrottleSpec| {
        let mut cluster = start(founded());
        cluster.run_for(RECLAIM * 2).unwrap();
        cluster.script("at 0s cut a from b,c").unwrap();
        let mut got = 0;
        for node in NODES {
            got += ask(&mut cluster, node, &|node| node.take_as(TABLE, "t", spec, 1).unwrap().admitted());
        }
        cluster.check().unwrap();
        assert!(cluster.trace().marked("message cut off") > 0, "the fault bit");
        (got, cluster.admissions().of("t").unwrap().overshoot)
    };
    let (got, overshoot) = created(soft("100/10m"));
    assert!((200..=202).contains(&got), "{got}: a, and b with c");
    assert!((99..=100).contains(&overshoot), "{overshoot}");
    let (got, overshoot) = created(hard("100/20s"));
    assert!(got > 0, "the shares were used");
    assert_eq!(overshoot, 0);
}

/// A service can take tokens from the limiter directly, so that the checker does not see them. The checker reports that.
#[test]
fn admissions_that_no_checker_saw() {
    let mut cluster = start(founded().throttle(TABLE, "t", soft("100/10m")));
    cluster.with("b", |node| {
        let now = node.now().mono;
        assert!(node.take(TABLE, "t", 1).admitted());
        assert!(node.limiter(TABLE).resolve("t", now).unwrap().take(now, 1).admitted());
    });
    let failure = cluster.check().unwrap_err();
    assert!(failure.what.starts_with("b: t: 1 requests were admitted that no checker saw"), "{failure}");
}
