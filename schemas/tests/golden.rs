//! Golden vectors: the bytes of every message, pinned. A change here is a change of the protocol, and needs a new protocol
//! version that still reads the old bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::admin::{self, Answer, ErrorKind, Request};
use tallymesh_schemas::entries::{EntryWriter, WireEntry};
use tallymesh_schemas::inspect::{SubjectRef, View};
use tallymesh_schemas::message::{
    CacheCompare, CacheContext, CacheEnding, CacheEntries, CacheKeys, CacheMark, CacheReport, RunMark,
};
use tallymesh_schemas::message::{
    Delta, Digest, DigestEntry, Message, Prune, Seen, SeenEntry, StructureDigest, Tombstone, Want,
};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{CacheContexts, SavedEntry};
use tallymesh_schemas::{Actor, HoldLimit, Incarnation, Kind, NodeName, StructureId, UnixMs, Version, frame, key};

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn actor() -> Actor {
    Actor::new(name("relay-0-1"), Incarnation(1_763_800_000_000))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A first row with its key, one with a key that shares a beginning, a known one behind a gap, and a vacant one.
fn rows() -> Vec<u8> {
    let (first, n) = key::from_net(key::parse_net("10.0.0.103").unwrap());
    let (second, _) = key::from_net(key::parse_net("10.0.0.180").unwrap());
    let mut rows = RowWriter::new(Version(40));
    let live = |key, added, removed| RowState::Live { key, added, removed };
    rows.push(WireRow { slot: 0, version: Version(41), state: live(Some(&first[..n]), 5, 1) });
    rows.push(WireRow { slot: 1, version: Version(42), state: live(Some(&second[..n]), 300, 0) });
    rows.push(WireRow { slot: 900, version: Version(50), state: live(None, 1, 1) });
    rows.push(WireRow { slot: 7, version: Version(51), state: RowState::Vacant });
    rows.finish()
}

/// Of a cache: an entry with its key, a known one that never expires, one that another outdates, and a removed one.
fn cache_rows() -> Vec<u8> {
    let mut rows = RowWriter::new(Version(40));
    let stamp = 1_763_800_000_000 << 16 | 3;
    let content = |key, expires_ms, value| RowState::Content { key, stamp, expires_ms, value };
    rows.push(WireRow { slot: 0, version: Version(41), state: content(Some(b"user:7"), 1_763_800_300_000, b"Ada") });
    rows.push(WireRow { slot: 1, version: Version(42), state: content(None, 0, b"") });
    let outdated = RowState::Live { key: Some(b"user:9"), added: stamp, removed: 0x0123_4567_89ab_cdef };
    rows.push(WireRow { slot: 2, version: Version(44), state: outdated });
    rows.push(WireRow { slot: 3, version: Version(45), state: RowState::Live { key: None, added: stamp, removed: 0 } });
    rows.finish()
}

/// Of a cache: a value that expires, one of another run that does not, with a key that shares a beginning, and a removal.
fn cache_entries() -> [WireEntry<'static>; 3] {
    let (stamp, at) = (1_763_800_000_000 << 16 | 3, 1_763_800_300_000);
    let first = WireEntry { run: 0, number: 41, stamp, key: b"user:7", expires_ms: at, value: Some(b"Ada") };
    let second =
        WireEntry { run: 1, number: 7, stamp: stamp - 70_000, key: b"user:9", expires_ms: 0, value: Some(b"") };
    [first, second, WireEntry { run: 0, number: 42, stamp: stamp + 1, key: b"z", expires_ms: 0, value: None }]
}

fn cache_batch() -> Vec<u8> {
    let mut batch = EntryWriter::default();
    cache_entries().iter().for_each(|entry| batch.push(entry));
    batch.finish()
}

fn context() -> CacheContext {
    CacheContext { runs: vec![(actor(), 42)], ended: vec![(name("relay-0-9"), Incarnation(3))] }
}

/// The messages about caches, of protocol version 2.
fn cache_messages(entries: &[u8]) -> Vec<(&'static str, Message<'_>)> {
    let structure = StructureId::of("mycache");
    let other = Actor::new(name("relay-0-2"), Incarnation(9));
    let report = CacheReport {
        structure,
        session: 5,
        incarnation: actor().incarnation,
        number: 12,
        seen: context(),
        endings: vec![CacheEnding {
            node: name("relay-0-9"),
            from: Incarnation(0),
            first: Incarnation(3),
            last: vec![(Incarnation(1), 7), (Incarnation(2), 500)],
        }],
        relay: true,
        partial: false,
        fingerprint: 0x0123_4567_89ab_cdef,
        after_ms: UnixMs(1_763_800_080_000),
    };
    let mark = CacheMark {
        runs: vec![RunMark { run: actor(), after: 40, upto: 42 }],
        ended: vec![(name("relay-0-9"), Incarnation(3))],
        collected: context(),
    };
    let runs = vec![actor(), other];
    let last = CacheEntries { structure, session: 5, position: 300, runs, entries, mark: Some(mark) };
    let part = CacheEntries { runs: Vec::new(), entries: &[], mark: None, ..last.clone() };
    let compare =
        CacheCompare { structure, question: 2, after_ms: UnixMs(1_763_800_080_000), sums: vec![0, 1, u64::MAX] };
    let first = CacheKeys { structure, question: 2, position: 0, seen: Some(context()), parts: None, hashes: &HASHES };
    let end = CacheKeys { position: 1, seen: None, parts: Some(vec![2, 1023]), hashes: &[], ..first.clone() };
    vec![
        ("cache-report", Message::CacheReport(report)),
        ("cache-entries", Message::CacheEntries(last)),
        ("cache-entries-part", Message::CacheEntries(part)),
        ("cache-compare", Message::CacheCompare(compare)),
        ("cache-keys", Message::CacheKeys(first)),
        ("cache-keys-end", Message::CacheKeys(end)),
    ]
}

/// Two hashes of keys.
const HASHES: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8];

