//! Tests of intact and damaged state files.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{Extent, Facts, Part, Row, Shape};
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, Version};

use crate::state::file::{FORMAT, StateFile};
use crate::state::tables::META;
use crate::state::{Archive, StateError};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn part(structure: &str, run: u64, rows: u32) -> Part {
    let row = |slot: u32| {
        let (version, key) = (u64::from(slot) + 1, format!("key{slot}").into_bytes());
        let mut writer = RowWriter::new(Version(version - 1));
        let state = RowState::Content { key: Some(&key), stamp: 77, expires_ms: 0, value: &[7; 100] };
        writer.push(WireRow { slot, version: Version(version), state });
        Row { slot, version: Version(version), bytes: writer.finish() }
    };
    Part {
        shape: Shape { name: structure.to_owned(), class: Class::Cache },
        actor: Actor::new(name("a"), Incarnation(run)),
        extent: Extent { applied: Version(rows.into()), ..Extent::default() },
        rows: (0..rows).map(row).collect(),
    }
}

fn filled(dir: &Path) -> Vec<Part> {
    let parts = vec![part("sessions", 3, 200), part("sessions", 7, 5), part("users", 7, 0)];
    let facts = Facts { incarnation: Incarnation(7), ..Facts::default() };
    let made: Result<(), StateError> = Archive::create(dir, &name("a"), |filling| {
        filling.facts(&facts, 1234)?;
        parts.iter().cloned().try_for_each(|part| filling.part(part))
    });
    made.unwrap();
    parts
}

fn read(dir: &Path) -> Result<Vec<Part>, StateError> {
    let file = StateFile::open_or_create(dir, &name("a"))?;
    file.facts()?;
    let mut parts = Vec::new();
    file.each_part(|part| {
        parts.push(part);
        Ok(())
    })?;
    parts.sort_by_key(|part| (part.shape.name.clone(), part.actor.clone()));
    Ok(parts)
}

fn refusal(dir: &Path) -> String {
    let file = dir.join("state.redb");
    let before = fs::read(&file).unwrap();
    let refused = read(dir).map(|parts| parts.len()).unwrap_err().to_string();
    assert_eq!(fs::read(&file).unwrap(), before, "nothing was written: {refused}");
    assert!(refused.starts_with(&file.display().to_string()), "{refused}");
    refused.trim_start_matches(&file.display().to_string()).to_owned()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b");
    assert_eq!(read(&state).unwrap(), [], "a new one knows nothing");
    let state = dir.path().join("c");
    assert_eq!(filled(&state), read(&state).unwrap());
    let archive = Archive::open(&state).unwrap();
    let header = archive.header().unwrap();
    assert_eq!((header.node, header.format, header.saved_ms), (name("a"), FORMAT, 1234));
    assert_eq!(archive.parts().unwrap().iter().map(|part| part.rows).collect::<Vec<_>>(), [200, 5, 0]);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing else is left");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(archive.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let first = StateFile::open_or_create(dir.path(), &name("a")).unwrap();
    assert!(matches!(read(dir.path()), Err(StateError::InUse(_))));
    drop(first);
    read(dir.path()).unwrap();
}

#[test]
fn what_is_there_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let parts = filled(dir.path());
    let again: Result<(), StateError> = Archive::create(dir.path(), &name("b"), |_| Ok(()));
    assert!(matches!(again, Err(StateError::Exists(_))));
    assert_eq!(read(dir.path()).unwrap(), parts);
    // A state that cannot be filled is not created.
    let other = dir.path().join("other");
    let bad: Result<(), StateError> = Archive::create(&other, &name("b"), |filling| {
        let mut bad = part("sessions", 3, 2);
        bad.rows[1].bytes.truncate(4);
        filling.part(bad)
    });
    assert!(bad.is_err());
    assert!(matches!(Archive::open(&other), Err(StateError::Missing(_))));
    assert_eq!(fs::read_dir(&other).unwrap().count(), 0, "nothing is left");
}

#[test]
fn a_file_that_is_not_this_nodes_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |case: &str| {
        let dir = dir.path().join(case);
        fs::create_dir(&dir).unwrap();
        (dir.clone(), dir.join("state.redb"))
    };
    let (case, path) = file("text");
    fs::write(&path, "Dear diary,\n".repeat(1000)).unwrap();
    assert!(refusal(&case).contains("is no state of a node (not a database)"), "{}", refusal(&case));

    let (case, path) = file("empty");
    File::create(&path).unwrap();
    assert!(refusal(&case).contains("is"), "{}", refusal(&case));

    let (case, path) = file("foreign");
    let db = Database::create(&path).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(TableDefinition::<&str, u64>::new("invoices")).unwrap().insert("7", 100).unwrap();
    write.commit().unwrap();
    drop(db);
    let refused = read(&case).map(drop).unwrap_err();
    assert!(matches!(&refused, StateError::Foreign { .. }), "{refused}");
    let db = Database::open(&path).unwrap();
    let write = db.begin_write().unwrap();
    let invoice =
        write.open_table(TableDefinition::<&str, u64>::new("invoices")).unwrap().get("7").unwrap().unwrap().value();
    assert_eq!(invoice, 100);

    let other = dir.path().join("other");
    let made: Result<(), StateError> = Archive::create(&other, &name("b"), |_| Ok(()));
    made.unwrap();
    let refused = read(&other).map(drop).unwrap_err().to_string();
    assert!(refused.contains("is the state of node b and not of a"), "{refused}");

    let newer = dir.path().join("newer");
    filled(&newer);
    let db = Database::open(newer.join("state.redb")).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", &(FORMAT + 1).to_le_bytes()[..]).unwrap();
    write.commit().unwrap();
    drop(db);
    let refused = read(&newer).map(drop).unwrap_err().to_string();
    assert!(refused.contains("was written by a later version (format 2, this one reads up to 1)"), "{refused}");
}

/// A file that is truncated at any place, or has other bytes at any place, is refused or is read as it was written.
#[test]
fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let parts = filled(&whole);
    let bytes = fs::read(whole.join("state.redb")).unwrap();
    let damaged = dir.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    let path = damaged.join("state.redb");
    let mut refused = 0;
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    for at in 0..40_usize {
        fs::write(&path, &bytes[..bytes.len() * at / 40]).unwrap();
        match read(&damaged) {
            Ok(found) => assert_eq!(found, parts, "cut at {at}/40"),
            Err(_) => refused += 1,
        }
    }
    for at in 0..150_usize {
        fs::write(&path, &bytes).unwrap();
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.seek(SeekFrom::Start((used * at / 150) as u64)).unwrap();
        file.write_all(&[0xa5; 24]).unwrap();
        drop(file);
        match read(&damaged) {
            Ok(found) => assert_eq!(found, parts, "damaged at {at}/150"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 60, "{refused} of 190 were refused");
}
