//! What threads count in: cells by number, and the table that finds the cell of a key. It knows no rows.

pub(crate) mod cell;
pub(crate) mod cells;
pub(crate) mod hash;
pub(crate) mod id;
pub(crate) mod key;
pub(crate) mod keys;
pub(crate) mod quota;
mod table;
pub(crate) mod totals;
