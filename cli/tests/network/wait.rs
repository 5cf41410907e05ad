//! Waits for conditions, never for a fixed time.

use std::time::{Duration, Instant};

/// Longer than a cluster needs to recover on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between two checks.
const LOOK: Duration = Duration::from_millis(50);

/// Calls `look` until it succeeds, and returns how long that took. When the time is over, the test fails with its last error.
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

/// Like [`until`], for a condition without a value.
pub(crate) fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) -> Duration {
    until(what, within, || if look() { Ok(()) } else { Err("the condition is false".to_owned()) }).1
}
