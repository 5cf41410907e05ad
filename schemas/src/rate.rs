//! Rates in their readable form: a number of tokens per period.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

/// A number of tokens per period, and a burst: how many may be taken at once after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    tokens: u64,
    period_us: u64,
    burst: u64,
}

/// Why a rate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not "X" or "X/Y".
    #[error("\"{0}\" is not a rate: write how many in how long, as in \"300/5m\", \"10/1s\" or \"10\" for a second")]
    Form(String),
    /// A number that is too small or too large.
    #[error("{what} is from {min} to {max}")]
    Range {
        /// The number that is out of range.
        what: &'static str,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
}

impl Rate {
    /// Most tokens of a rate and of a burst.
    pub const TOKENS: u64 = 1 << 32;

    /// Longest period, in seconds: a week.
    pub const PERIOD_SECONDS: u64 = 7 * 24 * 60 * 60;

    /// A rate of `tokens` in `period`, of which `burst` may come at once.
    ///
    /// # Errors
    /// [`RateError::Range`] unless tokens and burst are 1 to [`Rate::TOKENS`] and the period is one millisecond to a week.
    pub fn new(tokens: u64, period: Duration, burst: u64) -> Result<Self, RateError> {
        let within = |what, value, max| {
            if (1..=max).contains(&value) { Ok(value) } else { Err(RateError::Range { what, min: 1, max }) }
        };
        let millis = u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Ok(Self {
            tokens: within("the number of a rate", tokens, Self::TOKENS)?,
            period_us: within("the period of a rate in milliseconds", millis, Self::PERIOD_SECONDS * 1000)? * 1000,
            burst: within("a burst", burst, Self::TOKENS)?,
        })
    }

    /// The same rate with another burst.
    ///
    /// # Errors
    /// As [`Rate::new`].
    pub fn with_burst(self, burst: u64) -> Result<Self, RateError> {
        Self::new(self.tokens, self.period(), burst)
    }

    /// Tokens per period.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The period.
    pub fn period(&self) -> Duration {
        Duration::from_micros(self.period_us)
    }

    /// The period in microseconds.
    pub fn period_us(&self) -> u64 {
        self.period_us
    }

    /// How many tokens may be taken at once. The default is the number of tokens per period.
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// How many tokens a duration gives, rounded up.
    pub fn within(&self, time: Duration) -> u64 {
        let micros = time.as_micros().saturating_mul(u128::from(self.tokens));
        u64::try_from(micros.div_ceil(u128::from(self.period_us))).unwrap_or(u64::MAX)
    }
}

/// Parses `300`, `300/60`, `300/5m`, `10/500ms`. A number alone means per second. A period without a unit is in seconds.
impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let form = || RateError::Form(text.to_owned());
        let (count, period) = text.split_once('/').map_or((text, "1s"), |(count, period)| (count, period));
        let whole = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX)).ok_or_else(form)
        };
        let (count, period) = (count.trim(), period.trim());
        let digits = period.find(|c: char| !c.is_ascii_digit()).unwrap_or(period.len());
        let (number, unit) = period.split_at(digits);
        let millis = match unit.trim() {
            "ms" => 1,
            "" | "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(form()),
        };
        let tokens = whole(count)?;
        Self::new(tokens, Duration::from_millis(whole(number)?.saturating_mul(millis)), tokens)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.period_us / 1000;
        let period = match millis {
            _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
            _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
            _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
            _ => format!("{millis}ms"),
        };
        f.pad(&format!("{}/{period}", self.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let read =
            |text: &str| text.parse::<Rate>().map(|rate| (rate.tokens(), rate.period().as_millis(), rate.burst()));
        assert_eq!(read("300"), Ok((300, 1000, 300)));
        assert_eq!(read("300/60"), Ok((300, 60_000, 300)));
        assert_eq!(read("300/5m"), Ok((300, 300_000, 300)));
        assert_eq!(read(" 10 / 500ms "), Ok((10, 500, 10)));
        assert_eq!(read("1/7d"), Ok((1, 604_800_000, 1)));
        for bad in ["", "/", "x", "1/", "/1", "-1", "1/x", "1.5", "1/5 minutes", "300/5m/2"] {
            assert_eq!(read(bad), Err(RateError::Form(bad.to_owned())), "{bad}");
        }
        for bad in ["0", "0/1s", "1/0", "1/8d", "99999999999", "1/99999999999999999999h"] {
            assert!(matches!(read(bad), Err(RateError::Range { .. })), "{bad}");
        }
        for text in ["300/5m", "300/1s", "1/7ms", "2/2h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn tokens_within_a_time_are_rounded_up() {
        let rate: Rate = "3/1s".parse().unwrap();
        assert_eq!(rate.within(Duration::from_millis(1)), 1);
        assert_eq!(rate.within(Duration::from_secs(2)), 6);
    }
}
