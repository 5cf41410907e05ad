//! Nodes that are silent and not dead.

use std::time::Instant;

use crate::cluster::{Cluster, NODES};
use crate::report::Row;
use crate::truth::{DOMAINS, INBOUND, Load};
use crate::wait::{PATIENCE, until_true};

/// Whether node 3 is dead in the view of all other nodes, and its inbound counts are dropped.
fn is_declared_dead(cluster: &Cluster) -> bool {
    let dead = |node| {
        cluster.state(node, 3) == "dead"
            && cluster.total(node, INBOUND, "10.99.0.3") == 0
            && cluster.total(node, DOMAINS, "silent.example") == 6
    };
    [0, 1, 2, 4].into_iter().all(dead)
}

fn silent(test: &str, fault: &str, begin: fn(&Cluster), end: fn(&Cluster)) {
    let Some(mut cluster) = Cluster::start(test) else { return };
    let loads = cluster.load(0..NODES);
    cluster.add(3, INBOUND, "10.99.0.3", 8);
    cluster.add(3, DOMAINS, "silent.example", 6);
    until_true("all see what it counts", PATIENCE, || {
        (0..NODES).all(|node| cluster.total(node, DOMAINS, "silent.example") == 6)
    });
    begin(&cluster);
    let cut = Instant::now();
    until_true("the others declare it dead", PATIENCE, || is_declared_dead(&cluster));
    end(&cluster);
    let lasted = cut.elapsed();
    let all_linked = cluster.all_linked();
    let back = until_true("its inbound counts are back", PATIENCE, || {
        (0..NODES).all(|node| cluster.total(node, INBOUND, "10.99.0.3") == 8)
    });
    let added = loads.into_iter().map(Load::end).sum();
    let exact = cluster.exact();
    let back = (all_linked + back).as_secs_f64();
    let effect = format!("declared dead, inbound counts gone, outbound held; back without restart in {back:.1} s");
    Row { fault: fault.to_owned(), lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}

/// The firewall of a node's machine drops all packets for the node, and lets them through again.
#[test]
fn port_blocked() {
    silent("port_blocked", "UDP port of node-3 blocked", |c| c.lab.block_port(3), |c| c.lab.open_port(3));
}

/// A node is stopped, as on a machine that hangs, and continues.
#[test]
fn stopped() {
    silent("stopped", "SIGSTOP of node-3", |c| c.process(3).stop(), |c| c.process(3).resume());
}
