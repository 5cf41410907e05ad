//! The clocks of the peers: how far they are off ours, and what the cluster takes the time to be.
//!
//! Every digest says what its sender's clock shows. A node cannot know by itself that its wall clock is wrong. Where at least
//! three clocks are known, our own included, their median is right unless most of them are wrong.

use std::time::Duration;

use tallymesh_schemas::{NodeName, SeriesSpec, limits};

use super::{Event, Replica};
use crate::time::{Now, Time};

/// What a peer's clock showed when it was last read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    unix_ms: u64,
    at: Time,
    /// By how much it was ahead of our wall clock.
    ahead_ms: i64,
    /// Readings in a row that were beyond the bound.
    beyond: u32,
}

/// A peer's clock, compared with this node's wall clock.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PeerClock {
    /// The peer.
    pub peer: NodeName,
    /// By how many milliseconds its clock is ahead of ours; negative where it is behind.
    pub ahead_ms: i64,
    /// Whether that is more than [`Replica::clock_bound`], and was so more than once.
    pub beyond: bool,
}

/// The time of the cluster, as it was last known, and when that was.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClusterTime {
    unix_ms: u64,
    at: Time,
}

/// A reading is of no use for the cluster's time after so many digest intervals.
const STALE: u32 = 10;

/// The cluster's time is looked at more often than that: it is at each sweep.
const LOOK: Duration = Duration::from_secs(2);

/// Clocks without which there is no majority.
const MAJORITY: usize = 3;

/// A node whose clock is behind the cluster's time by more than this goes by the cluster's time in its caches. It is half of
/// what the others' stamps may be ahead, so that no stamp of the others is refused before that.
const FOLLOW: Duration = Duration::from_secs(limits::MAX_DRIFT.as_secs() / 2);

/// One digest may have been on its way for long: a clock is off when two in a row say so.
const OFF: u32 = 2;

impl Reading {
    fn now(&self, now: Now) -> u64 {
        self.unix_ms.saturating_add(millis(now.mono.since(self.at)))
    }
}

impl Replica {
    /// By how much the clocks of two nodes may differ before that has consequences: the least of what applies to what this
    /// node shares. Caches take no write that lies further ahead than [`limits::MAX_DRIFT`]. Of a series, what is counted
    /// on a clock that is off by a whole window comes in other windows. `None` where nothing goes by the wall clock.
    pub fn clock_bound(&self) -> Option<Duration> {
        let shared = self.series().map(|series| series.spec()).filter(|spec| spec.replicate);
        let windows = shared.map(|spec: &SeriesSpec| Duration::from_millis(spec.interval_ms()));
        let mut caches = self.structures.values().filter(|held| held.shared && held.structure.is_cache());
        windows.chain(caches.next().map(|_| limits::MAX_DRIFT)).min()
    }

    /// The clocks of all peers that have said what theirs shows, as they were when they said it last, in order of name.
    pub fn clocks(&self) -> Vec<PeerClock> {
        let readings = self.links.iter().filter_map(|(peer, link)| Some((peer, link.clock?)));
        let clock = |(peer, reading): (&NodeName, Reading)| PeerClock {
            peer: peer.clone(),
            ahead_ms: reading.ahead_ms,
            beyond: reading.beyond >= OFF,
        };
        readings.map(clock).collect()
    }

    /// By how much this node's clock for windows is ahead of its wall clock, because that has gone back by a little.
    pub fn windows_ahead(&self, now: Now) -> Duration {
        Duration::from_millis(self.clock.unix_ms().saturating_sub(now.unix_ms))
    }

    /// Takes in what a peer's clock shows, and reports a clock that is off, once.
    pub(super) fn compare_clocks(&mut self, now: Now, peer: &NodeName, unix_ms: u64) {
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

    /// Looks anew what the time of the cluster is. Where too few clocks are known, it goes on from what it was: whoever
    /// followed the others must not fall back because some of them cannot be heard.
    pub(super) fn follow_clocks(&mut self, now: Now) {
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

    /// What the clocks show that are known, ours included, in order.
    fn fresh_clocks(&self, now: Now) -> Vec<u64> {
        let stale = self.config.digest_interval.saturating_mul(STALE);
        let readings = self.links.values().filter_map(|link| link.clock);
        let fresh = readings.filter(|reading| now.mono.since(reading.at) <= stale);
        let mut clocks: Vec<u64> = fresh.map(|reading| reading.now(now)).chain([now.unix_ms]).collect();
        clocks.sort_unstable();
        clocks
    }

    /// What [`Replica::cluster_ms`] says, unless two clocks disagree and there is no third one to tell which is right.
    pub(super) fn certain_ms(&self, now: Now) -> Option<u64> {
        self.clocks_agree(now, FOLLOW).then(|| self.cluster_ms(now))
    }

    /// By which time entries of caches and tombstones end for good: the cluster's time, or the earliest clock where two disagree and no
    /// third one decides. A clock that is ahead for a moment must not end what lives. A node that has heard no other
    /// clock for less than a minute, or has run for less, ends nothing.
    pub(super) fn expiry_ms(&mut self, now: Now) -> u64 {
        let heard_at = *self.clock_heard_at.get_or_insert(now.mono);
        let clocks = self.fresh_clocks(now);
        let alone = clocks.len() < 2 && self.cluster_time.is_none();
        if alone && now.mono.since(heard_at) <= limits::MAX_DRIFT {
            return 0;
        }
        match clocks.first() {
            Some(earliest) if !self.clocks_agree(now, limits::MAX_DRIFT) => *earliest,
            _ => self.cluster_ms(now),
        }
    }

    /// Whether most of the clocks decide, or the two that there are do not differ by more than this.
    pub(super) fn clocks_agree(&self, now: Now, within: Duration) -> bool {
        let clocks = self.fresh_clocks(now);
        let spread = clocks.last().zip(clocks.first()).map_or(0, |(last, first)| last - first);
        clocks.len() >= MAJORITY || Duration::from_millis(spread) <= within
    }

    /// The wall clock, or the cluster's time if the wall clock is far off that.
    pub(super) fn cluster_ms(&self, now: Now) -> u64 {
        let known = self.cluster_time.map(|time| time.unix_ms.saturating_add(millis(now.mono.since(time.at))));
        let off = |time: &u64| Duration::from_millis(time.abs_diff(now.unix_ms)) > FOLLOW;
        known.filter(off).unwrap_or(now.unix_ms)
    }
}

fn difference(theirs: u64, ours: u64) -> i64 {
    let by = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { -by } else { by }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
