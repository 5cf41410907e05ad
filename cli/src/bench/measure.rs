//! The measurements, which are the same for a cluster and for Redis.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::samples::percentile;

/// Keys of a round of changes. Two rounds have no key in common.
pub(super) const ROUND: usize = 100_000;

/// The pause after which a change finds everything idle: twice the longest time for which changes are batched.
const PAUSE: Duration = Duration::from_millis(20);

/// Changes that are made before the first one that is measured.
const UNMEASURED: usize = 10;

/// The largest number of samples of one figure.
const SAMPLES: usize = 1 << 20;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Measure {
    SeenAfterPauseP50,
    SeenAfterPauseP99,
    SeenBackToBackP50,
    SeenBackToBackP99,
    Sustained,
    BytesARow,
    IncrementOneByOne,
    IncrementFastest,
    Join,
    IdleProcessor,
    IdleBytes,
}

/// The results.
pub(super) type Figures = BTreeMap<Measure, f64>;

/// The description of a measurement.
pub(super) struct About {
    /// Its name in JSON.
    pub(super) key: &'static str,
    /// What is measured.
    pub(super) what: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// Whether the larger figure is the better one.
    pub(super) more_is_better: bool,
}

impl Measure {
    /// All of them, in the order of the table.
    pub(super) const ALL: [Self; 11] = [
        Self::SeenAfterPauseP50,
        Self::SeenAfterPauseP99,
        Self::SeenBackToBackP50,
        Self::SeenBackToBackP99,
        Self::Sustained,
        Self::BytesARow,
        Self::IncrementOneByOne,
        Self::IncrementFastest,
        Self::Join,
        Self::IdleProcessor,
        Self::IdleBytes,
    ];

    /// Its description.
    pub(super) fn about(self) -> About {
        let (key, what, unit, more_is_better) = match self {
            Self::SeenAfterPauseP50 => ("seen_after_pause_p50", "change seen, after a pause, p50", "µs", false),
            Self::SeenAfterPauseP99 => ("seen_after_pause_p99", "change seen, after a pause, p99", "µs", false),
            Self::SeenBackToBackP50 => ("seen_back_to_back_p50", "change seen, back to back, p50", "µs", false),
            Self::SeenBackToBackP99 => ("seen_back_to_back_p99", "change seen, back to back, p99", "µs", false),
            Self::Sustained => ("sustained", "changes of distinct keys, node to node", "rows/s", true),
            Self::BytesARow => ("bytes_a_row", "bytes of such a change, both ways", "bytes", false),
            Self::IncrementOneByOne => ("increment_one_by_one", "increment by key, one by one", "ns", false),
            Self::IncrementFastest => ("increment_fastest", "increment, the fastest way", "ns", false),
            Self::Join => ("join", "node that joins takes what there is", "rows/s", true),
            Self::IdleProcessor => ("idle_processor", "idle: processor time of a node", "ms/s", false),
            Self::IdleBytes => ("idle_bytes", "idle: bytes over the link", "bytes/s", false),
        };
        About { key, what, unit, more_is_better }
    }
}

/// The keys of a round: domains of 20 bytes.
pub(super) fn keys(round: usize) -> Vec<String> {
    (round * ROUND..(round + 1) * ROUND).map(key).collect()
}

/// The `n`th key.
pub(super) fn key(n: usize) -> String {
    format!("mail{n:07}.test.net")
}

/// Measures the microseconds from a change until it is seen: median and 99th percentile, after pauses and back to back.
/// `change` makes one change, and returns when it has been seen.
pub(super) fn seen(
    figures: &mut Figures,
    time: Duration,
    mut change: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Failure> {
    // A replica that has just joined may lag for a moment: the primary of Redis sends nothing until the replica has confirmed
    // the end of its synchronization.
    (0..UNMEASURED).try_for_each(|_| change())?;
    let mut sample = |pause: Option<Duration>| -> Result<[f64; 2], Failure> {
        let (begun, mut samples) = (Instant::now(), Vec::new());
        while begun.elapsed() < time && samples.len() < SAMPLES {
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            }
            let start = Instant::now();
            change()?;
            samples.push(start.elapsed());
        }
        samples.sort_unstable();
        Ok([0.5, 0.99].map(|part| percentile(&samples, part).as_secs_f64() * 1e6))
    };
    let [p50, p99] = sample(Some(PAUSE))?;
    figures.extend([(Measure::SeenAfterPauseP50, p50), (Measure::SeenAfterPauseP99, p99)]);
    let [p50, p99] = sample(None)?;
    figures.extend([(Measure::SeenBackToBackP50, p50), (Measure::SeenBackToBackP99, p99)]);
    Ok(())
}

/// Measures the nanoseconds of one operation. `batch` does `n` operations, and is called again and again.
pub(super) fn ns_each(
    time: Duration,
    n: usize,
    mut batch: impl FnMut() -> Result<(), Failure>,
) -> Result<f64, Failure> {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < time {
        batch()?;
        done += n;
    }
    Ok(start.elapsed().as_nanos() as f64 / done.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_is_listed_once_under_a_name_of_its_own() {
        let keys: std::collections::BTreeSet<_> = Measure::ALL.iter().map(|measure| measure.about().key).collect();
        assert_eq!(keys.len(), Measure::ALL.len());
        assert!(Measure::ALL.is_sorted());
    }

    #[test]
    fn two_rounds_have_no_key_in_common() {
        let (first, second) = (keys(0), keys(1));
        assert_eq!((first.len(), first[0].len()), (ROUND, 20));
        assert!(first.last() < second.first());
    }
}
