//! Clusters with a bounded number of links: what a node counts is passed on by others.

use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_harness::{Builder, Cluster, Fault, Timing, address, quick_config, spec};
use tallymesh_schemas::Class;

const NODES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// Twelve nodes with four links each.
fn sparse(seed: u64) -> Cluster {
    let timing = Timing { mesh: 4, rings: 2, ..Timing::default() };
    let mut cluster = Builder::new(seed).nodes(NODES).timing(timing).start();
    cluster.run_for(Duration::from_secs(4)).unwrap();
    for node in cluster.nodes() {
        let links = node.process().unwrap().replica().links().count();
        assert!((2..=4).contains(&links), "{} has {links} links", node.label());
    }
    cluster
}

/// Every node counts something, a few times.
fn count(cluster: &mut Cluster, pause: Duration) {
    for round in 0..5 {
        for (n, name) in NODES.iter().enumerate() {
            cluster.with(name, |node| node.add("inbound_cidr", &address(n as u32 % 3), 1 + round));
        }
        cluster.run_for(pause).unwrap();
    }
}

#[test]
fn a_change_takes_one_message_to_each_other_node() {
    let mut cluster = sparse(1);
    count(&mut cluster, Duration::from_millis(300));
    cluster.run_for(Duration::from_secs(5)).unwrap();
    for name in NODES {
        let before = cluster.sent();
        cluster.with(name, |node| node.add("inbound_cidr", &address(1), 1));
        cluster.run_for(Duration::from_millis(200)).unwrap();
        assert_eq!(cluster.sent().since(before).deltas, 11, "of {name}");
    }
    cluster.settle().unwrap();
}

#[test]
fn what_is_lost_on_the_way_is_asked_for() {
    let mut cluster = sparse(2);
    cluster.conditions.lose = 2000;
    count(&mut cluster, Duration::from_millis(700));
    assert!(cluster.trace().marked("message lost") > 100);
    cluster.conditions.lose = 0;
    cluster.settle().unwrap();
}

/// The nodes that a node has links to.
fn peers(cluster: &Cluster, name: &str) -> Vec<String> {
    let process = cluster.node(name).process().unwrap();
    process.replica().links().map(ToString::to_string).collect()
}

#[test]
fn all_neighbours_of_a_node_crash_at_once() {
    let mut cluster = sparse(3);
    count(&mut cluster, Duration::from_millis(200));
    let neighbours = peers(&cluster, "a");
    cluster.fault(&Fault::Crash(neighbours.clone()));
    // It is cut off, and what it counts reaches nobody, until it has other links.
    cluster.with("a", |node| node.add("inbound_cidr", &address(9), 5));
    let far = NODES.iter().find(|name| **name != "a" && !neighbours.contains(&(**name).to_owned())).unwrap();
    cluster.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(cluster.count(far, "inbound_cidr", &address(9)), 0, "the crash cut a off");
    cluster.settle().unwrap();
    assert_eq!(cluster.count(far, "inbound_cidr", &address(9)), 5);
    assert!(peers(&cluster, "a").iter().all(|peer| !neighbours.contains(peer)));
    cluster.fault(&Fault::Restart(neighbours));
    cluster.settle().unwrap();
}

/// A node begins again with the number of its earlier run and makes as many changes with other keys. Its neighbours learn from
/// the node that its rows differ from their copies. A node without a link to it learns that from the neighbours.
#[test]
fn a_node_without_a_link_learns_of_a_run_that_was_begun_twice() {
    let timing = Timing { mesh: 3, rings: 1, ..Timing::default() };
    let mut cluster = Builder::new(9).nodes(["a", "b", "c", "d"]).timing(timing).start();
    cluster.run_for(Duration::from_secs(4)).unwrap();
    let near = peers(&cluster, "a");
    let far = ["b", "c", "d"].into_iter().find(|name| !near.contains(&(*name).to_owned())).unwrap();
    cluster.with("a", |node| node.add("inbound_cidr", &address(1), 1));
    cluster.settle().unwrap();
    assert_eq!(cluster.count(far, "inbound_cidr", &address(1)), 1);
    cluster.fault(&Fault::Reuse(vec!["a".to_owned()]));
    cluster.with("a", |node| node.add("inbound_cidr", &address(2), 1));
    cluster.settle().unwrap();
    assert!(cluster.trace().marked("told: diverged") > 0 && cluster.trace().marked("told: conflict") == 0);
    assert_eq!([1, 2].map(|n| cluster.count(far, "inbound_cidr", &address(n))), [0, 1]);
}

#[test]
fn halves_that_were_parted_find_each_other() {
    let mut cluster = sparse(4);
    count(&mut cluster, Duration::from_millis(200));
    cluster.script("at 0s cut a,b,c,d,e from rest").unwrap();
    // Each side takes the other for dead, and closes its own rings.
    cluster.run_for(Duration::from_secs(8)).unwrap();
    count(&mut cluster, Duration::from_millis(200));
    assert!(cluster.trace().marked("member dead") >= 2 * 5 * 7);
    cluster.with("a", |node| node.add("inbound_cidr", &address(9), 5));
    cluster.run_for(Duration::from_secs(1)).unwrap();
    let counts = |cluster: &Cluster| ["e", "l"].map(|name| cluster.count(name, "inbound_cidr", &address(9)));
    assert_eq!(counts(&cluster), [5, 0], "they do not hear each other");
    cluster.script("at 0s heal").unwrap();
    cluster.settle().unwrap();
    assert_eq!(counts(&cluster), [5, 5]);
}

