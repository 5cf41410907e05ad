//! Replays an access log on three nodes. The node that took a request counts its line, by address in the audit and by status in
//! a named series. At the end, the example compares every node's windows with a separate count.
//!
//! Run it with `cargo run --release --example access_log [FILE]`. The file is in the common log format of web servers. Without
//! a file, the example generates 120,000 lines. The replay takes seven seconds, whatever the time stamps in the log are.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tallymesh::{Audit, Metric, Monitor, Node, Series, SeriesName, SeriesSpec};

mod common;

const NAMES: [&str; 3] = ["www-1", "www-2", "www-3"];

/// Short windows, so that the replay spans several.
const MONITOR: Monitor = Monitor { interval: 2, windows: 60 };

const REPLAY: Duration = Duration::from_secs(7);

/// Lines that a node counts in one batch.
const BATCH: usize = 200;

/// A pseudo-random number computed from another number (splitmix64).
fn scramble(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Generates lines: few addresses are frequent and many are rare.
fn made_up(lines: u64) -> String {
    let mut log = String::new();
    for n in 0..lines {
        let random = scramble(n.wrapping_add(0x9e37_79b9_7f4a_7c15));
        // Smaller ranks are more probable.
        let rank = 1_u32 << (random % 16);
        let addr = Ipv4Addr::from(0x0a00_0000 + (scramble(random) as u32 % rank) * 37 % (1 << 24));
        let status = [200, 200, 200, 200, 200, 304, 404, 500][(random >> 32) as usize % 8];
        let _ =
            writeln!(log, "{addr} - - [22/Nov/2026:14:05:00 +0000] \"GET /{n} HTTP/1.1\" {status} {}", random % 5000);
    }
    log
}

/// The address and the status of a line; `None` when the line is not from an access log.
fn parse(line: &str) -> Option<(IpAddr, &str)> {
    let addr = line.split(' ').next()?.parse().ok()?;
    // The request is in quotes and may hold any character except a quote.
    let status = line.rsplit('"').next()?.split_whitespace().next()?;
    (status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit())).then_some((addr, status))
}

/// The counts kept separately from the cluster.
#[derive(Debug, Default)]
struct Tally {
    addresses: Counted,
    statuses: Counted,
    /// Lines that are not from an access log.
    bad: u64,
}

/// The expected counts of a series, by window and key.
#[derive(Debug, Default)]
struct Counted {
    windows: BTreeMap<(u64, String), i64>,
    /// Counts taken while a window ended: they belong to one window or the other.
    between: BTreeMap<String, i64>,
}

impl Counted {
    /// Counts one event that `count` adds to the series.
    fn count(&mut self, series: &Series, key: String, count: impl FnOnce()) {
        let before = series.window();
        count();
        if series.window() == before {
            *self.windows.entry((before, key)).or_default() += 1;
        } else {
            *self.between.entry(key).or_default() += 1;
        }
    }

    /// Whether a node shows these counts for each key in each window. For keys counted while a window ended, compares the sum.
    fn is(&self, shown: &BTreeMap<(u64, String), i64>) -> bool {
        let sum = |windows: &BTreeMap<(u64, String), i64>, key: &String| -> i64 {
            windows.iter().filter(|((_, of), _)| of == key).map(|(_, n)| n).sum()
        };
        let clear = |((_, key), _): &(&(u64, String), &i64)| !self.between.contains_key(key);
        shown.iter().filter(clear).eq(self.windows.iter().filter(clear))
            && self.between.iter().all(|(key, n)| sum(shown, key) == sum(&self.windows, key) + n)
    }

    fn total(&self) -> i64 {
        self.windows.values().chain(self.between.values()).sum()
    }
}

/// Replays one node's part of the log, spread over the duration of the replay.
fn replay(lines: &[String], audit: &Audit, connections: &Series, statuses: &Series, tally: &Mutex<Tally>) {
    let start = Instant::now();
    for (n, batch) in lines.chunks(BATCH).enumerate() {
        let due = REPLAY.mul_f64((n * BATCH) as f64 / lines.len() as f64);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
        let mut tally = tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for line in batch {
            let Some((addr, status)) = parse(line) else {
                tally.bad += 1;
                continue;
            };
            tally.addresses.count(connections, addr.to_string(), || {
                audit.record(Metric::Connect, addr).unwrap_or_else(|error| unreachable!("there is no budget: {error}"));
            });
            tally.statuses.count(statuses, status.to_owned(), || {
                statuses.add(status, 1).unwrap_or_else(|error| unreachable!("three digits are a key: {error}"));
            });
        }
    }
}

