//! The clocks of the peers: their clock offsets, and the cluster's time.
//!
//! Every digest carries its sender's wall clock. A node cannot detect by itself that its wall clock is wrong. When at least
//! three clocks are known, including this node's own, their median is right unless most of them are wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::{NodeName, UnixMs, bounds};

use crate::replica::peer::clock::{ClusterTime, PeerClock, Reading};
use crate::time::Now;

/// After so many digest intervals a reading is stale: the cluster's time does not use it.
const STALE: u32 = 10;

/// The minimum number of clocks for a majority decision.
const MAJORITY: usize = 3;

/// If a node's clock is behind the cluster's time by more than this, its caches use the cluster's time. It is half of the bound
/// on stamps from the future, so that the node switches before it refuses stamps of other nodes.
const FOLLOW: Duration = Duration::from_secs(bounds::MAX_DRIFT.as_secs() / 2);

/// One digest may have been delayed for long: a clock counts as off when two in a row show it.
const OFF: u32 = 2;

/// The last readings of the peers' clocks, and the cluster's time.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// The last readings of the clocks of linked peers.
    readings: BTreeMap<NodeName, Reading>,
    /// After how long a reading is stale.
    stale: Duration,
    /// The time that most of the known clocks show.
    cluster_time: Option<ClusterTime>,
    /// The last moment at which something spoke for or against this node's wall clock: its first use, a reading of a peer's
    /// clock, or a step of the wall clock.
    tested: Option<Now>,
}

/// The change that a reading of a clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockChange {
    None,
    /// The clock is off since this reading.
    Off {
        /// The clock offset.
        by: Duration,
        /// Whether the peer's clock is ahead.
        ahead: bool,
    },
    /// The clock was off before this reading, and it is still off.
    StillOff,
    /// The clock was off, and it is right again.
    Right,
}

impl Clocks {
    pub(crate) fn new(digest_interval: Duration) -> Self {
        let stale = digest_interval.saturating_mul(STALE);
        Self { readings: BTreeMap::new(), stale, cluster_time: None, tested: None }
    }

    /// The link to a peer is down or new: its earlier reading does not count any more.
    pub(crate) fn forget(&mut self, peer: &NodeName) {
        self.readings.remove(peer);
    }

    /// The last readings, in order of name.
    pub(crate) fn list(&self) -> Vec<PeerClock> {
        let clock = |(peer, reading): (&NodeName, &Reading)| PeerClock {
            peer: peer.clone(),
            ahead_ms: reading.ahead_ms,
            beyond: reading.beyond >= OFF,
        };
        self.readings.iter().map(clock).collect()
    }

    /// Records a reading of a peer's clock. The clock is off if it differs by more than `bound`.
    pub(crate) fn read(&mut self, now: Now, peer: &NodeName, unix_ms: UnixMs, bound: Option<Duration>) -> ClockChange {
        let ahead = unix_ms > now.unix_ms;
        let by = unix_ms.distance(now.unix_ms);
        let off = bound.is_some_and(|bound| by > bound);
        let before = self.readings.get(peer).map_or(0, |reading| reading.beyond);
        let beyond = if off { before.saturating_add(1) } else { 0 };
        let ahead_ms = difference(unix_ms.0, now.unix_ms.0);
        self.tested = Some(now);
        self.readings.insert(peer.clone(), Reading { unix_ms, at: now.mono, ahead_ms, beyond });
        match beyond {
            OFF => ClockChange::Off { by, ahead },
            0 if before >= OFF => ClockChange::Right,
            _ if beyond > OFF => ClockChange::StillOff,
            _ => ClockChange::None,
        }
    }

    /// Determines the cluster's time again. If too few clocks are known, it continues from the last known time: a node that
    /// followed the others must not fall back because it cannot reach some of them.
    pub(crate) fn update(&mut self, now: Now) {
        let clocks = self.fresh(now);
        if clocks.len() >= MAJORITY
            && let Some(median) = clocks.get((clocks.len() - 1) / 2)
        {
            self.cluster_time = Some(ClusterTime { unix_ms: *median, at: now.mono });
        }
    }

    /// The current times of all clocks with a fresh reading, including this node's own, in order.
    fn fresh(&self, now: Now) -> Vec<UnixMs> {
        let fresh = self.readings.values().filter(|reading| now.mono.since(reading.at) <= self.stale);
        let mut clocks: Vec<UnixMs> = fresh.map(|reading| reading.now(now)).chain([now.unix_ms]).collect();
        clocks.sort_unstable();
        clocks
    }

    /// The value of [`Clocks::cluster_ms`], if it is certain.
    pub(crate) fn certain_ms(&mut self, now: Now) -> Option<UnixMs> {
        self.is_certain(now, FOLLOW).then(|| self.cluster_ms(now))
    }

    /// The time that decides when cache entries and tombstones expire: the cluster's time, or the earliest clock if two
    /// disagree and no third one decides. A clock that is ahead for a moment must not expire live entries. So nothing expires
    /// while this node knows only its own clock and cannot trust it: the result is 0.
    pub(crate) fn expiry_ms(&mut self, now: Now) -> UnixMs {
        if self.is_untested(now) {
            return UnixMs::ZERO;
        }
        let clocks = self.fresh(now);
        match clocks.first() {
            Some(earliest) if !agree(&clocks, bounds::MAX_DRIFT) => *earliest,
            _ => self.cluster_ms(now),
        }
    }

    /// Whether the value of [`Clocks::cluster_ms`] is certain: there are enough clocks for a majority, or the known clocks
    /// differ by no more than `within`, and this node's own clock is not the only one that it can compare with nothing.
    pub(crate) fn is_certain(&mut self, now: Now, within: Duration) -> bool {
        !self.is_untested(now) && agree(&self.fresh(now), within)
    }

    /// Whether this node knows only its own clock, and has known it for less than a minute since its start, the last reading
    /// of another clock, or a step of its wall clock. Such a clock may be wrong for a moment.
    fn is_untested(&mut self, now: Now) -> bool {
        let tested = *self.tested.get_or_insert(now);
        let expected = tested.unix_ms.after(now.mono.since(tested.mono));
        if now.unix_ms.distance(expected) > bounds::MAX_DRIFT {
            self.tested = Some(now);
            return self.is_alone(now);
        }
        self.is_alone(now) && now.mono.since(tested.mono) <= bounds::MAX_DRIFT
    }

    fn is_alone(&self, now: Now) -> bool {
        self.fresh(now).len() < 2 && self.cluster_time.is_none()
    }

    /// The wall clock, or the cluster's time if the wall clock is far off it.
    pub(crate) fn cluster_ms(&self, now: Now) -> UnixMs {
        let known = self.cluster_time.map(|time| time.unix_ms.after(now.mono.since(time.at)));
        let off = |time: &UnixMs| time.distance(now.unix_ms) > FOLLOW;
        known.filter(off).unwrap_or(now.unix_ms)
    }
}

/// Whether there are enough clocks for a majority, or clocks in order differ by no more than `within`.
fn agree(clocks: &[UnixMs], within: Duration) -> bool {
    let spread = clocks.last().zip(clocks.first()).map_or(Duration::ZERO, |(last, first)| last.since(*first));
    clocks.len() >= MAJORITY || spread <= within
}

fn difference(theirs: u64, ours: u64) -> i64 {
    let by = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { -by } else { by }
}
