//! A node whose budget is smaller than what the others count: it holds no more than it may and never says that all is there, the
//! others are as if it had room, and it catches up when keys go. Every look of the simulator checks that no node holds more
//! keys than it may.

use std::num::NonZeroU64;
use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_engine::replica::{NotHeld, Outcome};
use tallymesh_harness::{Builder, Cluster, Conditions, Failure, address, quick_config, spec};
use tallymesh_schemas::Class;

const MAX: u64 = 40;

/// Four nodes. `c` may hold forty keys.
fn cluster(seed: u64, config: Config) -> Cluster {
    let lossy = Conditions { lose: 20, ..Conditions::default() };
    Builder::new(seed)
        .nodes(["a", "b", "c", "d"])
        .structures([spec("inbound_cidr", Class::InboundCidr), spec("outbound_domains", Class::OutboundDomains)])
        .config(config)
        .conditions(lossy)
        .max_keys("c", NonZeroU64::new(MAX).unwrap())
        .start()
}

/// What `a` counts under a key, as a node reads it.
fn reads(cluster: &Cluster, label: &str, key: u32) -> i64 {
    cluster.count(label, "inbound_cidr", &address(key))
}

/// What a node says of the last statements of all.
fn verify(cluster: &Cluster, label: &str) -> (Outcome, Vec<NotHeld>, Vec<String>) {
    let process = cluster.node(label).process().expect("it runs");
    let found = process.replica().verification(0);
    let members = found.findings.iter().map(|finding| finding.member.to_string()).collect();
    (found.outcome(), found.unheld, members)
}

/// Runs for a time, and checks at every moment that a node that lacks rows does not say that all is there.
fn squeezed(cluster: &mut Cluster, tenths: u32) -> Result<(), Failure> {
    for _ in 0..tenths {
        cluster.run_for(Duration::from_millis(100))?;
        let lacks = reads(cluster, "c", 59) == 0;
        let (outcome, unheld, _) = verify(cluster, "c");
        assert!(!lacks || outcome == Outcome::NotConverged || unheld.is_empty(), "{outcome:?} {unheld:?}");
    }
    Ok(())
}

fn play(seed: u64, config: Config) -> Result<(), Failure> {
    let mut cluster = cluster(seed, config);
    cluster.run_for(Duration::from_secs(1))?;
    for label in ["a", "b", "c", "d"] {
        cluster.with(label, |node| (0..5).for_each(|key| node.add("inbound_cidr", &address(key), 1)));
        let domain = format!("{label}.example");
        cluster.with(label, |node| node.add("outbound_domains", domain.as_bytes(), 1));
    }
    cluster.run_for(Duration::from_secs(3))?;
    // More than fits. Other nodes go on counting while `c` has no room.
    cluster.with("a", |node| (10..60).for_each(|key| node.add("inbound_cidr", &address(key), 1)));
    for round in 0..20 {
        squeezed(&mut cluster, 10)?;
        cluster.with("a", |node| node.add("inbound_cidr", &address(59), 1));
        cluster.with("b", |node| node.add("outbound_domains", format!("k{}.example", round % 4).as_bytes(), 1));
    }
    // Until all have said what they have.
    squeezed(&mut cluster, 80)?;
    let (outcome, unheld, _) = verify(&cluster, "c");
    assert_eq!((outcome, unheld.len()), (Outcome::NotConverged, 1), "{unheld:?}");
    let (outcome, unheld, members) = verify(&cluster, "b");
    assert_eq!((outcome, unheld), (Outcome::NotConverged, vec![]));
    assert!(members.iter().all(|member| member == "c"), "{members:?}");
    for label in ["b", "d"] {
        assert_eq!(reads(&cluster, label, 59), 21, "{label} has what a counts");
    }
    let refused = cluster.node("c").process().expect("it runs").replica().counters();
    assert!((1..=12).contains(&refused.deltas_without_room), "{refused:?}");
    // It has no room after a restart either.
    cluster.script("at 0s restart c")?;
    squeezed(&mut cluster, 80)?;
    assert!(!verify(&cluster, "c").1.is_empty());
    // What goes makes room.
    cluster.with("a", |node| (20..50).for_each(|key| node.add("inbound_cidr", &address(key), -1)));
    cluster.run_for(Duration::from_secs(70))?;
    cluster.settle()?;
    assert_eq!((reads(&cluster, "c", 59), verify(&cluster, "c").1), (21, vec![]));
    Ok(())
}

#[test]
fn a_node_with_a_small_budget_holds_what_fits_and_says_so() {
    for seed in 0..10 {
        // A peer that is away for longer than rows are remembered needs room for what it has and for a snapshot.
        let large = Config { retention: Duration::from_secs(600), ..quick_config() };
        let small = Config { delta_bytes: 64, ..large.clone() };
        for config in [large, small] {
            if let Err(failure) = play(seed, config) {
                panic!("seed {seed}: {failure}");
            }
        }
    }
}
