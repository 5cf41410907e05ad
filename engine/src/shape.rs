//! What a class means for the rows of a structure. A structure resolves its class once, when it is made.

use tallymesh_schemas::key::{self, KeyError};
use tallymesh_schemas::{Cell, Class, Kind};

/// How long a row has an effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lifetime {
    /// Until its run ends.
    Gauge,
    /// Longer than its run.
    Event,
}

/// The meaning of a structure's rows: key format and lifetime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    class: Class,
    kind: Kind,
    lifetime: Lifetime,
}

/// What the rows of a cell do. It depends on the key only, so a cell keeps its role as long as its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Role {
    /// They count.
    Counts,
    /// They state up to which totals another row was cleared: they are reset notes.
    Clears,
}

impl Shape {
    pub(crate) fn of(class: Class) -> Self {
        let lifetime = match class.cell() {
            Cell::Gauge => Lifetime::Gauge,
            Cell::Events | Cell::Register => Lifetime::Event,
        };
        Self { class, kind: class.kind(), lifetime }
    }

    /// The key format.
    pub(crate) fn kind(self) -> Kind {
        self.kind
    }

    /// Returns whether a run's rows have an effect after the run has ended.
    pub(crate) fn keeps_runs(self) -> bool {
        self.lifetime == Lifetime::Event
    }

    /// Returns whether the counts are events, which can be cleared.
    pub(crate) fn counts_events(self) -> bool {
        self.lifetime == Lifetime::Event
    }

    /// Returns whether the counts are gauges.
    pub(crate) fn counts_gauges(self) -> bool {
        self.lifetime == Lifetime::Gauge
    }

    /// The role of a key's rows.
    pub(crate) fn role(self, key: &[u8]) -> Role {
        if self.counts_events() && key::is_cleared(key) { Role::Clears } else { Role::Counts }
    }

    /// Returns whether a row of this node is written whatever its budgets say: rows that divide hard limits between nodes, and
    /// settings. A limit holds only if what its node gives away is written. There are few, because other bounds apply.
    pub(crate) fn is_always_written(self, key: &[u8]) -> bool {
        self.class == Class::Settings || key::is_sharing(self.kind, key)
    }

    /// Checks that bytes from a peer are the key of a row.
    ///
    /// # Errors
    /// [`KeyError::Encoding`] when they are not.
    pub(crate) fn check_row(self, key: &[u8]) -> Result<(), KeyError> {
        key::check_row(self.class, key)
    }
}

impl Role {
    /// The role that a byte stands for.
    pub(crate) fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Clears,
            _ => Self::Counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_stands_for_one_role() {
        for role in [Role::Counts, Role::Clears] {
            assert_eq!(Role::of(role as u8), role);
        }
    }
}
