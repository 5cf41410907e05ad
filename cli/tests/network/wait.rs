//! Waiting for a condition, never for a while.

use std::time::{Duration, Instant};

/// Longer than a cluster takes to be whole again, on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until there is something, and says how long it took. What a look lacks is what the test fails with when time is
/// up.
pub(crate) fn until<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, String>) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return (found, start.elapsed()),
            Err(lack) if start.elapsed() > within => panic!("{what}: not within {within:?}: {lack}"),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// As [`until`] for what is there or is not.
pub(crate) fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) -> Duration {
    until(what, within, || if look() { Ok(()) } else { Err("it is not so yet".to_owned()) }).1
}
