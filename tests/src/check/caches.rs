//! Checks that every replica of a cache reads the last acknowledged write.

use std::collections::BTreeMap;

use tallymesh_engine::{CacheEntry, HeldEntry, Stamp};
use tallymesh_schemas::{UnixMs, bounds};

use crate::caches::{SimCache, Written};
use crate::check::open::Open;
use crate::clock::EPOCH_MS;
use crate::cluster::Cluster;
use crate::node::{Node, Process};

/// Sums of entries that expire are kept by the minute.
const MINUTE_MS: u64 = 60_000;

fn running(cluster: &Cluster) -> impl Iterator<Item = (&Node, &Process)> {
    cluster.nodes.iter().filter_map(|node| Some((node, node.process.as_ref()?)))
}

/// Lists the differences between the caches and the ledger of acknowledged writes.
///
/// For each key every replica must read the last write that a running process acknowledged, or that any running process was
/// seen to have. It may also read a later write of a process that has ended. If two processes have had one name, writes of one
/// of them may be lost. No node accepts the writes of a process whose clock is far ahead until that clock is right again.
pub(crate) fn pending(cluster: &Cluster, open: &mut Open) {
    for spec in &cluster.cache_specs {
        for (node, process) in running(cluster) {
            let sim = &process.caches[&spec.name];
            let mut say = |what: String| open.say(|| format!("{} in {}: {what}", node.label, spec.name));
            contexts(cluster, process, (sim, node.read_clock(cluster.now()).unix_ms), &mut say);
            if spec.snapshot {
                reads(cluster, node, sim, &mut say);
            }
        }
    }
}

/// Every node has taken in what each running owner has written, and nodes that have taken in the same hold the same.
fn contexts(cluster: &Cluster, process: &Process, (sim, reader_ms): (&SimCache, UnixMs), say: &mut impl FnMut(String)) {
    let ours: BTreeMap<_, _> = sim.cache.seen().into_iter().collect();
    for (node, owner) in running(cluster).filter(|(_, owner)| owner.actor != process.actor) {
        let theirs = &owner.caches[sim.name()];
        if has_ahead(theirs, sim.cache.time(reader_ms)) {
            continue;
        }
        let head = theirs.cache.seen().into_iter().find(|(run, _)| *run == owner.actor).map_or(0, |(_, head)| head);
        let has = ours.get(&owner.actor).copied().unwrap_or(0);
        if has != head {
            say(format!("has {} writes of {}, which has made {head}", has, owner.actor));
        }
        let whole = sim.cache.spec().snapshot;
        let after_ms = reader_ms.after(bounds::MAX_DRIFT * 2);
        if whole && sim.cache.fingerprint(after_ms) != theirs.cache.fingerprint(after_ms) {
            let owner_ms = theirs.cache.time(node.read_clock(cluster.now()).unix_ms);
            match difference(sim, theirs, (after_ms, owner_ms)) {
                Some(differ) => say(format!("holds other entries than {}: {differ}", owner.actor)),
                // The owner has not accepted the rest, which is ahead of its clock.
                None if has_ahead(sim, owner_ms) => {}
                None => say(format!("has another sum of the entries than {}", owner.actor)),
            }
        }
    }
}

/// A live entry that one of two caches holds and the other one does not: of those that the sums after a time contain, apart from
/// keys whose entry here is ahead of the other node's clock.
fn difference(ours: &SimCache, theirs: &SimCache, (after_ms, their_ms): (UnixMs, UnixMs)) -> Option<String> {
    let held = |sim: &SimCache| {
        let held = sim.cache.held_entries(None, usize::MAX);
        held.into_iter().map(|entry| (entry.key.clone(), entry)).collect::<BTreeMap<_, _>>()
    };
    let (ours, theirs) = (held(ours), held(theirs));
    let later = |entry: &HeldEntry| entry.expires_ms.0 / MINUTE_MS > after_ms.0 / MINUTE_MS;
    let counts = |entry: &&HeldEntry| entry.value.is_some() && (entry.expires_ms == UnixMs::ZERO || later(entry));
    let content = |entry: &HeldEntry| (entry.stamp, entry.value.clone(), entry.expires_ms);
    let keys = ours.keys().chain(theirs.keys());
    let keys = keys.filter(|key| ours.get(*key).is_none_or(|entry| !is_ahead(entry.stamp, their_ms)));
    let mut pairs = keys.map(|key| (ours.get(key).filter(counts), theirs.get(key).filter(counts)));
    let first = pairs.find(|(ours, theirs)| ours.map(content) != theirs.map(content));
    first.map(|(ours, theirs)| format!("{ours:?}, not {theirs:?}"))
}

