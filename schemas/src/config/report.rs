//! Collects the errors of a configuration file and reports them together, in the order of the file.

use std::fmt;
use std::path::Path;

use crate::bounds;
use crate::visible::is_hidden;

/// All errors of one configuration file, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    more: usize,
}

/// One error of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The error.
    pub message: String,
    /// The help: how to correct it.
    pub help: String,
    /// The line without its indentation, and how many characters precede the error's position in it.
    excerpt: Option<(String, usize)>,
}

impl ConfigErrors {
    /// The errors, at most [`bounds::CONFIG_ERRORS`].
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }

    /// How many errors there are beyond those.
    pub fn more(&self) -> usize {
        self.more
    }

    /// An error of the file.
    pub(super) fn of_file(file: &str, message: &str, help: &str) -> Self {
        let (message, help) = (message.to_owned(), help.to_owned());
        let error = ConfigError { file: file.to_owned(), line: 1, column: 1, message, help, excerpt: None };
        Self { errors: vec![error], more: 0 }
    }
}

impl std::error::Error for ConfigErrors {}
impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        match self.more {
            0 => Ok(()),
            more => write!(f, "\n… and {more} more"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help, excerpt } = self;
        write!(f, "{file}:{line}:{column}: {message}")?;
        match excerpt {
            Some((text, before)) => write!(f, "\n    {text}\n    {:before$}^ {help}", ""),
            None => write!(f, "\n    {help}"),
        }
    }
}

/// Collects the errors of one text.
pub(super) struct Report<'a> {
    file: &'a str,
    text: &'a str,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
    found: Vec<Finding>,
}

struct Finding {
    at: usize,
    message: String,
    help: String,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, found: Vec::new() }
    }

    /// Records an error at a byte offset.
    pub(super) fn add(&mut self, at: usize, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Finding { at, message: message.into(), help: help.into() });
    }

    /// The folder of the file, as the caller named it.
    pub(super) fn folder(&self) -> &'a Path {
        Path::new(self.file).parent().unwrap_or(Path::new(""))
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    /// Returns the errors, if there are any.
    pub(super) fn finish(mut self) -> Result<(), ConfigErrors> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|finding| finding.at);
        let more = self.found.len().saturating_sub(bounds::CONFIG_ERRORS);
        let shown = std::mem::take(&mut self.found).into_iter().take(bounds::CONFIG_ERRORS);
        Err(ConfigErrors { errors: shown.map(|finding| self.locate(finding)).collect(), more })
    }

    fn locate(&self, Finding { at, message, help }: Finding) -> ConfigError {
        let at = char_start(self.text, at);
        let line = self.line(at);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let (before, rest) = self.text[start..].split_at(at - start);
        let after = rest.split(['\n', '\r']).next().unwrap_or("");
        let file = self.file.to_owned();
        ConfigError { file, line, column: before.chars().count() + 1, message, help, excerpt: excerpt(before, after) }
    }
}

/// The start of the character that contains a byte offset.
pub(super) fn char_start(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The shown part of a line around a position: without indentation, and for a long line only a window.
fn excerpt(before: &str, after: &str) -> Option<(String, usize)> {
    const BEFORE: usize = 60;
    const AFTER: usize = 60;
    let before = before.trim_start();
    let skipped = before.chars().count().saturating_sub(BEFORE);
    let mut shown: String = if skipped == 0 { String::new() } else { "…".to_owned() };
    shown.extend(before.chars().skip(skipped).map(printable));
    let place = shown.chars().count();
    shown.extend(after.trim_end().chars().take(AFTER).map(printable));
    if after.trim_end().chars().nth(AFTER).is_some() {
        shown.push('…');
    }
    (!shown.is_empty()).then_some((shown, place))
}

/// Maps a character to one column, and replaces characters that a terminal would interpret.
fn printable(character: char) -> char {
    match character {
        '\t' => ' ',
        c if is_hidden(c) => '\u{fffd}',
        c => c,
    }
}

/// A text of the file as messages quote it: escaped, and cut when it is long.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 64;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}
