//! The record of a run: a hash that distinguishes two runs, and the last lines for people.

use std::collections::{BTreeMap, VecDeque};

use tallymesh_engine::Time;

/// Lines that are kept.
const LINES: usize = 4_000_000;

/// The record of a run.
#[derive(Debug, Clone)]
pub struct Trace {
    hash: u64,
    lines: VecDeque<String>,
    verbose: bool,
    marks: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// A record that keeps lines only if `verbose`: writing the lines costs more than the events themselves.
    pub fn new(verbose: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: VecDeque::new(), verbose, marks: BTreeMap::new() }
    }

    /// Records an event by its bytes; `line` describes it for people.
    pub fn note(&mut self, at: Time, parts: &[&[u8]], line: impl FnOnce() -> String) {
        let mut hash = self.hash ^ at.0;
        for part in parts {
            let (words, tail) = part.as_chunks::<8>();
            for word in words {
                hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
            for byte in tail {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
            hash = hash.rotate_left(17) ^ part.len() as u64;
        }
        self.hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
        if self.verbose {
            if self.lines.len() >= LINES {
                self.lines.pop_front();
            }
            let micros = at.0;
            self.lines.push_back(format!("{:>4}.{:06} {}", micros / 1_000_000, micros % 1_000_000, line()));
        }
    }

    /// Whether lines are kept.
    pub fn verbose(&self) -> bool {
        self.verbose
    }

    /// Same seed, same hash (I8).
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Counts that a fault took effect: a scenario whose fault has no effect proves nothing.
    pub fn mark(&mut self, what: &'static str) {
        *self.marks.entry(what).or_default() += 1;
    }

    /// How often something was [marked](Self::mark).
    pub fn marked(&self, what: &str) -> u64 {
        self.marks.get(what).copied().unwrap_or(0)
    }

    /// All marks.
    pub fn marks(&self) -> &BTreeMap<&'static str, u64> {
        &self.marks
    }
}
