//! Marks: what says of the rows of a gauge cache how old they are.
//!
//! A row does not say when it changed. A node that restarts or joins gets all rows at once, and must not take them for new. So
//! a node writes a mark now and then: "at this time the rows of this actor up to this version had changed for the last time".
//! It does so for its own rows, and for those of an actor that does not do it any more.
//!
//! A mark is a row like all others, so it is told, saved and passed on with the rows that it is about. It has the form of a row
//! that clears, of a run of its node that never is: nodes that know nothing of marks keep it, and it clears nothing. Its totals
//! are the version and the time, in milliseconds since 1970. Where several nodes write the same mark, the highest of both
//! hold, as of all rows that clear, and that is true as well.

use tallymesh_schemas::{Actor, Incarnation, Version, key};

use super::Ledger;
use crate::keys::Keys;

/// Marks of one actor. The oldest one is overwritten; by then what it is about has expired.
const PLACES: u8 = 10;

/// A row of a key that is left, with what is known of its age.
#[derive(Debug)]
pub(crate) struct RowLeft {
    pub(crate) actor: Actor,
    pub(crate) version: Version,
    /// It may be older than the moment in which it came.
    pub(crate) inherited: bool,
    /// By then it had changed for the last time, in milliseconds since 1970.
    pub(crate) marked: Option<u64>,
}

/// Whose count of which key a mark would clear: nobody's.
fn cleared(actor: &Actor, place: u8) -> (Actor, String) {
    (Actor::new(actor.node.clone(), Incarnation(0)), format!("{:x} {place}", actor.incarnation.0))
}

impl Ledger {
    /// By when the rows of an actor up to a version had changed for the last time, if somebody says so.
    pub(crate) fn marked(&self, actor: &Actor, version: Version) -> Option<u64> {
        let marks = (0..PLACES).map(|place| {
            let (nobody, key) = cleared(actor, place);
            self.cleared.of(key.as_bytes(), &nobody)
        });
        marks.filter(|(upto, unix_ms)| *upto >= version && *unix_ms > 0).map(|(_, unix_ms)| unix_ms).min()
    }

    /// The key of the row for our next mark of an actor: the one with the lowest version, so far.
    pub(crate) fn next_mark(&self, actor: &Actor) -> Vec<u8> {
        let upto = |place: &u8| {
            let (nobody, key) = cleared(actor, *place);
            self.cleared.of(key.as_bytes(), &nobody).0
        };
        let place = (0..PLACES).min_by_key(upto).unwrap_or(0);
        let (nobody, key) = cleared(actor, place);
        key::cleared(&nobody, key.as_bytes())
    }

    /// The rows of a key that are not cleared already.
    pub(crate) fn rows_left(&self, key: &[u8], keys: &Keys) -> Vec<RowLeft> {
        let rows = self.rows_of_key(key, keys).into_iter().filter(|(actor, row)| {
            let cleared = self.cleared.of(key, actor);
            row.added > cleared.0 || row.removed > cleared.1
        });
        let left = rows.map(|(actor, row)| {
            let inherited = self.actor_rows(&actor).is_some_and(|actor_rows| row.version <= actor_rows.inherited);
            let marked = if inherited { self.marked(&actor, row.version) } else { None };
            RowLeft { actor, version: row.version, inherited, marked }
        });
        left.collect()
    }
}
