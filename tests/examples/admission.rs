//! A small admission service, tested in a partition: at most `LIMIT` sessions a client network, over the whole cluster.
//!
//! `cargo run -p tallymesh-harness --example admission`
//!
//! The service decides by what its node knows. In a partition each side goes on admitting by what it counts itself and what it
//! last heard from the other. When the other side counts as dead for ten seconds, its sessions do not count any more: then each
//! side admits up to the limit, so both together admit up to twice the limit.
//! When the partition heals, every node knows exactly what is open, and nobody is admitted until there is room.

use std::any::Any;
use std::time::Duration;

use tallymesh_harness::{Builder, Class, Cluster, Context, Failure, Service, SimHold, address, spec};

const LIMIT: i64 = 20;

/// Admits sessions, and ends each after a while.
#[derive(Default)]
struct Admission {
    open: Vec<(u64, SimHold)>,
    admitted: u64,
    refused: u64,
    busy: bool,
}

impl Admission {
    fn request(&mut self, node: &mut Context<'_>) -> bool {
        match node.try_hold("inbound_cidr", &address(1), LIMIT) {
            Some(session) => {
                let end = node.now().mono.0 + node.random().between(500_000, 3_000_000);
                self.open.push((end, session));
                self.admitted += 1;
                true
            }
            None => {
                self.refused += 1;
                false
            }
        }
    }
}

impl Service for Admission {
    fn tick(&mut self, node: &mut Context<'_>) {
        let now = node.now().mono.0;
        self.open.retain(|(end, _)| *end > now);
        if self.busy {
            self.request(node);
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

fn each(cluster: &mut Cluster, mut work: impl FnMut(&mut Admission)) {
    for label in ["a", "b", "c"] {
        let reached = cluster.with_service(label, |service: &mut Admission, _| work(service));
        reached.unwrap_or_else(|why| panic!("{why}"));
    }
}

fn open(cluster: &mut Cluster) -> i64 {
    let mut sum = 0;
    each(cluster, |service| sum += service.open.len() as i64);
    sum
}

fn admission_in_a_partition(seed: u64) -> Result<(), Failure> {
    let second = Duration::from_secs(1);
    let mut cluster = Builder::new(seed)
        .structures([spec("inbound_cidr", Class::InboundCidr)])
        .service(|_| Admission::default())
        .start();
    cluster.run_for(second)?;
    each(&mut cluster, |service| service.busy = true);

    // Connected: over the limit only by what was under way.
    let mut most = 0;
    for _ in 0..50 {
        cluster.run_for(second / 10)?;
        most = most.max(open(&mut cluster));
    }
    println!("connected: at most {most} sessions of {LIMIT}");
    assert!((LIMIT / 2..=LIMIT + 3).contains(&most), "{most}");

    // Cut: each side keeps to the limit by what it sees, so together there are at most twice as many.
    cluster.script("at 0s cut a from b,c; at 20s heal")?;
    let mut most = 0;
    for _ in 0..195 {
        cluster.run_for(second / 10)?;
        most = most.max(open(&mut cluster));
    }
    println!("cut: at most {most} sessions");
    assert!((LIMIT + 4..=2 * (LIMIT + 3)).contains(&most), "the cut took effect: {most}");

    // Healed: everybody knows what is open, and the limit holds again once the surplus has ended.
    cluster.run_for(second * 6)?;
    let most = open(&mut cluster);
    println!("healed: {most} sessions");
    assert!(most <= LIMIT + 3, "{most}");
    let mut refused = 0;
    each(&mut cluster, |service| {
        refused += service.refused;
        service.busy = false;
    });
    assert!(refused > 0, "the limit was felt");
    assert!(cluster.trace().marked("cut") > 0, "the partition happened");
    cluster.run_for(second * 4)?;
    assert_eq!(open(&mut cluster), 0);
    cluster.settle()?;
    assert_eq!(cluster.count("a", "inbound_cidr", &address(1)), 0);
    Ok(())
}

fn main() -> Result<(), Failure> {
    admission_in_a_partition(42)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_for_many_seeds() {
        for seed in 0..10 {
            admission_in_a_partition(seed).unwrap();
        }
    }
}
