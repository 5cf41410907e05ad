//! What must hold of one process at every moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use tallymesh_engine::{Structure, Time, Usage};
use tallymesh_schemas::{Actor, Cell, Incarnation, NodeName, StructureId, StructureName, UnixMs};

use crate::check::histories::{each_row, is_limited, rows_of_another};
use crate::check::seen::{EVERYTHING, Right, SeenPart, SeenRow};
use crate::check::windows;
use crate::network::Messages;
use crate::node::Process;
use crate::truth::Truth;

/// The most entries that a link keeps for one actor in one structure: one in each of its maps.
const ENTRIES_A_PART: usize = 8;

/// Whether a delta may have replaced a copy by one that lacks rows. When a snapshot of a run that is gone ends, the node takes
/// the furthest of two incomplete copies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    No,
    Maybe,
}

/// Checks the rows of an actor after a delta: each row is a state that its owner had, and none goes back. Rows with versions
/// that were known before must be unchanged; every [`EVERYTHING`]th check verifies that.
pub(crate) fn after_delta(
    process: &mut Process,
    truth: &Truth,
    structure: StructureId,
    actor: &Actor,
    replaced: Replaced,
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
    if held.applied < seen.applied && truth.has_later_run(actor) {
        // The node dropped its rows when it learned of a later run. They return because the owner says that it is in this run.
        *seen = SeenPart::default();
    }
    if held.applied < seen.applied {
        return Err(format!("{name}: of {actor} it knew up to {}, now {}", seen.applied, held.applied));
    }
    let known = std::mem::replace(&mut seen.applied, held.applied);
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
        let look = seen.looks;
        let last = seen.row(key);
        last.look = look;
        if last.row == *row {
            return Ok(());
        }
        // An earlier state that has passed may not return.
        let position = history.position(key, row, last.position)?;
        let was = std::mem::replace(last, SeenRow { row: *row, position, look });
        let back = || format!("{name}: a row of {actor} went back from version {} to {}", was.row.version, row.version);
        if row.version < was.row.version { Err(back()) } else { Ok(()) }
    })?;
    if !everything {
        return Ok(());
    }
    // A row that is gone was retired: its owner counted nothing there, then or later.
    let retired = |key: &[u8], last: &SeenRow| {
        !events && (replaced == Replaced::Maybe || truth.was_zero(actor, name, key, last.position))
    };
    let looks = seen.looks;
    if let Some((key, last)) = seen.rows.iter().find(|(key, last)| last.look < looks && !retired(key, last)) {
        let since = last.row.version;
        return Err(format!("{name}: {actor} counts {key:02x?} since version {since}, and that row is gone"));
    }
    seen.rows.retain(|_, last| last.look == looks);
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
pub fn process(process: &Process, truth: &Truth, messages: Messages) -> Result<(), String> {
    let mut parts = 0;
    for structure in process.structures.values().chain(process.windows()) {
        self::structure(process, truth, structure, messages, None)?;
        parts += structure.held().len();
    }
    links(process, parts, truth)
}

/// [`process`], limited to what has changed since the last check passed.
pub(crate) fn changes(process: &mut Process, truth: &Truth, messages: Messages) -> Result<(), String> {
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
            self::structure(process, truth, structure, messages, right)?;
            // Pending changes are committed now.
            now = state(structure.held());
        }
        parts += now.held.len();
        found_right.insert(id, now);
    }
    looked.right = found_right;
    process.looked = looked;
    within_budget(process)?;
    if everything {
        counted(process)?;
    }
    links(process, parts, truth)
}

/// The node holds at most as many keys as it may.
fn within_budget(process: &Process) -> Result<(), String> {
    let Usage { used, max } = process.replica.budget().keys();
    match max.filter(|max| used > *max) {
        Some(max) => Err(format!("{used} keys are in use, more than the budget of {max}")),
        None => Ok(()),
    }
}

/// The node counts exactly the keys that are in memory. This checker keeps a window that the node has dropped in memory, until
/// a series turns next.
fn counted(process: &Process) -> Result<(), String> {
    let replica = &process.replica;
    let used = replica.budget().keys().used;
    let mut there = replica.structures();
    let is_dropped = |window: &&Arc<Structure>| !there.iter().any(|known| Arc::ptr_eq(known, window));
    let dropped: Vec<_> = process.windows().iter().filter(is_dropped).cloned().collect();
    there.extend(dropped);
    let structures: usize = there.iter().map(|structure| structure.keys()).sum();
    let caches: usize = replica.caches().iter().map(|cache| cache.len(UnixMs::ZERO)).sum();
    if used != (structures + caches) as u64 {
        return Err(format!("{used} keys are in use, and there are {structures} in structures and {caches} in caches"));
    }
    Ok(())
}

fn structure(
    process: &Process,
    truth: &Truth,
    structure: &Structure,
    messages: Messages,
    right: Option<&Right>,
) -> Result<(), String> {
    let name = &structure.spec().name;
    structure.audit().map_err(|what| format!("{name}: {what}"))?;
    derivations(process, structure)?;
    if is_limited(structure) {
        return Ok(());
    }
    if structure.spec().class.cell() == Cell::Events {
        windows::window(process, truth, structure, messages, right)?;
        return windows::lasts(process, truth, structure);
    }
    own_part(process, truth, name, structure)?;
    let held = structure.held();
    let mut others = held.iter().filter(|held| messages == Messages::Intact && held.actor.node != process.actor.node);
    others.try_for_each(|held| rows_of_another(truth, structure, held, right))
}

/// The total that an inspection derives from the rows of a key equals the count that a read returns.
fn derivations(process: &Process, structure: &Structure) -> Result<(), String> {
    let (now, standings) = (Time(0), process.replica.standings(Time(0)));
    for view in structure.key_views(None, now, &|actor| standings.of(actor)).keys {
        let read = structure.count(&view.raw, now).total;
        if view.total != read {
            let (name, key, total) = (&structure.spec().name, &view.key, view.total);
            return Err(format!("{name}: the rows of {key} add up to {total}, and a read says {read}: {view:?}"));
        }
    }
    Ok(())
}

fn links(process: &Process, parts: usize, truth: &Truth) -> Result<(), String> {
    // For each cache and link there are four contexts. A context may name each run that ever existed.
    let parts = parts + 4 * process.caches.len() * truth.runs();
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
