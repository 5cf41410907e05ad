//! Measures how long a change takes to reach all nodes, on the object of the traffic and beside the traffic.
//!
//! Each node opens and closes a connection from an address of its own, again and again. After each change it waits until every
//! other node counts it. A probe reads a node when the node's watch reports a change, as a service that watches does.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tallymesh::{Counter, KeyError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::demo::member::Member;
use crate::demo::truth::{Truth, What};

/// The least pause between two changes of one node. It is no multiple of the interval at which changes are sent, so that the
/// changes occur at every phase of that interval.
const PAUSE: Duration = Duration::from_millis(7);

/// The largest number of samples of one act.
const SAMPLES: usize = 1 << 16;

/// Bounds of the histogram's bins, in milliseconds.
const BINS: [f64; 7] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Columns of the longest bar of the histogram.
const BAR: usize = 40;

/// Probes that run.
pub(super) struct Probes {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<Duration>>,
}

/// A node as the probes of the others see it.
#[derive(Clone)]
struct Receiver {
    counter: Counter,
    changed: watch::Receiver<u64>,
    /// Keeps the watch alive.
    _watch: Arc<tallymesh_engine::Watch>,
}

impl Receiver {
    fn total(&self) -> i64 {
        self.counter.count().total
    }
}

impl Probes {
    /// Starts a probe on each node.
    pub(super) fn start(members: &[Member], truth: &Truth) -> Result<Self, KeyError> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (number, member) in members.iter().enumerate() {
            let addr = address(number);
            let others = members.iter().enumerate().filter(|(other, _)| *other != number);
            let probe = Probe {
                number,
                key: addr.to_string(),
                own: member.inbound.counter(addr)?,
                others: others.map(|(_, other)| receiver(other, addr)).collect::<Result<_, _>>()?,
                truth: truth.clone(),
            };
            tasks.spawn(probe.run(stopped.clone()));
        }
        Ok(Self { stop, tasks })
    }

    /// Ends the probes, each after its current change, and returns their samples.
    pub(super) async fn stop(mut self) -> Vec<Duration> {
        let _ = self.stop.send(true);
        let mut samples = Vec::new();
        while let Some(measured) = self.tasks.join_next().await {
            samples.extend(measured.unwrap_or_default());
        }
        samples.sort_unstable();
        samples
    }
}

/// The address that a node's probe counts.
fn address(number: usize) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, u8::try_from(number + 1).unwrap_or(u8::MAX)).into()
}

fn receiver(member: &Member, addr: IpAddr) -> Result<Receiver, KeyError> {
    let (sender, changed) = watch::channel(0_u64);
    let wake = Arc::new(move || sender.send_modify(|changes| *changes += 1));
    // A queue of one change is enough, because the probe reads the count and not the queue.
    let watch = member.inbound.structure().watch(1, wake);
    Ok(Receiver { counter: member.inbound.counter(addr)?, changed, _watch: watch })
}

struct Probe {
    number: usize,
    key: String,
    own: Counter,
    others: Vec<Receiver>,
    truth: Truth,
}

impl Probe {
    async fn run(mut self, mut stopped: watch::Receiver<bool>) -> Vec<Duration> {
        let mut samples = Vec::new();
        let mut open = 0;
        while !*stopped.borrow() && samples.len() < SAMPLES {
            let n = if open == 0 { 1 } else { -1 };
            open += n;
            self.truth.add(self.number, What::Inbound, &self.key, n);
            let start = Instant::now();
            self.own.add(n);
            tokio::select! {
                () = seen(&mut self.others, open) => samples.push(start.elapsed()),
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            tokio::time::sleep(PAUSE).await;
        }
        // One connection stays open, as an ordinary connection of this node.
        self.truth.add(self.number, What::Inbound, &self.key, 1 - open);
        self.own.add(1 - open);
        samples
    }
}

/// Waits until all receivers count `total`.
async fn seen(receivers: &mut [Receiver], total: i64) {
    for receiver in receivers {
        loop {
            receiver.changed.mark_unchanged();
            if receiver.total() == total {
                break;
            }
            if receiver.changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Formats a duration in milliseconds.
pub(super) fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// The lines of a histogram of the samples.
pub(super) fn histogram(sorted: &[Duration]) -> Vec<String> {
    let ms = |duration: &Duration| duration.as_secs_f64() * 1000.0;
    let below = |bound: f64| sorted.partition_point(|sample| ms(sample) < bound);
    let mut bins = Vec::new();
    let (mut from, mut label) = (0, "0".to_owned());
    for bound in BINS {
        bins.push((format!("{label} to {bound} ms"), below(bound) - from));
        (from, label) = (below(bound), bound.to_string());
    }
    bins.push((format!("over {label} ms"), sorted.len() - from));
    let most = bins.iter().map(|bin| bin.1).max().unwrap_or(0).max(1);
    let shown = bins.iter().rposition(|bin| bin.1 > 0).map_or(0, |last| last + 1);
    let lines = bins.iter().take(shown).map(|(label, count)| {
        let bar = "#".repeat((count * BAR).div_ceil(most));
        format!("  {label:>14} {count:>6} {bar}").trim_end().to_owned()
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_lies_in_one_bin() {
        let samples: Vec<_> = [500, 1500, 1600, 7000, 150_000].into_iter().map(Duration::from_micros).collect();
        let lines = histogram(&samples);
        assert_eq!(lines[0], "       0 to 1 ms      1 ####################");
        assert_eq!(lines[1], "       1 to 2 ms      2 ########################################");
        assert_eq!(lines.len(), BINS.len() + 1);
    }
}
