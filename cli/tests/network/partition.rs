//! Partitions of the cluster.

use std::time::Instant;

use crate::cluster::{Cluster, NODES};
use crate::report::Row;
use crate::truth::{DOMAINS, INBOUND, Load};
use crate::wait::{PATIENCE, until, until_true};

/// Two nodes against three. Each side continues, and shows exactly its own counts once the nodes of the other side are dead.
#[test]
fn two_against_three() {
    let Some(mut cluster) = Cluster::start("two_against_three") else { return };
    let (two, three) = ([0, 1], [2, 3, 4]);
    let mut loads = cluster.load(0..NODES);
    cluster.lab.part(&two);
    let cut = Instant::now();
    // Under load: the counts of one side reach that side and not the other.
    cluster.add(0, DOMAINS, "two.example", 7);
    cluster.add(4, DOMAINS, "three.example", 9);
    until_true("each side sees its own", PATIENCE, || {
        cluster.total(1, DOMAINS, "two.example") == 7 && cluster.total(2, DOMAINS, "three.example") == 9
    });
    until("each side declares the other dead", PATIENCE, || {
        for (side, others) in [(&two[..], &three[..]), (&three[..], &two[..])] {
            for node in side {
                let gone = others.iter().all(|other| cluster.state(*node, *other) == "dead");
                if !gone || cluster.linked(*node).len() + 1 != side.len() {
                    return Err(format!("node-{node} is linked with {:?}", cluster.linked(*node)));
                }
            }
        }
        Ok(())
    });
    let mut added: u64 = loads.drain(..).map(Load::end).sum();
    // Without load for a moment, so that the comparison is exact.
    until("each side shows exactly its own inbound counts", PATIENCE, || {
        two.iter().try_for_each(|node| cluster.shows(*node, INBOUND, &two))?;
        three.iter().try_for_each(|node| cluster.shows(*node, INBOUND, &three))
    });
    assert_eq!(cluster.total(2, DOMAINS, "two.example") + cluster.total(0, DOMAINS, "three.example"), 0);
    let loads = cluster.load(0..NODES);
    cluster.lab.join(&two);
    let lasted = cut.elapsed();
    let all_linked = cluster.all_linked();
    added += loads.into_iter().map(Load::end).sum::<u64>();
    let exact = cluster.exact();
    let (fault, effect) =
        ("two nodes against three".to_owned(), "each side exact by itself, the other dead".to_owned());
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}

/// Packets between two nodes pass in one direction only. The two lose their link, and receive each other's rows from the other
/// nodes: no count is missing even while the fault lasts.
#[test]
fn one_direction() {
    let Some(mut cluster) = Cluster::start("one_direction") else { return };
    let loads = cluster.load(0..NODES);
    cluster.lab.block_direction(1, 0);
    let cut = Instant::now();
    until_true("the two lose their link", PATIENCE, || {
        !cluster.linked(0).contains(&1) && !cluster.linked(1).contains(&0)
    });
    cluster.add(0, DOMAINS, "blocked.example", 3);
    cluster.add(1, DOMAINS, "passing.example", 4);
    let around = until_true("each receives the other's counts from the other nodes", PATIENCE, || {
        cluster.total(1, DOMAINS, "blocked.example") == 3 && cluster.total(0, DOMAINS, "passing.example") == 4
    });
    assert!(!cluster.linked(0).contains(&1), "they still do not reach each other");
    let mut added: u64 = loads.into_iter().map(Load::end).sum();
    let all: Vec<_> = (0..NODES).collect();
    until("all views are exact while one direction is blocked", PATIENCE, || {
        (0..NODES).try_for_each(|node| cluster.shows(node, INBOUND, &all))
    });
    let loads = cluster.load(0..NODES);
    cluster.lab.open_direction(1, 0);
    let lasted = cut.elapsed();
    let all_linked = cluster.all_linked();
    added += loads.into_iter().map(Load::end).sum::<u64>();
    let exact = cluster.exact();
    let effect = format!("no link; counts arrived through other nodes in {:.1} s", around.as_secs_f64());
    let fault = "node-1 does not receive from node-0".to_owned();
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}
