//! The lines of a load, read one at a time in bounded memory.

use std::io::{self, BufRead, Read};

/// Bytes of one line: more than any key and number need, and so few that a batch of lines fits into a frame.
const LINE_BYTES: usize = 600;

/// The mark that an editor may write before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line, without its line end and the blanks around it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its number, from 1.
    pub(super) number: u64,
    /// The line, or the beginning of a long one.
    pub(super) text: &'a [u8],
    /// The line is longer than `text`.
    pub(super) cut: bool,
}

/// Reads lines.
#[derive(Debug)]
pub(super) struct Lines<R> {
    source: R,
    buffer: Vec<u8>,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: Vec::with_capacity(LINE_BYTES + BYTE_ORDER_MARK.len() + 2), number: 0, bytes: 0 }
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line that is not empty; `None` at the end. A byte-order mark before the first line is skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mark = if self.number == 1 { BYTE_ORDER_MARK.len() } else { 0 };
            // The line's end, and one byte more than a line may have.
            let most = LINE_BYTES + mark + 2;
            let read = (&mut self.source).take(most as u64).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes += read as u64;
            let mut cut = false;
            if !self.buffer.ends_with(b"\n") && read == most {
                self.bytes += self.source.skip_until(b'\n')? as u64;
                cut = true;
            }
            let skipped = if mark > 0 && self.buffer.starts_with(BYTE_ORDER_MARK) { mark } else { 0 };
            let range = trimmed(&self.buffer, skipped);
            cut |= range.len() > LINE_BYTES;
            if !range.is_empty() {
                return Ok(Some(Line { number: self.number, text: &self.buffer[range], cut }));
            }
        }
    }
}

/// Where the text lies that is left of a line, from `start`, without the blanks around it.
fn trimmed(line: &[u8], start: usize) -> std::ops::Range<usize> {
    let text = line[start..].trim_ascii_end();
    let blanks = text.len() - text.trim_ascii_start().len();
    start + blanks..start + text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<(u64, Vec<u8>, bool)> {
        let mut lines = Lines::new(text);
        let mut all = Vec::new();
        while let Some(Line { number, text, cut }) = lines.next().unwrap() {
            all.push((number, text.to_vec(), cut));
        }
        all
    }

    #[test]
    fn empty_lines_are_passed_over_and_counted() {
        let lines = all(b"10.0.0.1\n\n  10.0.0.2\t-3  \r\n10.0.0.3 +4");
        let expected = [
            (1, b"10.0.0.1".to_vec(), false),
            (3, b"10.0.0.2\t-3".to_vec(), false),
            (4, b"10.0.0.3 +4".to_vec(), false),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_beginning_only() {
        assert_eq!(all(b"\xef\xbb\xbf10.0.0.1\n"), [(1, b"10.0.0.1".to_vec(), false)]);
        assert_eq!(all(b"\xef\xbb\xbf\nb"), [(2, b"b".to_vec(), false)]);
        assert_eq!(all(b"\xef\xbb\xbf"), []);
        assert_eq!(all(b"a\n\xef\xbb\xbfb"), [(1, b"a".to_vec(), false), (2, b"\xef\xbb\xbfb".to_vec(), false)]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut text = vec![b'x'; 10 << 20];
        text.extend(b"\nnext\n");
        let mut lines = Lines::new(text.as_slice());
        assert!(matches!(lines.next().unwrap(), Some(Line { number: 1, cut: true, .. })));
        assert!(lines.buffer.capacity() < 4 * LINE_BYTES);
        assert_eq!(lines.next().unwrap(), Some(Line { number: 2, text: b"next", cut: false }));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.bytes(), text.len() as u64);
    }

    #[test]
    fn the_longest_line_is_read() {
        let key = "k".repeat(LINE_BYTES);
        for mark in ["", "\u{feff}"] {
            for end in ["", "\n", "\r\n"] {
                let lines = all(format!("{mark}{key}{end}").as_bytes());
                assert_eq!(lines, [(1, key.clone().into_bytes(), false)], "{mark:?} {end:?}");
            }
            let lines = all(format!("{mark}{key}k\nb").as_bytes());
            assert!(lines[0].2 && lines[1] == (2, b"b".to_vec(), false), "{mark:?}");
        }
    }
}
