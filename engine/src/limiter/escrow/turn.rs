//! One turn of escrow: handles passed time, and publishes heartbeats, demand and the configuration.

use std::ops::Bound;
use std::time::Duration;

use crate::limiter::agreement::END;
use crate::limiter::escrow::release::Release;
use crate::limiter::escrow::rows::Write;
use crate::limiter::escrow::slice::Slice;
use crate::limiter::escrow::state::{Escrow, Named};
use crate::limiter::fact::Fact;
use crate::time::Time;

/// The work of one turn: each of its names costs a visit to each party.
const VISITS: usize = 1 << 12;

/// The least number of names that a turn works through.
const LEAST: usize = 32;

impl Escrow {
    /// Handles passed time and received facts. Of many limits it publishes the demand, lends and returns for some at a time.
    pub fn handle_timeout(&mut self, now: Time, release: &mut dyn Release) {
        self.now = self.now.max(now);
        self.forget_silent();
        self.publish_configuration();
        if self.now >= self.heartbeat_at {
            self.publish_heartbeat();
        }
        self.next_slice();
        self.publish_demand();
        self.lapse();
        self.vote();
        self.claim(release);
        self.give_back(release);
        self.lend(release);
        self.note_epoch();
    }

    /// Moves on to the next names.
    fn next_slice(&mut self) {
        let after = self.slice.upto.take();
        let most = (VISITS / (self.board.others.len() + 1)).max(LEAST) - 1;
        let behind = (after.as_deref().map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let of_ours = self.names.range::<str, _>(behind).nth(most).map(|(name, _)| name);
        // A lender may lend of names that are not shared out here.
        let lendings = self.board.others.values().flat_map(|other| other.lendings.values());
        let of_loans = lendings.filter_map(|lending| lending.loans.range::<str, _>(behind).nth(most));
        let upto = of_ours.into_iter().chain(of_loans.map(|(name, _)| name)).min().cloned();
        self.slice = Slice { after, upto };
    }

    /// The names that the last turn has worked through. What this process may use of them may have changed.
    pub(in crate::limiter) fn worked_through(&self) -> &Slice {
        &self.slice
    }

    /// The next row to write.
    pub fn poll_write(&mut self) -> Option<Write> {
        self.rows.poll()
    }

    /// The latest time to call [`Escrow::handle_timeout`], for heartbeats, expiries and the names that the last turn left;
    /// [`Escrow::share`] states when shares end.
    pub fn poll_timeout(&self) -> Time {
        if self.slice.leaves_some() {
            return self.now;
        }
        let ends = self.held_claims().map(|(_, until)| until);
        ends.chain([self.heartbeat_at]).min().unwrap_or(self.heartbeat_at)
    }

    /// Publishes this process's configuration: the fingerprint before anything else, and each limit when another process
    /// differs.
    fn publish_configuration(&mut self) {
        if self.heartbeat == 0 {
            self.rows.write(&Fact::Agreement { fingerprint: self.fingerprint }, 1);
        }
        self.configurations.forget(self.now, self.times.lease);
        let facts: Vec<Fact> = if self.tells {
            let values = self.agreement.published().map(|(name, value)| (name.as_str(), value.clone()));
            let end = (END, "end".to_owned());
            values.chain([end]).map(|(name, value)| Fact::Value { value, name: name.into() }).collect()
        } else {
            Vec::new()
        };
        facts.iter().for_each(|fact| self.rows.write(fact, 1));
    }

    /// The reading of this process's clock: milliseconds since its start, from 1.
    fn reading(&self) -> u64 {
        u64::try_from(self.now.since(self.started).as_millis()).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    /// The moment at which this process's clock showed a reading, or slightly earlier.
    pub(super) fn moment(&self, heartbeat: u64) -> Time {
        self.started.after(Duration::from_millis(heartbeat.min(self.heartbeat).saturating_sub(1)))
    }

    /// Publishes a heartbeat. Each reading is published only once, so every answer to it was written afterwards.
    pub(super) fn publish_heartbeat(&mut self) {
        let reading = self.reading();
        if reading <= self.heartbeat {
            self.heartbeat_at = self.now.after(Duration::from_millis(1));
            return;
        }
        self.heartbeat = reading;
        self.heartbeat_at = self.now.after(self.times.heartbeat);
        self.rows.write(&Fact::Heartbeat, reading);
    }

    fn publish_demand(&mut self) {
        let changed = |named: &Named| {
            let change = named.demand.abs_diff(named.published);
            change > 0 && (change > named.quota.whole / 64 || named.demand == 0 || named.published == 0)
        };
        let changed = self.names.range::<str, _>(self.slice.range()).filter(|(_, named)| changed(named));
        let changed: Vec<_> = changed.map(|(name, named)| (name.clone(), named.rate, named.demand)).collect();
        for (name, rate, demand) in changed {
            self.rows.write_gauge(&Fact::Demand { rate, name: name.clone() }, demand);
            if let Some(named) = self.names.get_mut(&name) {
                named.published = demand;
            }
        }
    }
}
