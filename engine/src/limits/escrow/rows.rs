//! Our rows: what they say, and what has to be written so that they say something else.

use std::collections::{BTreeMap, VecDeque};

use super::super::fact::{self, Fact, Seat};
use super::Escrow;
use crate::time::Time;

/// A row to be written: `added` and `removed` are what the row's totals are to grow by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The row.
    pub key: String,
    /// What is added.
    pub added: u64,
    /// What is removed.
    pub removed: u64,
}

/// Our rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// What they say, so that what is written is what they have to grow by.
    known: BTreeMap<String, (u64, u64)>,
    writes: VecDeque<Write>,
}

/// What goes out.
impl Escrow {
    /// The next row to be written.
    pub fn poll_write(&mut self) -> Option<Write> {
        self.rows.writes.pop_front()
    }

    /// When to call [`Escrow::handle_timeout`] at the latest, for beats and lapses; [`Escrow::share`] says when shares end.
    pub fn poll_timeout(&self) -> Time {
        let ends = self.held_claims().map(|(_, until)| until);
        ends.chain([self.heartbeat_at]).min().unwrap_or(self.heartbeat_at)
    }

    /// Brings a row of ours up to a total.
    pub(crate) fn write(&mut self, fact: &Fact, total: u64) {
        let key = fact::encode(self.config_fingerprint, self.seat.nonce, fact);
        let row = self.rows.known.entry(key.clone()).or_default();
        let more = total.saturating_sub(row.0);
        if more > 0 {
            row.0 = total;
            self.rows.writes.push_back(Write { key, added: more, removed: 0 });
        }
    }

    /// Sets a row of ours to a value that goes up and down.
    pub(crate) fn write_gauge(&mut self, fact: &Fact, value: u64) {
        let key = fact::encode(self.config_fingerprint, self.seat.nonce, fact);
        let row = self.rows.known.entry(key.clone()).or_default();
        let shown = row.0 - row.1;
        let (added, removed) = (value.saturating_sub(shown), shown.saturating_sub(value));
        *row = (row.0 + added, row.1 + removed);
        let idle = value == 0;
        if idle {
            self.rows.known.remove(&key);
        }
        self.rows.writes.push_back(Write { key, added, removed });
    }

    /// Closes our answers to a lender that is gone.
    pub(crate) fn close_answers_to(&mut self, lender: &Seat) {
        let ours = self.rows.known.keys().filter(|key| key.starts_with("!r"));
        let to = |key: &&String| matches!(fact::decode(key.as_bytes()), Some((_, _, Fact::Returned { to, .. })) if to == *lender);
        let keys: Vec<_> = ours.filter(to).cloned().collect();
        for key in keys {
            if let Some((added, removed)) = self.rows.known.remove(&key) {
                self.rows.writes.push_back(Write { key, added: 0, removed: added - removed });
            }
        }
    }

    /// Closes a row of ours for good: it becomes zero, and is retired in time.
    pub(crate) fn close(&mut self, fact: &Fact) {
        let key = fact::encode(self.config_fingerprint, self.seat.nonce, fact);
        if let Some((added, removed)) = self.rows.known.remove(&key) {
            self.rows.writes.push_back(Write { key, added: 0, removed: added - removed });
        }
    }
}
