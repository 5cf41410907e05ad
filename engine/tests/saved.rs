//! What is handed out to be saved, and restored.

#[allow(dead_code, reason = "each test crate uses its part")]
mod disk;

use std::sync::Arc;
use std::time::Duration;

use disk::Disk;
use tallymesh_engine::replica::{Batch, RestoreError, next_run};
use tallymesh_engine::{Cache, Config, Now, Replica, Stamp, Time};
use tallymesh_schemas::message::{Digest, Message, Tombstone};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{Change, Extent, Facts, Part, Row, SavedEntry, Shape, split};
use tallymesh_schemas::{
    Actor, Class, GaugeCacheSpec, Incarnation, NodeName, StructureName, StructureSpec, UnixMs, Version, bounds,
};

const SECOND: Duration = Duration::from_secs(1);

const NOW: Now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };

fn spec() -> StructureSpec {
    StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache)
}

fn replica(run: u64) -> Replica {
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(run));
    replica.keep_state();
    replica.replicate_cache(spec(), Arc::new(|| ())).unwrap();
    replica.replicate_gauge_cache(GaugeCacheSpec::new("opened").unwrap(), Arc::new(|| ())).unwrap();
    replica.replicate(StructureSpec::from(Class::OutboundDomains), Arc::new(|| ())).unwrap();
    replica
}

fn cache_of(replica: &Replica) -> Cache {
    replica.caches().remove(0)
}

fn set(replica: &Replica, key: &str, value: &str) {
    cache_of(replica).set(key.as_bytes(), value, Duration::ZERO, NOW.unix_ms).unwrap();
}

/// The one part of a structure that changes have.
fn part(batches: &[Batch], structure: &str) -> Part {
    let mut found: Option<Part> = None;
    for change in batches.iter().flat_map(|batch| &batch.changes) {
        let Change::Rows { shape, actor, anew, extent, after, rows } = change else { continue };
        if shape.name != structure {
            continue;
        }
        let fresh = || Part { shape: shape.clone(), actor: actor.clone(), extent: *extent, rows: Vec::<Row>::new() };
        let part = found.get_or_insert_with(fresh);
        if *anew {
            part.rows.clear();
        }
        part.extent = *extent;
        split(rows, *after, |slot, row| {
            part.rows.retain(|known| known.slot != slot);
            part.rows.extend(row);
        })
        .unwrap();
    }
    found.unwrap()
}

fn saved(replica: &mut Replica) -> Vec<Batch> {
    Disk::default().save(replica)
}

/// A process that begins as run 9 with what was saved.
fn restored(disk: &Disk, parts: &[Part]) -> Replica {
    let mut replica = replica(9);
    let facts = Facts { incarnation: Incarnation(7), ..Facts::default() };
    let disk = Disk { facts, ..disk.clone() };
    parts.iter().for_each(|part| replica.restore(NOW, part.clone()).unwrap());
    disk.restore(&mut replica, NOW);
    replica
}

/// Only what outlives a run is handed out, once, and again when it has changed.
#[test]
fn what_has_changed_is_handed_out() {
    let mut replica = replica(7);
    set(&replica, "k", "v");
    replica.structure("outbound_domains").unwrap().add(b"example.com", 3).unwrap();
    let batches = saved(&mut replica);
    let [batch] = batches.as_slice() else { panic!("{batches:?}") };
    assert!(batch.commit && batch.complete);
    let [Change::Entries { shape, entries, contexts: Some(contexts), .. }, Change::Facts(facts)] =
        batch.changes.as_slice()
    else {
        panic!("{batch:?}")
    };
    assert_eq!((shape.name.as_str(), entries.len(), facts.incarnation), ("sessions", 1, Incarnation(7)));
    assert_eq!(contexts.seen.runs, [(replica.actor().clone(), 1)]);
    assert_eq!(saved(&mut replica), []);
    set(&replica, "l", "w");
    cache_of(&replica).remove(b"k", NOW.unix_ms).unwrap();
    let batches = saved(&mut replica);
    let [Change::Entries { anew: false, entries, contexts: Some(contexts), .. }] = batches[0].changes.as_slice() else {
        panic!("{batches:?}")
    };
    assert_eq!((entries.len(), contexts.seen.runs[0].1), (2, 3), "what has changed, and the removal");
}

