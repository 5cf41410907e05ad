//! The windows of series: what must hold of each at every moment, and what must hold after all faults are healed.
//!
//! # What can be demanded
//! Of a running process, exact counts: the acknowledged operations, minus what the acknowledged removals had seen. Of a process
//! that has ended, what other nodes received before it ended: a copy that a node was seen to hold may not get lost while its
//! window lasts, and all copies are equal in the end. A node with an identity conflict voids runs, and some of those may belong
//! to the other process. Their counts may be gone, so the checker demands only that no node counts what they never had, that no
//! process counts under two names, and that all nodes agree.

use std::collections::{BTreeMap, BTreeSet};

use tallymesh_engine::Structure;
use tallymesh_schemas::{Actor, StructureName, Version, key};

use crate::check::histories::rows_of_another;
use crate::check::rows::{Rows, value};
use crate::check::seen::{Right, SeenPart};
use crate::network::Messages;
use crate::node::Process;
use crate::truth::{Totals, Truth, less, most};

/// Checks what must hold of a window at every moment: its own rows match the acknowledged operations, every other row is a
/// state that its owner had, and reads match the rows. So reads stay within what the ledger allows.
pub(crate) fn window(
    process: &Process,
    truth: &Truth,
    window: &Structure,
    messages: Messages,
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
    for held in window.held().iter().filter(|held| messages == Messages::Intact && held.actor != process.actor) {
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
pub(crate) fn lasts(process: &Process, truth: &Truth, window: &Structure) -> Result<(), String> {
    let held = window.held();
    for ((_, actor), SeenPart { applied, .. }) in process.seen.parts_of(window.id()) {
        let has = held.iter().find(|held| held.actor == *actor).map_or(Version::ZERO, |held| held.applied);
        if has < *applied && !truth.may_be_void(actor) {
            let name = &window.spec().name;
            return Err(format!("{name}: of {actor} it knew up to {applied}, now {has}, and the window still lasts"));
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
