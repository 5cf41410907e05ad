//! Cases of what disks keep.

use std::time::Duration;

use tallymesh_harness::{Builder, Failure, Fault, series, spec};
use tallymesh_schemas::{Class, Kind};

use crate::caches::put;

/// A node begins again with what it has saved, and other nodes have received more events from it.
pub(crate) fn one_begins_again() -> Option<String> {
    let cluster = Builder::new(1).series([series("logins", Kind::GaugeTable, 10, 6)]);
    let mut cluster = cluster.saves(Duration::from_secs(1)).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(1))?;
        cluster.with("a", |node| node.count_events("logins", b"saved", 5));
        cluster.run_for(Duration::from_secs(3))?;
        for key in 0..9 {
            cluster.with("a", |node| node.count_events("logins", format!("k{key}").as_bytes(), 7));
        }
        cluster.run_for(Duration::from_millis(300))?;
        cluster.script("at 0s reboot a")?;
        cluster.run_for(Duration::from_millis(100))?;
        for key in 3..9 {
            cluster.with("a", |node| node.count_events("logins", format!("k{key}").as_bytes(), 2));
        }
        cluster.run_for(Duration::from_secs(3))?;
        cluster.settle().map(drop)
    })();
    let conflicts = cluster.trace().marked("told: conflict");
    let told = (conflicts > 0).then(|| format!("{conflicts} conflicts, and no other process has begun"));
    result.err().map(|failure| failure.to_string()).or(told)
}

/// While a node's disk is full, an entry's writer is forgotten and the entry removed; then the node begins with what it had
/// saved before.
pub(crate) fn a_stale_disk() -> Option<String> {
    let cluster = Builder::new(1).nodes(["a", "b", "c", "d"]).structures([]).caches([spec("c", Class::Cache)]);
    let mut cluster = cluster.saves(Duration::from_secs(1)).start();
    let result: Result<(), Failure> = (|| {
        cluster.run_for(Duration::from_secs(3))?;
        put(&mut cluster, "d", b"stale");
        cluster.run_for(Duration::from_secs(3))?;
        cluster.script("at 0s full a; at 0s crash d; at 8s forget d at b")?;
        cluster.run_for(Duration::from_secs(11))?;
        cluster.with("c", |node| node.remove("c", b"k").map(drop));
        cluster.run_for(Duration::from_secs(100))?;
        cluster.fault(&Fault::Reboot(vec!["a".to_owned()]));
        // Its keys are compared at once, before any repair.
        cluster.run_for(Duration::from_millis(1500))
    })();
    let read = cluster.cached("a", "c", b"k").map(|_| "what was removed is read again".to_owned());
    result.err().map(|failure| failure.to_string()).or(read)
}