/// What was not saved is handed out again, and all that its unit had before it.
#[test]
fn what_was_not_saved_comes_again() {
    let mut replica = replica(7);
    let value = "x".repeat(60_000);
    for n in 0..40 {
        set(&replica, &format!("k{n}"), &value);
    }
    let first = replica.poll_save().unwrap();
    assert!(!first.complete, "there is more");
    replica.handle_saved();
    // Meanwhile one of them changes, and another one comes.
    set(&replica, "k0", "changed");
    set(&replica, "k99", "new");
    replica.poll_save().unwrap();
    replica.handle_not_saved();
    let mut disk = Disk::default();
    let all = disk.save(&mut replica);
    assert_eq!(disk.entries.len(), 41);
    assert!(all.last().unwrap().complete);
    let again = restored(&disk, &[]);
    assert_eq!(cache_of(&again).entries(None, 99, NOW.unix_ms), cache_of(&replica).entries(None, 99, NOW.unix_ms));
}

/// Writes go on while a unit is handed out in several batches. Whatever is saved then, its contexts do not account for more
/// than its entries have.
#[test]
fn what_is_written_while_a_unit_is_handed_out_is_accounted_for_later() {
    let (mut replica, mut disk) = (replica(7), Disk::default());
    let value = "x".repeat(60_000);
    (0..40).for_each(|n| set(&replica, &format!("k{n}"), &value));
    let mut batches = 0;
    while let Some(batch) = replica.poll_save() {
        replica.handle_saved();
        batch.changes.iter().for_each(|change| disk.apply(change));
        if batches < 3 {
            set(&replica, &format!("l{batches}"), "new");
            set(&replica, "k39", &format!("changed {batches}"));
        }
        if batch.complete {
            let again = restored(&disk, &[]);
            let entries = cache_of(&again).entries(None, 99, NOW.unix_ms);
            let (_, head) = cache_of(&again).seen()[0];
            assert!(head as usize <= entries.len() + 3, "{head} writes, {} entries", entries.len());
        }
        batches += 1;
    }
    assert!(batches > 2);
    let again = restored(&disk, &[]);
    assert_eq!(cache_of(&again).entries(None, 99, NOW.unix_ms), cache_of(&replica).entries(None, 99, NOW.unix_ms));
    assert_eq!(cache_of(&again).seen(), cache_of(&replica).seen());
}

/// What is restored is read, also through a gauge cache, which has to hear of each row; and it is nothing new to be saved.
#[test]
fn what_is_restored_is_read() {
    let (mut before, mut disk) = (replica(7), Disk::default());
    set(&before, "k", "v");
    before.gauge_caches()[0].add(b"door", 4, NOW.mono).unwrap();
    let batches = disk.save(&mut before);
    let mut replica = restored(&disk, &[part(&batches, "gauge:opened")]);
    let cache = cache_of(&replica);
    assert_eq!(cache.get(b"k", NOW.unix_ms).as_deref(), Some(&b"v"[..]));
    assert_eq!(replica.gauge_caches()[0].get(b"door", NOW.mono), Some(4));
    // The entries are those of the earlier run.
    let entry = cache.entry(b"k", NOW.unix_ms).unwrap();
    assert_eq!(entry.actor.incarnation, Incarnation(7));
    let batches = saved(&mut replica);
    assert!(matches!(batches[0].changes.as_slice(), [Change::Facts(_)]), "{batches:?}");
    // What is written now comes behind it, though the clock stands still.
    let stamp = cache.set(b"k", b"w", Duration::ZERO, NOW.unix_ms.before(SECOND)).unwrap();
    assert!(stamp > entry.stamp);
    cache.audit().unwrap();
    replica.structures().iter().for_each(|structure| structure.audit().unwrap());
}