#[test]
fn the_cluster_outgrows_the_mesh_and_shrinks_back() {
    let timing = Timing { mesh: 8, rings: 2, ..Timing::default() };
    let mut cluster = Builder::new(5).nodes(NODES).timing(timing).start();
    let names = |n: std::ops::Range<usize>| NODES[n].iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    cluster.fault(&Fault::Crash(names(4..12)));
    for (alive, links) in [(4..8, 7), (8..12, 4), (8..9, 4)] {
        cluster.fault(&Fault::Restart(names(alive)));
        cluster.run_for(Duration::from_secs(6)).unwrap();
        count(&mut cluster, Duration::from_millis(100));
        assert!(peers(&cluster, "a").len() <= links, "{:?}", peers(&cluster, "a"));
        cluster.settle().unwrap();
    }
    assert!(cluster.trace().marked("link not needed") > 0);
    cluster.fault(&Fault::Crash(names(6..12)));
    cluster.settle().unwrap();
    assert_eq!(peers(&cluster, "a").len(), 5, "everybody has a link to everybody again");
}

#[test]
fn a_replica_knows_the_age_of_relayed_rows() {
    let mut cluster = sparse(6);
    count(&mut cluster, Duration::from_millis(200));
    cluster.run_for(Duration::from_secs(12)).unwrap();
    let stalest = |cluster: &Cluster| {
        let (structure, now) = cluster.structure("a", "inbound_cidr");
        structure.count(&address(1), now.mono).stalest
    };
    // A digest that names everything comes every three seconds, and two links away are the furthest.
    assert!(stalest(&cluster) < Duration::from_secs(10), "{:?}", stalest(&cluster));
    cluster.script("at 0s stop l").unwrap();
    let before = stalest(&cluster);
    cluster.run_for(Duration::from_secs(12)).unwrap();
    assert!(stalest(&cluster) >= Duration::from_secs(11), "from {before:?} to {:?}", stalest(&cluster));
}

/// A node collects a removal when every known node has stated that it has the removal. While some nodes are silent, the node
/// keeps the removal. So a node that returns with an old write brings nothing back.
#[test]
fn a_node_keeps_a_removal_while_some_nodes_are_silent() {
    let timing = Timing { mesh: 4, rings: 2, ..Timing::default() };
    let builder = Builder::new(8).nodes(NODES).structures([]).caches([spec("sessions", Class::Cache)]);
    let mut cluster = builder.timing(timing).config(quick_config()).start();
    cluster.run_for(Duration::from_secs(4)).unwrap();
    cluster.with("a", |node| node.set("sessions", b"k", b"v", Duration::ZERO)).unwrap().unwrap();
    cluster.settle().unwrap();
    cluster.script("at 0s stop l").unwrap();
    assert!(cluster.with("b", |node| node.remove("sessions", b"k")).unwrap().unwrap(), "it is there");
    cluster.run_for(Duration::from_secs(150)).unwrap();
    let held = |cluster: &Cluster, name: &str| cluster.cache(name, "sessions").0.held();
    let reads = |cluster: &Cluster, name: &str| cluster.cached(name, "sessions", b"k").is_some();
    assert_eq!((reads(&cluster, "a"), held(&cluster, "a")), (false, 1), "the removal");
    cluster.script("at 0s resume l").unwrap();
    assert!(reads(&cluster, "l"), "it has slept over it");
    cluster.run_for(Duration::from_secs(150)).unwrap();
    for name in NODES {
        assert_eq!((reads(&cluster, name), held(&cluster, name)), (false, 1), "{name}");
    }
}

/// Many nodes report a node that renews or begins again. A relay stops passing on rows of the earlier run when it learns of that.
#[test]
fn what_a_run_that_is_over_had_is_not_sent_on_and_on() {
    for fault in [Fault::Renew(vec!["a".to_owned()]), Fault::Restart(vec!["a".to_owned()])] {
        let timing = Timing { mesh: 4, rings: 2, ..Timing::default() };
        let config = Config { delta_bytes: 48, ..quick_config() };
        let mut cluster = Builder::new(7).nodes(NODES).timing(timing).config(config).start();
        cluster.run_for(Duration::from_secs(4)).unwrap();
        count(&mut cluster, Duration::from_millis(200));
        let [before, pruned] = ["told: unasked", "prune"].map(|mark| cluster.trace().marked(mark));
        for round in 0..3 {
            for n in 0..2000 {
                cluster.with("a", |node| node.add("inbound_cidr", &address(n), 1 + round));
            }
            cluster.run_for(Duration::from_millis(20)).unwrap();
        }
        cluster.fault(&fault);
        for n in 0..50 {
            cluster.with("a", |node| node.add("inbound_cidr", &address(n), 1));
        }
        cluster.settle().unwrap();
        let unasked = cluster.trace().marked("told: unasked") - before;
        assert_eq!(unasked, 0, "{fault:?}: deltas that nobody had asked for");
        assert!(cluster.trace().marked("prune") - pruned < 50, "{fault:?}: each node gets the prune once or twice");
    }
}
