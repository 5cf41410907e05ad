//! The views of a node's state: the total that they derive is the one that a read gives, and they name why a row counts.

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Context, Failure, Fault, address, quick_config, series, spec};
use tallymesh_schemas::inspect::{KeyView, LOG_PAGE, ROWS_PAGE, RunState, Standing};
use tallymesh_schemas::{Actor, Class, GaugeCacheSpec, Kind, Version, key};

const SECOND: Duration = Duration::from_secs(1);

fn play<R>(result: Result<R, Failure>) -> R {
    result.unwrap_or_else(|failure| panic!("{failure}"))
}

fn cluster(seed: u64) -> Cluster {
    let mut cluster = Builder::new(seed)
        .nodes(["a", "b", "c"])
        .structures([spec("inbound_cidr", Class::InboundCidr), spec("outbound_domains", Class::OutboundDomains)])
        .series([series("logins", Kind::GaugeTable, 600, 3)])
        .caches([spec("sessions", Class::Cache)])
        .gauges([GaugeCacheSpec::new("retries").unwrap()])
        .config(quick_config())
        .start();
    play(cluster.run_for(SECOND * 2));
    cluster
}

/// What a view says of each row: its node, what it counts, whether that counts, and the state of the run.
fn rows(view: &KeyView) -> Vec<(&str, i64, bool, RunState)> {
    view.rows.iter().map(|row| (row.actor.node.as_str(), row.value, row.counts, row.standing.state)).collect()
}

#[test]
fn a_dead_node_is_left_out_of_a_gauge() {
    let mut cluster = cluster(1);
    for (label, n) in [("a", 3), ("b", 4), ("c", 8)] {
        cluster.with(label, |node| node.add("inbound_cidr", &address(7), n));
        cluster.with(label, |node| node.add("inbound_cidr", &address(9), 1));
    }
    cluster.with("a", |node| node.add("inbound_cidr", &address(7), -2));
    play(cluster.run_for(SECOND));
    let view = cluster.inspect("a").key("inbound_cidr", &address(7));
    let live = [("a", 1, true, RunState::Own), ("b", 4, true, RunState::Alive), ("c", 8, true, RunState::Alive)];
    assert_eq!((rows(&view), view.total), (live.to_vec(), 13));
    assert_eq!((view.rows[0].added, view.rows[0].removed), (3, 2));

    // Under a block the rows of each actor are added up.
    let (block, n) = key::from_net("10.0.0.0/24".parse().unwrap());
    let under = cluster.inspect("b").key("inbound_cidr", &block[..n]);
    assert_eq!((under.total, under.rows[1].value, under.rows[1].rows), (16, 5, 2));

    cluster.fault(&Fault::Crash(vec!["c".to_owned()]));
    play(cluster.run_for(SECOND * 9));
    let held = cluster.inspect("a").key("inbound_cidr", &address(7));
    assert_eq!(
        (held.rows[2].standing.state, held.rows[2].counts, held.total),
        (RunState::Dead, true, 13),
        "for a while"
    );
    play(cluster.run_for(SECOND * 9));
    let view = cluster.inspect("a").key("inbound_cidr", &address(7));
    assert_eq!((rows(&view)[2], view.total), (("c", 8, false, RunState::Dead), 5));
    assert_eq!(view.total, cluster.count("a", "inbound_cidr", &address(7)));
    let actors = cluster.inspect("a").actors("inbound_cidr");
    assert_eq!(actors.iter().map(|view| view.counts).collect::<Vec<_>>(), [true, true, false]);
    // What has not been heard of is as old as the death, and more.
    assert!(actors[2].heard_ms.is_some_and(|ms| ms >= 17_000), "{:?}", actors[2]);
}

#[test]
fn a_reset_and_an_ended_run_are_in_the_sum_of_events() {
    let mut cluster = cluster(2);
    let count = |cluster: &mut Cluster, label: &str, n| {
        cluster.with(label, |node| node.count_events("logins", b"alice", n)).unwrap();
    };
    let total = |cluster: &Cluster| cluster.events("a", "logins", b"alice").values().sum::<i64>();
    count(&mut cluster, "a", 5);
    count(&mut cluster, "b", 7);
    play(cluster.run_for(SECOND));
    cluster.with("a", |node| node.remove_events("logins", b"alice")).unwrap();
    play(cluster.run_for(SECOND));
    count(&mut cluster, "b", 2);
    play(cluster.run_for(SECOND));
    let view = cluster.inspect("a").key("logins", b"alice");
    assert_eq!((rows(&view)[0].1, rows(&view)[1].1, view.total), (0, 2, 2));
    assert_eq!(view.rows[1].reset, (7, 0));
    let of_b = view.resets.iter().find(|reset| reset.of.node.as_str() == "b").unwrap();
    assert_eq!((of_b.by.node.as_str(), of_b.added, of_b.removed), ("a", 7, 0));
    let log = cluster.inspect("a").log("logins", Version::ZERO);
    assert!(log.iter().any(|change| change.resets.as_ref().is_some_and(|of| of.node.as_str() == "b")), "{log:?}");

    cluster.fault(&Fault::Restart(vec!["b".to_owned()]));
    play(cluster.run_for(SECOND * 3));
    count(&mut cluster, "b", 10);
    play(cluster.settle());
    let view = cluster.inspect("a").key("logins", b"alice");
    let of_b = rows(&view).into_iter().filter(|row| row.0 == "b").collect::<Vec<_>>();
    assert_eq!(of_b, [("b", 2, true, RunState::Ended), ("b", 10, true, RunState::Alive)]);
    assert_eq!((view.total, total(&cluster)), (12, 12));

    cluster.with("c", |node| node.gauge_add("retries", b"alice", 4)).unwrap();
    play(cluster.settle());
    let view = cluster.inspect("a").key("retries", b"alice");
    assert_eq!((view.total, cluster.gauge("a", "retries", b"alice")), (4, Some(4)));
}