/// A cache that only this node has is saved and restored like others, and its removals go by themselves.
#[test]
fn a_cache_of_this_node_alone_is_saved() {
    let local = |run: u64| {
        let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(run));
        replica.keep_state();
        replica.keep_cache(spec(), Arc::new(|| ())).unwrap();
        replica
    };
    let (mut before, mut disk) = (local(7), Disk::default());
    set(&before, "k", "v");
    set(&before, "l", "v");
    cache_of(&before).remove(b"l", NOW.unix_ms).unwrap();
    let later = |seconds: u64| Now {
        mono: NOW.mono.after(Duration::from_secs(seconds)),
        unix_ms: NOW.unix_ms.after(Duration::from_secs(seconds)),
    };
    (0..130).for_each(|second| before.handle_timeout(later(second)));
    assert_eq!(cache_of(&before).held(), 1);
    disk.save(&mut before);
    assert_eq!(disk.entries.len(), 1);
    let mut again = local(9);
    disk.restore(&mut again, NOW);
    assert_eq!(cache_of(&again).get(b"k", NOW.unix_ms).as_deref(), Some(&b"v"[..]));
}

/// A node hears that it was forgotten while it was away. What it had saved in a cache stays: a last write stays, whichever
/// node wrote it. Its present run is not forgotten.
#[test]
fn who_was_forgotten_while_away_keeps_its_cache() {
    let (mut before, mut disk) = (replica(7), Disk::default());
    set(&before, "k", "v");
    set(&before, "both", "old");
    disk.save(&mut before);
    let mut replica = restored(&disk, &[]);
    set(&replica, "new", "v");
    set(&replica, "both", "new");
    hear_of_the_forgotten(&mut replica, "a", Incarnation(7));
    let run = replica.actor().clone();
    assert_eq!(run.incarnation, Incarnation(9));
    let entries = cache_of(&replica).entries(None, 9, NOW.unix_ms);
    let read: Vec<_> = entries.iter().map(|entry| (&entry.key[..], &entry.value[..])).collect();
    assert_eq!(read, [(&b"both"[..], &b"new"[..]), (b"k", b"v"), (b"new", b"v")]);
    let own: Vec<_> = entries.iter().map(|entry| entry.actor == run).collect();
    assert_eq!(own, [true, false, true], "the writers stay");
    cache_of(&replica).audit().unwrap();
}

/// Rows of a cache, as builds of protocol version 1 saved them: values, a removal, and a write that another row supersedes. They
/// are read, saved again in the present form, and the rows go.
#[test]
fn rows_of_a_cache_are_converted() {
    let actor = |name: &str| Actor::new(NodeName::new(name).unwrap(), Incarnation(7));
    let stamp = |later: u64| Stamp::at(UnixMs(NOW.unix_ms.0 - 1000 + later)).0;
    let content = |key, later, value| RowState::Content { key: Some(key), stamp: stamp(later), expires_ms: 0, value };
    let rows = |rows: &[RowState<'_>]| -> Vec<Row> {
        let row = |(version, state): (u64, &RowState<'_>)| {
            let mut writer = RowWriter::new(Version(version).previous());
            let slot = u32::try_from(version).unwrap();
            writer.push(WireRow { slot, version: Version(version), state: *state });
            Row { slot, version: Version(version), bytes: writer.finish() }
        };
        (1..).zip(rows).map(row).collect()
    };
    let shape = Shape { name: "sessions".to_owned(), class: Class::Cache };
    let extent = |applied| Extent { applied: Version(applied), complete: Version(applied), ..Extent::default() };
    let superseded = RowState::Live { key: Some(b"both"), added: stamp(1), removed: 77 };
    let removal = RowState::Live { key: Some(b"removed"), added: stamp(5), removed: 0 };
    let of_c = rows(&[content(b"k", 1, b"v"), superseded, content(b"removed", 2, b"v")]);
    let of_d = rows(&[content(b"both", 2, b"later"), removal]);
    let parts = [("c", 3, of_c), ("d", 2, of_d)].map(|(node, last, rows)| Part {
        shape: shape.clone(),
        actor: actor(node),
        extent: extent(last),
        rows,
    });
    let mut replica = restored(&Disk::default(), &parts);
    let cache = cache_of(&replica);
    let read: Vec<_> =
        cache.entries(None, 9, NOW.unix_ms).into_iter().map(|entry| (entry.key, entry.value.to_vec())).collect();
    assert_eq!(read, [(b"both".to_vec(), b"later".to_vec()), (b"k".to_vec(), b"v".to_vec())]);
    assert_eq!(cache.seen(), [(actor("c"), 3), (actor("d"), 2)]);
    let mut disk = Disk::default();
    let batches = disk.save(&mut replica);
    let changes: Vec<_> = batches.iter().flat_map(|batch| &batch.changes).collect();
    let gone = |node: &str| {
        changes.iter().any(|change| matches!(change, Change::Gone { structure, actor: of } if *structure == shape.id() && *of == actor(node)))
    };
    assert!(gone("c") && gone("d"), "{changes:?}");
    assert!(!changes.iter().any(|change| matches!(change, Change::Rows { .. })), "{changes:?}");
    let again = restored(&disk, &[]);
    assert_eq!(cache_of(&again).entries(None, 9, NOW.unix_ms), cache.entries(None, 9, NOW.unix_ms));
    assert_eq!(cache_of(&again).seen(), cache.seen());
}

