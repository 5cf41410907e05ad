//! The list of what is pending, and the comparison of a copy with its owner's rows.

use std::collections::BTreeMap;

use tallymesh_engine::{Held, Row, Structure};
use tallymesh_schemas::Version;

/// Lines that a report lists: enough to see what is wrong.
pub(crate) const NAMED: usize = 8;

/// The pending differences, as lines for people, up to a requested number.
pub(crate) struct Open {
    lines: Vec<String>,
    most: usize,
}

impl Open {
    /// An empty list for up to `most` lines.
    pub(crate) fn new(most: usize) -> Self {
        Self { lines: Vec::new(), most }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines
    }

    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if !self.is_full() {
            self.lines.push(what());
        }
    }

    /// Whether the list is full, so that further search is useless.
    pub(crate) fn is_full(&self) -> bool {
        self.lines.len() >= self.most
    }
}

/// Compares a copy with its owner's rows.
pub(crate) fn compare(copy: &Structure, held: &Held, owner: &Structure, say: &mut impl FnMut(String)) {
    let Some(own) = owner.held().into_iter().find(|own| own.actor == held.actor) else { return };
    if held.applied != own.applied {
        return say(format!("has {} up to {}, it is at {}", held.actor, held.applied, own.applied));
    }
    let sorted = |structure: &Structure| -> BTreeMap<Vec<u8>, Row> {
        structure.rows_of(&held.actor).into_iter().filter(|(_, row)| row.version > held.since).collect()
    };
    let (theirs, ours) = (sorted(owner), sorted(copy));
    if theirs != ours {
        let differ = theirs.iter().filter(|(key, row)| ours.get(*key) != Some(row)).count();
        let more = ours.keys().filter(|key| !theirs.contains_key(*key)).count();
        say(format!("{} rows of {} differ and {more} are none of its", differ, held.actor));
    } else if held.since == Version::ZERO && held.fingerprint != own.fingerprint {
        say(format!("has the rows of {}, but another fingerprint", held.actor));
    }
}
