//! Checkers for what must hold at every moment, and for what must hold after all faults are healed. They are plain functions,
//! for use in any test.

mod caches;
mod converged;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Held, Row, Structure};
use tallymesh_schemas::{
    Actor, Cell, Incarnation, Kind, NodeName, OnDead, StructureId, StructureName, Version, bounds,
};

pub use converged::pending;
pub(crate) use windows::{Rows, taken_along};

use crate::cluster::{Cluster, Failure};
use crate::network::Conditions;
use crate::node::Process;
use crate::truth::Truth;

/// What a replica was seen to hold of one actor. None of it may go back.
#[derive(Debug, Default)]
struct SeenPart {
    have: Version,
    rows: BTreeMap<Vec<u8>, SeenRow>,
    /// How often it was checked.
    looks: u64,
}

/// The last state of a row that was seen, its position in its owner's history, and the check that saw it.
#[derive(Debug, Default)]
struct SeenRow {
    row: Row,
    position: usize,
    look: u64,
}

/// What a replica was seen to hold.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<(StructureId, Actor), SeenPart>);

impl Seen {
    fn parts_of(&self, structure: StructureId) -> impl Iterator<Item = (&(StructureId, Actor), &SeenPart)> {
        self.0.iter().filter(move |((of, _), _)| *of == structure)
    }

    /// Forgets what was seen in structures that no longer exist: a window that is dropped and created again starts from
    /// nothing.
    pub(crate) fn forget(&mut self, is_there: impl Fn(StructureId) -> bool) {
        self.0.retain(|(structure, _), _| is_there(*structure));
    }
}

/// What a structure held when the last check passed, and what its process had counted in it.
#[derive(Debug, PartialEq, Eq)]
struct Right {
    actor: Actor,
    leaves: bool,
    held: Vec<Held>,
    operations: u64,
}

/// What was found correct in a process. While nothing has changed, the check cannot find a new error, because the data that it
/// compares with only grows. The exception are aggregates that change without a row change. For these, every [`EVERYTHING`]th
/// call and the last one check everything.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    right: BTreeMap<StructureId, Right>,
    looks: u64,
}

/// See [`Looked`].
pub(crate) const EVERYTHING: u64 = 8;

/// The most entries that a link keeps for one actor in one structure: one in each of its maps.
const ENTRIES_A_PART: usize = 8;

/// Whether the rows of a structure belong to the limits; `limits` checks those.
fn is_limited(structure: &Structure) -> bool {
    structure.kind() == Kind::ThrottleTable
}

/// Checks the rows of an actor after a delta: each row is a state that its owner had, and none goes back. Rows with versions
/// that were known before must be unchanged; every [`EVERYTHING`]th check verifies that. `traded` says that the delta may have
/// ended a snapshot of a run that is gone: of two incomplete copies the node takes the furthest, and that one may lack a row
/// that this node had.
pub(crate) fn after_delta(
    process: &mut Process,
    truth: &Truth,
    structure: StructureId,
    actor: &Actor,
    traded: bool,
) -> Result<(), String> {
    let Some(structure) = process.structure_of(structure) else { return Ok(()) };
    let name = &structure.spec().name;
    let events = structure.spec().class.cell() == Cell::Events;
    let own = *actor == process.actor || (actor.node == process.actor.node && !events);
    if own || is_limited(&structure) {
        return Ok(());
    }
    let part = (structure.id(), actor.clone());
    let Some(held) = structure.held().into_iter().find(|held| held.actor == *actor) else {
        if events {
            windows::lasts(process, truth, &structure)?;
        }
        process.seen.0.remove(&part);
        return Ok(());
    };
    let seen = process.seen.0.entry(part).or_default();
    if held.applied < seen.have && truth.has_later_run(actor) {
        // The node dropped its rows when it learned of a later run. They return because the owner says that it is in this run.
        *seen = SeenPart::default();
    }
    if held.applied < seen.have {
        return Err(format!("{name}: of {actor} it knew up to {}, now {}", seen.have, held.applied));
    }
    let known = std::mem::replace(&mut seen.have, held.applied);
    let contested = truth.contested(actor);
    let history = truth.history(actor, name)?;
    if contested {
        seen.rows.clear();
        return each_row(&structure, actor, |key, row| history.position(key, row, 0).map(drop));
    }
    seen.looks += 1;
    let everything = seen.looks.is_multiple_of(EVERYTHING);
    each_row(&structure, actor, |key, row| {
        if !everything && row.version <= known {
            return Ok(());
        }
        if !seen.rows.contains_key(key) {
            seen.rows.insert(key.to_vec(), SeenRow::default());
        }
        let last = seen.rows.get_mut(key).unwrap_or_else(|| unreachable!("it was put there"));
        last.look = seen.looks;
        if last.row == *row {
            return Ok(());
        }
        // An earlier state that has passed may not return.
        let position = history.position(key, row, last.position)?;
        if row.version < last.row.version {
            let was = last.row.version;
            return Err(format!("{name}: a row of {actor} went back from version {was} to {}", row.version));
        }
        (last.row, last.position) = (*row, position);
        Ok(())
    })?;
    if !everything {
        return Ok(());
    }
    // A row that is gone was retired: its owner counted nothing there, then or later.
    for (key, last) in seen.rows.iter().filter(|(_, last)| last.look < seen.looks) {
        if events || !(traded || truth.was_zero(actor, name, key, last.position)) {
            let since = last.row.version;
            return Err(format!("{name}: {actor} counts {key:02x?} since version {since}, and that row is gone"));
        }
    }
    seen.rows.retain(|_, last| last.look == seen.looks);
    Ok(())
}

