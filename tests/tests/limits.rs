//! Limits on whole clusters (I9): the engine that ships, on a network that misbehaves, under a checker that sees every
//! admission of every node and every share at every step.

#[path = "limits/differ.rs"]
mod differ;
#[path = "limits/late.rs"]
mod late;
#[path = "limits/seen.rs"]
mod seen;

use std::time::Duration;

use tallymesh_harness::{Builder, Cluster, Conditions, Failure, Limits, quick_config, spec};
use tallymesh_schemas::{Class, OnPartition, Strength, ThrottleSpec};

const SECOND: Duration = Duration::from_secs(1);
const TABLE: &str = "shared_named_throttles";
const RECLAIM: Duration = Duration::from_secs(6);

fn hard(rate: &str) -> ThrottleSpec {
    ThrottleSpec::new(rate.parse().unwrap(), Strength::Hard)
}

fn soft(rate: &str) -> ThrottleSpec {
    ThrottleSpec::new(rate.parse().unwrap(), Strength::Soft)
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("n{i:02}")).collect()
}

/// A cluster of `n` nodes, the first `founders` of which share a throttle.
fn cluster(seed: u64, n: usize, founders: usize, throttle: ThrottleSpec) -> Cluster {
    let names = names(n);
    let founders: Vec<_> = names[..founders].iter().map(String::as_str).collect();
    limited(seed, n, Limits::founded(&founders, RECLAIM).throttle(TABLE, "t", throttle))
}

fn limited(seed: u64, n: usize, limits: Limits) -> Cluster {
    Builder::new(seed)
        .nodes(names(n))
        .structures([spec(TABLE, Class::SharedNamedThrottles)])
        .config(quick_config())
        .conditions(Conditions { lose: 100, ..Conditions::default() })
        .limits(limits)
        .drift(500)
        .start()
}

/// Asks nodes for so many tokens a second for so long; what each is asked for may change with time.
fn ask(cluster: &mut Cluster, time: Duration, demand: &dyn Fn(usize, u64) -> u64) -> Result<u64, Failure> {
    let labels: Vec<_> = cluster.nodes().iter().map(|node| node.label().to_owned()).collect();
    let before = cluster.admissions().of("t").unwrap().admitted;
    let end = cluster.now().after(time);
    let mut asked = vec![0_u64; labels.len()];
    let start = cluster.now();
    while cluster.now() < end {
        cluster.run_for(SECOND / 100)?;
        let passed = cluster.now().since(start).as_millis() as u64;
        for (n, label) in labels.iter().enumerate() {
            asked[n] += demand(n, passed / 1000);
            while asked[n] >= 100 {
                asked[n] -= 100;
                cluster.with(label, |node| node.take(TABLE, "t", 1));
            }
        }
    }
    Ok(cluster.admissions().of("t").unwrap().admitted - before)
}

fn bit(cluster: &Cluster, marks: &[&str]) {
    for mark in marks {
        assert!(cluster.trace().marked(mark) > 0, "\"{mark}\" did not happen: {:?}", cluster.trace().marks());
    }
}

/// Runs a script under five times the rate everywhere, and demands that the rate is used again `after` it.
fn play(seed: u64, n: usize, founders: usize, script: &str, marks: &[&str]) -> Cluster {
    play_on(cluster(seed, n, founders, hard("200/1s")), n, script, marks)
}

/// As [`play`], on a cluster that is there.
fn play_on(mut cluster: Cluster, n: usize, script: &str, marks: &[&str]) -> Cluster {
    let demand = move |_: usize, _: u64| 1000 / n as u64 + 1;
    let result: Result<u64, Failure> = (|| {
        ask(&mut cluster, SECOND * 12, &demand)?;
        cluster.script(script)?;
        ask(&mut cluster, SECOND * 30, &demand)?;
        cluster.fault(&tallymesh_harness::Fault::Heal);
        ask(&mut cluster, SECOND * 20, &demand)?;
        ask(&mut cluster, SECOND * 10, &demand)
    })();
    match result {
        Err(failure) => panic!("{failure}"),
        Ok(got) => assert!(got >= 1900, "{got} of 2000 after all is well"),
    }
    bit(&cluster, marks);
    cluster
}

#[test]
fn nothing_goes_wrong() {
    play(1, 3, 3, "", &["delta"]);
}

