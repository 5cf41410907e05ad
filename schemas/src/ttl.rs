//! The time to live of an entry of a cache, in its readable form.

use std::time::Duration;

use crate::bounds;

/// Why a time to live was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no time to live: write seconds, or minutes or hours as in 5M and 2H; 0 is for ever")]
pub struct TtlError(pub String);

/// Parses a time to live: seconds, minutes with `M`, hours with `H`; zero means forever.
///
/// # Errors
/// [`TtlError`] with the text.
pub fn parse(text: &str) -> Result<Duration, TtlError> {
    let error = || TtlError(text.to_owned());
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 60),
        Some(b'H' | b'h') => (text.get(..text.len() - 1), 3600),
        _ => (Some(text), 1),
    };
    let digits = digits.filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.and_then(|digits| digits.parse::<u64>().ok()).and_then(|n| n.checked_mul(unit));
    seconds.filter(|seconds| *seconds <= bounds::UNIX_MS / 1000).map(Duration::from_secs).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_minutes_and_hours() {
        for (text, seconds) in [("0", 0), ("90", 90), ("5M", 300), ("2h", 7200), ("0H", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in ["", "M", "-1", "1.5", "5D", "+5", "99999999999999999999", "9999999999999H"] {
            assert_eq!(parse(bad), Err(TtlError(bad.to_owned())));
        }
    }
}
