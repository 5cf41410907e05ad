//! What this node does with the clocks of its peers.

use std::time::Duration;

use tallymesh_schemas::{NodeName, SeriesSpec, UnixMs, bounds};

use crate::replica::Replica;
use crate::replica::peer::clock::PeerClock;
use crate::replica::peer::clocks::ClockChange;
use crate::replica::report::Event;
use crate::time::Now;

/// This node determines the cluster's time more often than that: at each sweep.
const LOOK: Duration = Duration::from_secs(2);

impl Replica {
    /// How far the clocks of two nodes may differ without consequences: the least of the bounds of the structures that this
    /// node shares. Caches refuse a write that lies further ahead than [`bounds::MAX_DRIFT`]. In a series, a node whose clock
    /// is off by a whole window counts in other windows. `None` if nothing depends on the wall clock.
    pub fn clock_bound(&self) -> Option<Duration> {
        let shared = self.series().map(|series| series.spec()).filter(|spec| spec.replicate);
        let windows = shared.map(|spec: &SeriesSpec| Duration::from_millis(spec.interval_ms()));
        let mut caches = self.caches.iter().filter(|(_, held)| held.shared);
        windows.chain(caches.next().map(|_| bounds::MAX_DRIFT)).min()
    }

    /// The clocks of all peers that have reported theirs, as of their last report, in order of name.
    pub fn clocks(&self) -> Vec<PeerClock> {
        self.peers.clocks.list()
    }

    /// How far this node's window clock is ahead of its wall clock, because the wall clock has gone back a little.
    pub fn windows_ahead(&self, now: Now) -> Duration {
        self.windows.clock.unix_ms().since(now.unix_ms)
    }

    /// Records a peer's clock reading, and reports a clock that is off, once.
    pub(crate) fn compare_clocks(&mut self, now: Now, peer: &NodeName, unix_ms: UnixMs) {
        self.read_clock(now);
        if !self.peers.is_linked(peer) {
            return;
        }
        let bound = self.clock_bound();
        let peer = peer.clone();
        match self.peers.clocks.read(now, &peer, unix_ms, bound) {
            ClockChange::None => {}
            ClockChange::StillOff => self.output.counters.clocks_off += 1,
            ClockChange::Off { by, ahead } => {
                self.output.counters.clocks_off += 1;
                self.event(Event::ClockOff { peer, by, ahead });
            }
            ClockChange::Right => self.event(Event::ClockRight { peer }),
        }
    }

    /// Determines the cluster's time again, for all caches.
    pub(crate) fn follow_clocks(&mut self, now: Now) {
        self.peers.clocks.update(now);
        let cluster_ms = self.peers.clocks.cluster_ms(now);
        let (lead, upto) = (cluster_ms.since(now.unix_ms), cluster_ms.after(LOOK));
        self.set_lead_of_caches(lead, upto);
    }
}
