//! The rows of this process: their values, and the writes that change them.

use std::collections::{BTreeMap, VecDeque};

use crate::limiter::fact::{self, Fact, Process};

/// A row to write: the amounts by which the row's totals `added` and `removed` grow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// The key of the row.
    pub key: String,
    /// The growth of `added`.
    pub added: u64,
    /// The growth of `removed`.
    pub removed: u64,
}

/// The rows of this process.
#[derive(Debug)]
pub(super) struct Rows {
    config_fingerprint: u64,
    nonce: u64,
    /// Their current totals, from which the growth of each write is computed.
    known: BTreeMap<String, (u64, u64)>,
    writes: VecDeque<Write>,
}

impl Rows {
    /// No rows yet. All keys carry the configuration's fingerprint and the number of the writing process.
    pub(super) fn new(config_fingerprint: u64, nonce: u64) -> Self {
        Self { config_fingerprint, nonce, known: BTreeMap::new(), writes: VecDeque::new() }
    }

    /// Removes and returns the next row to write.
    pub(super) fn poll(&mut self) -> Option<Write> {
        self.writes.pop_front()
    }

    /// Raises a row of this process to a total.
    pub(super) fn write(&mut self, fact: &Fact, total: u64) {
        let key = fact::encode(self.config_fingerprint, self.nonce, fact);
        let row = self.known.entry(key.clone()).or_default();
        let more = total.saturating_sub(row.0);
        if more > 0 {
            row.0 = total;
            self.writes.push_back(Write { key, added: more, removed: 0 });
        }
    }

    /// Sets a row of this process to a value that can rise and fall.
    pub(super) fn write_gauge(&mut self, fact: &Fact, value: u64) {
        let key = fact::encode(self.config_fingerprint, self.nonce, fact);
        let row = self.known.entry(key.clone()).or_default();
        let shown = row.0 - row.1;
        let (added, removed) = (value.saturating_sub(shown), shown.saturating_sub(value));
        *row = (row.0 + added, row.1 + removed);
        let idle = value == 0;
        if idle {
            self.known.remove(&key);
        }
        self.writes.push_back(Write { key, added, removed });
    }

    /// Closes the rows in which this process answers a lender that is gone.
    pub(super) fn close_answers_to(&mut self, lender: &Process) {
        let to_lender = |key: &&String| {
            let Some((_, _, fact)) = fact::decode(key.as_bytes()) else { return false };
            matches!(fact, Fact::Returned { to, .. } | Fact::Ended { to, .. } if to == *lender)
        };
        let keys: Vec<_> = self.known.keys().filter(to_lender).cloned().collect();
        for key in keys {
            if let Some((added, removed)) = self.known.remove(&key) {
                self.writes.push_back(Write { key, added: 0, removed: added - removed });
            }
        }
    }

    /// Closes a row of this process permanently: it becomes zero and is later retired.
    pub(super) fn close(&mut self, fact: &Fact) {
        let key = fact::encode(self.config_fingerprint, self.nonce, fact);
        if let Some((added, removed)) = self.known.remove(&key) {
            self.writes.push_back(Write { key, added: 0, removed: added - removed });
        }
    }
}
