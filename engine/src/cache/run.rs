//! What a cache does when its node continues as another run, and when its clock was wrong.

use tallymesh_schemas::{Actor, UnixMs};

use crate::cache::map::{CacheMap, Write};
use crate::cache::slots::SlotId;
use crate::hlc::Stamp;

impl CacheMap {
    /// Continues as a new run. Another process may have used the earlier run's numbers, so this run writes again what the
    /// earlier run wrote: with the same stamps. O(entries).
    pub(crate) fn renew(&mut self, me: Actor) {
        let earlier = std::mem::replace(&mut self.me, me);
        self.sent = 0;
        let Some(run) = self.runs.find(&earlier) else { return };
        let own: Vec<_> = self.slots.iter().filter(|(_, entry)| entry.run == run).map(|(slot, _)| slot).collect();
        own.into_iter().for_each(|slot| self.write_again(slot, None));
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

    /// Once the clock is certain again: writes again, in order, what was written while the clock was too far ahead. O(entries),
    /// if there is anything.
    ///
    /// Those writes have hidden writes of other nodes from this replica. And time has passed, so other nodes may have accepted
    /// some that were written over since. None of them is further ahead of the present than other nodes accept. So the new
    /// stamps are just that far ahead: they are later than all of these.
    pub(crate) fn return_to_present(&mut self, unix_ms: UnixMs) {
        if !self.clock.is_beyond(unix_ms) {
            return;
        }
        let future = self.slots.iter().filter(|(_, entry)| entry.stamp.beyond(unix_ms).is_some());
        let mut future: Vec<_> = future.map(|(slot, entry)| (entry.stamp, slot)).collect();
        future.sort_unstable();
        self.clock.set_back(Stamp::latest(unix_ms));
        for (written, slot) in future {
            match self.clock.next(unix_ms) {
                Ok(stamp) => self.write_again(slot, Some(stamp)),
                // There is no stamp left at this moment: the rest waits for the next call.
                Err(_) => self.clock.observe(written),
            }
        }
    }
}
