//! The seal: a note of the last commit, in a file beside the state. A starting node uses it to check that the state still has
//! it.
//!
//! After a kill, the database checks its newest commit. If the check fails, the database takes the commit as unfinished and
//! goes back to the previous one. A completed commit that is damaged looks the same. The seal distinguishes the two cases: it
//! is written after a commit is complete. It has two places that are written in turn, so one of them is valid at every moment.
#![allow(clippy::cast_possible_truncation, reason = "a small constant")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::state::error::StateError;

/// The seal's file name in the folder.
const NAME: &str = "state.seal";

/// The first bytes of a place.
const MAGIC: &[u8; 8] = b"TMSEAL01";

/// Size of a place in bytes: the magic, four numbers, a checksum.
const PLACE_BYTES: usize = 48;

/// Distance in bytes between the starts of the two places, so that they share no disk block.
const PLACE_STEP: u64 = 4096;

/// A commit, as the file or the seal records it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seal {
    /// Identifies the file: a random number drawn at its creation. 0 for a file of an earlier version.
    pub(super) lineage: u64,
    /// The number of the commit.
    pub(super) commit: u64,
    /// When it completed, in milliseconds since 1970.
    pub(super) at_ms: u64,
    /// The node's incarnation.
    pub(super) incarnation: u64,
}

impl Seal {
    /// The record of the next commit.
    pub(super) fn next(self, at_ms: u64) -> Self {
        Self { commit: self.commit.saturating_add(1), at_ms, ..self }
    }

    fn encode(&self) -> [u8; PLACE_BYTES] {
        let numbers = [self.lineage, self.commit, self.at_ms, self.incarnation].map(u64::to_le_bytes).concat();
        let body = [MAGIC.as_slice(), &numbers].concat();
        let sum = checksum(&body).to_le_bytes();
        let mut place = [0; PLACE_BYTES];
        place.iter_mut().zip(body.into_iter().chain(sum)).for_each(|(to, from)| *to = from);
        place
    }

    fn decode(place: &[u8]) -> Option<Self> {
        let (body, sum) = place.split_last_chunk::<8>()?;
        if u64::from_le_bytes(*sum) != checksum(body) {
            return None;
        }
        let mut numbers =
            body.strip_prefix(MAGIC)?.chunks_exact(8).map(|bytes| bytes.try_into().map(u64::from_le_bytes));
        let mut number = || numbers.next()?.ok();
        Some(Self { lineage: number()?, commit: number()?, at_ms: number()?, incarnation: number()? })
    }
}

/// FNV-1a: it detects flipped bits, and is the same in all versions.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The open seal file.
#[derive(Debug)]
pub(super) struct Note {
    file: File,
}

impl Note {
    /// Opens the seal in a folder, or creates it and allocates all the space that it needs.
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(NAME);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let made = file.and_then(|file| {
            if file.metadata()?.len() < PLACE_STEP + PLACE_BYTES as u64 {
                file.write_all_at(&vec![0; PLACE_STEP as usize + PLACE_BYTES], 0)?;
                file.sync_all()?;
            }
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Self { file }),
            Err(error) => Err(StateError::Io { what: "write", path, source: error }),
        }
    }

    /// Records a completed commit. The record is on disk when this function returns.
    pub(super) fn write(&self, seal: &Seal) -> io::Result<()> {
        self.file.write_all_at(&seal.encode(), seal.commit % 2 * PLACE_STEP)?;
        self.file.sync_data()
    }
}

/// Reads which commit of a file the seal in a folder recorded last.
///
/// # Errors
/// The seal cannot be read.
pub(super) fn read(dir: &Path, lineage: u64) -> Result<Option<Seal>, StateError> {
    let path = dir.join(NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StateError::Io { what: "read", path, source: error }),
    };
    let places = [0, PLACE_STEP as usize].map(|at| Seal::decode(bytes.get(at..at + PLACE_BYTES)?));
    let found = places.into_iter().flatten().max_by_key(|seal| seal.commit);
    if found.is_none() && bytes.iter().any(|byte| *byte != 0) {
        tracing::warn!(path = %path.display(), "the note of the last commit is damaged: whether the state is the last one is not known");
    }
    Ok(found.filter(|seal| seal.lineage == lineage))
}

/// The file is older than the last completed commit: newer commits are damaged, or a backup replaced the file.
///
/// ```no_run
/// # fn example(node: &tallymesh::Node) -> Result<(), Box<dyn std::error::Error>> {
/// if let Some(rolled_back) = node.state().and_then(|state| state.rolled_back) {
///     println!("{} commits are lost", rolled_back.commits);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct RolledBack {
    /// When the commit that the node started from completed, in milliseconds since 1970.
    pub restored_ms: u64,
    /// When the last commit completed, in milliseconds since 1970.
    pub last_ms: u64,
    /// The number of commits between them.
    pub commits: u64,
}

impl RolledBack {
    /// Compares the file's commit with the recorded one.
    pub(super) fn between(file: &Seal, noted: &Seal) -> Option<Self> {
        let commits = noted.commit.checked_sub(file.commit).filter(|commits| *commits > 0)?;
        Some(Self { restored_ms: file.at_ms, last_ms: noted.at_ms, commits })
    }
}

/// A time in readable form: `2026-11-30T06:37:28Z`.
pub(super) fn utc(unix_ms: u64) -> String {
    let (days, second) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Days are counted from the first of March of the year 0: leap days come last (Howard Hinnant, days_from_civil).
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_commit_is_noted_and_a_torn_note_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), None);
        let note = Note::open(dir.path()).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), None);
        let first = Seal { lineage: 7, commit: 1, at_ms: 10, incarnation: 5 };
        let second = first.next(20);
        note.write(&first).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Some(first));
        note.write(&second).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Some(second));
        assert_eq!(read(dir.path(), 8).unwrap(), None, "it is of another file");
        note.file.write_all_at(&[0xa5], 20).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), Some(first));
        note.file.write_all_at(&[0xa5], PLACE_STEP + 20).unwrap();
        assert_eq!(read(dir.path(), 7).unwrap(), None);
    }

    #[test]
    fn only_a_file_that_is_older_was_rolled_back() {
        let seal = |commit| Seal { commit, at_ms: 100 * commit, ..Seal::default() };
        assert_eq!(RolledBack::between(&seal(5), &seal(5)), None);
        assert_eq!(RolledBack::between(&seal(6), &seal(5)), None, "killed between the commit and its note");
        let expected = RolledBack { restored_ms: 300, last_ms: 500, commits: 2 };
        assert_eq!(RolledBack::between(&seal(3), &seal(5)), Some(expected));
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_796_020_648_999), "2026-11-30T06:37:28Z");
        assert_eq!(utc(1_798_761_599_000), "2026-12-31T23:59:59Z");
    }
}
