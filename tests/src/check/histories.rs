//! Rows of other actors: each is a state that its owner had.

use tallymesh_engine::{Held, Row, Structure};
use tallymesh_schemas::{Actor, Kind};

use crate::check::seen::Right;
use crate::truth::Truth;

/// Whether the rows of a structure belong to the limits; `limits` checks those.
pub(crate) fn is_limited(structure: &Structure) -> bool {
    structure.kind() == Kind::ThrottleTable
}

/// Every row of another actor is a state that its owner had. Rows that were found correct stay correct: histories only grow.
pub(crate) fn rows_of_another(
    truth: &Truth,
    structure: &Structure,
    held: &Held,
    right: Option<&Right>,
) -> Result<(), String> {
    if right.is_some_and(|right| right.held.contains(held)) {
        return Ok(());
    }
    let history = truth.history(&held.actor, &structure.spec().name)?;
    each_row(structure, &held.actor, |key, row| history.position(key, row, 0).map(drop))
}

pub(crate) fn each_row(
    structure: &Structure,
    actor: &Actor,
    mut check: impl FnMut(&[u8], &Row) -> Result<(), String>,
) -> Result<(), String> {
    let mut checked = Ok(());
    structure.each_row_of(actor, |key, row| {
        if checked.is_ok() {
            checked = check(key, row);
        }
    });
    checked
}
