//! Gauge caches on simulated nodes. The ground truth records every count and every removal. This includes the removals that the
//! engine makes by itself; each of them has to be due.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use tallymesh_engine::{GaugeCache, Held, Time};
use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Actor, NodeName, StructureName};

use crate::check::rows::Rows;
use crate::truth::{RunId, Totals, Truth, less};

/// The gauge cache of a process, with what was seen of it.
#[derive(Debug, Clone)]
pub(crate) struct SimGauge {
    pub(crate) gauge: Arc<GaugeCache>,
    ages: Rc<RefCell<Ages>>,
}

/// Changed entries are read at once; once in this number of changes, all entries are read.
const READ_ALL: u64 = 16;

/// When entries have changed, from this node's view.
#[derive(Debug, Default)]
struct Ages {
    entries: BTreeMap<Vec<u8>, Age>,
    /// What the structure held at the last check: while it is the same, nothing has changed.
    held: Vec<Held>,
    rows: Rows,
    looks: u64,
    /// What this process has removed, as recorded in the ledger.
    noted: BTreeMap<Vec<u8>, Totals>,
}

/// The last change of an entry lies between these two moments: something was added at the first, and its rows have had their
/// current state since the second at the latest.
#[derive(Debug, Default)]
struct Age {
    added: Time,
    touched: Time,
    /// What remains of the counts of each node, over all its runs.
    left: BTreeMap<NodeName, Totals>,
    rows: Vec<(Totals, Totals)>,
}

/// Why an entry may be removed now.
#[derive(Debug, Clone, Copy)]
enum Due<'a> {
    /// It has expired.
    Expired,
    /// A caller asked for its removal.
    Asked(&'a [u8]),
    /// An addition to this entry made the cache too full.
    Full(&'a [u8]),
}

/// The context of a check: the process, and the time of its monotonic clock.
pub(crate) struct Look<'a> {
    pub(crate) actor: &'a Actor,
    pub(crate) run: RunId,
    pub(crate) truth: &'a RefCell<Truth>,
    pub(crate) now: Time,
    /// The same moment in the simulation's time.
    pub(crate) at: Time,
    /// Whether the rows are not reliable: rows that no node ever had may exist; the process is leaving, so its counts may be
    /// missing; or removals of another process with the same name may apply.
    pub(crate) unsettled: bool,
}

impl SimGauge {
    pub(crate) fn new(gauge: Arc<GaugeCache>) -> Self {
        Self { gauge, ages: Rc::default() }
    }

    fn name(&self) -> &StructureName {
        &self.gauge.structure().spec().name
    }

    pub(crate) fn add(&self, key: &[u8], n: i64, look: &Look<'_>) -> Result<(), String> {
        self.look(look)?;
        self.gauge.add(key, n, look.now).map_err(|error: KeyError| error.to_string())?;
        look.truth.borrow_mut().record_events(look.run, self.name(), key, n);
        look.truth.borrow_mut().note_change(self.name(), key, look.at);
        self.observe(look, Due::Full(key))
    }

    pub(crate) fn remove(&self, key: &[u8], look: &Look<'_>) -> Result<bool, String> {
        self.look(look)?;
        let there = self.gauge.remove(key, look.now).map_err(|error: KeyError| error.to_string())?;
        self.observe(look, Due::Asked(key)).map(|()| there)
    }

    /// Records what has changed since the last check, and compares reads with it.
    pub(crate) fn look(&self, look: &Look<'_>) -> Result<(), String> {
        self.observe(look, Due::Expired)
    }

    fn observe(&self, look: &Look<'_>, due: Due<'_>) -> Result<(), String> {
        // The engine notices changes when it is queried.
        self.gauge.len(look.now);
        let held = self.gauge.structure().held();
        let ages = &mut *self.ages.borrow_mut();
        if ages.held == held {
            return Ok(());
        }
        let changed = ages.rows.update(self.gauge.structure(), &ages.held, &held);
        ages.held = held;
        ages.looks += 1;
        let changed = changed.unwrap_or_else(|| {
            let keys = ages.rows.keys().into_iter().chain(ages.entries.keys().map(Vec::as_slice));
            keys.map(<[u8]>::to_vec).collect()
        });
        let removed = self.note_removals(look, &mut ages.noted, &ages.rows);
        if !look.unsettled {
            self.all_due(ages, &removed, look, due)?;
        }
        note_changes(ages, &changed, look.now);
        if look.unsettled {
            return Ok(());
        }
        let all = ages.looks.is_multiple_of(READ_ALL).then(|| ages.rows.keys());
        let mut keys = changed.iter().map(Vec::as_slice).chain(all.into_iter().flatten());
        keys.try_for_each(|key| self.reads(ages, key, look))
    }