fn messages(rows: &[u8]) -> Vec<(&'static str, Message<'_>)> {
    let structure = StructureId::of("inbound_cidr");
    let fingerprint = 0x0123_4567_89ab_cdef;
    let entry = DigestEntry {
        actor: actor(),
        since: Version(0),
        applied: Version(51),
        low_water: Version(12),
        fingerprint,
        age_ms: Some(300),
    };
    let part = StructureDigest { structure, name: "inbound_cidr", kind: Kind::CidrTree, entries: vec![entry] };
    let tombstone = Tombstone {
        node: name("relay-0-9"),
        from: Incarnation(0),
        incarnation: Incarnation(3),
        until_ms: UnixMs(1_764_400_000_000),
    };
    vec![
        (
            "digest",
            Message::Digest(Digest {
                incarnation: Incarnation(1_763_800_000_000),
                clock_ms: UnixMs(1_763_800_600_000),
                answers: 7,
                complete: true,
                structures: vec![part],
                tombstones: vec![tombstone],
            }),
        ),
        (
            "want",
            Message::Want(Want { structure, actor: actor(), since: Version(0), after: Version(40), snapshot: true }),
        ),
        (
            "delta",
            Message::Delta(Delta {
                structure,
                actor: actor(),
                since: Version(0),
                keys_complete: Version(30),
                after: Version(40),
                upto: Version(51),
                low_water: Version(12),
                snapshot: false,
                fingerprint: Some(0x0123_4567_89ab_cdef),
                rows,
            }),
        ),
        ("probe", Message::Probe { nonce: 7 }),
        ("goodbye", Message::Goodbye),
        ("prune", Message::Prune(Prune { structure, actor: actor() })),
        (
            "seen",
            Message::Seen(Seen {
                structure: StructureId::of("mycache"),
                entries: vec![SeenEntry {
                    actor: actor(),
                    applied: Version(51),
                    complete: Version(50),
                    fingerprint: 0x0123_4567_89ab_cdef,
                }],
            }),
        ),
    ]
}

fn inspected(view: View) -> Request {
    let subject = SubjectRef { name: "logins".to_owned(), audit: false, interval: Some(300), window: 1 };
    Request::Inspect { subject, view }
}

fn requests() -> Vec<(&'static str, Request)> {
    let (object, key) = (|| "inbound_cidr".to_owned(), || "10.0.0.1".to_owned());
    let mask = HoldLimit::Mask((24, 30).into());
    vec![
        ("list", Request::List),
        ("show", Request::Show { object: object(), from: Some(name("relay-0-1")) }),
        ("members", Request::Members),
        ("info", Request::Info),
        ("forget", Request::Forget { node: name("relay-0-1") }),
        ("add", Request::Add { object: object(), key: key(), n: -3 }),
        ("count", Request::Count { object: object(), key: key(), from: None }),
        ("load", Request::Load { object: object(), lines: vec![(key(), 2)], skip_bad: true }),
        ("hold", Request::Hold { object: object(), key: key(), limits: vec![HoldLimit::Key(10), mask] }),
        ("verify", Request::Verify { patience: Duration::from_secs(5) }),
        ("watch", Request::Watch { object: object() }),
        ("permits-list", Request::PermitsList),
        ("permits-show", Request::PermitsShow { name: "uploads".to_owned() }),
        ("inspect", inspected(View::Actors)),
        ("inspect-key", inspected(View::Key("alice".to_owned()))),
        ("inspect-keys", inspected(View::Keys(Some("alice".to_owned())))),
        ("inspect-links", inspected(View::Links)),
        ("inspect-log", inspected(View::Log { of: Some(name("relay-0-1")), after: Version(40) })),
    ]
}

