//! The latest stamps that a replica of a cache has received.

use std::collections::BTreeMap;

use crate::hlc::Stamp;

/// Hours of which the latest stamp is kept.
const HOURS: usize = 32;

/// The latest stamp that was received, for each hour of stamps: whichever of them turn out to be of the future, the latest of
/// the others is known.
#[derive(Debug, Default)]
pub(crate) struct Received(BTreeMap<u64, Stamp>);

impl Received {
    pub(crate) fn note(&mut self, stamp: Stamp) {
        let latest = self.0.entry(stamp.unix_ms().0 / 3_600_000).or_default();
        *latest = stamp.max(*latest);
        if self.0.len() > HOURS {
            self.0.pop_first();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Stamp> {
        self.0.values().copied()
    }
}