    /// Whether no node has changed an entry within its time to live, whenever the changes arrived here.
    fn is_old(&self, key: &[u8], look: &Look<'_>) -> bool {
        let ttl = self.gauge.spec().ttl;
        let truth = look.truth.borrow();
        // Late rows are dated by wall clocks, and the others by a clock that may run slightly faster.
        let may_be_off = truth.clock_error();
        let since = truth.changed(self.name(), key).map(|changed| look.at.since(changed).mul_f64(1.05));
        !ttl.is_zero() && since.is_some_and(|since| since.saturating_add(may_be_off) >= ttl)
    }

    /// Records in the ledger what this process has removed since the last check. Returns the keys.
    fn note_removals(&self, look: &Look<'_>, noted: &mut BTreeMap<Vec<u8>, Totals>, rows: &Rows) -> Vec<Vec<u8>> {
        let structure = self.gauge.structure();
        let mut removed = Vec::new();
        structure.each_row_of(look.actor, |note, row| {
            let totals = (row.added, row.removed);
            if noted.get(note) == Some(&totals) {
                return;
            }
            let Ok((whose, key)) = key::to_cleared(structure.kind(), note) else { return };
            noted.insert(note.to_vec(), totals);
            let mut truth = look.truth.borrow_mut();
            let known = truth.removed(self.name(), key, &whose, |run| run == look.run);
            if known != totals {
                truth.record_removal(look.run, self.name(), key, &whose, totals);
                removed.push(key.to_vec());
            }
        });
        removed.retain(|key: &Vec<u8>| rows.has(key));
        removed
    }

    /// Checks that the removed entries were due.
    fn all_due(&self, ages: &Ages, removed: &[Vec<u8>], look: &Look<'_>, due: Due<'_>) -> Result<(), String> {
        let now = look.now;
        if removed.is_empty() {
            return Ok(());
        }
        let (ttl, most) = (self.gauge.spec().ttl, self.gauge.spec().max_elements);
        let expired = |age: &Age| !ttl.is_zero() && now.since(age.added) >= ttl;
        let added_now = |key: &Vec<u8>| matches!(due, Due::Full(added) if added == key);
        let left = ages.entries.iter().filter(|(key, _)| !removed.contains(key) && !added_now(key));
        let oldest_left = left.map(|(_, age)| age.touched).min();
        for key in removed {
            let Some(age) = ages.entries.get(key) else { continue };
            let is_due = match due {
                _ if expired(age) || self.is_old(key, look) => true,
                Due::Expired => false,
                Due::Asked(asked) => asked == key,
                Due::Full(added) => {
                    let there = ages.entries.len() + usize::from(!ages.entries.contains_key(added));
                    let full = most.is_some_and(|most| there as u64 > most.get());
                    full && key != added && oldest_left.is_none_or(|oldest| age.added <= oldest)
                }
            };
            if !is_due {
                let name = self.name();
                return Err(format!("{name}: {} was removed, and was not due: {age:?} at {now:?}", key.escape_ascii()));
            }
        }
        Ok(())
    }

    /// A read returns what remains of all counts, until the entry has expired.
    fn reads(&self, ages: &Ages, key: &[u8], look: &Look<'_>) -> Result<(), String> {
        let now = look.now;
        let ttl = self.gauge.spec().ttl;
        let expired = |changed: Time| !ttl.is_zero() && now.since(changed) >= ttl;
        let read = self.gauge.get(key, now);
        let age = ages.entries.get(key);
        let count = age.map_or(0, |age| {
            age.left.values().fold(0_i64, |sum, left| sum.wrapping_add(left.0.wrapping_sub(left.1) as i64))
        });
        let right = match (read, age) {
            (Some(read), Some(age)) => read == count && !expired(age.touched),
            (None, Some(age)) => expired(age.added) || self.is_old(key, look),
            (None, None) => true,
            (Some(_), None) => false,
        };
        if right {
            return Ok(());
        }
        let (name, key) = (self.name(), key.escape_ascii());
        Err(format!("{name}: {key} reads {read:?} at {now:?}, the rows say {count} of {age:?}"))
    }
}

fn note_changes(ages: &mut Ages, changed: &BTreeSet<Vec<u8>>, now: Time) {
    for key in changed {
        let parts = ages.rows.of_key(key);
        let mut left: BTreeMap<NodeName, Totals> = BTreeMap::new();
        for (actor, totals, removed) in &parts {
            let (added, taken) = less(*totals, *removed);
            let sum = left.entry(actor.node.clone()).or_default();
            *sum = (sum.0.wrapping_add(added), sum.1.wrapping_add(taken));
        }
        left.retain(|_, left| *left != (0, 0));
        let mut age = ages.entries.remove(key).unwrap_or_default();
        if left.is_empty() {
            continue;
        }
        let was = |node: &NodeName| age.left.get(node).copied().unwrap_or_default();
        if left.iter().any(|(node, (added, removed))| *added > was(node).0 || *removed > was(node).1) {
            age.added = now;
        }
        let parts: Vec<_> = parts.into_iter().map(|(_, totals, removed)| (totals, removed)).collect();
        if age.rows != parts {
            (age.touched, age.rows) = (now, parts);
        }
        age.left = left;
        ages.entries.insert(key.clone(), age);
    }
}
