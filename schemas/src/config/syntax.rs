//! Parses text to HCL. It bounds size and nesting first, and turns the parser's error into one that says what to do.
#![allow(clippy::indexing_slicing, reason = "positions of a text come from its parser")]

use hcl::edit::parser::{self, Error};
use hcl::edit::structure::Body;

use crate::bounds;
use crate::config::nesting;
use crate::config::report::{ConfigErrors, Report, char_start};

const NESTED: &str = "nested too deeply";
const UNNEST: &str = "no setting needs that: write the value out";

/// Parses the text, or reports where it is not valid HCL. The parser stops at the first error.
pub(super) fn parse(text: &str, file: &str) -> Result<Body, ConfigErrors> {
    if text.len() > bounds::CONFIG_BYTES {
        let message =
            format!("the file has {} bytes, a configuration has {} at most", text.len(), bounds::CONFIG_BYTES);
        return Err(ConfigErrors::of_file(file, &message, "is this the right file?"));
    }
    if let Some(at) = nesting::too_deep(text) {
        let mut report = Report::new(file, text);
        report.add(at, NESTED, UNNEST);
        return report.finish().map(|()| Body::new());
    }
    parser::parse_body(text).or_else(|error| {
        let mut report = Report::new(file, text);
        let (at, rest) = place(text, &error);
        match unclosed_string(text, at) {
            Some(quote) if !error.message().contains("nest") => {
                report.add(quote, "this string is not closed on its line", "put a \" at its end");
            }
            _ => {
                let (message, help) = explain(error.message(), rest);
                report.add(at, message, help);
            }
        }
        report.finish().map(|()| Body::new())
    })
}

/// Where the parser stopped, and what it could not read. For the end of the text the parser reports the byte before it and a
/// column after it. This function reports the end of the last line that is not empty.
fn place<'a>(text: &'a str, error: &Error) -> (usize, &'a str) {
    let at = char_start(text, error.location().offset());
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    if error.location().offset() + 1 == text.len() && error.location().column() > text[line..].chars().count() {
        return (text.trim_end().len(), "");
    }
    (at, &text[at..])
}

/// The meaning of the parser's message, and what to do, given the text that it could not read.
fn explain(message: &str, rest: &str) -> (String, &'static str) {
    let next = rest.chars().next();
    let (what, help) = match message {
        _ if message.contains("redefined") => {
            return ("this key stands twice in its block".to_owned(), "keep one of them");
        }
        _ if message.contains("nest") || message.contains("chained") => {
            return (NESTED.to_owned(), UNNEST);
        }
        _ if next == Some(',') && message.ends_with("expected `)`") => {
            ("expected )", "several values are a list, in square brackets: [\"300,6\", \"3600,24\"]")
        }
        _ if message.ends_with("expected `)`") => ("expected )", "close the parenthesis"),
        _ if message.ends_with("expected `]`") => ("expected ]", "close the list, and put commas between its values"),
        _ if matches!(next, Some(',' | ';')) => ("expected the end of the line", "take the separator out"),
        _ if next == Some('\'') => ("expected a value", "strings stand in double quotes"),
        _ if next == Some(':') => ("expected =", "write = between a key and its value"),
        _ if message.contains("expression") => {
            ("expected a value", "write a string in double quotes, a number or a list")
        }
        _ if message.contains("escape") => ("unknown escape", "a backslash that is meant so is written \\\\"),
        _ if next == Some('}') && message.contains("unexpected") => ("unexpected }", "take it out, or open its block"),
        _ if message.contains("block body") && rest.is_empty() => {
            ("the file ends within a block", "close the block with }")
        }
        _ if message.contains("newline") || message.contains("invalid attribute") => {
            ("expected the end of the line", "HCL takes one key or block a line: break the line before and after each")
        }
        other => (other, "a line holds one `key = value` or opens one `block {`"),
    };
    (format!("this is not HCL: {what}"), help)
}

/// The place of the first double quote, up to the line of `at`, that is not closed on its line. `None` for a text with
/// heredocs, where quotes need not pair.
fn unclosed_string(text: &str, at: usize) -> Option<usize> {
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    let text = &text.as_bytes()[..end];
    let (mut open, mut index) = (None, 0);
    while let Some(rest) = text.get(index..).filter(|rest| !rest.is_empty()) {
        let until = |end: &[u8]| rest.windows(end.len()).position(|window| window == end).unwrap_or(rest.len());
        index += match (open, rest) {
            (Some(_), [b'\n', ..]) => return open,
            (Some(_), [b'\\', ..]) => 2,
            (Some(_), [b'"', ..]) => {
                open = None;
                1
            }
            (None, [b'"', ..]) => {
                open = Some(index);
                1
            }
            (None, [b'#', ..] | [b'/', b'/', ..]) => until(b"\n"),
            (None, [b'/', b'*', ..]) => until(b"*/") + 2,
            (None, [b'<', b'<', ..]) => return None,
            _ => 1,
        };
    }
    open
}
