//! The windows of series: what must hold of each at every moment, and what must hold after all faults are healed.
//!
//! # What can be demanded
//! Of a running process, exact counts: the acknowledged operations, minus what the acknowledged removals had seen. Of a process
//! that has ended, what other nodes received before it ended: a copy that a node was seen to hold may not get lost while its
//! window lasts, and all copies are equal in the end. A node with an identity conflict voids runs, and some of those may belong
//! to the other process. Their counts may be gone, so the checker demands only that no node counts what they never had, that no
//! process counts under two names, and that all nodes agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallymesh_engine::{Held, Row, Scope, Series, Structure};
use tallymesh_schemas::{Actor, Kind, StructureName, Window, bounds, key};

use super::converged::{Open, compare};
use super::{Right, SeenPart, rows_of_another};
use crate::cluster::Cluster;
use crate::node::{Node, Process};
use crate::truth::{Totals, Truth, less, most};

/// A node's rows of a window, and their sums.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    counted: BTreeMap<Actor, BTreeMap<Vec<u8>, Totals>>,
    /// What was removed of each actor's totals: the maximum over all rows.
    removed: BTreeMap<Vec<u8>, BTreeMap<Actor, Totals>>,
    /// The reset rows that state this, by the actor that wrote them.
    notes: BTreeMap<Actor, BTreeMap<Vec<u8>, Totals>>,
}

fn value((added, removed): Totals) -> i64 {
    added.wrapping_sub(removed) as i64
}

impl Rows {
    pub(crate) fn of(window: &Structure) -> Self {
        let mut rows = Self::default();
        for held in window.held() {
            rows.read(window, held.actor, &mut BTreeSet::new());
        }
        rows
    }

    /// Reads the rows of an actor again, and adds the changed keys to `changed`. Returns whether no row is gone and no reset
    /// row states less than before.
    fn read(&mut self, window: &Structure, actor: Actor, changed: &mut BTreeSet<Vec<u8>>) -> bool {
        let (mut rows, mut noted, mut fewer) = (0, 0, false);
        let notes = self.notes.entry(actor.clone()).or_default();
        let counted = self.counted.entry(actor.clone()).or_default();
        window.each_row_of(&actor, |bytes, Row { added, removed, .. }| {
            let totals = (*added, *removed);
            match key::to_cleared(window.kind(), bytes) {
                Ok((whose, of)) => {
                    noted += 1;
                    let before = notes.get(bytes).copied();
                    if before == Some(totals) {
                        return;
                    }
                    fewer |= before.is_some_and(|before| most(before, totals) != totals);
                    notes.insert(bytes.to_vec(), totals);
                    let known = self.removed.get_mut(of).and_then(|actors| actors.get_mut(&whose));
                    let seen = most(known.as_ref().map_or((0, 0), |known| **known), totals);
                    if known.as_ref().is_none_or(|known| **known != seen) {
                        self.removed.entry(of.to_vec()).or_default().insert(whose, seen);
                        changed.insert(of.to_vec());
                    }
                }
                Err(_) => {
                    rows += 1;
                    if counted.get(bytes) != Some(&totals) {
                        counted.insert(bytes.to_vec(), totals);
                        changed.insert(bytes.to_vec());
                    }
                }
            }
        });
        counted.len() == rows && notes.len() == noted && !fewer
    }

    /// Updates rows that were read at state `was` to state `is`. Returns the changed keys; `None` means all of them.
    pub(crate) fn update(&mut self, window: &Structure, was: &[Held], is: &[Held]) -> Option<BTreeSet<Vec<u8>>> {
        let before: BTreeMap<_, _> = was.iter().map(|held| (&held.actor, held)).collect();
        // Where only versions were added, no row is gone.
        let grown = |is: &Held| {
            let Some(was) = before.get(&is.actor) else { return !is.replacing };
            let same = |held: &Held| (held.since, held.low_water, held.counts, held.replacing);
            same(was) == same(is) && was.applied <= is.applied && was.rows <= is.rows
        };
        let there = is.iter().filter(|is| before.contains_key(&is.actor)).count();
        let mut changed = BTreeSet::new();
        let mut others = is.iter().filter(|is| before.get(&is.actor) != Some(is));
        let grown = there == was.len()
            && is.iter().all(grown)
            && others.all(|is| self.read(window, is.actor.clone(), &mut changed));
        if !grown {
            *self = Self::of(window);
        }
        grown.then_some(changed)
    }

    fn removed(&self, key: &[u8], actor: &Actor) -> Totals {
        self.removed.get(key).and_then(|actors| actors.get(actor)).copied().unwrap_or_default()
    }