#[test]
fn the_winner_of_a_key_is_named_by_its_dot() {
    let mut cluster = cluster(3);
    let set = |cluster: &mut Cluster, label: &str, value: &str| {
        let set = |node: &mut Context<'_>| node.set("sessions", b"k", value.as_bytes(), Duration::ZERO).map(drop);
        cluster.with(label, set).unwrap().unwrap();
        play(cluster.run_for(SECOND));
    };
    assert!(cluster.inspect("a").entry("sessions", b"k").is_none());
    set(&mut cluster, "a", "first");
    set(&mut cluster, "b", "second");
    set(&mut cluster, "b", "third");
    let entries = ["a", "b", "c"].map(|label| cluster.inspect(label).entry("sessions", b"k").unwrap());
    for entry in &entries {
        assert_eq!((entry.actor.node.as_str(), entry.number, entry.value.as_slice()), ("b", 2, &b"third"[..]));
        assert_eq!((entry.stamp, entry.hash, entry.readable), (entries[0].stamp, entries[0].hash, true));
    }
    let runs = cluster.inspect("c").actors("sessions");
    let taken_in: Vec<_> = runs.iter().map(|view| (view.actor.node.as_str(), view.applied.0, view.rows)).collect();
    assert_eq!(taken_in, [("a", 1, 0), ("b", 2, 1)]);
    assert_eq!(runs[1].peers.iter().map(|at| at.applied.0).collect::<Vec<_>>(), [2, 2]);
    assert!(cluster.with("c", |node| node.remove("sessions", b"k")).unwrap().unwrap());
    let removed = cluster.inspect("c").entry("sessions", b"k").unwrap();
    assert_eq!((removed.removed, removed.readable, removed.actor.node.as_str()), (true, false, "c"));
    let link = cluster.inspect("c").links("sessions").into_iter().next().unwrap();
    assert!(link.cache.as_ref().is_some_and(|cache| cache.caught_up && cache.log_end > 0), "{link:?}");
}

/// What a link says, while the peer is cut off and after it has caught up.
#[test]
fn links_name_what_was_sent_and_what_the_peer_reports() {
    let mut cluster = cluster(4);
    let own = |cluster: &Cluster| {
        let links = cluster.inspect("a").links("outbound_domains");
        let link = links.into_iter().find(|link| link.peer.as_str() == "b").unwrap();
        let stream = link.streams.into_iter().find(|stream| stream.actor.node.as_str() == "a").unwrap();
        (stream.cursor, stream.reported.map(|said| said.applied))
    };
    for n in 0..5 {
        cluster.with("a", |node| node.add("outbound_domains", format!("d{n}.example").as_bytes(), 1));
    }
    play(cluster.settle());
    assert_eq!(own(&cluster), (Some(Version(5)), Some(Version(5))));
    let actors = cluster.inspect("a").actors("outbound_domains");
    let positions: Vec<_> = actors[0].peers.iter().map(|at| (at.peer.as_str(), at.applied.0)).collect();
    assert_eq!((actors[0].actor.node.as_str(), positions), ("a", vec![("b", 5), ("c", 5)]));
    assert!(actors[0].peers.iter().all(|at| at.fingerprint == actors[0].fingerprint));
    // The log has each row once, at its last version.
    cluster.with("a", |node| node.add("outbound_domains", b"d0.example", 1));
    let log = cluster.inspect("a").log("outbound_domains", Version::ZERO);
    let log: Vec<_> = log.iter().map(|change| (change.version.0, change.key.as_str(), change.added)).collect();
    assert_eq!(log.len(), 5);
    assert_eq!(log.last(), Some(&(6, "d0.example", 2)));
    assert_eq!(cluster.inspect("a").log("outbound_domains", Version(5)).len(), 1);
}

/// However large an object is, a page has a bounded number of rows, and the pages together have all of them.
#[test]
fn large_objects_come_in_pages() {
    let mut cluster = cluster(5);
    let many = 3 * LOG_PAGE as u32 + 7;
    for n in 0..many {
        cluster.with("a", |node| node.add("inbound_cidr", &address(n), 1));
    }
    play(cluster.settle());
    let (structure, now) = cluster.structure("b", "inbound_cidr");
    let known = |_: &Actor| Standing::of(RunState::Alive);
    let (mut after, mut keys, mut pages) = (None, 0, 0);
    loop {
        let page = structure.key_views(after.as_deref(), now.mono, &known);
        assert!(page.keys.len() <= ROWS_PAGE);
        (keys, pages) = (keys + page.keys.len(), pages + 1);
        after = page.last;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(keys, many as usize);
    assert!(pages > 3, "{pages}");
    let page = cluster.inspect("a").log("inbound_cidr", Version::ZERO);
    assert_eq!((page.len(), page.last().map(|change| change.version.0)), (LOG_PAGE, Some(LOG_PAGE as u64)));
}
