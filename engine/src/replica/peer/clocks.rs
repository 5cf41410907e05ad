//! The clocks of the peers: their clock offsets, and the cluster's time.
//!
//! Every digest carries its sender's wall clock. A node cannot detect by itself that its wall clock is wrong. When at least
//! three clocks are known, including this node's own, their median is right unless most of them are wrong.

use std::time::Duration;

use tallymesh_schemas::{NodeName, SeriesSpec, bounds};

use crate::replica::Replica;
use crate::replica::peer::clock::{ClusterTime, OFF, PeerClock, Reading};
use crate::replica::report::Event;
use crate::time::{Now, millis};

/// After so many digest intervals a reading is stale: the cluster's time does not use it.
const STALE: u32 = 10;

/// This node determines the cluster's time more often than that: at each sweep.
const LOOK: Duration = Duration::from_secs(2);

/// The minimum number of clocks for a majority decision.
const MAJORITY: usize = 3;

/// If a node's clock is behind the cluster's time by more than this, its caches use the cluster's time. It is half of the bound
/// on stamps from the future, so that the node switches before it refuses stamps of other nodes.
const FOLLOW: Duration = Duration::from_secs(bounds::MAX_DRIFT.as_secs() / 2);

impl Replica {
    /// How far the clocks of two nodes may differ without consequences: the least of the bounds of the structures that this
    /// node shares. Caches refuse a write that lies further ahead than [`bounds::MAX_DRIFT`]. In a series, a node whose clock
    /// is off by a whole window counts in other windows. `None` if nothing depends on the wall clock.
    pub fn clock_bound(&self) -> Option<Duration> {
        let shared = self.series().map(|series| series.spec()).filter(|spec| spec.replicate);
        let windows = shared.map(|spec: &SeriesSpec| Duration::from_millis(spec.interval_ms()));
        let mut caches = self.structures.values().filter(|held| held.shared && held.structure.is_cache());
        windows.chain(caches.next().map(|_| bounds::MAX_DRIFT)).min()
    }

    /// The clocks of all peers that have reported theirs, as of their last report, in order of name.
    pub fn clocks(&self) -> Vec<PeerClock> {
        let readings = self.links.iter().filter_map(|(peer, link)| Some((peer, link.clock?)));
        let clock = |(peer, reading): (&NodeName, Reading)| PeerClock {
            peer: peer.clone(),
            ahead_ms: reading.ahead_ms,
            beyond: reading.beyond >= OFF,
        };
        readings.map(clock).collect()
    }

    /// How far this node's window clock is ahead of its wall clock, because the wall clock has gone back a little.
    pub fn windows_ahead(&self, now: Now) -> Duration {
        Duration::from_millis(self.clock.unix_ms().saturating_sub(now.unix_ms))
    }

    /// Records a peer's clock reading, and reports a clock that is off, once.
    pub(crate) fn compare_clocks(&mut self, now: Now, peer: &NodeName, unix_ms: u64) {
        self.read_clock(now);
        let bound = self.clock_bound();
        let ahead = unix_ms > now.unix_ms;
        let by = Duration::from_millis(unix_ms.abs_diff(now.unix_ms));
        let off = bound.is_some_and(|bound| by > bound);
        let Some(link) = self.links.get_mut(peer) else { return };
        let before = link.clock.map_or(0, |reading| reading.beyond);
        let beyond = if off { before.saturating_add(1) } else { 0 };
        let ahead_ms = difference(unix_ms, now.unix_ms);
        self.clock_heard_at = Some(now.mono);
        link.clock = Some(Reading { unix_ms, at: now.mono, ahead_ms, beyond });
        self.counters.clocks_off += u64::from(beyond >= OFF);
        if beyond == OFF {
            self.event(Event::ClockOff { peer: peer.clone(), by, ahead });
        } else if beyond == 0 && before >= OFF {
            self.event(Event::ClockRight { peer: peer.clone() });
        }
    }

    /// Determines the cluster's time again. If too few clocks are known, it continues from the last known time: a node that
    /// followed the others must not fall back because it cannot reach some of them.
    pub(crate) fn follow_clocks(&mut self, now: Now) {
        let clocks = self.fresh_clocks(now);
        if clocks.len() >= MAJORITY
            && let Some(median) = clocks.get((clocks.len() - 1) / 2)
        {
            self.cluster_time = Some(ClusterTime { unix_ms: *median, at: now.mono });
        }
        let cluster_ms = self.cluster_ms(now);
        let (lead, upto) = (cluster_ms.saturating_sub(now.unix_ms), cluster_ms.saturating_add(millis(LOOK)));
        for held in self.structures.values().filter(|held| held.structure.is_cache()) {
            held.structure.set_lead(lead, upto);
        }
    }

    /// The current times of all clocks with a fresh reading, including this node's own, in order.
    fn fresh_clocks(&self, now: Now) -> Vec<u64> {
        let stale = self.config.digest_interval.saturating_mul(STALE);
        let readings = self.links.values().filter_map(|link| link.clock);
        let fresh = readings.filter(|reading| now.mono.since(reading.at) <= stale);
        let mut clocks: Vec<u64> = fresh.map(|reading| reading.now(now)).chain([now.unix_ms]).collect();
        clocks.sort_unstable();
        clocks
    }

    /// The value of [`Replica::cluster_ms`], unless two clocks disagree and no third one decides.
    pub(crate) fn certain_ms(&self, now: Now) -> Option<u64> {
        self.clocks_agree(now, FOLLOW).then(|| self.cluster_ms(now))
    }

    /// The time that decides when cache entries and tombstones expire: the cluster's time, or the earliest clock if two
    /// disagree and no third one decides. A clock that is ahead for a moment must not expire live entries. While this node
    /// knows no other clock, nothing expires until a minute after its start or after the last reading of another clock: the
    /// result is 0.
    pub(crate) fn expiry_ms(&mut self, now: Now) -> u64 {
        let heard_at = *self.clock_heard_at.get_or_insert(now.mono);
        let clocks = self.fresh_clocks(now);
        let alone = clocks.len() < 2 && self.cluster_time.is_none();
        if alone && now.mono.since(heard_at) <= bounds::MAX_DRIFT {
            return 0;
        }
        match clocks.first() {
            Some(earliest) if !self.clocks_agree(now, bounds::MAX_DRIFT) => *earliest,
            _ => self.cluster_ms(now),
        }
    }

    /// Whether there are enough clocks for a majority, or the known clocks differ by no more than `within`.
    pub(crate) fn clocks_agree(&self, now: Now, within: Duration) -> bool {
        let clocks = self.fresh_clocks(now);
        let spread = clocks.last().zip(clocks.first()).map_or(0, |(last, first)| last - first);
        clocks.len() >= MAJORITY || Duration::from_millis(spread) <= within
    }

    /// The wall clock, or the cluster's time if the wall clock is far off it.
    pub(crate) fn cluster_ms(&self, now: Now) -> u64 {
        let known = self.cluster_time.map(|time| time.unix_ms.saturating_add(millis(now.mono.since(time.at))));
        let off = |time: &u64| Duration::from_millis(time.abs_diff(now.unix_ms)) > FOLLOW;
        known.filter(off).unwrap_or(now.unix_ms)
    }
}

fn difference(theirs: u64, ours: u64) -> i64 {
    let by = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { -by } else { by }
}
