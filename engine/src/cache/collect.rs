//! Collection: what a replica of a cache drops because no replica needs it any more.
//!
//! A replica collects a removal when every known node has reported that it took it in, and when the replica itself has taken
//! in everything that these nodes had then. So no node holds an older write of the key, and rule D drops those that are still
//! in flight: the context covers them, and their key has no entry. One round suffices.
//!
//! A node that was away did not report. The replica remembers which removals it has collected. A node that has not taken
//! them in compares its keys with the replica before it takes over the replica's context.

use tallymesh_schemas::{UnixMs, bounds};

use crate::cache::context::Context;
use crate::cache::map::CacheMap;
use crate::cache::slots::SlotId;
use crate::canary::{self, Canary};
use crate::hlc::Stamp;

/// The most entries that one step expires, and that it collects.
pub(crate) const STEP: usize = 1 << 12;

/// What every other known node had taken in at one time.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// All of them.
    pub(super) least: Context,
    /// Any of them.
    pub(super) most: Context,
}

impl Round {
    /// The reports of all other known nodes; `None` if one of them is missing.
    pub(crate) fn of<'a>(own: &Context, reports: impl Iterator<Item = Option<&'a Context>>) -> Option<Self> {
        let mut round = Self { least: own.clone(), most: Context::default() };
        for report in reports.filter(|_| waits_for_all()) {
            round.least.meet(report?);
            round.most.join(report?);
        }
        Some(round)
    }

    /// Whether a replica with this context has what any of the nodes had.
    pub(crate) fn is_over(&self, seen: &Context) -> bool {
        self.most.is_within(seen) || canary::broken(Canary::RoundNotAwaited)
    }
}

impl CacheMap {
    /// Turns at most `most` entries that have expired for all nodes into removals. `expiry_ms` is a time that all nodes' clocks
    /// have reached, but for [`bounds::MAX_DRIFT`]. Returns whether more may be left.
    pub(crate) fn expire_until(&mut self, expiry_ms: UnixMs, most: usize) -> bool {
        let upto = expiry_ms.before(bounds::MAX_DRIFT);
        let over: Vec<_> =
            self.derived.by_expiry.range(..=(upto, SlotId::MAX)).map(|(_, slot)| *slot).take(most).collect();
        let more = over.len() == most;
        over.into_iter().for_each(|slot| self.expire(slot));
        more
    }

    /// Collects at most `most` removals at the end of a round. Returns whether more may be left. A removal waits for a minute first, because clocks may differ by that much: no
    /// later write of the key, by whichever node, may get an earlier stamp.
    pub(crate) fn collect(&mut self, round: &Round, expiry_ms: UnixMs, most: usize) -> bool {
        let latest = Stamp::at(expiry_ms.before(bounds::MAX_DRIFT));
        let mut stable = Vec::new();
        for (run, id) in self.runs.iter() {
            let upto = round.least.reached(run);
            let of_run = self.derived.removed.range((id, 0, 0)..=(id, upto, SlotId::MAX));
            let old = |slot: &SlotId| self.slots.get(*slot).is_some_and(|entry| entry.stamp < latest);
            // As a rule later numbers have later stamps. What stands behind a removal that is not old waits with it.
            stable.extend(of_run.map(|(_, _, slot)| *slot).take_while(old).take(most - stable.len()));
        }
        let more = stable.len() == most;
        for slot in stable {
            self.collect_one(slot);
        }
        more
    }

    fn collect_one(&mut self, slot: SlotId) {
        let Some(entry) = self.slots.get(slot) else { return };
        if let Some(run) = self.runs.get(entry.run) {
            self.collected.raise(run, entry.number);
        }
        self.uninstall(slot);
    }
}

/// Whether a round waits for the reports of all known nodes.
fn waits_for_all() -> bool {
    !canary::broken(Canary::RemovalForgotten)
}