/// A node that joins has no seat and no share of its own.
#[test]
fn a_node_without_a_seat_borrows() {
    let mut cluster = cluster(2, 4, 3, hard("200/1s"));
    ask(&mut cluster, SECOND * 12, &|_, _| 200).unwrap();
    let demand = |n, _| if n == 3 { 1000 } else { 0 };
    ask(&mut cluster, SECOND * 3, &demand).unwrap();
    let got = ask(&mut cluster, SECOND * 10, &demand).unwrap();
    assert!(got >= 1900, "{got} of 2000");
}

#[test]
fn a_node_leaves_and_another_one_comes() {
    play(3, 4, 4, "at 2s leave n01; at 14s restart n01", &["delta", "restart"]);
}

#[test]
fn crash() {
    play(4, 3, 3, "at 2s crash n01; at 20s restart n01", &["crash", "restart"]);
}

/// A restart has lost all state: the new process has nothing of what its predecessor had until the others let go of it.
#[test]
fn restart_without_state() {
    play(5, 3, 3, "at 2s restart n01; at 3s restart n02; at 5s restart n00; at 6s restart n01", &["restart"]);
}

/// All at once, and again and again.
#[test]
fn crash_storm() {
    play(
        6,
        4,
        4,
        "at 1s restart n00,n01,n02,n03; at 8s restart n00,n01; at 9s restart n02,n03; at 10s restart n00",
        &["restart"],
    );
}

/// A process begins in its predecessor's incarnation, as from a copy of old state.
#[test]
fn an_incarnation_is_used_again() {
    play(7, 3, 3, "at 2s reuse n01; at 9s cut n02 from rest; at 10s reuse n02; at 12s heal", &["reuse"]);
}

#[test]
fn two_processes_of_one_name() {
    play(8, 4, 4, "at 2s twin n01; at 10s crash n01'", &["twin", "told: conflict"]);
}

/// Kept apart by a partition as well: safe as long as nobody stands in for a founder.
#[test]
fn two_processes_of_one_name_in_a_partition() {
    let names = names(4);
    let founders: Vec<_> = names.iter().map(String::as_str).collect();
    let mut limits = Limits::founded(&founders, RECLAIM).throttle(TABLE, "t", hard("200/1s"));
    limits.founding = limits.founding.without_stand_ins();
    let script = "at 2s twin n01; at 6s cut n00,n01 from n02,n03,n01'; at 22s heal; at 24s crash n01'";
    play_on(limited(18, 4, limits), 4, script, &["twin", "cut", "message cut off", "told: conflict"]);
}

/// With stand-ins, while both hear the same cluster: for the founder that runs twice, and for another one that is gone.
#[test]
fn two_processes_of_one_name_and_a_stand_in() {
    let script = "at 1s crash n03; at 9s twin n01; at 14s crash n01; at 20s crash n01'; at 22s restart n01,n03";
    play(19, 4, 4, script, &["twin", "crash", "told: conflict"]);
}

/// Clocks jump ahead by less than a 24th of `reclaim_after`, and wall clocks wherever they like.
#[test]
fn clocks_jump() {
    let jumps = "at 2s jump n01 200ms; at 5s jump n02 200ms; at 9s jump n00 200ms; at 14s jump n03 240ms";
    play(20, 4, 4, &format!("{jumps}; at 3s set n00 -30s; at 7s set n02 +3600s"), &["jump", "set"]);
}

/// A holder whose clock jumps ahead of all its leases has nothing at once, and gets its share back.
#[test]
fn a_clock_jumps_ahead_of_every_lease() {
    let mut cluster = cluster(21, 3, 3, hard("200/1s"));
    let demand = |_: usize, _: u64| 400;
    ask(&mut cluster, SECOND * 12, &demand).unwrap();
    let units = |cluster: &Cluster| {
        let node = cluster.node("n01");
        let now = cluster.structure("n01", TABLE).1.mono;
        node.process().unwrap().limiters().values().map(|limiter| limiter.units("t", now)).sum::<u64>()
    };
    assert!(units(&cluster) > 0);
    cluster.script("at 0s jump n01 60s").unwrap();
    cluster.run_for(Duration::from_micros(1)).unwrap();
    assert_eq!(units(&cluster), 0);
    ask(&mut cluster, SECOND * 20, &demand).unwrap();
    let got = ask(&mut cluster, SECOND * 10, &demand).unwrap();
    assert!(got >= 1900, "{got} of 2000");
    bit(&cluster, &["jump"]);
}

