//! Golden vectors: the bytes of every message, pinned. A change here is a change of the protocol, and needs a new protocol
//! version that still reads the old bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use tallymesh_schemas::admin::{self, Answer, ErrorKind, Request};
use tallymesh_schemas::message::{
    Delta, Digest, DigestEntry, Message, Prune, Seen, SeenEntry, StructureDigest, Tombstone, Want,
};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
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
    ]
}

/// The lines `NAME HEX` of the file.
fn golden() -> BTreeMap<&'static str, &'static str> {
    let lines = include_str!("golden.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).collect()
}

fn check(vectors: &[(String, Vec<u8>)]) {
    let golden = golden();
    for (name, bytes) in vectors {
        let pinned = golden.get(name.as_str()).copied();
        assert_eq!(pinned, Some(hex(bytes).as_str()), "golden.txt pins `{name}` to other bytes");
    }
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
    vectors.push(("frame-header".to_owned(), frame::header(0x01_02_03).unwrap().to_vec()));
    check(&vectors);
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
    let admin = requests().into_iter().map(|(name, _)| format!("admin-{name}"));
    let others = ["rows", "cache-rows", "frame-header", "admin-done", "admin-error"].map(str::to_owned);
    let known: Vec<String> = ours.chain(admin).chain(others).collect();
    for name in golden().keys() {
        assert!(known.iter().any(|known| known == name), "{name} is pinned and not checked");
    }
}
