//! The messages of the replication protocol: what is decoded lies within the bounds, and comes back when it is encoded.

use tallymesh_schemas::entries::{EntryReader, EntryWriter};
use tallymesh_schemas::message::{CacheContext, CacheEntries, CacheKeys, Delta, Digest, Message};
use tallymesh_schemas::{Incarnation, NodeName, bounds};

/// Decodes one message.
pub fn run(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    check_bounds(&message, bytes.len());
    let mut again = Vec::new();
    message.encode(&mut again).expect("what was decoded can be encoded");
    assert!(again.len() <= bytes.len(), "the encoding is the shortest form");
    assert_eq!(Message::decode(&again).as_ref(), Ok(&message));
    assert!(format!("{message:?}").len() < 64 + 64 * bytes.len(), "what is decoded is no larger than what came");
}

fn check_bounds(message: &Message<'_>, len: usize) {
    match message {
        Message::Digest(Digest { incarnation, structures, tombstones, .. }) => {
            assert!(incarnation.0 <= bounds::INCARNATION);
            assert!(structures.len() <= bounds::STRUCTURES.min(len));
            assert!(tombstones.len() <= bounds::TOMBSTONES.min(len));
            let entries: usize = structures.iter().map(|structure| structure.entries.len()).sum();
            assert!(entries <= bounds::DIGEST_ENTRIES.min(len));
            for entry in structures.iter().flat_map(|structure| &structure.entries) {
                assert!(
                    entry.since <= entry.applied
                        && entry.applied <= bounds::VERSION
                        && entry.low_water <= bounds::VERSION
                );
                assert!(entry.actor.incarnation.0 <= bounds::INCARNATION);
            }
        }
        Message::Want(want) => assert!(want.since <= want.after && want.after <= bounds::VERSION),
        Message::Delta(Delta { since, after, upto, low_water, rows, .. }) => {
            assert!(since <= after && after <= upto && *upto <= bounds::VERSION && *low_water <= bounds::VERSION);
            assert!(rows.len() <= len);
        }
        Message::Seen(seen) => {
            assert!(seen.entries.len() <= bounds::SEEN_ENTRIES.min(len));
            for entry in &seen.entries {
                assert!(entry.complete <= entry.applied && entry.applied <= bounds::VERSION);
                assert!(entry.actor.incarnation.0 <= bounds::INCARNATION);
            }
        }
        Message::Prune(prune) => assert!(prune.actor.incarnation.0 <= bounds::INCARNATION),
        Message::CacheReport(report) => {
            assert!(report.incarnation.0 <= bounds::INCARNATION && report.after_ms.0 <= bounds::UNIX_MS);
            assert!(report.endings.len() <= bounds::NODES.min(len));
            for ending in &report.endings {
                assert!(ending.first.0 <= bounds::INCARNATION && ending.last.len() <= bounds::ACTORS.min(len));
                assert!(ending.last.iter().all(|(_, number)| *number <= bounds::CACHE_WRITES));
            }
            check_context(&report.seen, len);
        }
        Message::CacheEntries(entries) => check_entries(entries, len),
        Message::CacheCompare(compare) => {
            assert!(compare.sums.len() <= bounds::CACHE_PARTS.min(len) && compare.after_ms.0 <= bounds::UNIX_MS);
        }
        Message::CacheKeys(CacheKeys { seen, parts, hashes, .. }) => {
            assert!(parts.as_ref().map_or(0, Vec::len) <= bounds::CACHE_PARTS.min(len) && hashes.len() <= len);
            seen.iter().for_each(|seen| check_context(seen, len));
        }
        Message::Probe { .. } | Message::Goodbye => {}
    }
}

fn check_context(context: &CacheContext, len: usize) {
    assert!(context.runs.len() <= bounds::ACTORS.min(len));
    for (run, number) in &context.runs {
        assert!(run.incarnation.0 <= bounds::INCARNATION && *number <= bounds::CACHE_WRITES);
    }
    check_ended(&context.ended, len);
}

fn check_ended(ended: &[(NodeName, Incarnation)], len: usize) {
    assert!(ended.len() <= bounds::NODES.min(len));
    assert!(ended.iter().all(|(_, first)| first.0 <= bounds::INCARNATION));
}

fn check_entries(CacheEntries { runs, entries, mark, .. }: &CacheEntries<'_>, len: usize) {
    assert!(runs.len() <= bounds::ACTORS.min(len) && entries.len() <= len);
    assert!(runs.iter().all(|run| run.incarnation.0 <= bounds::INCARNATION));
    if let Some(mark) = mark {
        assert!(mark.runs.len() <= bounds::ACTORS.min(len));
        assert!(mark.runs.iter().all(|run| run.after <= run.upto && run.upto <= bounds::CACHE_WRITES));
        check_ended(&mark.ended, len);
        check_context(&mark.collected, len);
    }
    check_batch(entries, runs.len());
}

/// Entries are within their bounds, and come back when they are written again.
fn check_batch(batch: &[u8], runs: usize) {
    let mut reader = EntryReader::new(batch, runs);
    let mut writer = EntryWriter::default();
    while let Ok(Some(entry)) = reader.next_entry() {
        assert!((entry.run as usize) < runs && (1..=bounds::CACHE_WRITES).contains(&entry.number));
        assert!((1..=bounds::KEY_BYTES).contains(&entry.key.len()) && entry.expires_ms <= bounds::UNIX_MS);
        assert!(entry.value.is_none_or(|value| value.len() <= bounds::VALUE_BYTES));
        writer.push(&entry);
    }
    let (mut first, read, again) = (EntryReader::new(batch, runs), writer.entries(), writer.finish());
    let mut second = EntryReader::new(&again, runs);
    for _ in 0..read {
        assert_eq!(first.next_entry(), second.next_entry());
    }
    assert_eq!(second.next_entry(), Ok(None));
}
