//! The shared limits, and one turn of the driver: rows of other nodes come in, demand goes to escrow,
//! shares go to throttles and pools, and escrow's facts go into the structure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tallymesh_schemas::{NodeName, Strength, key};

use crate::counter::structure::Structure;
use crate::counter::watch::{Growth, Watch};
use crate::difference::Difference;
use crate::limiter::escrow::release::Release;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::heard::Heard;
use crate::limiter::levels::Levels;
use crate::limiter::pool::Pool;
use crate::limiter::reach::Reach;
use crate::limiter::throttle::{Ground, Throttle};
use crate::time::Time;

/// Time between two measurements of demand.
pub(super) const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) escrow: Option<Escrow>,
    pub(super) watch: Option<Arc<Watch>>,
    /// The admissions of other nodes since the last turn, by name.
    pub(super) grown: Arc<Growth>,
    /// Differences of configuration that were reported already.
    pub(super) reported: BTreeSet<Difference>,
    /// When to compare configurations next.
    pub(super) compare_at: Time,
    /// The admissions of other nodes under names without a throttle.
    pub(super) heard: Heard,
    pub(super) pools: BTreeMap<Box<str>, Arc<Pool>>,
    /// The hard throttles that are shared out now, because a node asks for them. The others rest and cost no time.
    pub(super) hard: BTreeMap<Box<str>, Arc<Throttle>>,
    pub(super) ground: Ground,
    pub(super) rescan_at: Time,
    pub(super) look_at: Time,
    pub(super) looked: Time,
    pub(super) tick_at: Time,
    pub(super) ticked: Time,
    pub(super) shard: usize,
    pub(super) reach: Reach,
    /// The saved levels of soft throttles, if this node keeps them.
    pub(super) levels: Option<Levels>,
}

impl Sharing {
    /// Processes rows that other nodes wrote.
    pub(super) fn learn(&mut self, structure: &Structure, now: Time, forgotten: &[NodeName]) {
        let Some(escrow) = &mut self.escrow else { return };
        escrow.forget(forgotten.iter().cloned());
        let (mut keys, lost) = self.watch.as_ref().map(|watch| watch.take()).unwrap_or_default();
        if lost > 0 || now >= self.rescan_at {
            keys = structure.keys_under(&[key::SHARING]);
            self.rescan_at = now.after(escrow.founding().reclaim_after() / 6);
        }
        keys.sort();
        keys.dedup();
        for key in keys {
            for (actor, row) in structure.rows_at(&key) {
                escrow.learn(now, &actor.node, &key, row.added, row.removed);
            }
        }
    }

    /// Shares a throttle out, if it is hard and rests.
    pub(super) fn wake(&mut self, throttle: &Arc<Throttle>, now: Time) {
        let Some(escrow) = &mut self.escrow else { return };
        let spec = throttle.spec();
        if spec.strength == Strength::Hard {
            escrow.share_out(throttle.name(), throttle.quota(), Some(spec.rate));
            if !self.hard.contains_key(&**throttle.name()) {
                throttle.wake(now);
                self.hard.insert((&**throttle.name()).into(), Arc::clone(throttle));
            }
        }
    }

    /// Lets throttles rest that no node asks for any more.
    fn rest(&mut self, now: Time) {
        let Some(escrow) = &mut self.escrow else { return };
        self.hard.retain(|name, throttle| {
            let rests = escrow.rests(name) && throttle.rest(now);
            !(rests && escrow.retire(name))
        });
    }

    /// Moves shares, and writes this node's facts.
    pub(super) fn share(&mut self, structure: &Structure, now: Time) {
        let Some(escrow) = &mut self.escrow else { return };
        let look = now >= self.look_at;
        if look {
            let passed = now.since(self.looked);
            for (name, throttle) in &self.hard {
                let round = u64::try_from(structure.count(name.as_bytes(), now).total).unwrap_or(0);
                escrow.demand(name, throttle.demand(passed), round);
            }
            for (name, pool) in &self.pools {
                escrow.demand(name, pool.demand(), 0);
            }
            (self.looked, self.look_at) = (now, now.after(LOOK));
        }
        escrow.handle_timeout(now, &mut Idle(&self.pools));
        *self.ground.write() = escrow.base();
        for (name, throttle) in &self.hard {
            throttle.set_share(now, escrow.share(name));
        }
        for (name, pool) in &self.pools {
            pool.set_share(now, escrow.share(name));
        }
        // Write only now: the throttles and pools above no longer use what these rows give away.
        while let Some(write) = escrow.poll_write() {
            let clamp = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
            for n in [clamp(write.added), -clamp(write.removed)] {
                if n != 0 {
                    let added = structure.add(write.key.as_bytes(), n);
                    debug_assert!(added.is_ok(), "{}: {added:?}", write.key);
                }
            }
        }
        if look {
            self.rest(now);
        }
    }
}

/// Releases permits when they are idle, and rates at any time.
struct Idle<'a>(&'a BTreeMap<Box<str>, Arc<Pool>>);

impl Release for Idle<'_> {
    fn release(&mut self, name: &str, units: u64) -> u64 {
        self.0.get(name).map_or(units, |pool| pool.release(units))
    }

    fn in_use(&self, name: &str) -> u64 {
        self.0.get(name).map_or(0, |pool| pool.in_use())
    }
}
