//! What must hold of a cluster at every moment, and how long it may take until all replicas equal the ledger.

use std::time::Duration;

use tallymesh_schemas::{OnDead, UnixMs, bounds};

use crate::caches::look;
use crate::check::caches::waiting;
use crate::check::converged::{is_reached, pending};
use crate::check::process::process;
use crate::clock::EPOCH_MS;
use crate::cluster::{Cluster, Failure};
use crate::network::Conditions;
use crate::node::Process;

impl Cluster {
    /// Checks everything that must hold at every moment, on every node.
    ///
    /// # Errors
    /// [`Failure`] says what does not hold.
    pub fn check(&self) -> Result<(), Failure> {
        always(self).map_err(|what| self.failed(what))
    }

    /// Waits until every replica equals the ledger, at most for [`settle_time`]. Then it asserts that all replicas do,
    /// that they stay so, and that only digests flow from then on.
    ///
    /// All faults must be healed, and nothing may be counted any more. In a cluster with limits, limits and services rest
    /// meanwhile, because they never stop counting. Afterwards shares of hard limits have run out, and come back as after a
    /// start.
    ///
    /// # Errors
    /// [`Failure`] names what is pending, or what flows.
    pub fn settle(&mut self) -> Result<Duration, Failure> {
        self.rest();
        let settled = settle(self);
        self.wake();
        settled
    }
}

/// Runs [`process`] for every process of a cluster.
///
/// # Errors
/// Says what does not hold, and where.
pub fn always(cluster: &Cluster) -> Result<(), String> {
    for node in &cluster.nodes {
        let Some(running) = &node.process else { continue };
        let looked = process(running, &cluster.truth.borrow(), cluster.messages);
        looked.and_then(|()| cluster.check_seen(running)).map_err(|what| format!("{}: {what}", node.label))?;
        for sim in running.caches.values() {
            let unix_ms = node.read_clock(cluster.now()).unix_ms;
            let looked = look(sim, &mut running.cache_seen.clone(), unix_ms);
            looked.map_err(|what| format!("{}: {what}", node.label))?;
        }
    }
    Ok(())
}

/// How long convergence may take after the last fault is healed and the last operation is done.
///
/// `d` and `f` are the longest digest and full digest interval (a fifth more than configured), `n` is the number of nodes, and
/// `p` = 3 `d` is one round of repair (two intervals of patience, and one until a node checks):
///
/// ```text
/// links      idle timeout + retry + 2 ticks      the last wrong link closes, the right one opens
/// liveness   dead after + 2 ticks + drop         dead nodes are declared dead, and stop counting
/// digests    2 f                                 full digests of all nodes; once more after a new incarnation
/// repairs    6 p                                 gap, snapshot, snapshot cut short, divergence, a conflict's two
/// relays     (n − 2) p                           nodes relay the rows of dead nodes
/// rows       2 s, and see below                  deltas within their byte budget
/// windows    see below                           every node has reached the windows in which others count
/// ```
///
/// Where clocks differ, a node whose clock is behind reaches a window later, or after the window has aged out on the nodes that
/// counted in it. If the owner of rows is linked, a node requests its rows only after `5 d`: by then the owner may have dropped
/// their window.
///
/// If a byte budget splits rows into many deltas, they travel one after the other, as many at a time as there is room for. A
/// node that starts from nothing receives all rows of all runs.
pub fn settle_time(cluster: &Cluster) -> Duration {
    let (config, timing) = (&cluster.config, &cluster.timing);
    let (d, f) = (config.digest_interval.mul_f64(1.2), config.full_digest_interval.mul_f64(1.2));
    let drop = cluster.specs.iter().map(|spec| match spec.on_dead {
        OnDead::Drop(after) => after,
        OnDead::Hold => Duration::ZERO,
    });
    let links = timing.idle_timeout + timing.retry + timing.tick * 2;
    let liveness = timing.dead_after + timing.tick * 2 + drop.max().unwrap_or_default();
    let relays = cluster.nodes.len().saturating_sub(2) as u32;
    let rows = Duration::from_secs(2) + rows_time(cluster);
    links + liveness + f * 2 + d * 3 * (6 + relays) + rows + windows_time(cluster, d)
}

fn rows_time(cluster: &Cluster) -> Duration {
    let rows = |process: &Process| -> usize {
        let structures = process.replica.structures();
        structures.iter().flat_map(|structure| structure.held()).map(|held| held.rows).sum()
    };
    let most = cluster.nodes.iter().filter_map(|node| node.process.as_ref()).map(rows).max().unwrap_or_default();
    let deltas = (most * ROW_BYTES / cluster.config.delta_bytes.max(1)) as u32;
    let Conditions { latency, jitter, tail, room, .. } = cluster.conditions;
    (latency + jitter + tail) * deltas / room.max(1) as u32
}

/// Approximate bytes of a row with its key.
const ROW_BYTES: usize = 24;

fn windows_time(cluster: &Cluster, d: Duration) -> Duration {
    let running = || cluster.nodes.iter().filter_map(|node| Some((node, node.process.as_ref()?)));
    let waits = cluster.series_specs.iter().enumerate().map(|(at, spec)| {
        let nexts = running().filter_map(|(_, process)| process.replica.series().nth(at));
        let last = nexts.map(|series| (series.current() + 1) * spec.interval_ms()).max().unwrap_or_default();
        let slowest = running().map(|(node, _)| node.read_clock(cluster.now()).unix_ms).min().unwrap_or_default();
        // If a clock is ahead of its wall clock, its windows take twice as long to age out.
        let aged_out = 2 * u64::from(spec.windows + 1) * spec.interval_ms();
        Duration::from_millis(last.saturating_sub(slowest.0).min(aged_out)) + d * 6
    });
    waits.max().unwrap_or_default()
}

