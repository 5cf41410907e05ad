//! How a cache's entries arrive: over slow links, and through relays that have joined without the earlier content.

#[allow(dead_code, reason = "each test crate uses its part")]
mod sessions;

use std::time::Duration;

use tallymesh_engine::Config;
use tallymesh_harness::{Conditions, Fault, Timing, quick_config};

use crate::sessions::{SECOND, cache, cluster, get, play, set};

const NODES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

/// A peer that is still sending is not asked again, however long it takes. So a session over a slow link ends.
#[test]
fn a_session_takes_longer_than_many_digest_intervals() {
    // Five messages in a second, and about half of them are digests and reports.
    let slow =
        Conditions { latency: SECOND / 5, jitter: Duration::ZERO, tail: Duration::ZERO, room: 1, ..Default::default() };
    let config = Config { delta_bytes: 60, ..quick_config() };
    let mut cluster = cluster(1, &["a", "b"]).config(config).conditions(slow).start();
    play(cluster.run_for(SECOND * 4));
    cluster.fault(&Fault::Crash(vec!["b".to_owned()]));
    let value = "v".repeat(60);
    for key in 0..100 {
        set(&mut cluster, "a", &format!("key{key}"), &value);
    }
    play(cluster.run_for(SECOND * 4));
    cluster.fault(&Fault::Restart(vec!["b".to_owned()]));
    play(cluster.run_for(SECOND * 6));
    assert!(cluster.cache("b", "sessions").0.held() < 50, "the link is slow");
    play(cluster.run_for(SECOND * 54));
    let head = |label: &str| cluster.cache(label, "sessions").0.seen();
    assert_eq!(head("b"), head("a"), "the session has ended with a mark");
    assert_eq!(cluster.cache("b", "sessions").0.held(), 100);
    play(cluster.settle());
}

/// Nodes that take in only what is written after they join relay what they hold. A node that writes before it hears of any peer
/// asks for everything. What its neighbours have skipped they cannot send, so it skips that as well.
#[test]
fn nodes_without_snapshot_relay_what_they_hold() {
    let mut skipped = 0;
    for seed in 0..4 {
        let mut spec = cache();
        spec.snapshot = false;
        let timing = Timing { mesh: 2, rings: 1, ..Timing::default() };
        let mut cluster = cluster(seed, &NODES).caches([spec]).timing(timing).start();
        play(cluster.run_for(SECOND * 4));
        set(&mut cluster, "a", "old", "of a");
        play(cluster.run_for(SECOND * 3));
        for label in &NODES[1..] {
            cluster.fault(&Fault::Restart(vec![(*label).to_owned()]));
            play(cluster.run_for(SECOND * 4));
            assert_eq!(get(&cluster, label, "old"), None, "it has joined later");
        }
        for label in &NODES[1..] {
            cluster.fault(&Fault::Restart(vec![(*label).to_owned()]));
            set(&mut cluster, label, label, "early");
            play(cluster.run_for(SECOND * 8));
            set(&mut cluster, label, "new", label);
            play(cluster.settle());
            for other in NODES {
                assert_eq!(get(&cluster, other, "new").as_deref(), Some(*label), "{other}, seed {seed}");
            }
            skipped += usize::from(get(&cluster, label, "old").is_none());
        }
        for label in &NODES[1..] {
            assert!(NODES.iter().all(|other| get(&cluster, other, label).is_some()), "{label}, seed {seed}");
        }
        assert_eq!(get(&cluster, "a", "old").as_deref(), Some("of a"));
    }
    assert!(skipped > 0, "all nodes found a neighbour that has it");
}
