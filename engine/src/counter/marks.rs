//! Marks: statements about the age of the rows of a gauge cache.
//!
//! A row does not state when it changed. A node that restarts or joins receives all rows at once and must not treat them as
//! new. So each node writes a mark from time to time: "at this time the rows of this actor up to this version had changed
//! for the last time". It writes marks for its own rows, and for the rows of an actor that no longer writes marks.
//!
//! A mark is a row like all others, so nodes send, save and relay it with the rows it describes. It has the form of a row
//! that clears, for a run of its node that never exists. Nodes that do not know marks keep it, and it clears nothing. Its
//! totals are the version and the time, in milliseconds since 1970. Where several nodes write the same mark, the highest
//! value of each total holds, as for all rows that clear; that statement is true as well.

use tallymesh_schemas::{Actor, Incarnation, Version, key};

use crate::counter::ledger::Ledger;
use crate::keyspace::keys::Keys;
use crate::keyspace::totals::Totals;

/// Number of marks per actor. A new mark overwrites the oldest one; by then the rows of that mark have expired.
const PLACES: u8 = 10;

/// A row of a key that was not cleared, with what is known of its age.
#[derive(Debug)]
pub(crate) struct RowLeft {
    pub(crate) actor: Actor,
    pub(crate) version: Version,
    /// The row may be older than its arrival.
    pub(crate) inherited: bool,
    /// The row had changed for the last time by this time, in milliseconds since 1970.
    pub(crate) marked: Option<u64>,
}

/// The run and key whose count a mark would clear. That run never exists.
fn cleared(actor: &Actor, place: u8) -> (Actor, String) {
    (Actor::new(actor.node.clone(), Incarnation(0)), format!("{:x} {place}", actor.incarnation.0))
}

impl Ledger {
    /// The time by which the rows of an actor up to a version had changed for the last time, if a mark states it.
    pub(crate) fn marked(&self, actor: &Actor, version: Version) -> Option<u64> {
        let marks = (0..PLACES).map(|place| {
            let (nobody, key) = cleared(actor, place);
            self.views.resets.of(key.as_bytes(), &nobody)
        });
        let stated = marks.filter(|mark| Version(mark.added) >= version && mark.removed > 0);
        stated.map(|mark| mark.removed).min()
    }

    /// The key of the row for this node's next mark of an actor: the place whose mark has the lowest version.
    pub(crate) fn next_mark(&self, actor: &Actor) -> Vec<u8> {
        let upto = |place: &u8| {
            let (nobody, key) = cleared(actor, *place);
            self.views.resets.of(key.as_bytes(), &nobody).added
        };
        let place = (0..PLACES).min_by_key(upto).unwrap_or(0);
        let (nobody, key) = cleared(actor, place);
        key::cleared(&nobody, key.as_bytes())
    }

    /// The rows of a key that are not cleared.
    pub(crate) fn rows_left(&self, key: &[u8], keys: &Keys) -> Vec<RowLeft> {
        let rows = self
            .rows_of_key(key, keys)
            .into_iter()
            .filter(|(actor, row)| row.totals().beyond(self.views.resets.of(key, actor)) != Totals::default());
        let left = rows.map(|(actor, row)| {
            let inherited = self.actors.get(&actor).is_some_and(|actor_rows| row.version <= actor_rows.inherited);
            let marked = if inherited { self.marked(&actor, row.version) } else { None };
            RowLeft { actor, version: row.version, inherited, marked }
        });
        left.collect()
    }
}
