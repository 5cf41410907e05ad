//! Nodes that are killed and restarted.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, DROP_AFTER, NODES};
use crate::report::Row;
use crate::truth::{DOMAINS, INBOUND, Load};
use crate::wait::{PATIENCE, until_true};

/// A node is killed under load. The other nodes drop its inbound counts and keep its outbound ones. As soon as it runs again, the
/// old run no longer counts. The second time, it is back before a node declares it dead.
#[test]
fn kill_and_restart() {
    let Some(mut cluster) = Cluster::start("kill_and_restart") else { return };
    let others = [0, 1, 3, 4];
    let loads = cluster.load(others);
    let victim = cluster.load([2]);
    cluster.add(2, INBOUND, "10.99.0.1", 7);
    cluster.add(2, DOMAINS, "held.example", 5);
    let all_see = |cluster: &Cluster, inbound, outbound| {
        others.iter().all(|node| {
            cluster.total(*node, INBOUND, "10.99.0.1") == inbound
                && cluster.total(*node, DOMAINS, "held.example") == outbound
        })
    };
    until_true("all see what it counts", PATIENCE, || all_see(&cluster, 7, 5));
    cluster.kill(2);
    let killed = Instant::now();
    let mut added: u64 = victim.into_iter().map(Load::end_of_killed).sum();
    until_true("its inbound counts are dropped, its outbound counts stay", PATIENCE, || all_see(&cluster, 0, 5));
    let left = killed.elapsed();
    assert!(left >= DROP_AFTER, "they were dropped after {left:?}, before on_dead allows it");
    cluster.launch(2);
    let superseded = until_true("the old run is superseded", PATIENCE, || all_see(&cluster, 0, 0));
    let victim = cluster.load([2]);
    let all_linked = cluster.all_linked();
    let lasted = killed.elapsed();

    cluster.add(2, DOMAINS, "held.example", 11);
    until_true("all see the new run", PATIENCE, || all_see(&cluster, 0, 11));
    cluster.kill(2);
    added += victim.into_iter().map(Load::end_of_killed).sum::<u64>();
    cluster.launch(2);
    let again = until_true("the second run is superseded, too", Duration::from_secs(20), || all_see(&cluster, 0, 0));
    let victim = cluster.load([2]);
    cluster.all_linked();
    added += victim.into_iter().chain(loads).map(Load::end).sum::<u64>();
    let exact = cluster.exact();
    assert_eq!(cluster.linked(2).len(), NODES - 1);
    let effect = format!(
        "inbound dropped after {:.1} s, outbound held; superseded {:.1} s after the restart; killed and restarted at once: {:.1} s",
        left.as_secs_f64(),
        superseded.as_secs_f64(),
        again.as_secs_f64()
    );
    let fault = "kill -9 of node-2, twice".to_owned();
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}
