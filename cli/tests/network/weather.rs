//! A network that loses and delays packets.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, NODES};
use crate::lab::{self, Lab, run};
use crate::relay::{Relay, Weather};
use crate::report::Row;
use crate::truth::{DOMAINS, Load};
use crate::wait::{PATIENCE, until};

const STORM: Weather = Weather { loss: 30, delay: Duration::from_millis(100) };

/// How long the cluster counts in the storm.
const LASTS: Duration = Duration::from_secs(20);

/// Loses and delays packets: with the kernel's netem if it has one, else with the relay.
enum Maker {
    Netem,
    Relay(Relay),
}

impl Maker {
    fn new(lab: &Lab) -> Self {
        let hub = lab.hub();
        match run("tc", &["-n", &hub, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]) {
            Ok(_) => Self::Netem,
            Err(_) => Self::Relay(Relay::start(lab, NODES, STORM)),
        }
    }

    fn begin(&self, lab: &Lab) {
        match self {
            Self::Netem => (0..NODES).for_each(|node| {
                let Weather { loss, delay } = STORM;
                let (namespace, delay) = (lab.namespace(node), delay.as_millis());
                let words =
                    format!("-n {namespace} qdisc add dev eth0 root netem loss {loss}% delay {delay}ms limit 100000");
                run("tc", &words.split(' ').collect::<Vec<_>>()).expect("netem is there");
            }),
            Self::Relay(relay) => relay.begin_storm(),
        }
    }

    fn end(&self, lab: &Lab) {
        match self {
            Self::Netem => (0..NODES).for_each(|node| {
                run("tc", &["-n", &lab.namespace(node), "qdisc", "del", "dev", "eth0", "root"]).expect("it is there");
            }),
            Self::Relay(relay) => relay.end_storm(),
        }
    }

    /// The numbers of passed and of lost datagrams.
    fn seen(&self, lab: &Lab) -> (u64, u64) {
        match self {
            Self::Relay(relay) => relay.seen(),
            Self::Netem => {
                (0..NODES).map(|node| netem_counters(&lab.namespace(node))).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Netem => "netem",
            Self::Relay(_) => "relay, this kernel has no netem",
        }
    }
}

/// Reads the output of `tc`: `Sent 5040 bytes 45 pkt (dropped 12, overlimits 0 requeues 0)`.
fn netem_counters(namespace: &str) -> (u64, u64) {
    let text = run("tc", &["-n", namespace, "-s", "qdisc", "show", "dev", "eth0"]).expect("tc shows it");
    let words: Vec<_> = text.split([' ', ',', '(', '\n']).filter(|word| !word.is_empty()).collect();
    let number = |at: Option<usize>| at.and_then(|at| words.get(at)?.parse().ok()).unwrap_or(0);
    let sent = words.iter().position(|word| *word == "pkt").and_then(|at| at.checked_sub(1));
    (number(sent), number(words.iter().position(|word| *word == "dropped").map(|at| at + 1)))
}

/// In both directions 30 of 100 datagrams are lost, and the others take 100 ms. The nodes count meanwhile, and all views become
/// exact while the storm lasts.
#[test]
fn loss_and_delay() {
    let Some(lab) = Lab::open("loss_and_delay", NODES + 1) else { return };
    let maker = Maker::new(&lab);
    let reached = if matches!(maker, Maker::Netem) { lab::address } else { lab::relayed };
    let mut cluster = Cluster::start_in(lab, reached);
    maker.begin(&cluster.lab);
    let storm = Instant::now();
    let loads = cluster.load(0..NODES);
    let mut waves = 0;
    while storm.elapsed() < LASTS {
        waves += 1;
        cluster.add(waves % NODES, DOMAINS, "wave.example", 1);
        until("a count reaches all nodes in the storm", PATIENCE, || {
            let seen: Vec<_> = (0..NODES).map(|node| cluster.total(node, DOMAINS, "wave.example")).collect();
            if seen.iter().all(|seen| *seen == waves as i64) {
                Ok(())
            } else {
                Err(format!("{waves} were counted: {seen:?}"))
            }
        });
    }
    let lasted = storm.elapsed();
    let added = loads.into_iter().map(Load::end).sum();
    let (passed, lost) = maker.seen(&cluster.lab);
    let share = lost * 100 / (passed + lost).max(1);
    assert!(lost > 500 && (25..35).contains(&share), "the storm had an effect: {lost} of {} lost", passed + lost);
    let exact = cluster.exact();
    maker.end(&cluster.lab);
    let all_linked = cluster.all_linked();
    cluster.exact();
    let each = lasted.as_secs_f64() / waves as f64;
    let effect = format!(
        "{lost} of {} datagrams lost; a count reached all nodes in {each:.1} s on average; exact before the storm ended",
        passed + lost
    );
    let fault = format!("{} % loss and {} ms delay each way ({})", STORM.loss, STORM.delay.as_millis(), maker.name());
    Row { fault, lasted, effect, added, all_linked, exact, peak_mib: cluster.sound() }.print();
}
