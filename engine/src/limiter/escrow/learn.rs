//! Input: the facts of other processes.

use std::sync::Arc;

use tallymesh_schemas::{Bound, NodeName, Rate, bounds};

use crate::limiter::board::Stage;
use crate::limiter::escrow::state::Escrow;
use crate::limiter::fact::{self, Fact, Process, Totals};
use crate::time::Time;

impl Escrow {
    /// Handles a row of another node in its latest known state. It has no effect beyond the writer's rights: only
    /// a founder's support, claims and loans count, and none for this process itself.
    pub fn learn(&mut self, now: Time, node: &NodeName, key: &[u8], added: u64, removed: u64) {
        let Some((config_fingerprint, by, fact)) = fact::decode(key) else { return };
        if *node == self.process.node && by == self.process.nonce {
            return;
        }
        let process = Process { node: node.clone(), nonce: by };
        let totals = Totals { added, removed };
        if self.learn_configuration(now, &process, &fact, totals) {
            return;
        }
        if config_fingerprint != self.config_fingerprint {
            self.strangers = self.strangers.saturating_add(1);
            self.tells = true;
            return;
        }
        if self.configurations.differs(&process, self.fingerprint) {
            return;
        }
        let is_founder = self.founding.founders.contains(node);
        if matches!(fact, Fact::Support { .. } | Fact::Ack { .. }) {
            // End what has expired before handling a fact that might extend it.
            self.now = self.now.max(now);
            self.lapse();
            self.end_lendings();
        }
        match fact {
            Fact::Heartbeat => {
                let Some(other) = self.board.entry(now, &process) else { return };
                if added > other.heartbeat {
                    if other.heartbeat > 0 {
                        other.heard = Some(now);
                    }
                    other.heartbeat = added;
                }
            }
            Fact::Claim { seat: of, claim } if is_founder && of < self.founding.founders.len() => {
                if let (Some(stage), Some(other)) = (Stage::from(added), self.board.entry(now, &process)) {
                    other.claim(of, claim, stage);
                }
            }
            Fact::Support { seat: of, to, claim, vote } if is_founder && to == self.process => {
                if let Some(other) = self.board.entry(now, &process) {
                    other.support(of, claim, vote, added);
                }
            }
            Fact::Ack { to, lease } if is_founder && to == self.process => self.learn_ack(now, &process, lease, totals),
            Fact::Lent { to, lease, name } if is_founder && to == self.process => {
                self.learn_lent(now, &process, lease, name, totals);
            }
            Fact::Returned { to, lease, name } if to == self.process => {
                self.learn_returned(&process, lease, &name, added)
            }
            Fact::Ended { to, lease } if to == self.process => self.learn_ended(&process, lease),
            Fact::Demand { rate, name } => self.learn_demand(now, &process, rate, name, added.saturating_sub(removed)),
            _ => {}
        }
    }

    /// Handles a fact about a process's configuration. Returns whether the fact is one.
    fn learn_configuration(&mut self, now: Time, process: &Process, fact: &Fact, totals: Totals) -> bool {
        match fact {
            Fact::Agreement { fingerprint } if !totals.is_closed() => {
                self.configurations.note(process, now, *fingerprint);
                if *fingerprint != self.fingerprint {
                    self.tells = true;
                    // Nothing of this process counts, including facts received earlier.
                    self.board.others.remove(process);
                }
                true
            }
            Fact::Value { value, name } if !totals.is_closed() => {
                self.configurations.note_value(process, now, name, value);
                true
            }
            Fact::Agreement { .. } | Fact::Value { .. } => true,
            _ => false,
        }
    }

    fn learn_demand(&mut self, now: Time, process: &Process, rate: Option<Rate>, name: Arc<str>, units: u64) {
        if self.board.entry(now, process).is_none() {
            return;
        }
        if let Some(rate) = rate.filter(|_| units > 0 && self.own_seat.is_some() && !self.names.contains_key(&name)) {
            if self.asked.len() < bounds::SHARED_NAMES {
                self.asked.insert(name.clone(), rate);
            } else {
                self.board.tally.reached(Bound::SharedNames);
            }
        }
        let noted = self.board.entry(now, process).is_some_and(|other| other.demand(name, rate, units));
        if !noted {
            self.board.tally.reached(Bound::SharedNames);
        }
    }
}