/// A node's counts for every key in every window of a series.
fn listed(series: &Series) -> BTreeMap<(u64, String), i64> {
    let mut all = BTreeMap::new();
    let current = series.window();
    let Some(mut listing) = series.entries(None) else { return all };
    loop {
        let page = listing.entries(1000);
        if page.is_empty() {
            return all;
        }
        for entry in page {
            let key = tallymesh::key_text(series.spec().kind, &entry.key);
            for (age, count) in (0..).zip(entry.counts).filter(|(_, count)| *count != 0) {
                all.insert((current - age, key.clone()), count);
            }
        }
    }
}

/// Replays a log and compares the counts. Returns a summary, or the difference as an error.
async fn run(log: &str) -> Result<String, Box<dyn Error>> {
    let statuses = SeriesSpec::new(SeriesName::new("status")?, tallymesh::Kind::GaugeTable, 2, 60);
    let nodes =
        common::cluster(&NAMES, |builder| builder.audit(&[Metric::Connect], MONITOR).series(statuses.clone())).await?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut shares = vec![Vec::new(); nodes.len()];
    for (n, line) in log.lines().enumerate() {
        shares[n % NAMES.len()].push(line.to_owned());
    }
    let replays = nodes.iter().zip(shares).map(|(node, share)| -> Result<_, Box<dyn Error>> {
        let (audit, statuses, tally) = (node.audit(), node.series("status")?, Arc::clone(&tally));
        let connections = audit.series(Metric::Connect, 2).ok_or("connections are audited")?.clone();
        Ok(tokio::task::spawn_blocking(move || replay(&share, &audit, &connections, &statuses, &tally)))
    });
    for replay in replays.collect::<Result<Vec<_>, _>>()? {
        replay.await?;
    }
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    for node in &nodes {
        agree(node, &tally).await?;
    }
    let mut said = String::new();
    let (lines, between) = (tally.addresses.total(), tally.addresses.between.values().sum::<i64>());
    writeln!(said, "{lines} lines on {} nodes; {} unreadable; {between} as a window ended", nodes.len(), tally.bad)?;
    let windows: BTreeMap<u64, (i64, usize)> =
        tally.addresses.windows.iter().fold(BTreeMap::new(), |mut sums, ((window, _), n)| {
            let sum = sums.entry(*window).or_default();
            *sum = (sum.0 + n, sum.1 + 1);
            sums
        });
    for (window, (count, addresses)) in windows {
        writeln!(said, "window {window}: {count:>7} connections from {addresses:>6} addresses, the same on all nodes")?;
    }
    for node in &nodes {
        node.shutdown().await;
    }
    Ok(said)
}

/// Waits until a node shows exactly the separate counts.
async fn agree(node: &Node, tally: &Tally) -> Result<(), Box<dyn Error>> {
    let connections = node.audit().series(Metric::Connect, 2).ok_or("connections are audited")?.clone();
    let statuses = node.series("status")?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !tally.addresses.is(&listed(&connections)) || !tally.statuses.is(&listed(&statuses)) {
        if Instant::now() > deadline {
            return Err(format!("{} does not show what was counted", node.name()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The count of a block is the sum over the addresses in it.
    let total = tally.addresses.total();
    let everywhere: [ipnet::IpNet; 2] = ["0.0.0.0/0".parse()?, "::/0".parse()?];
    let mut sum = 0;
    for block in everywhere {
        sum += connections.count(block, 0..=u32::MAX)?.total;
    }
    if sum == total { Ok(()) } else { Err(format!("{} counts {sum} in all, {total} were counted", node.name()).into()) }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let log = match std::env::args().nth(1) {
        Some(file) => std::fs::read_to_string(&file).map_err(|error| format!("cannot read {file}: {error}"))?,
        None => made_up(120_000),
    };
    print!("{}", run(&log).await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_window_of_every_node_is_exact() {
        let log = made_up(120_000) + "not a line of an access log\n";
        let said = run(&log).await.unwrap();
        assert!(said.contains(" on 3 nodes; 1 unreadable; "), "{said}");
        let lines: u64 = said.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(lines, 120_000, "{said}");
        assert!(said.lines().count() > 3, "the replay crosses windows: {said}");
    }

    #[test]
    fn lines_are_read_as_servers_write_them() {
        let line = r#"2001:db8::7 - eve [10/Oct/2026:13:55:36 -0700] "GET /a b HTTP/1.0" 404 2326"#;
        assert_eq!(parse(line), Some(("2001:db8::7".parse().unwrap(), "404")));
        for bad in ["", "example.com - - [] \"GET\" 200 1", "10.0.0.1 - - [] \"GET\" - 1"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
