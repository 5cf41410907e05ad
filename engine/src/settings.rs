//! Settings: each node states its configuration, and every node reports the differences.
//!
//! Objects, series, throttles and permits mean the same on all nodes only if all nodes have the same configuration. Each
//! node writes one row for each of its settings into a replicated structure. The key of the row is the setting's name and
//! value. A node compares its settings with those of live nodes. Settings enforce nothing: hard limits themselves compare
//! what their proof needs, before they share anything.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tallymesh_schemas::bound::{self, Bound};
use tallymesh_schemas::{NodeName, StructureId, StructureSpec, bounds};

use crate::counter::structure::Structure;
use crate::counter::watch::Watch;
use crate::difference::Difference;
use crate::replica::Replica;
use crate::replica::report::StructureError;
use crate::time::Time;
use crate::wake::Wake;

/// Time between two comparisons.
const COMPARE: Duration = Duration::from_secs(1);

/// Number of differences that are reported.
const DIFFERENCES: usize = 64;

/// Number of reported differences that are remembered.
const REPORTED: usize = 1024;

/// The longest value in bytes. A hash replaces a longer value.
const VALUE_BYTES: usize = 192;

/// This node's settings, and the comparison with those of other nodes.
pub struct Settings {
    node: NodeName,
    structure: Arc<Structure>,
    watch: Arc<Watch>,
    /// True when a row has changed since the last comparison.
    changed: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// This node's settings: value by name.
    ours: BTreeMap<String, String>,
    reported: BTreeSet<Difference>,
    compare_at: Time,
    tally: bound::Tally,
}

impl Settings {
    /// Replicates the structure of the settings. `wake` as for [`Replica::replicate`].
    ///
    /// # Errors
    /// As [`Replica::replicate`].
    pub fn replicate(replica: &mut Replica, wake: Wake) -> Result<Self, StructureError> {
        let structure = replica.replicate(StructureSpec::settings(), Arc::clone(&wake))?;
        let changed = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&changed);
        let watch = structure.watch(
            1,
            Arc::new(move || {
                flag.store(true, Ordering::Release);
                wake();
            }),
        );
        let node = replica.actor().node.clone();
        Ok(Self { node, structure, watch, changed, state: Mutex::default() })
    }

    /// States a setting and replaces an earlier value of the same name. O(log settings).
    pub fn set(&self, name: &str, value: &str) {
        let value = one_word(value);
        let mut state = self.state.lock();
        if state.ours.get(name) == Some(&value) {
            return;
        }
        if state.ours.len() >= bounds::SETTINGS && !state.ours.contains_key(name) {
            state.tally.reached(Bound::Settings);
            return;
        }
        // Every key from `encode` is a key of the structure's kind, and a total is far from its bound.
        let _ = self.structure.add(encode(name, &value).as_bytes(), 1);
        if let Some(before) = state.ours.insert(name.to_owned(), value) {
            let _ = self.structure.add(encode(name, &before).as_bytes(), -1);
        }
        self.changed.store(true, Ordering::Release);
    }

    /// Withdraws a setting. O(log settings).
    pub fn unset(&self, name: &str) {
        if let Some(before) = self.state.lock().ours.remove(name) {
            // As in `set`.
            let _ = self.structure.add(encode(name, &before).as_bytes(), -1);
            self.changed.store(true, Ordering::Release);
        }
    }

    /// Compares the settings if a row has changed and the last comparison is a second ago. The rows of a node that is gone do
    /// not count, so they change when it goes and when it comes back. Returns the differences that were not returned before.
    /// O(settings of all nodes) for a comparison.
    pub fn poll(&self, now: Time) -> Vec<Difference> {
        let mut state = self.state.lock();
        if now < state.compare_at || !self.changed.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let _ = self.watch.take();
        state.compare_at = now.after(COMPARE);
        let found = self.compare(&state);
        let new: Vec<_> = found.into_iter().filter(|found| !state.reported.contains(found)).collect();
        if state.reported.len() + new.len() > REPORTED {
            state.reported.clear();
        }
        state.reported.extend(new.iter().cloned());
        new
    }

    /// When to call [`Settings::poll`].
    pub fn poll_timeout(&self) -> Time {
        if self.changed.load(Ordering::Acquire) { self.state.lock().compare_at } else { Time::NEVER }
    }

    /// Compares the settings now: the differences in order, at most 64. O(settings of all nodes).
    pub fn differences(&self) -> Vec<Difference> {
        self.compare(&self.state.lock())
    }

    /// The bounds that were reached since the start.
    pub fn bounds(&self) -> Vec<bound::Report> {
        self.state.lock().tally.reports(|_| bounds::SETTINGS as u64)
    }

    /// Compares the settings that both this node and another node have. An object that only one of them has is not an error. A
    /// node that writes more rows than settings can have is not compared: its rows must not cost this node time each second.
    fn compare(&self, State { ours, tally, .. }: &State) -> Vec<Difference> {
        let (mut all, mut rows_of) = (Vec::new(), BTreeMap::new());
        for held in self.structure.held().into_iter().filter(|held| held.counts && held.actor.node != self.node) {
            *rows_of.entry(held.actor.node).or_insert(0) += held.rows;
        }
        for (node, rows) in rows_of {
            // Of a setting that changes, both rows may be here for a moment.
            if rows > 2 * bounds::SETTINGS {
                tally.reached(Bound::Settings);
                continue;
            }
            let Some(mut listing) = self.structure.list(Some(&node)) else { continue };
            // While a node changes a setting, the rows of both values may be here. Only the remaining one is a difference.
            let mut theirs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for entry in listing.entries(2 * bounds::SETTINGS) {
                if let Some((name, value)) = decode(&entry.key).filter(|_| entry.count > 0) {
                    theirs.entry(name.to_owned()).or_default().insert(value.to_owned());
                }
            }
            for (name, values) in theirs {
                let Some(here) = ours.get(&name).filter(|here| !values.contains(*here)) else { continue };
                let there = values.into_iter().next_back().unwrap_or_default();
                all.push(Difference { node: node.clone(), what: name, here: here.clone(), there });
                if all.len() == DIFFERENCES {
                    return all;
                }
            }
        }
        all
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("ours", &self.state.lock().ours).finish_non_exhaustive()
    }
}

/// A value without spaces and control characters, of bounded length.
fn one_word(value: &str) -> String {
    let good = value.len() <= VALUE_BYTES && value.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if good && !value.is_empty() { value.to_owned() } else { format!("#{:016x}", StructureId::of(value).0) }
}

/// The key of a setting. A name may contain spaces; a value does not.
fn encode(name: &str, value: &str) -> String {
    format!("{name} {value}")
}

fn decode(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.rsplit_once(' ')
}
