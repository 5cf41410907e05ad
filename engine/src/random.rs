//! Deterministic random numbers for jitter: SplitMix64 (Steele, Lea and Flood 2014).

use std::time::Duration;

#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns `duration`, changed at random by at most a fifth.
    pub(crate) fn jitter(&mut self, duration: Duration) -> Duration {
        duration.mul_f64(0.8 + 0.4 * (self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}
