//! Copies of rows outside the ledger, for example on disk: how far they reach, and the next rows to copy.

use tallymesh_schemas::rows::{RowReader, RowState};
use tallymesh_schemas::saved::Extent;
use tallymesh_schemas::{Actor, Version};

use crate::counter::structure::Structure;
use crate::rows::actor_rows::ActorRows;
use crate::rows::span::Span;

/// How much of an actor's rows is in a copy outside the ledger (for example on disk), or is available to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PersistedExtent {
    pub(crate) since: Version,
    pub(crate) applied: Version,
    pub(crate) low_water: Version,
    pub(crate) complete: Version,
    /// Set when the copy contains all rows that existed at that time.
    pub(crate) fingerprint: Option<u64>,
    edition: u64,
}

impl PersistedExtent {
    /// The extent that an earlier process copied. The ledger of this process holds none of those rows yet.
    pub(crate) fn of(extent: &Extent) -> Self {
        let Extent { since, applied, low_water, complete, fingerprint } = *extent;
        Self { since, applied, low_water, complete, fingerprint, edition: u64::MAX }
    }

    pub(crate) fn extent(&self) -> Extent {
        let Self { since, applied, low_water, complete, fingerprint, .. } = *self;
        Extent { since, applied, low_water, complete, fingerprint }
    }

    /// All rows that this replica holds, complete up to `complete`.
    fn now(actor_rows: &ActorRows, complete: Version) -> Self {
        Self {
            since: actor_rows.since,
            applied: actor_rows.applied,
            low_water: actor_rows.low_water,
            complete,
            fingerprint: Some(actor_rows.fingerprint()),
            edition: actor_rows.edition,
        }
    }

    /// Returns whether there are rows or changes that are not in the copy yet.
    pub(crate) fn differs(&self, now: &Self) -> bool {
        (self.edition, self.applied, self.complete) != (now.edition, now.applied, now.complete)
            || self.fingerprint.is_none()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.applied == self.since
    }
}

/// A chunk of rows to be copied, and the extent of the copy after it.
#[derive(Debug)]
pub(crate) struct PersistChunk {
    pub(crate) extent: PersistedExtent,
    /// True when the chunk starts the copy over: it does not continue the earlier copy.
    pub(crate) anew: bool,
    pub(crate) after: Version,
    pub(crate) rows: Vec<u8>,
}

impl Structure {
    /// Reports the extent of each actor's rows, in order of actor.
    pub(crate) fn each_extent(&self, each: &mut dyn FnMut(&Actor, PersistedExtent)) {
        let ledger = self.ledger.read();
        for (actor, rows) in ledger.actors().iter() {
            each(actor, PersistedExtent::now(rows, ledger.complete_upto(actor, rows)));
        }
    }

    /// Cuts the next rows for a copy, each with its key; `None` when the ledger no longer holds rows of that actor.
    pub(crate) fn copy(&self, actor: &Actor, copied: Option<PersistedExtent>, budget: usize) -> Option<PersistChunk> {
        let mut ledger = self.ledger.write();
        ledger.actors_mut().get_mut(actor)?.make_log();
        let rows = ledger.actors().get(actor)?;
        let now = PersistedExtent::now(rows, ledger.complete_upto(actor, rows));
        let follows = |copied: &PersistedExtent| {
            copied.edition == now.edition
                && now.low_water <= copied.applied.max(copied.low_water)
                && copied.since == now.since
        };
        let copied = copied.filter(follows);
        let from = copied.unwrap_or(PersistedExtent {
            applied: now.since,
            low_water: Version::ZERO,
            complete: now.since,
            ..now
        });
        let cut = rows.cut(Span { since: now.since, upto: now.since }, from.applied, budget, ledger.cells())?;
        let mut reader = RowReader::new(&cut.rows, from.applied);
        let mut low_water = from.low_water.max(cut.low_water);
        while let Ok(Some(row)) = reader.next_row() {
            // The copy contains no retired rows.
            low_water = if row.state == RowState::Vacant { low_water.max(row.version) } else { low_water };
        }
        let whole = if cut.fingerprint.is_some() { now.complete } else { from.complete };
        let copied = PersistedExtent {
            applied: cut.upto.max(from.applied),
            low_water,
            complete: whole,
            fingerprint: cut.fingerprint,
            ..now
        };
        Some(PersistChunk { extent: copied, anew: copied.since == from.applied, after: from.applied, rows: cut.rows })
    }

    /// Called after a restore of an actor's rows that had been persisted with `extent`. Returns the persisted extent if the
    /// ledger holds all of those rows and no others.
    pub(crate) fn restored(&self, actor: &Actor, extent: &Extent) -> Option<PersistedExtent> {
        let mut ledger = self.ledger.write();
        let actor_rows = ledger.actors_mut().get_mut(actor)?;
        (actor_rows.restored, actor_rows.inherited) = (extent.applied, extent.applied);
        let same = (actor_rows.since, actor_rows.applied) == (extent.since, extent.applied)
            && extent.fingerprint.is_none_or(|fingerprint| fingerprint == actor_rows.fingerprint());
        actor_rows.complete = actor_rows.complete.max(if same { extent.complete } else { Version::ZERO });
        same.then(|| PersistedExtent { edition: actor_rows.edition, ..PersistedExtent::of(extent) })
    }
}
