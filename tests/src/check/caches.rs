//! Checks that every replica of a cache reads the last acknowledged write.

use std::collections::BTreeMap;

use tallymesh_engine::{CacheEntry, Held, Row, Stamp};
use tallymesh_schemas::{Actor, StructureName, UnixMs, Version, bounds};

use crate::caches::{SimCache, Written};
use crate::check::open::{Open, compare};
use crate::clock::EPOCH_MS;
use crate::cluster::Cluster;
use crate::node::{Node, Process};

fn running(cluster: &Cluster) -> impl Iterator<Item = (&Node, &Process)> {
    cluster.nodes.iter().filter_map(|node| Some((node, node.process.as_ref()?)))
}

/// Lists the differences between the caches and the ledger of acknowledged writes.
///
/// For each key every replica must read the last write that a running process acknowledged, or that any running process was
/// seen to have. It may also read a later write of a process that has ended, or nothing, if the value of that later write is
/// lost. If two processes have had one name, the other nodes keep what one of them has; writes that the other one's writes
/// superseded may be lost with those. No node accepts the writes of a process whose clock is far ahead, nor what follows them,
/// until that clock is right again.
pub(crate) fn pending(cluster: &Cluster, open: &mut Open) {
    for spec in &cluster.cache_specs {
        for (node, process) in running(cluster) {
            let sim = &process.caches[&spec.name];
            let mut say = |what: String| open.say(|| format!("{} in {}: {what}", node.label, spec.name));
            copies(cluster, process, (sim, node.read_clock(cluster.now()).unix_ms), &mut say);
            if spec.snapshot {
                reads(cluster, node, sim, &mut say);
            }
        }
    }
}

/// Every copy of a running owner's rows equals the owner's rows.
fn copies(cluster: &Cluster, process: &Process, (sim, reader_ms): (&SimCache, UnixMs), say: &mut impl FnMut(String)) {
    let structure = sim.cache.structure();
    let held = structure.held();
    for (_, owner) in running(cluster).filter(|(_, owner)| owner.actor != process.actor) {
        match held.iter().find(|held| held.actor == owner.actor) {
            None => say(format!("knows nothing of {}", owner.actor)),
            Some(held) if waits(sim, Some(held), owner, &owner.actor, UnixMs(reader_ms.0)) => {}
            Some(held) => compare(structure, held, owner.caches[sim.name()].cache.structure(), say),
        }
    }
}

/// How many requests of how many nodes may wait until a clock reaches the requested rows. It counts each run of which some node
/// has rows that are too far ahead for a reader: at its owner or, if the run has ended, at another holder.
pub(crate) fn waiting(cluster: &Cluster) -> usize {
    let copies = cluster.cache_specs.iter().flat_map(|spec| running(cluster).map(move |reader| (spec, reader)));
    let all = copies.map(|(spec, (node, process))| {
        let sim = &process.caches[&spec.name];
        let held = sim.cache.structure().held();
        let reader_ms = node.read_clock(cluster.now()).unix_ms;
        let holders = running(cluster).filter(|(_, holder)| holder.run != process.run);
        let waits = holders.map(|(_, holder)| {
            let theirs = holder.caches[sim.name()].cache.structure();
            let theirs = theirs.held().into_iter().filter(|theirs| {
                let have = held.iter().find(|held| held.actor == theirs.actor);
                theirs.actor != process.actor && waits(sim, have, holder, &theirs.actor, reader_ms)
            });
            theirs.count()
        });
        waits.sum::<usize>()
    });
    all.sum::<usize>() * running(cluster).count()
}

/// Whether the first of a holder's rows of a run that a copy does not have is too far ahead of the clock of the copy's node. A
/// copy that is being replaced needs all rows of the run again.
fn waits(sim: &SimCache, have: Option<&Held>, holder: &Process, actor: &Actor, reader_ms: UnixMs) -> bool {
    let rows = holder.caches[sim.name()].cache.structure().rows_of(actor);
    let mut rows = rows.into_iter().map(|(_, row)| row);
    let ahead = |row: Row| is_ahead(row.stamp(), sim.cache.time(reader_ms));
    if have.is_some_and(|have| have.replacing) {
        return rows.any(ahead);
    }
    let applied = have.map_or(Version::ZERO, |have| have.applied);
    rows.filter(|row| row.version > applied).min_by_key(|row| row.version).is_some_and(ahead)
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
        if let Some(what) = wrong(sim, writes.of(sim.name(), key), read.copied(), due, unix_ms)
            && !is_lost(cluster, sim.name(), key, due)
        {
            say(format!("{}: {what}", key.escape_ascii()));
        }
    }
}

/// Whether a later write of a key has a row, but its value was lost together with the nodes that held it. Then all nodes read
/// nothing.
fn is_lost(cluster: &Cluster, cache: &StructureName, key: &[u8], due: Stamp) -> bool {
    let mut told = false;
    for cache in running(cluster).map(|(_, process)| &process.caches[cache].cache) {
        if cache.get(key, UnixMs::ZERO).is_some() {
            return false;
        }
        let structure = cache.structure();
        let mut rows = structure.held().into_iter().flat_map(|held| structure.rows_of(&held.actor));
        told |= rows.any(|(of, row)| of == key && row.stamp() > due && row.content() != 0);
    }
    told
}

/// The error in what a key reads, if a write at `due`, or a later one, must be read.
fn wrong(sim: &SimCache, writes: &[Written], read: Option<&CacheEntry>, due: Stamp, unix_ms: UnixMs) -> Option<String> {
    let bounds = sim.cache.structure().spec().bounds;
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
