//! What a replica does when time has passed.

use std::time::Duration;

use tallymesh_schemas::{NodeName, StructureId, Version};

use crate::replica::Replica;
use crate::replica::report::Event;
use crate::replica::timers::Timer;
use crate::time::{Now, Time};

/// Time between two sweeps for idle rows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl Replica {
    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now.mono;
        self.caches.unix_ms = now.unix_ms;
        self.turn_windows(now);
        if self.timers.is_due(&Timer::Sweep, now.mono) {
            self.timers.set(Timer::Sweep, now.mono.after(SWEEP_INTERVAL));
            self.sweep(now);
        }
        // After the sweep, because the rows that it retires are changes as well.
        self.handle_changes(now);
        if self.timers.is_due(&Timer::Chase, now.mono) {
            self.timers.set(Timer::Chase, now.mono.after(self.config.digest_interval));
            self.chase(now.mono);
            self.fetch_history();
            self.tick_caches(now);
        }
        if self.timers.is_due(&Timer::Caches, now.mono) {
            self.timers.stop(&Timer::Caches);
            self.work_on_caches();
        }
        if self.timers.is_due(&Timer::Collection, now.mono) {
            self.go_on_collecting(now);
        }
        if self.timers.is_due(&Timer::GaugeCaches, now.mono) {
            self.work_on_gauge_caches(now);
        }
        for peer in self.timers.due_digests(now.mono) {
            self.begin_digest(now.mono, &peer);
        }
        self.apply_membership(now);
        self.handle_succession(now);
        self.update_life(now);
    }

    fn begin_digest(&mut self, now: Time, peer: &NodeName) {
        let Some(link) = self.peers.links.get_mut(peer) else { return };
        let is_full = link.begin_digest(now, self.config.full_digest_interval, &mut self.random);
        let next = now.after(self.random.jitter(self.config.digest_interval));
        self.timers.set(Timer::Digest(peer.clone()), next);
        if is_full {
            self.report_caches(peer);
        }
    }

    fn sweep(&mut self, now: Now) {
        for (id, held) in &self.structures {
            held.structure.sweep(now.mono, self.config.idle_after, self.acked(*id), self.config.retention);
        }
        self.report_faults();
        self.sweep_unfilled();
        self.follow_clocks(now);
        self.restore_waiting(now);
        self.keep_caches(now);
        self.keep_gauge_caches(now);
        if self.structures.values().any(|held| held.structure.head() > self.config.last_version) {
            let no_later = self.renew(now, self.runs.actor.incarnation).is_err();
            if no_later && self.runs.note_last_run() {
                self.event(Event::LastRun);
            }
        }
        let expiry_ms = self.peers.clocks.expiry_ms(now);
        self.runs.expire_tombstones(expiry_ms);
        self.output.summarize(now.mono);
    }

    /// Reports counting calls that failed: additions above a bound, and removals below zero.
    fn report_faults(&mut self) {
        let faults =
            self.structures.values().map(|held| (held.structure.spec().name.clone(), held.structure.take_faults()));
        let faults: Vec<_> = faults.filter(|(_, (refused, below))| *refused > 0 || !below.is_empty()).collect();
        for (structure, (refused, below)) in faults {
            self.output.counters.totals_full = self.output.counters.totals_full.saturating_add(refused);
            if refused > 0 {
                let actor = self.runs.actor.clone();
                self.event(Event::TotalFull { structure: structure.clone(), actor, times: refused });
            }
            for (actor, times) in below {
                self.output.counters.below_zero = self.output.counters.below_zero.saturating_add(times);
                self.event(Event::BelowZero { structure: structure.clone(), actor, times });
            }
        }
    }

    /// The lowest applied version of this node's rows on all live peers.
    fn acked(&self, id: StructureId) -> Version {
        let live = self.runs.nodes.iter().filter(|(_, node)| node.lives()).map(|(name, _)| name);
        self.peers.acked(live, id, &self.runs.actor)
    }
}
