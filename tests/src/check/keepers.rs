//! The windows and gauge caches of all nodes against the ledger.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallymesh_engine::{Held, Scope, Series, Structure};
use tallymesh_schemas::{Actor, Kind, StructureName, UnixMs, Version, Window, bounds, key};

use crate::check::open::{Open, compare};
use crate::check::rows::{Rows, value};
use crate::cluster::Cluster;
use crate::network::Messages;
use crate::node::{Node, Process};
use crate::truth::{Totals, less, most};

/// A node that keeps a window.
struct Keeper<'a> {
    node: &'a Node,
    process: &'a Process,
    window: Arc<Structure>,
    held: BTreeMap<Actor, Held>,
}

/// Lists the differences between the windows of the cluster and the ledger.
pub(crate) fn pending(cluster: &Cluster, open: &mut Open) {
    for at in 0..cluster.series_specs.len() {
        let mut keepers: BTreeMap<Window, Vec<Keeper<'_>>> = BTreeMap::new();
        let mut comings = Vec::new();
        for node in &cluster.nodes {
            let Some(process) = &node.process else { continue };
            let Some(series) = process.replica.series().nth(at) else { continue };
            comings.push((node, series.current() + 1));
            if !has_turned(series, node.read_clock(cluster.now()).unix_ms) {
                open.say(|| format!("{} has not turned {} back to its clock", node.label, series.spec().name));
            }
            for (number, window) in process.windows_of(series) {
                let held = window.held().into_iter().map(|held| (held.actor.clone(), held)).collect();
                keepers.entry(number).or_default().push(Keeper { node, process, window, held });
            }
        }
        for (number, keepers) in &keepers {
            let counted = keepers.iter().any(|keeper| keeper.held.values().any(|held| held.rows > 0));
            let shared = cluster.series_specs[at].replicate;
            for (node, _) in comings.iter().filter(|(_, next)| counted && shared && next < number) {
                let series = &cluster.series_specs[at].name;
                open.say(|| format!("{} has not come to window {number} of {series}", node.label));
            }
            for keeper in keepers.iter().filter(|_| shared) {
                copies(cluster, keepers, keeper, &mut |what| tell(open, keeper, &what));
            }
        }
        for keepers in keepers.values() {
            if open.is_full() {
                return;
            }
            counts(cluster, keepers, &mut |keeper, what| tell(open, keeper, &what));
        }
        for node in &cluster.nodes {
            let series = node.process.as_ref().and_then(|process| process.replica.series().nth(at));
            series.into_iter().for_each(|series| blocks(node, series, open));
        }
    }
}

/// Whether a node has read its wall clock since that was set back. Until then its windows are those of the wrong clock: it
/// lacks nothing there, and will lack what others have in the windows of the right one.
fn has_turned(series: &Series, unix_ms: UnixMs) -> bool {
    series.current() <= series.spec().window_at(unix_ms.after(bounds::MAX_DRIFT))
}

/// Lists the differences between the gauge caches of the cluster and the ledger: each is a window that does not end.
pub(crate) fn pending_gauges(cluster: &Cluster, open: &mut Open) {
    for (at, spec) in cluster.gauge_specs.iter().enumerate() {
        let mut keepers = Vec::new();
        for node in &cluster.nodes {
            let Some(process) = &node.process else { continue };
            let window = Arc::clone(process.replica.gauge_caches()[at].structure());
            let held = window.held().into_iter().map(|held| (held.actor.clone(), held)).collect();
            keepers.push(Keeper { node, process, window, held });
        }
        for keeper in keepers.iter().filter(|_| spec.replicate) {
            copies(cluster, &keepers, keeper, &mut |what| tell(open, keeper, &what));
        }
        counts(cluster, &keepers, &mut |keeper, what| tell(open, keeper, &what));
    }
}

fn tell(open: &mut Open, keeper: &Keeper<'_>, what: &str) {
    open.say(|| format!("{} in {}: {what}", keeper.node.label, name(keeper)));
}

fn name<'a>(keeper: &'a Keeper<'_>) -> &'a StructureName {
    &keeper.window.spec().name
}

