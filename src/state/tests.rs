//! Tests of intact and damaged state files.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::{Database, ReadableTable, TableDefinition};
use tallymesh_engine::{Cache, Now, Replica, Time};
use tallymesh_schemas::config::OnFullDisk;
use tallymesh_schemas::entries::WireEntry;
use tallymesh_schemas::message::CacheContext;
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{CacheContexts, Extent, Facts, Part, Row, SavedEntry, Shape};
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureName, StructureSpec, UnixMs, Version, bounds};

use crate::state::file::StateFile;
use crate::state::restore::Earlier;
use crate::state::saving::Saving;
use crate::state::tables::{CONTEXTS, ENTRIES, FORMAT, META};
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

/// A saved cache with its entries.
type SavedCache = (Shape, CacheContexts, Vec<SavedEntry>);

/// The content of a state, beside its facts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Content {
    parts: Vec<Part>,
    caches: Vec<SavedCache>,
}

/// A cache whose entries a run has written: a removal, then values.
fn cache(structure: &str, run: u64, entries: u64) -> SavedCache {
    let run = Actor::new(name("a"), Incarnation(run));
    let entry = |number: u64| {
        let (key, value) = (format!("key{number:03}").into_bytes(), [7; 100]);
        let value = (number > 1).then_some(value.as_slice());
        let wire = WireEntry { run: 0, number, stamp: 70 + number, key: &key, expires_ms: 0, value };
        SavedEntry::decode(&SavedEntry::encode(&run, &wire).unwrap()).unwrap()
    };
    let seen = CacheContext { runs: vec![(run.clone(), entries)], ended: vec![(name("b"), Incarnation(4))] };
    let contexts = CacheContexts { seen, ..CacheContexts::default() };
    let shape = Shape { name: structure.to_owned(), class: Class::Cache };
    (shape, contexts, (1..=entries).map(entry).collect())
}

fn fill(dir: &Path, content: &Content) {
    let facts = Facts { incarnation: Incarnation(7), ..Facts::default() };
    let made: Result<(), StateError> = Archive::create(dir, &name("a"), |filling| {
        filling.facts(&facts, 1234)?;
        content.parts.iter().cloned().try_for_each(|part| filling.part(part))?;
        content.caches.iter().try_for_each(|(shape, contexts, entries)| {
            filling.cache(shape, contexts)?;
            let bytes = |entry: &SavedEntry| {
                entry.read(|wire| (wire.key.to_vec(), SavedEntry::encode(entry.run(), wire).ok())).unwrap()
            };
            filling.entries(shape, &entries.iter().map(bytes).collect::<Vec<_>>())
        })
    });
    made.unwrap();
}

fn filled(dir: &Path) -> Content {
    let parts = vec![part("gauges", 3, 200), part("gauges", 7, 5), part("users", 7, 0)];
    let content = Content { parts, caches: vec![cache("sessions", 7, 90)] };
    fill(dir, &content);
    content
}

/// Makes the file what builds of protocol version 1 wrote.
fn make_format_1(dir: &Path) {
    let db = Database::open(dir.join("state.redb")).unwrap();
    let write = db.begin_write().unwrap();
    write.open_table(META).unwrap().insert("format", &1_u32.to_le_bytes()[..]).unwrap();
    write.open_table(META).unwrap().insert("protocol", &[1][..]).unwrap();
    assert!(write.delete_table(ENTRIES).unwrap() && write.delete_table(CONTEXTS).unwrap());
    write.commit().unwrap();
}

fn read(dir: &Path) -> Result<Content, StateError> {
    let file = StateFile::open_or_create(dir, &name("a"))?;
    file.facts()?;
    let mut content = Content::default();
    file.each_part(|part| {
        content.parts.push(part);
        Ok(())
    })?;
    content.parts.sort_by_key(|part| (part.shape.name.clone(), part.actor.clone()));
    for (shape, contexts) in file.caches()? {
        let mut entries = Vec::new();
        file.each_entry(&shape, |entry| {
            entries.push(entry);
            Ok::<(), StateError>(())
        })?;
        content.caches.push((shape, contexts, entries));
    }
    Ok(content)
}