/// A node has stated its own run. This replaces later runs that a process knew only from hearsay, and their gauges are dropped
/// with them. When those runs return, they start from the beginning.
pub(crate) fn after_hello(process: &mut Process, node: &NodeName, run: Incarnation) {
    let said = process.said.entry(node.clone()).or_insert(run);
    *said = run.max(*said);
    let said = *said;
    let replaced = |actor: &Actor| actor.node == *node && actor.incarnation > said;
    let mut seen = std::mem::take(&mut process.seen);
    seen.0.retain(|(id, actor), _| {
        let gauges = |structure: &Arc<Structure>| structure.spec().class.cell() != Cell::Events;
        let structure = process.structure_of(*id).filter(|structure| replaced(actor) && gauges(structure));
        structure.is_none_or(|structure| structure.held().iter().any(|held| held.actor == *actor))
    });
    process.seen = seen;
}

/// Checks what must hold of a process at every moment: its aggregates equal its rows (I10), its own rows match the acknowledged
/// operations, its state per link is bounded (I7), and, unless messages are spoilt, every row is a state that its owner had.
///
/// # Errors
/// Says what does not hold.
pub fn process(process: &Process, truth: &Truth, spoilt: bool) -> Result<(), String> {
    let mut parts = 0;
    for structure in process.structures.values().chain(process.windows()) {
        self::structure(process, truth, structure, spoilt, None)?;
        parts += structure.held().len();
    }
    links(process, parts, truth)
}

/// [`process`], limited to what has changed since the last check passed.
pub(crate) fn changes(process: &mut Process, truth: &Truth, spoilt: bool) -> Result<(), String> {
    let mut looked = std::mem::take(&mut process.looked);
    looked.looks += 1;
    let everything = looked.looks.is_multiple_of(EVERYTHING);
    let (mut parts, mut found_right) = (0, BTreeMap::new());
    for structure in process.structures.values().chain(process.windows()) {
        let id = structure.id();
        let state = |held| Right {
            actor: process.actor.clone(),
            leaves: process.leaving.is_some(),
            held,
            operations: truth.operations_in(process.run, &structure.spec().name),
        };
        let mut now = state(structure.held());
        let quiet = structure.pending() == 0 && !now.held.iter().any(|held| held.replacing);
        let right = looked.right.get(&id).filter(|_| !everything);
        if !quiet || right != Some(&now) {
            self::structure(process, truth, structure, spoilt, right)?;
            // Pending changes are committed now.
            now = state(structure.held());
        }
        parts += now.held.len();
        found_right.insert(id, now);
    }
    looked.right = found_right;
    process.looked = looked;
    links(process, parts, truth)
}

fn structure(
    process: &Process,
    truth: &Truth,
    structure: &Structure,
    spoilt: bool,
    right: Option<&Right>,
) -> Result<(), String> {
    let name = &structure.spec().name;
    structure.audit().map_err(|what| format!("{name}: {what}"))?;
    if is_limited(structure) {
        return Ok(());
    }
    if structure.spec().class.cell() == Cell::Events {
        windows::window(process, truth, structure, spoilt, right)?;
        return windows::lasts(process, truth, structure);
    }
    own_part(process, truth, name, structure)?;
    let held = structure.held();
    let mut others = held.iter().filter(|held| !spoilt && held.actor.node != process.actor.node);
    others.try_for_each(|held| rows_of_another(truth, structure, held, right))
}

