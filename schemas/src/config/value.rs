//! One setting of a block, read as its required type.
//!
//! A value is a literal: a string, a number, `true` or `false`, or a list of strings, with or without parentheses. The reader
//! refuses variables, functions and operators and does not evaluate them: no setting needs them, and the evaluation of `hcl-rs`
//! panics on an overflow or a remainder of zero.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of a configuration was checked against its range"
)]

use std::fmt::Display;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::Duration;

use hcl::Number;
use hcl::edit::Span;
use hcl::edit::expr::Expression;
use hcl::edit::structure::Attribute;

use crate::config::report::{Report, quoted};

/// A key with its value.
#[derive(Clone, Copy)]
pub(super) struct Setting<'a> {
    pub(super) key: &'a str,
    /// The position of the key.
    pub(super) key_at: usize,
    value: &'a Expression,
}

/// A string and where its first character stands.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Setting<'a> {
    pub(super) fn of(attribute: &'a Attribute) -> Self {
        let key_at = attribute.key.span().or(attribute.span()).map_or(0, |span| span.start);
        Self { key: attribute.key.as_str(), key_at, value: plain(&attribute.value) }
    }

    /// Where the value stands.
    pub(super) fn at(&self) -> usize {
        self.value.span().map_or(self.key_at, |span| span.start)
    }

    /// The value as a string. `example` is a valid one.
    pub(super) fn text(&self, report: &mut Report<'_>, example: &str) -> Option<Text<'a>> {
        text(self.key, self.value, self.at(), report, example)
    }

    /// The value as a list of strings; one string is a list of one.
    pub(super) fn texts(&self, report: &mut Report<'_>, example: &str) -> Vec<Text<'a>> {
        match self.value {
            Expression::Array(list) => list
                .iter()
                .filter_map(|item| {
                    let item = plain(item);
                    text(self.key, item, item.span().map_or(self.at(), |span| span.start), report, example)
                })
                .collect(),
            one => text(self.key, one, self.at(), report, example).into_iter().collect(),
        }
    }

    /// The value as seconds within a range.
    pub(super) fn seconds(&self, report: &mut Report<'_>, range: &RangeInclusive<f64>) -> Option<Duration> {
        match self.value {
            Expression::Number(number) => match number.value().as_f64() {
                Some(seconds) if range.contains(&seconds) => Duration::try_from_secs_f64(seconds).ok(),
                _ => self.out_of_range(report, number.value(), "seconds", range),
            },
            _ => self.wrong_type(report, "a number of seconds", &format!("{} = 0.5", self.key)),
        }
    }

    /// The value as thousandths of one, from 0.001 to 1.
    pub(super) fn fraction(&self, report: &mut Report<'_>) -> Option<u16> {
        let range = 0.001..=1.0;
        match self.value {
            Expression::Number(number) => match number.value().as_f64() {
                Some(part) if range.contains(&part) => Some((part * 1000.0).round() as u16),
                _ => self.out_of_range(report, number.value(), "a number", &range),
            },
            _ => self.wrong_type(report, "a number", &format!("{} = 0.95", self.key)),
        }
    }

    /// The value as a whole number within a range. `also` is one more number that is allowed.
    pub(super) fn count(&self, report: &mut Report<'_>, range: &RangeInclusive<u64>, also: Option<i64>) -> Option<i64> {
        let fits = |count: i64| also == Some(count) || u64::try_from(count).is_ok_and(|count| range.contains(&count));
        let what = also.map_or("a whole number".to_owned(), |also| format!("{also} or a whole number"));
        match self.value {
            Expression::Number(number) if !has_fraction(number.value()) => match number.value().as_i64() {
                Some(count) if fits(count) => Some(count),
                _ => self.out_of_range(report, number.value(), &what, range),
            },
            _ => self.wrong_type(report, &what, &format!("{} = {}", self.key, range.end().min(&1000))),
        }
    }

    /// The value as a bound; -1 means none.
    pub(super) fn bound(&self, report: &mut Report<'_>, range: &RangeInclusive<u64>) -> Option<NonZeroU64> {
        let most = self.count(report, range, Some(-1))?;
        u64::try_from(most).ok().and_then(NonZeroU64::new)
    }

    /// The value as `true` or `false`.
    pub(super) fn truth(&self, report: &mut Report<'_>) -> Option<bool> {
        match self.value {
            Expression::Bool(truth) => Some(*truth.value()),
            _ => self.wrong_type(report, "true or false", &format!("{} = true", self.key)),
        }
    }

    fn out_of_range<T, N: Display>(
        &self,
        report: &mut Report<'_>,
        number: &Number,
        what: &str,
        range: &RangeInclusive<N>,
    ) -> Option<T> {
        let message = format!("\"{}\" is out of range: {number}", self.key);
        report.add(self.at(), message, format!("write {what} from {} to {}", range.start(), range.end()));
        None
    }

    fn wrong_type<T>(&self, report: &mut Report<'_>, wanted: &str, example: &str) -> Option<T> {
        let message = format!("\"{}\" must be {wanted}, not {}", self.key, kind(self.value));
        let help = match self.value {
            Expression::String(text) if text.parse::<f64>().is_ok() || text.parse::<bool>().is_ok() => {
                format!("take the quotes off: {} = {}", self.key, text.trim())
            }
            _ => format!("write it as in: {example}"),
        };
        report.add(self.at(), message, help);
        None
    }
}

fn text<'a>(key: &str, value: &'a Expression, at: usize, report: &mut Report<'_>, example: &str) -> Option<Text<'a>> {
    let help = match value {
        Expression::String(text) => return Some(Text { text, at: at + 1 }),
        Expression::StringTemplate(_) => {
            "write the value out; a ${ or %{ that is meant so is written $${ or %%{".to_owned()
        }
        Expression::Variable(name) => format!("put it in double quotes: {}", quoted(name.as_str())),
        Expression::Number(number) => format!("put it in double quotes: \"{}\"", number.value()),
        _ => format!("write it as in: {example}"),
    };
    report.add(at, format!("\"{key}\" must be a string, not {}", kind(value)), help);
    None
}

/// The expression without the parentheses around it.
fn plain(mut value: &Expression) -> &Expression {
    while let Expression::Parenthesis(inner) = value {
        value = inner.inner();
    }
    value
}

fn has_fraction(number: &Number) -> bool {
    number.as_f64().is_some_and(|number| number.fract() != 0.0)
}

fn kind(value: &Expression) -> &'static str {
    match value {
        Expression::Null(_) => "null",
        Expression::Bool(_) => "true or false",
        Expression::Number(number) if has_fraction(number.value()) => "a fraction",
        Expression::Number(_) => "a number",
        Expression::String(_) => "a string",
        Expression::Array(_) => "a list",
        Expression::Object(_) => "an object",
        Expression::StringTemplate(_) => "a template",
        Expression::HeredocTemplate(_) => "a heredoc",
        Expression::Variable(_) => "a word without quotes",
        Expression::FuncCall(_) => "a function call",
        _ => "an expression",
    }
}
