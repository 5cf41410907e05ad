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
use crate::limiter::escrow::slice::Slice;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::heard::Heard;
use crate::limiter::levels::Levels;
use crate::limiter::pool::Pool;
use crate::limiter::reach::Reach;
use crate::limiter::throttle::{Ground, Throttle};
use crate::time::Time;

/// Time between two measurements of demand.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Number of rows that one turn looks for at most. Each fact may have a row of each actor.
const LEARNT: usize = 1 << 16;

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
    /// How far all rows are read again; `None` if they are not.
    pub(super) rescan: Option<Vec<u8>>,
    /// Rows were left for the next turn.
    pub(super) learns: bool,
    pub(super) look_at: Time,
    pub(super) looked: Time,
    pub(super) tick_at: Time,
    pub(super) ticked: Time,
    pub(super) shard: usize,
    /// The number of shards whose throttles have to read the rows and the reach again.
    pub(super) stale_shards: usize,
    pub(super) reach: Reach,
    /// The saved levels of soft throttles, if this node keeps them.
    pub(super) levels: Option<Levels>,
}

impl Sharing {
    /// Processes rows that other nodes wrote.
    pub(super) fn learn(&mut self, structure: &Structure, now: Time, forgotten: &[NodeName]) {
        let Some(escrow) = &mut self.escrow else { return };
        escrow.forget(forgotten.iter().cloned());
        let most = (LEARNT / structure.actors().max(1)).max(1);
        let (mut keys, lost) = self.watch.as_ref().map(|watch| watch.take_some(most)).unwrap_or_default();
        self.learns = keys.len() == most;
        if lost > 0 || now >= self.rescan_at {
            // All rows are read again, some in each turn.
            self.rescan_at = now.after(escrow.founding().reclaim_after() / 6);
            self.rescan.get_or_insert_with(|| vec![key::SHARING]);
        }
        if let Some(after) = self.rescan.take() {
            let behind = structure.keys_behind(Some(&after), most);
            let rescanned = behind.into_iter().take_while(|key| key.first() == Some(&key::SHARING));
            let before = keys.len();
            keys.extend(rescanned);
            self.rescan = keys.last().filter(|_| keys.len() - before == most).cloned();
            self.learns |= self.rescan.is_some();
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
        let slice = escrow.worked_through().clone();
        let resting = self.hard.range::<str, _>(slice.range());
        let resting = resting.filter(|(name, throttle)| escrow.rests(name) && throttle.rest(now));
        for name in resting.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            if escrow.retire(&name) {
                self.hard.remove(&name);
            }
        }
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
        let base = escrow.base();
        let epoch = std::mem::replace(&mut *self.ground.write(), base).epoch;
        // What a turn moves is of the names that it worked through. A claim that begins or ends is of all names.
        let moved = if epoch == base.epoch { escrow.worked_through().clone() } else { Slice::all() };
        let hard = self.hard.range::<str, _>(moved.range()).map(|(name, throttle)| (&**name, throttle));
        escrow.shares(hard).for_each(|(throttle, share)| throttle.set_share(now, share));
        let pools = self.pools.iter().map(|(name, pool)| (&**name, pool));
        escrow.shares(pools).for_each(|(pool, share)| pool.set_share(now, share));
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
        if look || !moved.is_all() {
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
