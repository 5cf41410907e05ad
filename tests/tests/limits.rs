//! Limits on whole clusters (I9): the engine that ships, on a network that misbehaves, under a checker that sees every
//! admission of every node and every share at every step.

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
    Builder::new(seed)
        .nodes(names.clone())
        .structures([spec(TABLE, Class::SharedNamedThrottles)])
        .config(quick_config())
        .conditions(Conditions { lose: 100, ..Conditions::default() })
        .limits(Limits::founded(&founders, RECLAIM).throttle(TABLE, "t", throttle))
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
    let mut cluster = cluster(seed, n, founders, hard("200/1s"));
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

/// A joiner is no founder and holds nothing by itself.
#[test]
fn who_is_no_founder_borrows() {
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
            let overdue = cluster.with(label, |node| permit.is_overdue(node)).unwrap_or(true);
            step - since < 60 && !overdue
        });
        most = most.max(held.len());
    }
    assert!(most >= 19, "{most} of 20 were open at once");
}

/// What soft, hard and static parts admit at five times the rate, and by how much soft overshoots.
#[test]
fn the_table_of_strengths() {
    println!("{:>4} {:>8} {:>18} {:>12} {:>10}", "N", "demand", "limit", "utilisation", "overshoot");
    for n in [2, 3, 10] {
        for (kind, demand) in [
            ("uniform", &(move |_: usize, _: u64| 1500 / n as u64) as &dyn Fn(usize, u64) -> u64),
            ("hot", &|node, _| if node == 1 { 1500 } else { 0 }),
            ("moving", &move |node, second| if node as u64 == second / 5 % n as u64 { 1500 } else { 0 }),
        ] {
            for (name, spec) in [
                ("hard", hard("300/1s")),
                ("soft", soft("300/1s")),
                ("soft, epsilon 0.05", ThrottleSpec { epsilon: 50, ..soft("300/1s") }),
            ] {
                let mut cluster = cluster(15 + n as u64, n, n, spec);
                ask(&mut cluster, SECOND * 12, demand).unwrap();
                let got = ask(&mut cluster, SECOND * 10, demand).unwrap();
                let overshoot = cluster.admissions().of("t").unwrap().overshoot;
                println!("{n:>4} {kind:>8} {name:>18} {:>10.1} % {overshoot:>10}", got as f64 / 30.0);
                if name == "hard" {
                    assert_eq!(overshoot, 0);
                    let least = match kind {
                        "uniform" => 2940,
                        "hot" => 2850,
                        _ => 2000,
                    };
                    assert!(got >= least, "{n} nodes, {kind}: {got} of 3000");
                }
            }
        }
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
    let policy = |spec: ThrottleSpec, on_partition| run(ThrottleSpec { on_partition, ..spec });
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
