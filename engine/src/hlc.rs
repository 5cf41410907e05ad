//! Hybrid logical clocks: the order of a cache's writes.
//!
//! After Kulkarni, Demirbas, Madappa, Avva and Leone (2014). A stamp is later than every stamp that its writer has seen, and
//! close to the wall clock. The distance is bounded: a node neither issues nor accepts stamps that are further ahead.

use std::time::Duration;

use tallymesh_schemas::UnixMs;
use tallymesh_schemas::bounds;

/// Number of bits of a stamp that count the writes within a millisecond.
const COUNTER_BITS: u32 = 16;

/// The time of a write: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub fn at(unix_ms: UnixMs) -> Self {
        Self(unix_ms.0.min(bounds::UNIX_MS) << COUNTER_BITS)
    }

    /// The millisecond.
    pub fn unix_ms(self) -> UnixMs {
        UnixMs(self.0 >> COUNTER_BITS)
    }

    /// How far the stamp is ahead of a wall clock, if that is more than allowed; `None` otherwise.
    pub(crate) fn beyond(self, unix_ms: UnixMs) -> Option<Duration> {
        let ahead = self.unix_ms().since(unix_ms);
        (ahead > bounds::MAX_DRIFT).then_some(ahead)
    }
}

/// The latest stamp that a node has issued or accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HybridClock(Stamp);

impl HybridClock {
    /// Records a stamp of another node.
    pub(crate) fn observe(&mut self, stamp: Stamp) {
        self.0 = self.0.max(stamp);
    }

    /// The next stamp.
    ///
    /// # Errors
    /// How far the stamp would be ahead of the wall clock, if that is more than allowed. Then no stamp is used up.
    pub(crate) fn next(&mut self, unix_ms: UnixMs) -> Result<Stamp, Duration> {
        let next = Stamp(self.0.0.saturating_add(1)).max(Stamp::at(unix_ms));
        match next.beyond(unix_ms) {
            Some(ahead) => Err(ahead),
            None => {
                self.0 = next;
                Ok(next)
            }
        }
    }

    /// The latest stamp that was issued or recorded.
    pub(crate) fn latest(&self) -> Stamp {
        self.0
    }

    /// Sets the clock back, to a stamp that is later than all that other nodes have accepted.
    pub(crate) fn set_back(&mut self, stamp: Stamp) {
        self.0 = stamp;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Each stamp is later than all issued or observed before it, and none is further ahead of the wall clock than
        /// allowed.
        #[test]
        fn stamps_rise_within_the_drift(steps in prop::collection::vec((0_u64..200_000, prop::option::of(0_u64..100_000)), 1..100)) {
            let mut clock = HybridClock::default();
            let mut last = Stamp::default();
            for (wall, other) in steps {
                if let Some(other) = other.map(|ms| Stamp::at(UnixMs(ms))).filter(|other| other.beyond(UnixMs(wall)).is_none()) {
                    clock.observe(other);
                    last = last.max(other);
                }
                match clock.next(UnixMs(wall)) {
                    Ok(stamp) => {
                        prop_assert!(stamp > last && stamp.beyond(UnixMs(wall)).is_none());
                        last = stamp;
                    }
                    Err(ahead) => prop_assert!(ahead > bounds::MAX_DRIFT && last.unix_ms() > UnixMs(wall)),
                }
            }
        }
    }
}
