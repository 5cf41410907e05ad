//! The lines of a load: `KEY [N]`, read one at a time in bounded memory.

use std::io::{self, BufRead, Read};

/// Bytes of one line: more than any key and number take, and so few that a batch of lines fits a frame.
const LINE_BYTES: usize = 600;

/// A line that is not empty and no comment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A key, and how much.
    Entry {
        /// The number of the line, from 1.
        number: u64,
        /// The key as it stands there.
        key: String,
        /// How much.
        n: i64,
    },
    /// Something else.
    Bad {
        /// The number of the line, from 1.
        number: u64,
        /// What is wrong, and how it is right.
        why: String,
    },
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
        Self { source, buffer: Vec::with_capacity(LINE_BYTES + 2), number: 0, bytes: 0 }
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            self.buffer.clear();
            // One byte more than a line may have, and the line's end.
            let read = (&mut self.source).take(LINE_BYTES as u64 + 2).read_until(b'\n', &mut self.buffer)?;
            if read == 0 {
                return Ok(None);
            }
            self.bytes += read as u64;
            self.number += 1;
            let whole = self.buffer.ends_with(b"\n");
            if !whole && read > LINE_BYTES {
                self.bytes += self.source.skip_until(b'\n')? as u64;
            }
            let number = self.number;
            let text = self.buffer.trim_ascii();
            if text.len() > LINE_BYTES {
                let why = format!("a line of more than {LINE_BYTES} bytes: write KEY or KEY N");
                return Ok(Some(Line::Bad { number, why }));
            }
            if text.is_empty() || text.starts_with(b"#") {
                continue;
            }
            return Ok(Some(match entry(text) {
                Ok((key, n)) => Line::Entry { number, key: key.to_owned(), n },
                Err(why) => Line::Bad { number, why },
            }));
        }
    }
}

fn entry(text: &[u8]) -> Result<(&str, i64), String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8: write KEY or KEY N".to_owned())?;
    let mut words = text.split_whitespace();
    let key = words.next().unwrap_or_default();
    let n = match words.next() {
        None => 1,
        Some(n) => n.parse().map_err(|_| format!("\"{n}\" is not a whole number: write KEY or KEY N"))?,
    };
    match words.next() {
        None => Ok((key, n)),
        Some(more) => Err(format!("\"{more}\" is one word too many: write KEY or KEY N")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Vec<Line> {
        let mut lines = Lines::new(text);
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    fn good(number: u64, key: &str, n: i64) -> Line {
        Line::Entry { number, key: key.to_owned(), n }
    }

    #[test]
    fn keys_and_numbers_are_read_and_the_rest_passed_over() {
        let text = b"10.0.0.1\n\n# a comment\n  10.0.0.2\t-3  \r\n10.0.0.3 +4";
        assert_eq!(all(text), [good(1, "10.0.0.1", 1), good(4, "10.0.0.2", -3), good(5, "10.0.0.3", 4)]);
    }

    #[test]
    fn bad_lines_are_told_with_their_number() {
        let lines = all(b"a 1\nb x\nc 1 2\n\xff\xfe\nd 99999999999999999999\n");
        let numbers: Vec<_> = lines
            .iter()
            .filter_map(|line| if let Line::Bad { number, .. } = line { Some(*number) } else { None })
            .collect();
        assert_eq!(numbers, [2, 3, 4, 5]);
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut text = vec![b'x'; 10 << 20];
        text.extend(b"\nnext\n");
        let mut lines = Lines::new(text.as_slice());
        assert!(matches!(lines.next().unwrap(), Some(Line::Bad { number: 1, .. })));
        assert!(lines.buffer.capacity() < 4 * LINE_BYTES);
        assert_eq!(lines.next().unwrap(), Some(good(2, "next", 1)));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.bytes(), text.len() as u64);
    }

    #[test]
    fn the_longest_line_is_read() {
        let key = "k".repeat(LINE_BYTES);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(all(format!("{key}{end}").as_bytes()), [good(1, &key, 1)]);
        }
        assert!(matches!(
            all(format!("{key}k\nb").as_bytes()).as_slice(),
            [Line::Bad { .. }, Line::Entry { number: 2, .. }]
        ));
    }
}