/// A founder that is dead stands in the way of another one's restart until it is forgotten. Its own share is stood in for, and
/// comes back to it when it does.
#[test]
fn a_dead_founder_is_forgotten() {
    let run = |forget: &str| {
        let mut cluster = cluster(22, 4, 4, hard("200/1s"));
        let demand = |_: usize, _: u64| 300;
        ask(&mut cluster, SECOND * 12, &demand).unwrap();
        cluster.script(&format!("at 1s crash n01; at 12s restart n02; {forget}")).unwrap();
        ask(&mut cluster, SECOND * 40, &demand).unwrap();
        (ask(&mut cluster, SECOND * 10, &demand).unwrap(), cluster)
    };
    let (got, _) = run("");
    assert!(got <= 1600, "{got} of 2000: nothing was in the way");
    let (got, mut cluster) = run("at 14s forget n01 at n00");
    assert!(got >= 1900, "{got} of 2000 after it was forgotten");
    bit(&cluster, &["crash", "restart", "forget"]);
    cluster.script("at 0s restart n01").unwrap();
    ask(&mut cluster, SECOND * 25, &|_, _| 300).unwrap();
    let got = ask(&mut cluster, SECOND * 10, &|_, _| 300).unwrap();
    assert!(got >= 1900, "{got} of 2000 when it is back");
    let now = cluster.structure("n01", TABLE).1.mono;
    let limiters = cluster.node("n01").process().unwrap().limiters();
    let holds = limiters.values().flat_map(|limiter| limiter.holding("t", now)).flat_map(|holding| holding.holds);
    assert!(holds.into_iter().any(|(founder, _)| founder.as_str() == "n01"), "its share is not its own again");
}

/// A founder that lives and holds shares is forgotten. It renews as another run, and that run still holds the shares.
#[test]
fn a_founder_that_lives_is_forgotten() {
    play(23, 4, 4, "at 2s forget n01 at n00; at 9s forget n02 at n03; at 10s restart n00", &["forget", "restart"]);
}

/// Or cut off: it stops before anybody takes up its share, whatever was forgotten, and nothing is founded twice.
#[test]
fn a_founder_that_is_cut_off_is_forgotten() {
    let script = "at 2s cut n01 from rest; at 3s forget n01 at n00; at 4s restart n02; at 22s heal";
    play(24, 4, 4, script, &["cut", "message cut off", "forget", "restart"]);
}

#[test]
fn partition_and_heal() {
    play(9, 5, 5, "at 2s cut n00,n01 from n02,n03,n04; at 20s heal", &["cut", "message cut off", "member dead"]);
}

#[test]
fn a_split_three_ways() {
    let script = "at 2s cut n00,n01 from rest; at 2s cut n02,n03 from rest; at 22s heal";
    play(10, 6, 6, script, &["cut", "message cut off"]);
}

#[test]
fn asymmetric_partition() {
    play(11, 4, 4, "at 2s cut n00 to n01,n02; at 15s heal; at 16s cut n03 to rest; at 25s heal", &["cut one way"]);
}

/// A process that stood still for longer than its share lasts finds that it has none when it goes on.
#[test]
fn a_process_stands_still() {
    play(12, 3, 3, "at 2s stop n01; at 20s resume n01; at 21s stop n00; at 23s resume n00", &["stop", "resume"]);
}

#[test]
fn bad_links() {
    play(
        13,
        4,
        4,
        "at 1s lose 20%; at 1s double 10%; at 1s reorder 20%; at 1s truncate 1%",
        &["message lost", "reordered"],
    );
}

