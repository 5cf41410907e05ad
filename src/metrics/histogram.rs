//! Counts of times by size.

use std::time::Duration;

/// The upper limits of the buckets, in microseconds. A last bucket holds everything longer.
const LIMITS: [u32; 15] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Counts of times by size.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    counts: [u64; LIMITS.len()],
    longer: u64,
    sum: Duration,
}

impl Histogram {
    /// Counts a time.
    pub(crate) fn note(&mut self, time: Duration) {
        let micros = time.as_micros();
        let at = LIMITS.partition_point(|limit| u128::from(*limit) < micros);
        *self.counts.get_mut(at).unwrap_or(&mut self.longer) += 1;
        self.sum = self.sum.saturating_add(time);
    }

    /// The sum of the times, in seconds.
    pub(crate) fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    /// Number of times.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.longer
    }

    /// The upper limit of each bucket in seconds, and the times in it; the last one has no limit.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        let limited = LIMITS.iter().zip(&self.counts).map(|(limit, count)| (f64::from(*limit) / 1e6, *count));
        limited.chain([(f64::INFINITY, self.longer)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        for micros in [0, 10, 11, 1_000_000, 1_000_001] {
            histogram.note(Duration::from_micros(micros));
        }
        let filled: Vec<_> = histogram.buckets().into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.00001, 2), (0.000025, 1), (1.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum() - 2.000_022).abs() < 1e-9);
    }
}
