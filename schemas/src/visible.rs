//! Makes foreign text safe to show in errors and listings: nothing in it moves the cursor, changes the reading order, or is
//! invisible.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal interprets the character, or the character invisibly changes the order or look of its neighbours: control
/// characters, line separators, bidirectional controls, zero-width spaces and tags.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200b}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with each hidden character written as `\u{202e}`. For visible text this checks each character once; for ASCII, each
/// byte once.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escaped_but(text, |_| false)
}

/// Characters of a text that an error quotes.
const QUOTED: usize = 256;

/// As [`escaped`], for text that an error quotes. Long text is cut to its start, so that the message stays short.
pub fn quoted(text: &str) -> Cow<'_, str> {
    let shown = escaped(text);
    match shown.char_indices().nth(QUOTED) {
        Some((end, _)) => Cow::Owned(format!("{}…", shown.get(..end).unwrap_or_default())),
        None => shown,
    }
}

/// As [`escaped`], for text of several lines: line ends stay.
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    escaped_but(text, |character| character == '\n')
}

/// As [`escaped`], for text that contains this program's colours and columns: ASCII control characters stay.
pub fn escaped_beyond_ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    escaped_but(text, |character| character.is_ascii())
}

fn escaped_but(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let hidden = |character: char| is_hidden(character) && !stays(character);
    if !text.chars().any(hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hidden(character) {
            // Writing to a string does not fail.
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_short() {
        assert_eq!(quoted("a\u{200b}"), "a\\u{200b}");
        for long in ["x".repeat(10_000), "\u{200b}".repeat(10_000)] {
            assert_eq!(quoted(&long).chars().count(), QUOTED + 1);
        }
    }

    #[test]
    fn hidden_characters_are_escaped() {
        assert_eq!(escaped("münchen.de"), "münchen.de");
        assert!(matches!(escaped("aol.com"), Cow::Borrowed(_)));
        assert_eq!(escaped("a\u{202e}moc.lo\u{1b}[2J"), "a\\u{202e}moc.lo\\u{1b}[2J");
        assert_eq!(escaped("two\nlines"), "two\\u{a}lines");
        assert_eq!(escaped_lines("two\nlines\r\u{85}"), "two\nlines\\u{d}\\u{85}");
        assert_eq!(escaped_beyond_ascii("\u{1b}[1mü\u{2066}\u{1b}[0m"), "\u{1b}[1mü\\u{2066}\u{1b}[0m");
    }
}
