//! Writes the first inputs of the corpora into the folder that is named, `corpus` by default: golden vectors and inputs of
//! the kind that the targets begin with.

use std::fs;
use std::io;
use std::path::Path;

use tallymesh_schemas::entries::{EntryWriter, WireEntry};
use tallymesh_schemas::message::{
    CacheCompare, CacheContext, CacheEnding, CacheEntries, CacheKeys, CacheMark, CacheReport, Message, RunMark,
};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Incarnation, NodeName, StructureId, UnixMs, Version, frame, key};

const GOLDEN: &str = include_str!("../../schemas/tests/golden.txt");
const MOMENTUM: &str = include_str!("../../schemas/tests/config/momentum.txt");

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or("0"), 16).unwrap_or(0);
    (0..text.len()).step_by(2).map(digit).collect()
}

fn rows() -> Vec<u8> {
    let mut writer = RowWriter::new(Version(7));
    for slot in 0..6_u32 {
        let (bytes, len) = key::from_net(key::parse_net(&format!("10.0.{slot}.1")).unwrap_or_default());
        let state = match slot % 3 {
            0 => RowState::Live { key: Some(&bytes[..len]), added: 300, removed: 1 },
            1 => RowState::Live { key: None, added: 1, removed: 0 },
            _ => RowState::Vacant,
        };
        writer.push(WireRow { slot: 5 * slot, version: Version(8 + u64::from(slot * slot)), state });
    }
    [&7_u64.to_le_bytes()[..], &writer.finish()].concat()
}

/// A message of each kind about caches, with its name.
fn cache_messages(a: NodeName, b: NodeName) -> Vec<(&'static str, Vec<u8>)> {
    let (structure, run) = (StructureId::of("sessions"), Actor::new(a, Incarnation(7)));
    let seen = CacheContext { runs: vec![(run.clone(), 3)], ended: vec![(b, Incarnation(4))] };
    let mut writer = EntryWriter::default();
    writer.push(&WireEntry { run: 0, number: 2, stamp: 99, key: b"user:7", expires_ms: 1 << 40, value: Some(b"Ada") });
    writer.push(&WireEntry { run: 0, number: 3, stamp: 100, key: b"user:8", expires_ms: 0, value: None });
    let entries = writer.finish();
    let mark = CacheMark {
        runs: vec![RunMark { run: run.clone(), after: 1, upto: 3 }],
        ended: seen.ended.clone(),
        collected: CacheContext::default(),
    };
    let (from, first) = (Incarnation(3), Incarnation(5));
    let node = run.node.clone();
    let ending = CacheEnding { node, from, first, last: vec![(from, 9)] };
    let report = CacheReport {
        structure,
        session: 1,
        incarnation: run.incarnation,
        number: 2,
        seen: seen.clone(),
        endings: vec![ending],
        relay: true,
        partial: false,
        fingerprint: 0x1234_5678_9abc_def0,
        after_ms: UnixMs(1 << 40),
    };
    let (runs, mark) = (vec![run], Some(mark));
    let keys = [7_u64, 8].map(u64::to_le_bytes).concat();
    let (seen, parts) = (Some(seen), Some(vec![1, 1023]));
    let messages = [
        ("cache-report", Message::CacheReport(report)),
        (
            "cache-entries",
            Message::CacheEntries(CacheEntries { structure, session: 1, position: 0, runs, entries: &entries, mark }),
        ),
        (
            "cache-compare",
            Message::CacheCompare(CacheCompare {
                structure,
                question: 1,
                after_ms: UnixMs(1 << 40),
                sums: vec![0, 5, u64::MAX],
            }),
        ),
        (
            "cache-keys",
            Message::CacheKeys(CacheKeys { structure, question: 1, position: 0, seen, parts, hashes: &keys }),
        ),
    ];
    let encoded = |message: &Message<'_>| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).ok().map(|()| bytes)
    };
    messages.iter().filter_map(|(name, message)| Some((*name, encoded(message)?))).collect()
}

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "corpus".to_owned());
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(name), bytes)
    };
    for (name, hex) in GOLDEN.lines().filter_map(|line| line.split_once(' ')).filter(|(name, _)| *name != "#") {
        let bytes = unhex(hex);
        let target = if name.starts_with("admin-") { "admin" } else { "messages" };
        write(target, name, &bytes)?;
        if let Ok(header) = frame::header(bytes.len()) {
            write("frames", name, &[&header[..], &bytes].concat())?;
        }
    }
    let nodes = ["relay-0-1", "relay-0-2"].map(|name| NodeName::new(name).map_err(io::Error::other));
    let [a, b] = nodes;
    for (name, bytes) in cache_messages(a?, b?) {
        write("messages", name, &bytes)?;
        if let Ok(header) = frame::header(bytes.len()) {
            write("frames", name, &[&header[..], &bytes].concat())?;
        }
    }
    write("rows", "batch", &rows())?;
    for (at, page) in MOMENTUM.split("=== ").enumerate() {
        let text = page.split_once('\n').map_or("", |(_, text)| text);
        write("configuration", &format!("page-{at}"), text.as_bytes())?;
    }
    let texts = [
        "10.0.0.1",
        "10.0.0.0/8",
        "::ffff:1.2.3.4",
        "2001:db8::/32",
        "Aol.COM.",
        "b1/Aol.com",
        "relay-0-1",
        "inbound_cidr",
        "m\u{fc}nchen\u{3002}Example.",
        "XN--MNCHEN-3YA.example",
        "exam\u{200b}ple.com:25",
        "[IPv6:2001:db8::1]",
    ];
    for (at, text) in texts.iter().enumerate() {
        write("keys", &format!("text-{at}"), text.as_bytes())?;
    }
    Ok(())
}
