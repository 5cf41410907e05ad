//! Checks that every replica equals the ledger, and lists what is pending where one does not.

use std::collections::BTreeMap;

use tallymesh_engine::Held;
use tallymesh_schemas::{Actor, NodeName, OnDead, StructureSpec, Version};

use crate::check::histories::is_limited;
use crate::check::open::{NAMED, Open, compare};
use crate::check::{caches, keepers};
use crate::cluster::Cluster;
use crate::node::{Node, Process};

/// Lists the differences between the cluster and the ledger of acknowledged operations; empty when there are none.
///
/// Every running replica must hold exactly the rows that each running owner counts, and no rows of a superseded or forgotten
/// run. Of a dead node's last run it must hold as much as any other replica. It must count the right actors. Of events it also
/// holds those of earlier runs, and reads what the acknowledged removals have left of them.
pub fn pending(cluster: &Cluster) -> Vec<String> {
    look(cluster, NAMED)
}

/// Whether nothing is [`pending`].
pub(crate) fn is_reached(cluster: &Cluster) -> bool {
    look(cluster, 1).is_empty()
}

fn look(cluster: &Cluster, most: usize) -> Vec<String> {
    let mut open = Open::new(most);
    unsent(cluster, &mut open);
    structures(cluster, &mut open);
    ended_runs(cluster, &mut open);
    keepers::pending(cluster, &mut open);
    keepers::pending_gauges(cluster, &mut open);
    caches::pending(cluster, &mut open);
    open.into_lines()
}

/// What a process has counted and not sent yet. Reading it puts it into rows that no other node has.
fn unsent(cluster: &Cluster, open: &mut Open) {
    for (node, process) in running(cluster).filter(|(_, process)| process.leaving.is_none()) {
        for structure in process.replica.structures().iter().filter(|structure| structure.pending() > 0) {
            open.say(|| format!("{} in {}: {} changes wait", node.label, structure.spec().name, structure.pending()));
        }
    }
}

/// Copies of runs that have ended, as their nodes know, and that hold nothing.
fn ended_runs(cluster: &Cluster, open: &mut Open) {
    for (node, process) in running(cluster) {
        let us = (&process.actor.node, process.actor.incarnation);
        let latest: BTreeMap<_, _> =
            process.replica.nodes().map(|(name, run, _)| (name, run)).chain(std::iter::once(us)).collect();
        let ended = |actor: &Actor| latest.get(&actor.node).is_some_and(|run| actor.incarnation < *run);
        for structure in process.replica.structures() {
            for held in structure.held() {
                if held.applied == Version::ZERO && !held.replacing && ended(&held.actor) {
                    let name = &structure.spec().name;
                    open.say(|| {
                        format!("{} in {name}: has an empty copy of {}, which has ended", node.label, held.actor)
                    });
                }
            }
        }
    }
}

fn structures(cluster: &Cluster, open: &mut Open) {
    for spec in &cluster.specs {
        let alive: BTreeMap<_, _> =
            running(cluster).map(|(node, process)| (process.actor.clone(), (node, process))).collect();
        let dead = furthest_of_the_dead(cluster, spec);
        for (node, process) in running(cluster) {
            if open.is_full() {
                return;
            }
            let structure = &process.structures[&spec.name];
            let held: BTreeMap<_, _> = structure.held().into_iter().map(|held| (held.actor.clone(), held)).collect();
            let mut say = |what: String| open.say(|| format!("{} in {}: {what}", node.label, spec.name));
            for (actor, (_, owner)) in alive.iter().filter(|(actor, _)| **actor != process.actor) {
                match held.get(actor) {
                    None => say(format!("knows nothing of {actor}")),
                    // A copy that does not begin at version 0 has no fingerprint to compare. If another process was this run
                    // before, this copy does not notice it once the owner has counted further than that process.
                    Some(held) if held.since > Version::ZERO && cluster.truth.borrow().contested(actor) => {}
                    Some(held) => compare(structure, held, &owner.structures[&spec.name], &mut say),
                }
            }
            for (actor, held) in held.iter().filter(|(actor, _)| !alive.contains_key(actor)) {
                match dead.get(&actor.node) {
                    Some((last, _)) if last != actor => say(format!("still has {actor}, {last} came after it")),
                    Some((_, have)) if held.applied < *have && spec.snapshot => {
                        say(format!("has {} of the dead {actor}, others have {have}", held.applied));
                    }
                    Some(_) => {}
                    None => say(format!("still has {actor}, which is superseded or forgotten")),
                }
            }
            for (actor, _) in dead
                .values()
                .filter(|(actor, have)| *have > Version::ZERO && spec.snapshot && !held.contains_key(actor))
            {
                say(format!("knows nothing of the dead {actor}"));
            }
            counted(cluster, process, spec, &held, &mut say);
            totals(cluster, process, spec, &held, &mut say);
        }
    }
}