/// A peer tells everything that it knows, among it that a node's runs up to this one are forgotten.
fn hear_of_the_forgotten(replica: &mut Replica, node: &str, upto: Incarnation) {
    let peer = NodeName::new("b").unwrap();
    replica.handle_link_up(NOW, &peer);
    let until_ms = UnixMs(NOW.unix_ms.0 + 100_000);
    let forgotten = Tombstone { node: NodeName::new(node).unwrap(), from: Incarnation(0), incarnation: upto, until_ms };
    let digest = Digest {
        incarnation: Incarnation(3),
        clock_ms: NOW.unix_ms,
        answers: 0,
        complete: true,
        structures: Vec::new(),
        tombstones: vec![forgotten],
    };
    let mut bytes = Vec::new();
    Message::Digest(digest).encode(&mut bytes).unwrap();
    replica.handle_message(NOW, &peer, &bytes).unwrap();
}

/// A clock went ahead by an hour, and right again with a restart. Everything is read at once. What was written ahead is written
/// again in the same order, with stamps that others accept, when no clock has contradicted this one for a minute.
#[test]
fn what_was_written_ahead_is_taken_back_and_written_again() {
    let (mut before, mut disk) = (replica(7), Disk::default());
    let ahead_ms = NOW.unix_ms.after(Duration::from_secs(3600));
    for (key, unix_ms) in [("before", NOW.unix_ms), ("ahead", ahead_ms), ("behind it", ahead_ms)] {
        cache_of(&before).set(key.as_bytes(), b"value", Duration::ZERO, unix_ms).unwrap();
    }
    disk.save(&mut before);
    let mut replica = restored(&disk, &[]);
    let cache = cache_of(&replica);
    assert_eq!(cache.len(NOW.unix_ms), 3);
    let after = |passed| Now { mono: NOW.mono.after(passed), unix_ms: NOW.unix_ms.after(passed) };
    let now = after(bounds::MAX_DRIFT + SECOND * 2);
    let stamp = |key: &str| cache.entry(key.as_bytes(), now.unix_ms).unwrap().stamp;
    replica.handle_timeout(after(SECOND));
    assert!(stamp("ahead").unix_ms() >= ahead_ms, "the clock may be wrong for a moment");
    replica.handle_timeout(now);
    assert_eq!(stamp("before").unix_ms(), NOW.unix_ms);
    assert!(stamp("before") < stamp("ahead") && stamp("ahead") < stamp("behind it"));
    let ahead = stamp("behind it").unix_ms().since(now.unix_ms);
    assert!(ahead <= bounds::MAX_DRIFT, "{ahead:?}");
    assert!(cache.set(b"now", b"value", Duration::ZERO, now.unix_ms).is_ok());
}