/// I9 in drawn faults, with founders and without, rates from one token to many.
#[test]
fn drawn_faults() {
    for seed in 0..12 {
        let mut random = tallymesh_harness::Random::new(seed);
        let n = 2 + random.below(4) as usize;
        let founders = 1 + random.below(n as u64) as usize;
        let rates = ["2/1s", "50/1s", "200/1s", "30/10s"];
        let mut cluster = cluster(seed, n, founders, hard(rates[random.index(rates.len())]));
        let result: Result<(), Failure> = (|| {
            ask(&mut cluster, SECOND * 10, &|_, _| 100)?;
            for _ in 0..12 {
                let node = format!("n{:02}", random.below(n as u64));
                let step = match random.below(9) {
                    0 | 1 => format!("at 0s cut {node} from rest"),
                    2 => format!("at 0s cut {node} to rest"),
                    3 => format!("at 0s restart {node}"),
                    4 => format!("at 0s crash {node}; at 2s restart {node}"),
                    5 => format!("at 0s stop {node}; at 9s resume {node}"),
                    6 => format!("at 0s reuse {node}"),
                    7 => "at 0s lose 20%; at 0s double 10%; at 0s reorder 10%".to_owned(),
                    _ => "at 0s heal".to_owned(),
                };
                cluster.script(&step)?;
                let hot = random.below(n as u64 + 1) as usize;
                let time = random.duration(SECOND / 2, SECOND * 6);
                ask(&mut cluster, time, &|i, _| if hot == i || hot == n { 300 } else { 5 })?;
            }
            Ok(())
        })();
        result.unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

/// At most so many are open, on all nodes together, when those that are overdue are closed.
#[test]
fn permits_are_never_too_many() {
    let names = names(4);
    let founders = ["n00", "n01", "n02"];
    let limits = Limits::founded(&founders, RECLAIM).pool(TABLE, "connections", 20);
    let mut cluster = Builder::new(14)
        .nodes(names.clone())
        .structures([spec(TABLE, Class::SharedNamedThrottles)])
        .config(quick_config())
        .limits(limits)
        .start();
    let mut held = Vec::new();
    let mut most = 0;
    cluster.script("at 14s cut n01 from rest; at 18s heal").unwrap();
    for step in 0..1500_u64 {
        cluster.run_for(SECOND / 50).unwrap();
        let label = &names[(step / 400) as usize % 4];
        if let Some(Some(permit)) = cluster.with(label, |node| node.open(TABLE, "connections")) {
            held.push((step, label.clone(), permit));
        }
        held.retain(|(since, label, permit)| {
            let overdue = cluster.with(label, |node| permit.is_overdue(node.now().mono)).unwrap_or(true);
            step - since < 60 && !overdue
        });
        most = most.max(held.len());
    }
    assert!(most >= 19, "{most} of 20 were open at once");
}

/// The same when the permits close as late as allowed: the holder has not given an overdue permit back before.
#[test]
fn an_overdue_permit_belongs_to_no_other_node_yet() {
    let names = names(4);
    let limits = Limits::founded(&["n00", "n01", "n02"], RECLAIM).pool(TABLE, "connections", 20);
    // A loan ends, and a share goes back to its founder from the node that held the lease meanwhile.
    for script in ["at 9s cut n01,n03 from rest", "at 8s crash n01; at 22s restart n01"] {
        let mut cluster = Builder::new(15)
            .nodes(names.clone())
            .structures([spec(TABLE, Class::SharedNamedThrottles)])
            .config(quick_config())
            .limits(limits.clone())
            .start();
        cluster.script(script).unwrap();
        let mut held = Vec::new();
        // A service has a little less than a 24th of the time to close its permits.
        let each = SECOND / 50;
        let late = (RECLAIM.as_micros() / 24 / each.as_micros()) as u64;
        let mut overdue = 0;
        for step in 0..1500_u64 {
            cluster.run_for(each).unwrap_or_else(|failure| panic!("{script}: {failure}"));
            for label in &names {
                held.extend(
                    cluster
                        .with(label, |node| node.open(TABLE, "connections"))
                        .flatten()
                        .map(|permit| (step, label, permit)),
                );
            }
            held.retain_mut(|(since, label, permit)| {
                match cluster.with(label, |node| permit.is_overdue(node.now().mono)) {
                    Some(true) => {
                        overdue += 1;
                        step - *since < late
                    }
                    Some(false) => {
                        *since = step;
                        true
                    }
                    None => false,
                }
            });
        }
        assert!(overdue > 0, "{script}: nothing was overdue");
    }
}

/// What each policy admits in a partition.
#[test]
fn policies_in_a_partition() {
    let run = |throttle: ThrottleSpec| {
        let mut cluster = cluster(31, 4, 4, throttle);
        ask(&mut cluster, SECOND * 12, &|_, _| 500).unwrap();
        cluster.script("at 0s cut n00,n01 from rest").unwrap();
        ask(&mut cluster, SECOND * 15, &|_, _| 500).unwrap();
        ask(&mut cluster, SECOND * 10, &|_, _| 500).unwrap()
    };
    let policy = |spec: ThrottleSpec, on_partition| run(spec.with_on_partition(on_partition));
    // (hard limits that fail open are beyond what the checker of hard limits allows)
    let got = policy(hard("200/1s"), OnPartition::FairShare);
    assert!((1900..=2010).contains(&got), "hard, fair share: {got}");
    assert_eq!(policy(hard("200/1s"), OnPartition::FailClosed), 0);
    assert_eq!(policy(soft("200/1s"), OnPartition::FailClosed), 0);
    let got = policy(soft("200/1s"), OnPartition::FairShare);
    assert!((1900..=2400).contains(&got), "soft, fair share: {got}");
    let got = policy(soft("200/1s"), OnPartition::FailOpen);
    assert!((3900..=4800).contains(&got), "soft, fail open: {got}");
}

/// All nodes save what outlives a run, and begin again with it, once all at the same time and once with a state of a time when
/// a founder was forgotten that has come back since. No share comes out of a state, and none is founded a second time.
#[test]
fn what_is_saved_brings_no_share_back() {
    for seed in 30..33 {
        let names = names(4);
        let founders: Vec<_> = names[..3].iter().map(String::as_str).collect();
        let cluster = Builder::new(seed)
            .nodes(names.clone())
            .structures([spec(TABLE, Class::SharedNamedThrottles)])
            .config(quick_config())
            .limits(Limits::founded(&founders, RECLAIM).throttle(TABLE, "t", hard("200/1s")))
            .saves(SECOND / 2)
            .start();
        let script = "at 1s reboot n00,n01,n02,n03; at 13s crash n02; at 18s forget n02 at n00; at 20s reboot n02; \
                      at 24s cut n00 from rest; at 24500ms rewind n00 5s";
        play_on(cluster, 4, script, &["reboot", "rewind", "forget", "saved", "cut"]);
    }
}

/// The bound of a soft throttle counts the rows that a replica applied of a process, also when the process continues the run
/// of a lost one.
#[test]
fn the_bound_counts_what_a_replica_applied_of_a_run_that_was_begun_twice() {
    let soft = Limits::founded(&["n00"], RECLAIM).throttle(TABLE, "t", soft("20/1s"));
    let mut cluster = limited(24, 3, soft);
    let demand = |_: usize, _: u64| 1000;
    cluster.script("at 1s reuse n00").unwrap();
    ask(&mut cluster, SECOND * 15, &demand).unwrap();
    bit(&cluster, &["reuse"]);
}

/// Two machines use one name. The bound says nothing about the machine whose rows never arrived.
#[test]
fn the_bound_covers_only_the_machine_whose_rows_arrived() {
    let soft = Limits::founded(&["n01"], RECLAIM).throttle(TABLE, "t", soft("20/1s"));
    let mut cluster = limited(25, 2, soft);
    cluster.script("at 0s cut n00 from rest; at 8s twin n00").unwrap();
    ask(&mut cluster, SECOND * 9, &|_, _| 1000).unwrap();
    ask(&mut cluster, SECOND * 9, &|_, _| 1000).unwrap();
    bit(&cluster, &["twin", "cut"]);
}

/// A node that has left is not among the others of the bound until its return is heard.
#[test]
fn the_bound_is_of_the_nodes_that_have_not_left() {
    let soft = Limits::founded(&["n00"], RECLAIM).throttle(TABLE, "t", soft("20/1s"));
    let mut cluster = limited(26, 2, soft);
    cluster.script("at 2s leave n00; at 4s cut n01 from rest; at 5s restart n00; at 12s heal").unwrap();
    ask(&mut cluster, SECOND * 11, &|_, _| 1000).unwrap();
    let reach = cluster.node("n01").process().unwrap().replica().reach();
    assert_eq!((reach.alive, reach.known), (1, 1), "it has not learned of the return");
    assert!(cluster.node("n00").process().is_some());
    ask(&mut cluster, SECOND * 9, &|_, _| 1000).unwrap();
    assert_eq!(cluster.node("n01").process().unwrap().replica().reach().known, 2);
    bit(&cluster, &["leave", "restart", "cut"]);
}