    /// The count of each key, and `own`'s part of it.
    fn counts(&self, own: &Actor) -> BTreeMap<&[u8], (i64, i64)> {
        let mut counts: BTreeMap<&[u8], (i64, i64)> = BTreeMap::new();
        for (actor, rows) in &self.counted {
            for (key, totals) in rows {
                let count = value(less(*totals, self.removed(key, actor)));
                let sum = counts.entry(key).or_default();
                *sum = (sum.0 + count, sum.1 + if actor == own { count } else { 0 });
            }
        }
        counts
    }

    /// The totals of each actor's row of a key, and what was removed of them.
    pub(crate) fn of_key(&self, key: &[u8]) -> Vec<(&Actor, Totals, Totals)> {
        let rows = self.counted.iter().filter_map(|(actor, rows)| Some((actor, *rows.get(key)?)));
        rows.map(|(actor, totals)| (actor, totals, self.removed(key, actor))).collect()
    }

    /// Whether any actor has counted a key.
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.counted.values().any(|rows| rows.contains_key(key))
    }

    pub(crate) fn keys(&self) -> BTreeSet<&[u8]> {
        self.counted.values().flat_map(|rows| rows.keys().map(Vec::as_slice)).collect()
    }
}

/// Checks what must hold of a window at every moment: its own rows match the acknowledged operations, every other row is a
/// state that its owner had, and reads match the rows. So reads stay within what the ledger allows.
pub(super) fn window(
    process: &Process,
    truth: &Truth,
    window: &Structure,
    spoilt: bool,
    right: Option<&Right>,
) -> Result<(), String> {
    let name = &window.spec().name;
    let fail = |what: String| Err(format!("{name}: {what}"));
    let own: BTreeMap<_, _> = window.rows_of(&process.actor).into_iter().collect();
    for (key, track) in truth.tracks(process.run, name) {
        let totals = own.get(key).map_or((0, 0), |row| (row.added, row.removed));
        if key::is_cleared(key) {
            // If another node had removed it already, this node need not state it.
            if track.position(totals, (0, 0), 0).is_none() {
                return fail(format!("it removed up to {:?} of {key:02x?}, its row says {totals:?}", track.totals()));
            }
            continue;
        }
        let base = truth.base(process.run, &process.actor, name, key);
        let zero = totals == (0, 0) && value(less(track.totals(), base)) == 0;
        if !zero && track.position(totals, base, track.len()) != Some(track.len()) {
            let counted = track.totals();
            return fail(format!(
                "it counted {counted:?} of {key:02x?}, left {base:?} behind, its row says {totals:?}"
            ));
        }
    }
    if let Some(key) = own.keys().find(|key| truth.track(process.run, name, key).is_none()) {
        return fail(format!("it never counted {key:02x?}"));
    }
    for held in window.held().iter().filter(|held| !spoilt && held.actor != process.actor) {
        rows_of_another(truth, window, held, right)?;
    }
    // Removals of another process with the same name also reduce what this process has counted since, until it is another run.
    if process.leaving.is_none() && !truth.contested(&process.actor) {
        let rows = Rows::of(window);
        for (key, (all, local)) in rows.counts(&process.actor) {
            let count = window.count(key, tallymesh_engine::Time(0));
            if (count.total, count.local) != (all, local) {
                return fail(format!("{count:?} is read for {key:02x?}, the rows say {all} and {local} of its own"));
            }
        }
    }
    Ok(())
}

/// What a node was seen to hold of an actor in a window may not be lost while the window exists, unless the actor is void.
pub(super) fn lasts(process: &Process, truth: &Truth, window: &Structure) -> Result<(), String> {
    let held = window.held();
    for ((_, actor), SeenPart { have, .. }) in process.seen.parts_of(window.id()) {
        let has = held.iter().find(|held| held.actor == *actor).map_or(0, |held| held.applied);
        if has < *have && !truth.may_be_void(actor) {
            let name = &window.spec().name;
            return Err(format!("{name}: of {actor} it knew up to {have}, now {has}, and the window still lasts"));
        }
    }
    Ok(())
}