/// A node that keeps a window has the rows of every other node that keeps it. Of processes that have ended, it has as much as
/// any other node.
fn copies(cluster: &Cluster, keepers: &[Keeper<'_>], keeper: &Keeper<'_>, say: &mut impl FnMut(String)) {
    let truth = cluster.truth.borrow();
    let ours = &keeper.held;
    // If the node where an actor was forgotten ended before it sent the tombstone, the actor is not void: no running node knows
    // it.
    let voids = |other: &Keeper<'_>, actor: &Actor| other.process.replica.is_void(actor);
    let is_void = |actor: &Actor| truth.has_gone_on(actor) || keepers.iter().any(|other| voids(other, actor));
    let mut furthest: BTreeMap<&Actor, (Version, &Keeper<'_>)> = BTreeMap::new();
    for other in keepers {
        for (actor, held) in other.held.iter().filter(|(_, held)| held.applied > Version::ZERO) {
            let owner = other.process.actor == *actor;
            let known = furthest.get(actor);
            if owner || known.is_none_or(|(have, by)| by.process.actor != *actor && *have < held.applied) {
                furthest.insert(actor, (held.applied, other));
            }
        }
    }
    for (actor, (have, by)) in furthest.into_iter().filter(|(actor, _)| **actor != keeper.process.actor) {
        if is_void(actor) {
            continue;
        }
        match ours.get(actor) {
            None => say(format!("knows nothing of {actor}, {} does", by.node.label)),
            Some(held) if by.process.actor == *actor => compare(&keeper.window, held, &by.window, say),
            Some(held) if held.applied != have => {
                say(format!("has {} of {actor}, {} has {have}", held.applied, by.node.label));
            }
            Some(_) if cluster.messages == Messages::Spoilt => {}
            Some(held) => {
                let sorted = |window: &Structure| window.rows_of(actor).into_iter().collect::<BTreeMap<_, _>>();
                if held.since == Version::ZERO && sorted(&keeper.window) != sorted(&by.window) {
                    say(format!("has other rows of {actor} than {}", by.node.label));
                }
            }
        }
    }
    if let Some(void) = ours.keys().find(|actor| is_void(actor)) {
        say(format!("still has {void}, which is void"));
    }
    let mut runs = BTreeSet::new();
    // A link delivers in order, and the tombstone comes first. In this simulation a message can be lost on a link that stays
    // up. Then the process sends it again, unless it has ended by then, and in that case no running node knows of it.
    let lost = ["message lost", "message cut off"].iter().any(|mark| cluster.trace.marked(mark) > 0);
    let unsent = |run| lost && truth.is_over(run);
    for actor in ours.iter().filter(|(_, held)| held.rows > 0).map(|(actor, _)| actor) {
        if truth.run_of(actor).is_some_and(|run| !runs.insert(run) && !unsent(run)) {
            say(format!("counts {actor} beside another run of the same process"));
        }
    }
}

/// Reads match the ledger exactly: for each running process that keeps the window its acknowledged operations, for other
/// processes what the node knows of them, and both minus what the removals had seen.
fn counts(cluster: &Cluster, keepers: &[Keeper<'_>], say: &mut impl FnMut(&Keeper<'_>, String)) {
    let Some(name) = keepers.first().map(name).filter(|_| cluster.messages == Messages::Intact) else { return };
    let truth = cluster.truth.borrow();
    // Processes whose removals are certainly known here, unless rows were voided that one of the removals relied on.
    let certain = |run| !truth.disturbed() && keepers.iter().any(|other| other.process.run == run);
    let (at_least, at_most) = (truth.all_removed(name, certain), truth.all_removed(name, |_| true));
    for keeper in keepers.iter().filter(|keeper| keeper.process.leaving.is_none()) {
        let rows = Rows::of(&keeper.window);
        let mut sums: BTreeMap<Vec<u8>, i64> = BTreeMap::new();
        let mut add = |key: &[u8], actor: &Actor, totals: Totals| {
            let (removed, note) = (rows.removed(key, actor), key::cleared(actor, key));
            let of = |all: &BTreeMap<&[u8], Totals>| all.get(note.as_slice()).copied().unwrap_or_default();
            let (at_least, at_most) = (of(&at_least), of(&at_most));
            if removed != most(removed, at_least) || at_most != most(removed, at_most) {
                let what = format!("between {at_least:?} and {at_most:?} were");
                say(keeper, format!("{removed:?} are removed of {key:02x?} of {actor}, {what}"));
            }
            *sums.entry(key.to_vec()).or_default() += value(less(totals, removed));
        };
        for (actor, counted) in &rows.counted {
            match keepers.iter().find(|other| other.process.actor == *actor) {
                Some(owner) => {
                    let tracks = truth.tracks(owner.process.run, name).filter(|(key, _)| !key::is_cleared(key));
                    for (key, track) in tracks {
                        let base = truth.base(owner.process.run, actor, name, key);
                        add(key, actor, less(track.totals(), base));
                    }
                }
                None => counted.iter().for_each(|(key, totals)| add(key, actor, *totals)),
            }
        }
        for (key, sum) in sums {
            let read = keeper.window.count(&key, tallymesh_engine::Time(0)).total;
            if read != sum {
                say(keeper, format!("reads {read} for {key:02x?}, the ledger says {sum}"));
            }
        }
    }
}

/// What a series reads for all addresses is the sum of what its windows read key by key.
fn blocks(node: &Node, series: &Series, open: &mut Open) {
    if series.spec().kind != Kind::CidrTree {
        return;
    }

    let now = tallymesh_engine::Time(0);
    let sums = series.windows().into_iter().map(|window| {
        let rows = Rows::of(&window);
        rows.keys().into_iter().map(|key| window.count(key, now).total).sum::<i64>()
    });
    let sums: Vec<i64> = sums.collect();
    let every = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap_or_else(|_| unreachable!("{net} is a net")));
    let read = every.map(|net| series.counts(Scope::Net(net), now));
    let read: Vec<i64> = read[0].iter().zip(&read[1]).map(|(v4, v6)| v4.total + v6.total).collect();
    if read != sums {
        let name = &series.spec().name;
        open.say(|| format!("{} reads {read:?} for all of {name}, its keys say {sums:?}", node.label));
    }
}
