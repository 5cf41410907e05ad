//! A soft throttle over restarts of one node, and of all at once.

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Failure, Limits, quick_config, spec};
use tallymesh_schemas::{Class, Rate, Strength, ThrottleSpec};

const TABLE: &str = "shared_named_throttles";
const SECOND: Duration = Duration::from_secs(1);

/// Everybody asks for all there is for some seconds.
fn ask(cluster: &mut Cluster) -> Result<(), Failure> {
    for _ in 0..30 {
        cluster.run_for(SECOND / 10)?;
        for node in ["a", "b", "c"] {
            cluster.with(node, |node| node.take(TABLE, "t", 1));
        }
    }
    Ok(())
}

/// How many tokens of 20, and one a minute, three nodes admit, and how many when one of them, and then all, have ended and begun again.
pub(crate) fn admitted_over_restarts() -> Result<[u64; 3], Failure> {
    let throttle = ThrottleSpec::new(Rate::new(1, SECOND * 60, 20).unwrap(), Strength::Soft);
    let mut cluster = Builder::new(4)
        .nodes(["a", "b", "c"])
        .structures([spec(TABLE, Class::SharedNamedThrottles)])
        .config(quick_config())
        .limits(Limits::founded(&["a"], SECOND * 6).throttle(TABLE, "t", throttle))
        .saves(SECOND)
        .start();
    let admitted = |cluster: &Cluster| cluster.admissions().of("t").unwrap().admitted;
    cluster.run_for(SECOND * 2)?;
    ask(&mut cluster)?;
    let mut all = [admitted(&cluster), 0, 0];
    for (at, script) in ["at 3s reboot b", "at 3s reboot a,b,c"].into_iter().enumerate() {
        cluster.script(script)?;
        cluster.run_for(SECOND * 5)?;
        let reboots = cluster.trace().marked("reboot");
        assert_eq!(reboots, [1, 4][at], "the fault bit");
        ask(&mut cluster)?;
        all[at + 1] = admitted(&cluster);
    }
    Ok(all)
}
