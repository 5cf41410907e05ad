//! Hybrid logical clocks: the order in which a cache's writes stand.
//!
//! After Kulkarni, Demirbas, Madappa, Avva and Leone (2014). A stamp is later than every stamp that its writer had seen,
//! and close to the wall clock; how close is bounded, and kept by refusing to give or take what lies further ahead.

use std::time::Duration;

use tallymesh_schemas::limits;

/// Bits of a stamp that count the writes within a millisecond.
const COUNTER_BITS: u32 = 16;

/// When something was written: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub fn at(unix_ms: u64) -> Self {
        Self(unix_ms.min(limits::UNIX_MS) << COUNTER_BITS)
    }

    /// The millisecond.
    pub fn unix_ms(self) -> u64 {
        self.0 >> COUNTER_BITS
    }

    /// By how much it lies further ahead of a wall clock than any stamp may; `None` when it does not.
    pub(crate) fn beyond(self, unix_ms: u64) -> Option<Duration> {
        let ahead = Duration::from_millis(self.unix_ms().saturating_sub(unix_ms));
        (ahead > limits::MAX_DRIFT).then_some(ahead)
    }
}

/// The latest stamp that a node has given or taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HybridClock(Stamp);

impl HybridClock {
    /// Takes note of another's stamp.
    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.0 = self.0.max(stamp);
    }

    /// The next stamp.
    ///
    /// # Errors
    /// By how much it would be ahead of the wall clock, when that is too much; no stamp is used up then.
    pub(crate) fn next(&mut self, unix_ms: u64) -> Result<Stamp, Duration> {
        let next = Stamp(self.0.0.saturating_add(1)).max(Stamp::at(unix_ms));
        match next.beyond(unix_ms) {
            Some(ahead) => Err(ahead),
            None => {
                self.0 = next;
                Ok(next)
            }
        }
    }

    /// Whether it is so far ahead of the wall clock that it gives no stamps.
    pub(crate) fn is_beyond(&self, unix_ms: u64) -> bool {
        self.0.beyond(unix_ms).is_some()
    }

    /// Goes back: what lay in the future was no one's.
    pub(crate) fn set_back(&mut self, stamp: Stamp) {
        self.0 = stamp;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each stamp is later than all before it, given or taken, and none is further ahead of the wall clock than it may be.
        #[test]
        fn stamps_rise_within_the_drift(steps in prop::collection::vec((0_u64..200_000, prop::option::of(0_u64..100_000)), 1..100)) {
            let mut clock = HybridClock::default();
            let mut last = Stamp::default();
            for (wall, other) in steps {
                if let Some(other) = other.map(Stamp::at).filter(|other| other.beyond(wall).is_none()) {
                    clock.observe(other);
                    last = last.max(other);
                }
                match clock.next(wall) {
                    Ok(stamp) => {
                        prop_assert!(stamp > last && stamp.beyond(wall).is_none());
                        last = stamp;
                    }
                    Err(ahead) => prop_assert!(ahead > limits::MAX_DRIFT && last.unix_ms() > wall),
                }
            }
        }
    }
}