/// A process has renewed: it states its counts again under the new run, minus exactly what was removed of the earlier run.
/// Records what was left behind.
pub(crate) fn taken_along(process: &Process, was: &Actor, truth: &mut Truth) -> Result<(), String> {
    for window in process.windows() {
        let name = &window.spec().name;
        let rows = Rows::of(window);
        let own = rows.counted.get(&process.actor);
        let mut bases = Vec::new();
        for (key, track) in truth.tracks(process.run, name).filter(|(key, _)| !key::is_cleared(key)) {
            let before = truth.base(process.run, was, name, key);
            let had = less(track.totals(), before);
            let Some(totals) = own.and_then(|own| own.get(key)) else {
                let removed = rows.removed(key, was);
                let Some(gone) = all_gone(truth, (name, key, was), had, removed) else {
                    let what = format!("of {had:?} of {key:02x?}, with {removed:?} removed");
                    return Err(format!("{name}: {what}, nothing went along"));
                };
                bases.push((key.to_vec(), (before.0 + gone.0, before.1 + gone.1)));
                continue;
            };
            let left = less(had, *totals);
            let at_most = truth.removed(name, key, was, |_| true);
            // The process may have forgotten a key that counted nothing.
            let zero = left.0.saturating_sub(at_most.0).max(left.1.saturating_sub(at_most.1));
            let at_least = truth.removed(name, key, was, |run| run == process.run);
            let short = left.0 < at_least.0.min(had.0) || left.1 < at_least.1.min(had.1);
            let zeros = (before.0 + zero, before.1 + zero);
            let was_zero = zero == 0 || left.0.min(left.1) >= zero && track.position((0, 0), zeros, 1).is_some();
            if totals.0 > had.0 || totals.1 > had.1 || !was_zero || (short && !truth.disturbed()) {
                return Err(format!(
                    "{name}: {totals:?} of {had:?} of {key:02x?} went along; between {at_least:?} and {at_most:?} were removed"
                ));
            }
            bases.push((key.to_vec(), (before.0 + left.0, before.1 + left.1)));
        }
        for (key, base) in bases {
            truth.left_behind(process.run, name, &key, base);
        }
    }
    Ok(())
}

/// What was subtracted from a run's totals of a key, if the process renewed without a row for that key. The remaining totals
/// then count nothing. The result is the removal that this node knows. If the node that removed was forgotten in the same
/// message, it is the smallest removal beyond it that other nodes were seen to make. Remaining totals that count nothing may
/// have been kept, so a smaller result does not exceed the actual one.
fn all_gone(truth: &Truth, part: (&StructureName, &[u8], &Actor), had: Totals, removed: Totals) -> Option<Totals> {
    let known = (removed.0.min(had.0), removed.1.min(had.1));
    if value(less(had, known)) == 0 || !truth.disturbed() {
        return Some(known).filter(|known| value(less(had, *known)) == 0);
    }
    let known: BTreeSet<_> = truth.removals(part.0, part.1, part.2).map(|seen| most(seen, removed)).collect();
    let both = known.iter().flat_map(|(added, _)| known.iter().map(move |(_, removed)| (*added, *removed)));
    let gone = both.map(|(added, removed)| (added.min(had.0), removed.min(had.1)));
    gone.filter(|gone| value(less(had, *gone)) == 0).min()
}

/// A node that keeps a window.
struct Keeper<'a> {
    node: &'a Node,
    process: &'a Process,
    window: Arc<Structure>,
    held: BTreeMap<Actor, Held>,
}

/// Lists the differences between the windows of the cluster and the ledger.
pub(super) fn pending(cluster: &Cluster, open: &mut Open) {
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
fn has_turned(series: &Series, unix_ms: u64) -> bool {
    let drift = u64::try_from(bounds::MAX_DRIFT.as_millis()).unwrap_or(u64::MAX);
    series.current() <= series.spec().window_at(unix_ms.saturating_add(drift))
}

/// Lists the differences between the gauge caches of the cluster and the ledger: each is a window that does not end.
pub(super) fn pending_gauges(cluster: &Cluster, open: &mut Open) {
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
    let buries = |other: &Keeper<'_>, actor: &Actor| other.process.replica.is_void(actor);
    let is_void = |actor: &Actor| truth.has_gone_on(actor) || keepers.iter().any(|other| buries(other, actor));
    let mut furthest: BTreeMap<&Actor, (u64, &Keeper<'_>)> = BTreeMap::new();
    for other in keepers {
        for (actor, held) in other.held.iter().filter(|(_, held)| held.applied > 0) {
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
            Some(_) if cluster.spoilt => {}
            Some(held) => {
                let sorted = |window: &Structure| window.rows_of(actor).into_iter().collect::<BTreeMap<_, _>>();
                if held.since == 0 && sorted(&keeper.window) != sorted(&by.window) {
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
    let untold = |run| lost && truth.is_over(run);
    for actor in ours.iter().filter(|(_, held)| held.rows > 0).map(|(actor, _)| actor) {
        if truth.run_of(actor).is_some_and(|run| !runs.insert(run) && !untold(run)) {
            say(format!("counts {actor} beside another run of the same process"));
        }
    }
}

/// Reads match the ledger exactly: for each running process that keeps the window its acknowledged operations, for other
/// processes what the node knows of them, and both minus what the removals had seen.
fn counts(cluster: &Cluster, keepers: &[Keeper<'_>], say: &mut impl FnMut(&Keeper<'_>, String)) {
    let Some(name) = keepers.first().map(name).filter(|_| !cluster.spoilt) else { return };
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