fn refusal(dir: &Path) -> String {
    let file = dir.join("state.redb");
    let before = fs::read(&file).unwrap();
    let refused = read(dir).map(drop).unwrap_err().to_string();
    assert_eq!(fs::read(&file).unwrap(), before, "nothing was written: {refused}");
    assert!(refused.starts_with(&file.display().to_string()), "{refused}");
    refused.trim_start_matches(&file.display().to_string()).to_owned()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a/b");
    assert_eq!(read(&state).unwrap(), Content::default(), "a new one knows nothing");
    let state = dir.path().join("c");
    assert_eq!(filled(&state), read(&state).unwrap());
    let archive = Archive::open(&state).unwrap();
    let header = archive.header().unwrap();
    assert_eq!((header.node, header.format, header.saved_ms), (name("a"), FORMAT, 1234));
    assert_eq!(archive.parts().unwrap().iter().map(|part| part.rows).collect::<Vec<_>>(), [200, 5, 90, 0]);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing else is left");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(archive.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

/// A commit holds an entry that was written while the commit was prepared, and a later write of its key replaces that entry.
#[test]
fn a_run_of_a_cache_is_saved_up_to_what_its_context_accounts_for() {
    let dir = tempfile::tempdir().unwrap();
    let (shape, contexts, mut entries) = cache("sessions", 7, 90);
    entries.extend(cache("sessions", 7, 91).2.pop());
    let part = |at: &str, entries: Vec<SavedEntry>| {
        let dir = dir.path().join(at);
        fill(&dir, &Content { caches: vec![(shape.clone(), contexts.clone(), entries)], ..Content::default() });
        let parts = Archive::open(&dir).unwrap().parts().unwrap();
        (parts[0].applied, parts[0].complete)
    };
    assert_eq!(part("all", entries.clone()), (Version(90), false));
    entries.truncate(89);
    assert_eq!(part("replaced", entries), (Version(90), true));
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
    assert!(refused.contains("was written by a later version (format 3, this one reads up to 2)"), "{refused}");
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

const NOW: Now = Now { mono: Time(1), unix_ms: UnixMs(1_000_000) };

/// Starts the node "a" with the cache "sessions".
async fn start(dir: &Path) -> (Replica, Cache, Saving) {
    start_node(dir, "a", NOW).await
}

/// Starts a node with the cache "sessions".
async fn start_node(dir: &Path, node: &str, now: Now) -> (Replica, Cache, Saving) {
    let earlier = Earlier::open(dir.to_owned(), name(node), OnFullDisk::Refuse).await.unwrap();
    let run = earlier.next_run(Incarnation(now.unix_ms.0)).unwrap();
    let mut replica = Replica::new(tallymesh_engine::Config::default(), name(node), run);
    let spec = StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache);
    let cache = replica.replicate_cache(spec, Arc::new(|| ())).unwrap();
    let (replica, saving) = earlier.restore(replica, now).await.unwrap();
    (replica, cache, saving)
}

async fn stop(mut replica: Replica, saving: Saving) {
    saving.finish(&mut replica, || NOW, Duration::from_secs(30)).await;
}

/// Caches were rows in files of format 1.
#[tokio::test]
async fn a_state_of_format_1_is_converted_by_the_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = part("sessions", 3, 200);
    let mut writer = RowWriter::new(Version(200));
    let removal = RowState::Live { key: Some(b"key9"), added: 78, removed: 0 };
    writer.push(WireRow { slot: 200, version: Version(201), state: removal });
    first.rows.push(Row { slot: 200, version: Version(201), bytes: writer.finish() });
    first.extent.applied = Version(201);
    let parts = vec![first, part("sessions", 7, 5), part("users", 7, 3)];
    fill(dir.path(), &Content { parts: parts.clone(), caches: Vec::new() });
    make_format_1(dir.path());
    let archive = Archive::open(dir.path()).unwrap();
    assert_eq!(archive.header().unwrap().format, 1);
    assert_eq!(archive.parts().unwrap().iter().map(|part| part.rows).collect::<Vec<_>>(), [201, 5, 3]);
    assert_eq!(archive.caches().unwrap(), []);
    drop(archive);
    assert_eq!(read(dir.path()).unwrap().parts, parts, "reading it changes nothing");

    let (replica, cache, saving) = start(dir.path()).await;
    assert_eq!(cache.len(NOW.unix_ms), 199);
    assert_eq!(cache.get(b"key199", NOW.unix_ms).as_deref(), Some(&[7; 100][..]));
    assert_eq!(cache.get(b"key9", NOW.unix_ms), None);
    // From the first commit on, the builds that wrote the file refuse it.
    let format = |dir: &Path| StateFile::open(dir).unwrap().header().map(|header| (header.format, header.protocol));
    stop(replica, saving).await;
    assert_eq!(format(dir.path()).unwrap(), (FORMAT, bounds::PROTOCOL_VERSION));
    let converted = read(dir.path()).unwrap();
    assert_eq!(converted.parts, [parts[2].clone()], "what is not configured stays as it is");
    let [(shape, contexts, entries)] = &converted.caches[..] else { panic!("one cache is saved") };
    assert_eq!((shape.name.as_str(), entries.len()), ("sessions", 200));
    let run = |run: u64| Actor::new(name("a"), Incarnation(run));
    assert_eq!(contexts.seen.runs, [(run(3), 201), (run(7), 5)]);

    let (replica, cache, saving) = start(dir.path()).await;
    assert_eq!(cache.len(NOW.unix_ms), 199);
    cache.set(b"key0", b"new", Duration::ZERO, NOW.unix_ms).unwrap();
    stop(replica, saving).await;
    let (_replica, cache, saving) = start(dir.path()).await;
    assert_eq!(cache.get(b"key0", NOW.unix_ms).as_deref(), Some(&b"new"[..]));
    saving.close(Duration::from_secs(30)).await;
}