/// See [`Cluster::settle`].
///
/// # Errors
/// [`Failure`] names what is pending, or what flows.
pub fn settle(cluster: &mut Cluster) -> Result<Duration, Failure> {
    let from = cluster.now();
    let end = from.after(settle_time(cluster));
    while !is_reached(cluster) && cluster.now() < end {
        cluster.run_for(Duration::from_millis(200))?;
    }
    let open = pending(cluster);
    let took = cluster.now().since(from);
    let fail = |cluster: &Cluster, what: &str, open: &[String]| cluster.failed(format!("{what}: {}", open.join("; ")));
    if !open.is_empty() {
        return Err(fail(cluster, &format!("pending after {took:?}"), &open));
    }
    cluster.check()?;
    // Owners retire rows that are zero and announce that. After this there is nothing more to send.
    let config = &cluster.config;
    let retired = config.idle_after.mul_f64(1.5) + Duration::from_secs(3) + config.digest_interval.mul_f64(1.2 * 4.0);
    cluster.run_for(retired)?;
    if !cluster.cache_specs.is_empty() {
        // Expired entries and removals are dropped when no clock can be before their time, in three rounds.
        cluster.run_for(bounds::MAX_DRIFT + SKEW + (config_digests(cluster)) * 8)?;
    }
    if let Some(ttl) = cluster.gauge_specs.iter().map(|spec| spec.ttl).filter(|ttl| !ttl.is_zero()).max() {
        // The nodes take turns to clear expired entries. Each node's turn comes five seconds after the previous one's.
        cluster.run_for((ttl + GAUGE_TURN * cluster.nodes.len() as u32 + Duration::from_secs(2)) * 2)?;
        entries_gone(cluster)?;
    }
    if cluster.save_every.is_some() && !cluster.series_specs.is_empty() {
        // A restored window waits until the clock reaches that window; then its rows are sent.
        cluster.run_for(behind(cluster) + config_digests(cluster) * 2)?;
    }
    let quiet = cluster.config.full_digest_interval.mul_f64(1.2) * 2;
    // A node that reached a window while others dropped it requests what it missed there, and stops after some time.
    let asking = if cluster.series_specs.is_empty() { Duration::ZERO } else { asking_time(cluster) };
    let asking_ends = cluster.now().after(asking);
    // Different copies of an ended run are sent once more as a whole, even if reads are the same for both.
    let sending_ends = cluster.now().after(rows_time(cluster) * 2);
    loop {
        let (before, begun) = (flow(cluster), cluster.now());
        cluster.run_for(quiet)?;
        let open = pending(cluster);
        if !open.is_empty() {
            return Err(fail(cluster, "it had converged, and now", &open));
        }
        cluster.check()?;
        let after = flow(cluster);
        if waiting(cluster) > 0 {
            // A node asks for entries that are too far ahead of its clock again at every check.
            break;
        }
        let asks = before.0 == after.0 && before.1 < after.1;
        let sends = before.0 < after.0;
        if (asks && begun < asking_ends) || (sends && begun < sending_ends) {
            continue;
        }
        if before.0 != after.0 || before.1 != after.1 || after.2 <= before.2 && cluster.running().count() > 1 {
            let what =
                format!("only digests should flow, but (deltas, wants, digests) went from {before:?} to {after:?}");
            return Err(cluster.failed(what));
        }
        break;
    }
    Ok(took)
}

/// How much later each next node clears expired entries of a gauge cache.
const GAUGE_TURN: Duration = Duration::from_secs(5);

/// Entries that no node updates any more have expired from the gauge caches on all nodes.
fn entries_gone(cluster: &Cluster) -> Result<(), Failure> {
    for node in &cluster.nodes {
        let Some(process) = &node.process else { continue };
        let gauges = process.replica.gauge_caches().iter().filter(|gauge| !gauge.spec().ttl.is_zero());
        let left = gauges.map(|gauge| gauge.len(node.read_clock(cluster.now()).mono)).sum::<usize>();
        if left > 0 {
            return Err(cluster.failed(format!("{} has {left} expired entries", node.label)));
        }
    }
    Ok(())
}

/// The greatest difference between wall clocks in simulations of caches.
const SKEW: Duration = Duration::from_secs(30);

/// How far the slowest clock is behind the fastest one, and behind the correct time.
fn behind(cluster: &Cluster) -> Duration {
    let running = cluster.nodes.iter().filter(|node| node.process.is_some());
    let clocks = || running.clone().map(|node| node.read_clock(cluster.now()).unix_ms);
    let latest = clocks().chain([UnixMs(EPOCH_MS + cluster.now().0 / 1000)]).max().unwrap_or_default();
    latest.since(clocks().min().unwrap_or(latest))
}

fn config_digests(cluster: &Cluster) -> Duration {
    (cluster.config.digest_interval + cluster.config.full_digest_interval).mul_f64(1.2)
}

/// How long a node keeps requesting what the peer does not have any more: five times, after five digests each.
fn asking_time(cluster: &Cluster) -> Duration {
    cluster.config.digest_interval.mul_f64(1.2) * 6 * 6
}

/// The number of deltas, wants and digests sent.
fn flow(cluster: &Cluster) -> (u64, u64, u64) {
    let counters = cluster.nodes.iter().filter_map(|node| Some(node.process.as_ref()?.replica.counters()));
    // For each window that begins, nodes request its future rows.
    let grafts = u64::from(cluster.series_specs.is_empty());
    counters.fold((0, 0, 0), |sum, c| {
        (sum.0 + c.deltas_out, sum.1 + c.wants_out + grafts * c.grafts_out, sum.2 + c.digests_out)
    })
}
