//! What a cache does when its node continues as another run, and when its clock was wrong.

use tallymesh_schemas::{Actor, UnixMs, bounds};

use crate::cache::context::Context;
use crate::cache::entry::Entry;
use crate::cache::map::{CacheMap, Write};
use crate::cache::runs::Unmarked;
use crate::cache::slots::SlotId;
use crate::canary::{self, Canary};
use crate::hlc::Stamp;

impl CacheMap {
    /// Continues as a new run. The entries of the earlier run stay what they are: if other nodes have removed some, these go when
    /// the keys are compared.
    pub(crate) fn continue_as(&mut self, me: Actor) {
        self.me = me;
        self.sent = 0;
    }

    /// Continues as a new run. Another process may have used the earlier run's numbers, so this run writes again what the
    /// earlier run wrote: with the same stamps. O(entries).
    pub(crate) fn renew(&mut self, me: Actor) {
        let earlier = self.me.clone();
        self.continue_as(me);
        let Some(run) = self.runs.find(&earlier) else { return };
        let own: Vec<_> = self.slots.iter().filter(|(_, entry)| entry.run == run).map(|(slot, _)| slot).collect();
        own.into_iter().for_each(|slot| self.write_again(slot, None));
    }

    /// Runs that fulfil a condition and of which entries have arrived that no mark has covered. O(runs that entries name).
    pub(crate) fn unmarked(&self, condition: impl Fn(&Actor) -> bool) -> Vec<Unmarked> {
        self.runs.unmarked(&self.seen).filter(|(run, _)| condition(run)).map(|(_, unmarked)| unmarked).collect()
    }

    /// Writes again, with the same stamps, what has arrived of ended runs and what no mark has covered. The runs' nodes do not send
    /// it any more. When these runs are no longer named, all nodes count their writes as taken in, so no other node would get
    /// these. O(entries), if there are any.
    pub(crate) fn take_over(&mut self, unmarked: &[Unmarked]) {
        if unmarked.is_empty() || self.closed || !unmarked_writes_are_taken_over() {
            return;
        }
        let is_unmarked = |entry: &Entry| unmarked.iter().any(|of| entry.run == of.run && entry.number > of.reached);
        let found = self.slots.iter().filter(|(_, entry)| is_unmarked(entry));
        let found: Vec<_> = found.map(|(slot, _)| slot).collect();
        found.into_iter().for_each(|slot| self.write_again(slot, None));
        unmarked.iter().for_each(|of| self.runs.settle(of));
    }

    /// Writes an entry again as this run's next write, at its own stamp or at another one.
    fn write_again(&mut self, slot: SlotId, stamp: Option<Stamp>) {
        let Some(entry) = self.slots.get(slot).cloned() else { return };
        let (me, number) = (self.me.clone(), self.head() + 1);
        let (stamp, expires_ms) = (stamp.unwrap_or(entry.stamp), entry.expires_ms);
        let (key, value) = (entry.key(), entry.value());
        if self.install(&Write { key, stamp, run: &me, number, expires_ms, value }) {
            self.seen.raise(&me, number);
        }
    }

    /// A peer sends a write, and had reported a later one of the key: it has given the later one an earlier stamp, because its clock
    /// was wrong while it had no peers. If this replica holds the later one, it writes it again with the same stamp, because the
    /// peer's context covers it and only another write reaches the peer.
    pub(crate) fn insist(&mut self, write: &Write<'_>, reported: &Context, unix_ms: UnixMs) {
        let Some(slot) = self.slots.find(write.key).filter(|_| !self.closed) else { return };
        let Some(entry) = self.slots.get(slot) else { return };
        let is_later = entry.stamp > write.stamp && entry.stamp.beyond(unix_ms).is_none();
        if is_later && reported.covers(self.writer(entry), entry.number) {
            self.write_again(slot, None);
        }
    }

    /// Once the clock is certain again: writes again, in order and with present stamps, what was written while the clock was
    /// too far ahead. O(entries), if there is anything.
    ///
    /// The new stamps are later than all that were received, because those writes have hidden some of these. And they are later
    /// than all that this replica gave and that others may have accepted since: an own later write has replaced some. An entry that is
    /// ahead by less than twice the drift stays: a node with a right clock may have accepted it before this clock was set back.
    pub(crate) fn return_to_present(&mut self, unix_ms: UnixMs) {
        let is_future = |stamp: Stamp| stamp.unix_ms().since(unix_ms) > bounds::MAX_DRIFT * 2;
        if !is_future(self.clock.latest()) {
            return;
        }
        let held = self.slots.iter().map(|(_, entry)| entry.stamp);
        let present = held.chain(self.received.iter()).filter(|stamp| !is_future(*stamp)).max();
        let future = self.slots.iter().filter(|(_, entry)| is_future(entry.stamp));
        let mut future: Vec<_> = future.map(|(slot, entry)| (entry.stamp, slot)).collect();
        future.sort_unstable();
        self.clock.set_back(present.unwrap_or_default());
        for (written, slot) in future {
            match self.clock.next(unix_ms) {
                Ok(stamp) => self.write_again(slot, Some(stamp)),
                // There is no stamp at this moment: the rest waits for a later call.
                Err(_) => self.clock.observe(written),
            }
        }
    }
}

/// Whether a replica writes again what it holds of a run that ends, beyond what all count as taken in.
fn unmarked_writes_are_taken_over() -> bool {
    !canary::broken(Canary::UnmarkedLost)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tallymesh_schemas::{Bounds, Budget, Incarnation, NodeName};

    use super::*;
    use crate::budget::NodeBudget;

    /// A write of this node that others may have accepted was replaced while the clock was far ahead. What replaced it gets a later
    /// stamp when the clock is right again.
    #[test]
    fn a_present_stamp_is_later_than_the_replaced_write() {
        let me = Actor::new(NodeName::new("a").unwrap(), Incarnation(1));
        let budget = Arc::new(NodeBudget::new(Budget::default()));
        let (mut map, now) = (CacheMap::new(me, Bounds::default(), 1, budget), UnixMs(1_700_000_000_000));
        let mut write = |ahead| {
            let unix_ms = now.after(Duration::from_secs(ahead));
            map.write(b"key", Some((UnixMs::ZERO, b"value")), unix_ms, |_| {}).unwrap()
        };
        let (accepted, far_ahead) = (write(50), write(3600));
        map.return_to_present(now);
        let stamp = map.get(b"key").unwrap().stamp;
        assert!(accepted < stamp && stamp < far_ahead, "{accepted:?} < {stamp:?} < {far_ahead:?}");
    }
}
