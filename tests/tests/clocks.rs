//! Series on a node whose wall clock goes far ahead and returns.

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, series};
use tallymesh_schemas::Kind;

const SECOND: Duration = Duration::from_secs(1);
const NODES: [&str; 3] = ["a", "b", "c"];

/// Every node counts once a second, for ten seconds.
fn count(cluster: &mut Cluster) {
    for _ in 0..10 {
        for label in NODES {
            cluster.with(label, |node| node.count_events("logins", b"key", 1)).unwrap();
        }
        cluster.run_for(SECOND).unwrap();
    }
}

/// A clock that was a little ahead, goes far ahead and returns to where it should be brings windows a second time that had aged
/// out. They begin empty.
#[test]
fn windows_that_come_a_second_time_begin_empty() {
    let mut cluster =
        Builder::new(77).nodes(NODES).series([series("logins", Kind::GaugeTable, 2, 4)]).skew(Duration::ZERO).start();
    cluster.run_for(SECOND).unwrap();
    count(&mut cluster);
    cluster.script("at 0s set b -16s; at 2s set b 3600s; at 5s set b -3600s").unwrap();
    count(&mut cluster);
    cluster.settle().unwrap();
    for mark in ["set", "told: clock stepped"] {
        assert!(cluster.trace().marked(mark) > 0, "{mark}: {:?}", cluster.trace().marks());
    }
}