#[test]
fn what_is_not_what_was_saved_is_refused() {
    let mut before = replica(7);
    before.gauge_caches()[0].add(b"door", 4, NOW.mono).unwrap();
    before.gauge_caches()[0].add(b"gate", 4, NOW.mono).unwrap();
    let whole = part(&saved(&mut before), "gauge:opened");
    let refused = |part: Part| {
        let mut replica = replica(9);
        replica.restore_facts(NOW, Facts { incarnation: Incarnation(7), ..Facts::default() });
        replica.restore(NOW, part).unwrap_err()
    };
    let mut lacking = whole.clone();
    lacking.rows.pop();
    assert!(matches!(refused(lacking), RestoreError::Differs { .. }));
    let mut beyond = whole.clone();
    beyond.extent = Extent { applied: Version(1), ..beyond.extent };
    assert!(matches!(refused(beyond), RestoreError::Differs { .. }), "the rows of the first version alone");
    let mut other = whole.clone();
    other.shape.class = Class::OutboundDomains;
    let said = refused(other).to_string();
    assert!(said.contains("saved as outbound_domains and is configured as gauge_cache"), "{said}");
    // What nobody has configured stays where it is.
    let mut stays = whole;
    stays.shape.name = "old".to_owned();
    let mut replica = restored(&Disk::default(), &[stays]);
    let gone = saved(&mut replica)
        .iter()
        .flat_map(|batch| batch.changes.clone())
        .any(|change| matches!(change, Change::Gone { .. }));
    assert!(!gone);
}

/// Saved entries that are damaged, or of a structure that has another class now, are refused. Those of a cache that is not
/// configured are left alone.
#[test]
fn entries_that_are_not_what_was_saved_are_refused() {
    let (mut before, mut disk) = (replica(7), Disk::default());
    set(&before, "k", "v");
    disk.save(&mut before);
    let (bytes, shape) = (&disk.entries[&b"k"[..]], disk.shape.clone().unwrap());
    for end in 0..bytes.len() {
        assert!(SavedEntry::decode(&bytes[..end]).is_err(), "{end} bytes");
    }
    assert!(SavedEntry::decode(&[bytes, &[0][..]].concat()).is_err());
    let entry = SavedEntry::decode(bytes).unwrap();
    let mut replica = replica(9);
    let other = Shape { class: Class::GaugeCache, ..shape.clone() };
    let said = replica.restore_entry(&other, &entry).unwrap_err().to_string();
    assert!(said.contains("saved as gauge_cache and is configured as cache"), "{said}");
    let old = Shape { name: "old".to_owned(), ..shape };
    assert!(replica.restore_entry(&old, &entry).is_ok());
    assert_eq!(cache_of(&replica).held(), 0);
}

#[test]
fn each_run_is_later_than_the_one_before() {
    let facts = Facts { incarnation: Incarnation(500), ..Facts::default() };
    assert_eq!(next_run(&facts, UnixMs(900)), Ok(Incarnation(900)));
    assert!(next_run(&facts, UnixMs(500)).unwrap() > Incarnation(500));
    assert!(next_run(&facts, UnixMs(3)).unwrap() > Incarnation(500));
    let last = Facts { incarnation: Incarnation(bounds::INCARNATION - 1), ..Facts::default() };
    assert!(next_run(&last, UnixMs(3)).is_err(), "no number is changed into another one");
    assert!(next_run(&facts, UnixMs(bounds::INCARNATION)).is_err());
}

/// I1. The clock is behind the run that was saved, and twice a process begins with the same facts, because the disk was set back
/// in between: the two are different runs.
#[test]
fn processes_that_begin_with_the_same_facts_are_different_runs() {
    let facts = Facts { incarnation: Incarnation(1_000_000), ..Facts::default() };
    assert_ne!(next_run(&facts, UnixMs(5000)), next_run(&facts, UnixMs(9000)));
}
