//! The fingerprint of a cache: the sum of the hashes of its live entries.
//!
//! Replicas remove expired entries at different moments. So the sums of entries that expire are kept by minute, and two
//! replicas compare only entries that expire after a time at which both still have them.

use std::collections::BTreeMap;
use tallymesh_schemas::UnixMs;

use crate::cache::entry::Entry;

const MINUTE_MS: u64 = 60_000;

/// Sums of the hashes of entries, modulo 2^64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    /// Entries that never expire.
    lasting: u64,
    /// The others by the minute in which they expire: the sum, and their number.
    expiring: BTreeMap<u64, (u64, u64)>,
}

fn minute_of(unix_ms: UnixMs) -> u64 {
    unix_ms.0 / MINUTE_MS
}

/// The last minute that a comparison leaves out at a time: entries that expire later exist on all nodes, also on those whose
/// clock is ahead.
pub(crate) fn comparable_after(unix_ms: UnixMs) -> UnixMs {
    UnixMs((minute_of(unix_ms) + 2) * MINUTE_MS)
}

impl Fingerprint {
    pub(crate) fn add(&mut self, entry: &Entry) {
        match entry.expires_ms {
            UnixMs::ZERO => self.lasting = self.lasting.wrapping_add(entry.hash()),
            at => {
                let (sum, entries) = self.expiring.entry(minute_of(at)).or_default();
                *sum = sum.wrapping_add(entry.hash());
                *entries += 1;
            }
        }
    }

    pub(crate) fn subtract(&mut self, entry: &Entry) {
        let minute = minute_of(entry.expires_ms);
        match entry.expires_ms {
            UnixMs::ZERO => self.lasting = self.lasting.wrapping_sub(entry.hash()),
            _ => {
                if let Some((sum, entries)) = self.expiring.get_mut(&minute) {
                    *sum = sum.wrapping_sub(entry.hash());
                    *entries -= 1;
                    if *entries == 0 {
                        self.expiring.remove(&minute);
                    }
                }
            }
        }
    }

    /// The sum over the entries that expire never, or in a later minute than that of `unix_ms`.
    pub(crate) fn after(&self, unix_ms: UnixMs) -> u64 {
        let later = self.expiring.range(minute_of(unix_ms) + 1..);
        later.fold(self.lasting, |sum, (_, (of_minute, _))| sum.wrapping_add(*of_minute))
    }

    /// Whether an entry is in the sum after a time.
    pub(crate) fn has(entry: &Entry, unix_ms: UnixMs) -> bool {
        entry.expires_ms == UnixMs::ZERO || minute_of(entry.expires_ms) > minute_of(unix_ms)
    }
}
