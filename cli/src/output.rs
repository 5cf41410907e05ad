//! Writes answers to stdout, as text, JSON or CSV.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;
use tallymesh_schemas::visible;

use crate::failure::Failure;

/// The format of answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people; in the columns of Momentum's console
    #[default]
    Text,
    /// One JSON value; `watch` writes one per line
    Json,
    /// Comma-separated values with a heading (RFC 4180), if the answer is a table
    Csv,
}

impl Format {
    /// Refuses CSV for a command whose answer is no table.
    pub(crate) fn no_csv(self, command: &str) -> Result<Self, Failure> {
        if self == Self::Csv {
            return Err(Failure::Input(format!(
                "`tally {command}` has no table to write as CSV: use --output text or --output json"
            )));
        }
        Ok(self)
    }
}

/// Stdout, buffered.
#[derive(Debug)]
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Opens stdout.
    pub(crate) fn open() -> Self {
        Self(BufWriter::with_capacity(64 << 10, io::stdout().lock()))
    }

    /// Writes a text for people. Invisible characters, such as marks that reverse the text direction, are escaped.
    pub(crate) fn text(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.raw(visible::escaped_beyond_ascii(text.as_ref()))
    }

    /// Writes a text for programs, byte for byte.
    pub(crate) fn raw(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        self.0.write_all(text.as_ref().as_bytes()).map_err(|error| Failure::output(&error))
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> Result<(), Failure> {
        self.text(line)?;
        self.text("\n")
    }

    /// Writes a value as JSON, on one line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        self.raw(json(value)?)?;
        self.raw("\n")
    }

    /// Writes a line of CSV.
    pub(crate) fn csv(&mut self, fields: &[&str]) -> Result<(), Failure> {
        let fields: Vec<_> = fields.iter().map(|field| quoted(field)).collect();
        self.raw(fields.join(","))?;
        self.raw("\n")
    }

    /// Writes everything that is buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(|error| Failure::output(&error))
    }
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::Input(format!("cannot write the output: {error}")))
}

/// A field of CSV, in quotes when it has to be.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_csv_would_misread_are_quoted() {
        assert_eq!(quoted("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("say \"no\""), "\"say \"\"no\"\"\"");
    }
}