/// How many sessions of how many nodes may begin again and again until a clock reaches the entries that were refused.
pub(crate) fn waiting(cluster: &Cluster) -> usize {
    let pairs = cluster.cache_specs.iter().flat_map(|spec| running(cluster).map(move |reader| (spec, reader)));
    let all = pairs.map(|(spec, (node, process))| {
        let sim = &process.caches[&spec.name];
        let reader_ms = sim.cache.time(node.read_clock(cluster.now()).unix_ms);
        let holders = running(cluster).filter(|(_, holder)| holder.run != process.run);
        holders.filter(|(_, holder)| has_ahead(&holder.caches[sim.name()], reader_ms)).count()
    });
    all.sum::<usize>()
}

/// Whether a cache holds an entry that is too far ahead of a clock.
fn has_ahead(sim: &SimCache, unix_ms: UnixMs) -> bool {
    sim.cache.held_entries(None, usize::MAX).iter().any(|entry| is_ahead(entry.stamp, unix_ms))
}

fn is_ahead(stamp: Stamp, unix_ms: UnixMs) -> bool {
    stamp.unix_ms() > unix_ms.after(bounds::MAX_DRIFT)
}

fn reads(cluster: &Cluster, node: &Node, sim: &SimCache, say: &mut impl FnMut(String)) {
    let writes = sim.writes.borrow();
    let true_ms = EPOCH_MS + cluster.now().0 / 1000;
    let ahead = |node: &Node| is_ahead(Stamp::at(node.read_clock(cluster.now()).unix_ms), UnixMs(true_ms));
    let ahead: Vec<_> = running(cluster).filter(|(node, _)| ahead(node)).map(|(_, process)| process.run).collect();
    let unix_ms = sim.cache.time(node.read_clock(cluster.now()).unix_ms);
    let entries = sim.cache.entries(None, usize::MAX, UnixMs::ZERO);
    let entries: BTreeMap<&[u8], &CacheEntry> = entries.iter().map(|entry| (entry.key.as_slice(), entry)).collect();
    for key in writes.keys(sim.name()) {
        let at = (sim.name().clone(), key.to_vec());
        let seen = running(cluster).filter_map(|(_, process)| process.cache_seen.get(&at));
        let seen = seen.filter(|stamp| !is_ahead(**stamp, UnixMs(true_ms))).max();
        let latest = writes.latest_of_the_living(sim.name(), key, |run| ahead.contains(&run));
        let due = latest.max(seen.copied()).unwrap_or_default();
        let due = writes.taken_back(sim.name(), key).least(due);
        if writes.is_contested(sim.name(), key, due) {
            continue;
        }
        let read = entries.get(key);
        if let Some(what) = wrong(sim, writes.of(sim.name(), key), read.copied(), due, unix_ms) {
            say(format!("{}: {what}", key.escape_ascii()));
        }
    }
}

/// The error in what a key reads, if a write at `due`, or a later one, must be read.
fn wrong(sim: &SimCache, writes: &[Written], read: Option<&CacheEntry>, due: Stamp, unix_ms: UnixMs) -> Option<String> {
    let bounds = sim.cache.spec().bounds;
    let bounded = bounds.elements.is_some() || bounds.bytes.is_some();
    // An expired entry is kept for a while, but reads do not return it.
    match read.filter(|entry| entry.expires_ms == UnixMs::ZERO || entry.expires_ms > unix_ms) {
        // If its writer's clock was ahead, the write was republished with an earlier stamp than the acknowledged one.
        Some(entry) => {
            let written = writes.iter().find(|written| written.value.as_deref() == Some(&entry.value[..]))?;
            (written.stamp < due).then(|| format!("reads what was written at {:?}, not at {due:?}", entry.stamp))
        }
        None => {
            let gone = |written: &&Written| {
                let expired = written.expires_ms != UnixMs::ZERO && written.expires_ms <= unix_ms;
                written.stamp >= due && (written.value.is_none() || expired)
            };
            let none = bounded || writes.iter().any(|written| gone(&written)) || due == Stamp::default();
            (!none).then(|| format!("reads nothing, and was written at {due:?}"))
        }
    }
}