/// Every row of another actor is a state that its owner had. Rows that were found correct stay correct: histories only grow.
fn rows_of_another(truth: &Truth, structure: &Structure, held: &Held, right: Option<&Right>) -> Result<(), String> {
    if right.is_some_and(|right| right.held.contains(held)) {
        return Ok(());
    }
    let history = truth.history(&held.actor, &structure.spec().name)?;
    each_row(structure, &held.actor, |key, row| history.position(key, row, 0).map(drop))
}

fn each_row(
    structure: &Structure,
    actor: &Actor,
    mut check: impl FnMut(&[u8], &Row) -> Result<(), String>,
) -> Result<(), String> {
    let mut checked = Ok(());
    structure.each_row_of(actor, |key, row| {
        if checked.is_ok() {
            checked = check(key, row);
        }
    });
    checked
}

fn links(process: &Process, parts: usize, truth: &Truth) -> Result<(), String> {
    // The state of a cache is also sent in `Seen` messages, to each peer and for each run that ever existed, because other
    // nodes may know more of them.
    let parts = parts + 2 * process.caches.len() * truth.runs();
    let links = process.replica.links().count();
    let entries = process.replica.link_entries();
    if entries > links * parts * ENTRIES_A_PART {
        return Err(format!("{entries} entries about {links} links, with {parts} actors that there are to tell of"));
    }
    Ok(())
}

/// The node's own rows and reads match the ledger of acknowledged operations.
fn own_part(process: &Process, truth: &Truth, name: &StructureName, structure: &Structure) -> Result<(), String> {
    let rows: BTreeMap<_, _> = structure.rows_of(&process.actor).into_iter().collect();
    for (key, value) in truth.values(process.run, name) {
        let row = rows.get(key).map_or(0, |row| row.value());
        let read = structure.count(key, tallymesh_engine::Time(0)).local;
        if row != value || (read != value && process.leaving.is_none()) {
            return Err(format!("{name}: of {key:02x?} it counted {value}; its row says {row}, its reads {read}"));
        }
    }
    let stranger = rows.keys().find(|key| truth.track(process.run, name, key).is_none());
    stranger.map_or(Ok(()), |key| Err(format!("{name}: it never counted {key:02x?}")))
}

/// Runs [`process`] for every process of a cluster.
///
/// # Errors
/// Says what does not hold, and where.
pub fn always(cluster: &Cluster) -> Result<(), String> {
    for node in &cluster.nodes {
        let Some(running) = &node.process else { continue };
        process(running, &cluster.truth.borrow(), cluster.spoilt).map_err(|what| format!("{}: {what}", node.label))?;
        for sim in running.caches.values() {
            let unix_ms = node.read_clock(cluster.now()).unix_ms;
            let looked = crate::caches::look(sim, &mut running.cache_seen.clone(), unix_ms);
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
        Duration::from_millis(last.saturating_sub(slowest).min(aged_out)) + d * 6
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
    while !converged::is_reached(cluster) && cluster.now() < end {
        cluster.run_for(Duration::from_millis(200))?;
    }
    let open = pending(cluster);
    let took = cluster.now().since(from);
    let fail = |cluster: &Cluster, what: &str, open: &[String]| Failure {
        at: cluster.now(),
        what: format!("{what}: {}", open.join("; ")),
    };
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
        let asks = before.0 == after.0 && before.1 < after.1;
        let sends = before.0 < after.0;
        if (asks && begun < asking_ends) || (sends && begun < sending_ends) {
            continue;
        }
        let looks = quiet.as_micros() / cluster.config.digest_interval.as_micros().max(1) + 1;
        let wants = u128::from(after.1 - before.1);
        if wants > 0 && wants <= caches::waiting(cluster) as u128 * looks {
            // A node requests rows that are too far ahead of its clock again at every check.
            break;
        }
        if before.0 != after.0 || before.1 != after.1 || after.2 <= before.2 && cluster.running().count() > 1 {
            let what =
                format!("only digests should flow, but (deltas, wants, digests) went from {before:?} to {after:?}");
            return Err(Failure { at: cluster.now(), what });
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
            return Err(Failure { at: cluster.now(), what: format!("{} has {left} expired entries", node.label) });
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
    let latest = clocks().chain([crate::clock::EPOCH_MS + cluster.now().0 / 1000]).max().unwrap_or_default();
    Duration::from_millis(latest.saturating_sub(clocks().min().unwrap_or(latest)))
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