fn running(cluster: &Cluster) -> impl Iterator<Item = (&Node, &Process)> {
    cluster.nodes.iter().filter_map(|node| Some((node, node.process.as_ref()?)))
}

/// The last run of each dead node, unless it was forgotten, and the highest version of it that any node has. If the node where
/// it was forgotten ended before it sent the tombstone, the run does not count as forgotten, because no running node knows it.
fn furthest_of_the_dead(cluster: &Cluster, spec: &StructureSpec) -> BTreeMap<NodeName, (Actor, Version)> {
    let mut last: BTreeMap<NodeName, (Actor, Version)> = BTreeMap::new();
    for (_, process) in running(cluster) {
        for held in process.structures[&spec.name].held() {
            let name = held.actor.node.clone();
            let lives = running(cluster).any(|(node, _)| node.name == name);
            let forgotten = cluster.forgotten.iter().any(|f| f.node == name && f.incarnation >= held.actor.incarnation)
                && running(cluster).any(|(_, other)| other.replica.is_void(&held.actor));
            if lives || forgotten {
                continue;
            }
            let entry = last.entry(name).or_insert_with(|| (held.actor.clone(), held.applied));
            *entry = entry.clone().max((held.actor, held.applied));
        }
    }
    last
}

/// Checks that the right actors count.
fn counted(
    cluster: &Cluster,
    process: &Process,
    spec: &StructureSpec,
    held: &BTreeMap<Actor, Held>,
    say: &mut impl FnMut(String),
) {
    for held in held.values() {
        let lives = running(cluster).any(|(_, other)| other.actor == held.actor);
        // This includes a run whose successor left before other nodes knew of the successor: they received the goodbye.
        let mut named = cluster.nodes.iter().filter(|node| node.name == held.actor.node);
        let left = named.any(|node| node.left >= Some(held.actor.incarnation));
        let should = match spec.on_dead {
            _ if lives => true,
            OnDead::Drop(_) => false,
            // A node that did not receive the goodbye sees it as dead; its rows are then zero, or unchanged. If two processes
            // had one name, either may have said it.
            OnDead::Hold if left || cluster.truth.borrow().contested(&held.actor) => continue,
            OnDead::Hold => true,
        };
        if held.counts != should && held.actor != process.actor {
            let does = if held.counts { "still counts" } else { "does not count" };
            say(format!("{does} {}", held.actor));
        }
    }
}

/// Reads return the sum over the actors that count.
fn totals(
    cluster: &Cluster,
    process: &Process,
    spec: &StructureSpec,
    held: &BTreeMap<Actor, Held>,
    say: &mut impl FnMut(String),
) {
    let structure = &process.structures[&spec.name];
    let truth = cluster.truth.borrow();
    let mut sums: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
    for held in held.values().filter(|held| held.counts && held.actor != process.actor) {
        let owner = running(cluster).find(|(_, other)| other.actor == held.actor && held.since == Version::ZERO);
        match owner.filter(|_| !is_limited(structure)) {
            Some((_, owner)) => truth
                .values(owner.run, &spec.name)
                .for_each(|(key, value)| *sums.entry(key.to_vec()).or_default() += value),
            None => structure
                .rows_of(&held.actor)
                .into_iter()
                .for_each(|(key, row)| *sums.entry(key).or_default() += row.value()),
        }
    }
    if is_limited(structure) {
        // The checker of admissions covers what limits count. Reads are the sum of the rows in any case.
        for (key, row) in structure.rows_of(&process.actor) {
            *sums.entry(key).or_default() += row.value();
        }
    }
    if process.leaving.is_none() {
        for (key, value) in truth.values(process.run, &spec.name) {
            *sums.entry(key.to_vec()).or_default() += value;
        }
    }
    for (key, sum) in sums {
        let read = structure.count(&key, tallymesh_engine::Time(0)).total;
        if read != sum && process.leaving.is_none() {
            say(format!("reads {read} for {key:02x?}, the ledger says {sum}"));
        }
    }
}