/// The lines `NAME HEX` of the file.
fn golden() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("golden.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

fn check(vectors: &[(String, Vec<u8>)]) {
    let golden = golden();
    let ours = vectors.iter().map(|(name, bytes)| (name, hex(bytes)));
    let other: Vec<_> = ours.filter(|(name, hex)| golden.get(name.as_str()) != Some(&hex.as_str())).collect();
    let lines: Vec<_> = other.iter().map(|(name, hex)| format!("{name} {hex}")).collect();
    assert!(lines.is_empty(), "golden.txt pins these to other bytes:\n{}", lines.join("\n"));
}

#[test]
fn replication_messages_have_their_pinned_bytes() {
    let rows = rows();
    let mut vectors = vec![("rows".to_owned(), rows.clone()), ("cache-rows".to_owned(), cache_rows())];
    for (name, message) in messages(&rows) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        assert_eq!(Message::decode(&bytes).unwrap(), message);
        vectors.push((name.to_owned(), bytes));
    }
    check(&vectors);
}

/// A frame header names the protocol version. A node reads the headers of both versions.
#[test]
fn frame_headers_have_their_pinned_bytes() {
    check(&[
        ("frame-header".to_owned(), vec![1, 3, 2, 1]),
        ("frame-header-2".to_owned(), frame::header(0x01_02_03).unwrap().to_vec()),
    ]);
    for version in [1, 2] {
        assert_eq!(frame::payload_len([version, 3, 2, 1]), Ok(0x01_02_03));
    }
}

#[test]
fn messages_about_caches_have_their_pinned_bytes() {
    let batch = cache_batch();
    let mut vectors = vec![("cache-batch".to_owned(), batch.clone())];
    for (name, message) in cache_messages(&batch) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        assert_eq!(Message::decode(&bytes).unwrap(), message);
        vectors.push((name.to_owned(), bytes));
    }
    check(&vectors);
}

/// What `Change::Entries` hands out for a key, and what it states with the last keys.
#[test]
fn saved_entries_have_their_pinned_bytes() {
    let entries = ["value", "lasting", "removal"].into_iter().zip(cache_entries()).map(|(name, entry)| {
        let bytes = SavedEntry::encode(&actor(), &entry).unwrap();
        let saved = SavedEntry::decode(&bytes).unwrap();
        assert_eq!(saved.run(), &actor());
        saved.read(|read| assert_eq!(*read, WireEntry { run: 0, ..entry })).unwrap();
        (format!("saved-{name}"), bytes)
    });
    let contexts = CacheContexts { seen: context(), collected: CacheContext::default(), received: vec![1000] };
    let bytes = postcard::to_stdvec(&contexts).unwrap();
    assert_eq!(postcard::from_bytes::<CacheContexts>(&bytes).unwrap(), contexts);
    check(&entries.chain([("saved-contexts".to_owned(), bytes)]).collect::<Vec<_>>());
}

#[test]
fn admin_requests_have_their_pinned_bytes() {
    let encoded = requests().into_iter().map(|(name, request)| {
        let bytes = admin::encode(&request).unwrap();
        assert_eq!(admin::decode::<Request>(&bytes).unwrap(), request);
        (format!("admin-{name}"), bytes)
    });
    check(&encoded.collect::<Vec<_>>());
    let error = Answer::Error { kind: ErrorKind::No, message: "no room".to_owned() };
    check(&[
        ("admin-done".to_owned(), admin::encode(&Answer::Done).unwrap()),
        ("admin-error".to_owned(), admin::encode(&error).unwrap()),
    ]);
}

#[test]
fn every_pinned_vector_is_checked() {
    let rows = rows();
    let ours = messages(&rows).into_iter().map(|(name, _)| name.to_owned());
    let ours = ours.chain(cache_messages(&[]).into_iter().map(|(name, _)| name.to_owned()));
    let admin = requests().into_iter().map(|(name, _)| format!("admin-{name}"));
    let others = ["rows", "cache-rows", "cache-batch", "frame-header", "frame-header-2", "admin-done", "admin-error"]
        .map(str::to_owned);
    let saved = ["value", "lasting", "removal", "contexts"].map(|name| format!("saved-{name}"));
    let known: Vec<String> = ours.chain(admin).chain(others).chain(saved).collect();
    for name in golden().keys() {
        assert!(known.iter().any(|known| known == name), "{name} is pinned and not checked");
    }
}