/// The state of a node of the last version whose caches were rows. Three nodes had written 42 keys, two of them over writes of
/// other nodes, and removed three. The node had restarted between its writes.
#[tokio::test]
async fn what_the_last_version_with_rows_has_saved_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let saved = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/state/version-1.redb");
    fs::copy(saved, dir.path().join("state.redb")).unwrap();
    let now = Now { unix_ms: UnixMs(1_796_064_400_000), ..NOW };
    let of = |writer: &str, number: u32| match (writer, number) {
        ("one", 3) => Some("written again by relay-0-2".to_owned()),
        ("two", 6) => Some("written by the second run".to_owned()),
        ("two", 21) => Some("of the second run".to_owned()),
        ("one", 5 | 21) | ("two", 4 | 7) => None,
        ("one", _) => Some(format!("written by relay-0-1, number {number}")),
        _ => Some(format!("written by relay-0-2, number {number}")),
    };
    for round in 0..2 {
        let (replica, cache, saving) = start_node(dir.path(), "relay-0-2", now).await;
        let get = |key: &str| {
            cache.get(key.as_bytes(), now.unix_ms).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        for (writer, number) in
            ["one", "two"].into_iter().flat_map(|writer| (1..22).map(move |number| (writer, number)))
        {
            assert_eq!(get(&format!("{writer}:{number}")), of(writer, number), "{writer}:{number}, start {round}");
        }
        assert_eq!((get("empty").as_deref(), get("user:7").as_deref()), (Some(""), Some("Ada")));
        assert_eq!(cache.get(b"user:7", now.unix_ms.after(Duration::from_secs(5 * 3600))), None, "it has expired");
        assert_eq!(cache.len(now.unix_ms), 40);
        let heads: Vec<_> = cache.seen().into_iter().map(|(run, head)| (run.to_string(), head)).collect();
        let runs = [
            "relay-0-1#1796064325028",
            "relay-0-2#1796064325064",
            "relay-0-2#1796064357354",
            "relay-0-3#1796064325116",
        ];
        assert_eq!(heads, runs.map(str::to_owned).into_iter().zip([23, 22, 3, 3]).collect::<Vec<_>>());
        stop(replica, saving).await;
        let header = Archive::open(dir.path()).unwrap().header().unwrap();
        assert_eq!((header.format, header.protocol), (FORMAT, bounds::PROTOCOL_VERSION));
    }
}

/// The name of a saved cache may not be taken for another class.
#[tokio::test]
async fn a_saved_cache_that_is_configured_as_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let earlier = Earlier::open(dir.path().to_owned(), name("a"), OnFullDisk::Refuse).await.unwrap();
    let mut replica = Replica::new(tallymesh_engine::Config::default(), name("a"), Incarnation(NOW.unix_ms.0));
    let spec = StructureSpec::new(StructureName::new("sessions").unwrap(), Class::InboundCidr);
    replica.replicate(spec, Arc::new(|| ())).unwrap();
    let refused = earlier.restore(replica, NOW).await.map(drop).unwrap_err().to_string();
    assert!(refused.contains("\"sessions\" was saved as cache and is configured as inbound_cidr"), "{refused}");
}
