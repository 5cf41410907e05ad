//! What is handed out to be saved, and taken back.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::replica::{Batch, RestoreError, next_run};
use tallymesh_engine::{Cache, Config, Now, Replica, Time};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::saved::{Change, Extent, Facts, Part, Row, split};
use tallymesh_schemas::{
    Actor, Class, GaugeCacheSpec, Incarnation, Kind, NodeName, StructureName, StructureSpec, UnixMs, Version, bounds,
};

const NOW: Now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };

fn cache() -> StructureSpec {
    StructureSpec::new(StructureName::new("sessions").unwrap(), Class::Cache)
}

fn replica(run: u64) -> Replica {
    let mut replica = Replica::new(Config::default(), NodeName::new("a").unwrap(), Incarnation(run));
    replica.keep_state();
    replica.replicate(cache(), Arc::new(|| ())).unwrap();
    replica.replicate_gauge_cache(GaugeCacheSpec::new("opened").unwrap(), Arc::new(|| ())).unwrap();
    replica.replicate(StructureSpec::from(Class::OutboundDomains), Arc::new(|| ())).unwrap();
    replica
}

fn set(replica: &Replica, key: &str, value: &str) {
    let cache = Cache::of(replica.structure("sessions").unwrap()).unwrap();
    cache.set(key.as_bytes(), value.as_bytes(), Duration::ZERO, NOW.unix_ms).unwrap();
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
    let mut batches = Vec::new();
    while let Some(batch) = replica.poll_save() {
        assert!(replica.poll_save().is_none(), "one at a time");
        replica.handle_saved();
        batches.push(batch);
    }
    batches
}

fn restored(parts: &[Part]) -> Replica {
    let mut replica = replica(9);
    replica.restore_facts(NOW, Facts { incarnation: Incarnation(7), ..Facts::default() });
    parts.iter().for_each(|part| replica.restore(NOW, part.clone()).unwrap());
    replica.restored(NOW);
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
    let [Change::Rows { shape, .. }, Change::Facts(facts)] = batch.changes.as_slice() else { panic!("{batch:?}") };
    assert_eq!((shape.name.as_str(), facts.incarnation), ("sessions", Incarnation(7)));
    assert_eq!(saved(&mut replica), []);
    set(&replica, "l", "w");
    let batches = saved(&mut replica);
    let [Change::Rows { anew: false, after: Version(1), extent, .. }] = batches[0].changes.as_slice() else {
        panic!("{batches:?}")
    };
    assert_eq!((extent.applied, extent.complete), (Version(2), Version(2)));
}

/// What was not saved is handed out again, and all that its whole had before it.
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
    replica.poll_save().unwrap();
    replica.handle_not_saved();
    let all = saved(&mut replica);
    assert_eq!(all[0], first, "from the beginning");
    assert_eq!(part(&all, "sessions").rows.len(), 40);
    assert!(all.last().unwrap().complete);
}

/// What is taken back is read, also through a gauge cache, which has to hear of each row; and it is nothing new to be saved.
#[test]
fn what_is_taken_back_is_read() {
    let mut before = replica(7);
    set(&before, "k", "v");
    before.gauge_caches()[0].add(b"door", 4, NOW.mono).unwrap();
    let batches = saved(&mut before);
    let mut replica = restored(&[part(&batches, "sessions"), part(&batches, "gauge:opened")]);
    let cache = Cache::of(replica.structure("sessions").unwrap()).unwrap();
    assert_eq!(cache.get(b"k", NOW.unix_ms).as_deref(), Some(&b"v"[..]));
    assert_eq!(replica.gauge_caches()[0].get(b"door", NOW.mono), Some(4));
    // The rows are those of the earlier run.
    let entry = cache.entry(b"k", NOW.unix_ms).unwrap();
    assert_eq!(entry.actor.incarnation, Incarnation(7));
    let batches = saved(&mut replica);
    assert!(matches!(batches[0].changes.as_slice(), [Change::Facts(_)]), "{batches:?}");
    // What is written now comes behind it, though the clock stands still.
    let stamp = cache.set(b"k", &b"w"[..], Duration::ZERO, UnixMs(NOW.unix_ms.0 - 1000)).unwrap();
    assert!(stamp > entry.stamp);
    replica.structures().iter().for_each(|structure| structure.audit().unwrap());
}

/// A node learns that an operator forgot it while it was away. The node drops its saved writes, because the other nodes did
/// not wait for it before they retired rows. Its new run is not forgotten, so its later writes stay.
#[test]
fn a_node_that_was_forgotten_while_away_keeps_its_later_writes() {
    let mut before = replica(7);
    set(&before, "k", "v");
    set(&before, "both", "old");
    let mut replica = restored(&[part(&saved(&mut before), "sessions")]);
    set(&replica, "new", "v");
    set(&replica, "both", "new");
    hear_of_the_forgotten(&mut replica, "a", Incarnation(7));
    let run = replica.actor().clone();
    assert!(run.incarnation > Incarnation(9), "it has gone on as another run");
    let structure = Arc::clone(replica.structure("sessions").unwrap());
    structure.audit().unwrap();
    let entries = Cache::of(&structure).unwrap().entries(None, 9, NOW.unix_ms);
    let read: Vec<_> = entries.iter().map(|entry| (&entry.key[..], &entry.value[..])).collect();
    assert_eq!(read, [(&b"both"[..], &b"new"[..]), (b"new", b"v")]);
    assert!(entries.iter().all(|entry| entry.actor == run), "and tells of it");
}

/// A node learns that an operator forgot another node while this node was away. This node drops its saved rows of the
/// forgotten node, because the present nodes took them over. Rows that the forgotten node sent later may exist only here, so
/// this node republishes them.
#[test]
fn a_node_republishes_later_writes_of_a_node_that_was_forgotten_meanwhile() {
    let mut before = replica(7);
    set(&before, "k", "v");
    let saved = part(&saved(&mut before), "sessions");
    let gone = Actor::new(NodeName::new("c").unwrap(), Incarnation(7));
    let mut replica = restored(&[Part { actor: gone.clone(), ..saved }]);
    let structure = Arc::clone(replica.structure("sessions").unwrap());
    let read = || Cache::of(&structure).unwrap().entries(None, 9, NOW.unix_ms);
    let taken_back = read()[0].stamp;
    let mut rows = RowWriter::new(Version(1));
    let content = |stamp| RowState::Content { key: Some(b"new"), stamp, expires_ms: 0, value: b"w" };
    rows.push(WireRow { slot: 1, version: Version(2), state: content(taken_back.0 - 1) });
    let rows = rows.finish();
    tell(&mut replica, &gone, (1, 2), &rows);
    assert_eq!(read().len(), 2);
    // While it speaks, its own word goes before the tombstone.
    replica.handle_link_down(&gone.node);
    hear_of_the_forgotten(&mut replica, "c", Incarnation(7));
    let entries = read();
    assert_eq!(entries.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [b"new"]);
    assert_eq!(entries[0].actor, *replica.actor());
    structure.audit().unwrap();
}

/// What was saved of an actor that wrote `k`, so many milliseconds after [`NOW`], and its row.
fn of(actor: &Actor, value: &str, later: u64) -> (Part, tallymesh_engine::Row) {
    let mut before = replica(7);
    let structure = Arc::clone(before.structure("sessions").unwrap());
    let cache = Cache::of(&structure).unwrap();
    cache.set(b"k", value.as_bytes(), Duration::ZERO, UnixMs(NOW.unix_ms.0 + later)).unwrap();
    let row = structure.rows_of(before.actor())[0].1;
    (Part { actor: actor.clone(), ..part(&saved(&mut before), "sessions") }, row)
}

/// A node was forgotten while this node was away. Its write supersedes a write of a node that lives. The nodes that were there
/// may not have had the write, so only this node can republish it. It does so once the owner confirms the superseded row: if the
/// write had been removed meanwhile, that row would have been retired before the removal.
#[test]
fn a_write_of_a_forgotten_node_is_republished_while_it_supersedes_another() {
    for retired in [false, true] {
        let [gone, lives] = ["c", "d"].map(|name| Actor::new(NodeName::new(name).unwrap(), Incarnation(7)));
        let (outdone, wins) = (of(&lives, "outdone", 0).0, of(&gone, "wins", 10).0);
        let mut replica = restored(&[outdone.clone(), wins]);
        let structure = Arc::clone(replica.structure("sessions").unwrap());
        let read = || Cache::of(&structure).unwrap().get(b"k", NOW.unix_ms);
        let tells = |replica: &Replica| structure.rows_of(replica.actor()).len();
        hear_of_the_forgotten(&mut replica, "c", Incarnation(7));
        look_after(&mut replica, 1);
        assert_eq!(
            (read().as_deref(), tells(&replica)),
            (Some(&b"wins"[..]), 0),
            "it is not known what has become of it"
        );
        if retired {
            let mut rows = RowWriter::new(Version(1));
            rows.push(WireRow { slot: outdone.rows[0].slot, version: Version(2), state: RowState::Vacant });
            tell(&mut replica, &lives, (1, 2), &rows.finish());
        } else {
            tell(&mut replica, &lives, (1, 1), &[]);
        }
        look_after(&mut replica, 2);
        let expected = if retired { (None, 0) } else { (Some(&b"wins"[..]), 1) };
        assert_eq!((read().as_deref(), tells(&replica)), expected);
        structure.audit().unwrap();
    }
}

/// The same with a superseded row of an ended run: that row exists as long as some node states it.
#[test]
fn a_write_of_a_forgotten_node_is_republished_while_it_supersedes_an_ended_run() {
    for still in [false, true] {
        let [gone, ended] = ["c", "d"].map(|name| Actor::new(NodeName::new(name).unwrap(), Incarnation(7)));
        let (outdone, wins) = (of(&ended, "outdone", 0).0, of(&gone, "wins", 10).0);
        let mut replica = restored(&[outdone, wins]);
        let structure = Arc::clone(replica.structure("sessions").unwrap());
        hear_of_the_forgotten(&mut replica, "c", Incarnation(7));
        let known = structure.held().into_iter().find(|held| held.actor == ended).unwrap();
        let entry = |actor: Actor, have: u64, fingerprint: u64| DigestEntry {
            actor,
            since: Version(0),
            applied: Version(have),
            low_water: Version(0),
            fingerprint,
            age_ms: None,
        };
        let now = Actor::new(ended.node.clone(), Incarnation(8));
        let entries =
            vec![entry(now, 0, 0), entry(ended.clone(), known.applied.0, known.fingerprint ^ u64::from(!still))];
        let structures =
            vec![StructureDigest { structure: structure.id(), name: "sessions", kind: Kind::Cache, entries }];
        let (incarnation, clock_ms) = (Incarnation(8), NOW.unix_ms);
        let tombstones = Vec::new();
        let digest = Digest { incarnation, clock_ms, answers: 0, complete: true, structures, tombstones };
        let mut bytes = Vec::new();
        Message::Digest(digest).encode(&mut bytes).unwrap();
        replica.handle_link_up(NOW, &ended.node);
        let later = Now { mono: NOW.mono.after(Duration::from_millis(1)), ..NOW };
        replica.handle_message(later, &ended.node, &bytes).unwrap();
        look_after(&mut replica, 2);
        assert_eq!(structure.rows_of(replica.actor()).len(), usize::from(still));
        assert_eq!(Cache::of(&structure).unwrap().get(b"k", NOW.unix_ms).as_deref(), Some(&b"wins"[..]));
        structure.audit().unwrap();
    }
}

/// A row was saved whose value was never here. What was read was written before it, and is read no more; nor is what comes now
/// and was written before it. Its value is, when it comes.
#[test]
fn what_a_row_without_value_supersedes_is_not_read() {
    let [c, d, e] = ["c", "d", "e"].map(|name| Actor::new(NodeName::new(name).unwrap(), Incarnation(7)));
    let ((first, _), (between, _), (last, row)) = (of(&d, "first", 0), of(&e, "between", 5), of(&c, "last", 10));
    let mut without_value = last.clone();
    let mut rows = RowWriter::new(Version(0));
    let state = RowState::Live { key: Some(b"k"), added: row.added, removed: row.removed };
    rows.push(WireRow { slot: without_value.rows[0].slot, version: Version(1), state });
    without_value.rows[0].bytes = rows.finish();
    let mut replica = restored(&[first, without_value]);
    let structure = Arc::clone(replica.structure("sessions").unwrap());
    let read = || Cache::of(&structure).unwrap().get(b"k", NOW.unix_ms);
    assert_eq!(read(), None, "it was outdone");
    tell(&mut replica, &e, (0, 1), &between.rows[0].bytes);
    assert_eq!(read(), None, "so was this");
    tell(&mut replica, &c, (0, 1), &last.rows[0].bytes);
    look_after(&mut replica, 1);
    assert_eq!(read().as_deref(), Some(&b"last"[..]));
    structure.audit().unwrap();
}

/// Lets so many seconds pass since the beginning.
fn look_after(replica: &mut Replica, seconds: u64) {
    replica.handle_timeout(Now { mono: NOW.mono.after(Duration::from_secs(seconds)), ..NOW });
}

/// What was saved of an actor waits, because it was written ahead of the clock. Meanwhile that actor is heard: what is here of it
/// now does not take the place of what waits.
#[test]
fn what_waits_stays_saved() {
    let mut before = replica(7);
    set(&before, "k", "v");
    let early = part(&saved(&mut before), "sessions");
    let cache = Cache::of(before.structure("sessions").unwrap()).unwrap();
    cache.set(b"late", &b"w"[..], Duration::ZERO, UnixMs(NOW.unix_ms.0 + 120_000)).unwrap();
    let late = part(&saved(&mut before), "sessions");
    let actor = Actor::new(NodeName::new("c").unwrap(), Incarnation(7));
    let mut replica = restored(&[Part { actor: actor.clone(), ..late }]);
    let entries = |replica: &Replica, unix_ms: u64| {
        Cache::of(replica.structure("sessions").unwrap()).unwrap().entries(None, 9, UnixMs(unix_ms)).len()
    };
    assert_eq!(entries(&replica, NOW.unix_ms.0), 0, "it waits");
    tell(&mut replica, &actor, (0, 1), &early.rows[0].bytes);
    assert_eq!(entries(&replica, NOW.unix_ms.0), 1);
    let changes = saved(&mut replica).into_iter().flat_map(|batch| batch.changes);
    let over = changes.filter(|change| matches!(change, Change::Rows { actor: of, .. } if *of == actor)).count();
    assert_eq!(over, 0, "nothing is written over it");
}

/// A peer tells of its rows of `(after, upto]` of the cache.
fn tell(replica: &mut Replica, actor: &Actor, (after, upto): (u64, u64), rows: &[u8]) {
    replica.handle_link_up(NOW, &actor.node);
    let structure = replica.structure("sessions").unwrap().id();
    let entry = DigestEntry {
        actor: actor.clone(),
        since: Version(0),
        applied: Version(upto),
        low_water: Version(0),
        fingerprint: 0,
        age_ms: None,
    };
    let structures = vec![StructureDigest { structure, name: "sessions", kind: Kind::Cache, entries: vec![entry] }];
    let digest = Digest {
        incarnation: actor.incarnation,
        clock_ms: NOW.unix_ms,
        answers: 0,
        complete: true,
        structures,
        tombstones: Vec::new(),
    };
    let delta = Delta {
        structure,
        actor: actor.clone(),
        since: Version(0),
        keys_complete: Version(0),
        after: Version(after),
        upto: Version(upto),
        low_water: Version(0),
        snapshot: false,
        fingerprint: None,
        rows,
    };
    for message in [Message::Digest(digest), Message::Delta(delta)] {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        let now = Now { mono: NOW.mono.after(Duration::from_millis(1)), ..NOW };
        replica.handle_message(now, &actor.node, &bytes).unwrap();
    }
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

/// A clock went ahead by an hour, and right again with a restart. What was written before that is read, and the rest when the
/// clock has come to it.
#[test]
fn what_was_written_before_a_clock_went_ahead_is_taken_back() {
    let mut before = replica(7);
    let cache = Cache::of(before.structure("sessions").unwrap()).unwrap();
    let ahead_ms = UnixMs(NOW.unix_ms.0 + 3_600_000);
    for (key, unix_ms) in [("before", NOW.unix_ms), ("ahead", ahead_ms), ("behind it", ahead_ms)] {
        cache.set(key.as_bytes(), *b"value", Duration::ZERO, unix_ms).unwrap();
    }
    let mut replica = restored(&[part(&saved(&mut before), "sessions")]);
    let read = |replica: &Replica, unix_ms: u64| {
        let cache = Cache::of(replica.structure("sessions").unwrap()).unwrap();
        ["before", "ahead", "behind it"].map(|key| cache.get(key.as_bytes(), UnixMs(unix_ms)).is_some())
    };
    assert_eq!(read(&replica, NOW.unix_ms.0), [true, false, false]);
    let gone =
        |batches: &[Batch]| batches.iter().flat_map(|batch| &batch.changes).any(|c| matches!(c, Change::Gone { .. }));
    assert!(!gone(&saved(&mut replica)), "the rest stays saved");
    for seconds in 1..5 {
        let mono = NOW.mono.after(Duration::from_secs(seconds));
        replica.handle_timeout(Now { mono, unix_ms: UnixMs(NOW.unix_ms.0 + seconds * 1000) });
        assert_eq!(read(&replica, NOW.unix_ms.0), [true, false, false]);
    }
    replica.handle_timeout(Now { mono: NOW.mono.after(Duration::from_secs(3600)), unix_ms: ahead_ms });
    assert_eq!(read(&replica, ahead_ms.0), [true; 3]);
}

#[test]
fn what_is_not_what_was_saved_is_refused() {
    let mut before = replica(7);
    set(&before, "k", "v");
    set(&before, "l", "w");
    let whole = part(&saved(&mut before), "sessions");
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
    assert!(matches!(refused(beyond), RestoreError::Rows { .. }));
    let mut other = whole.clone();
    other.shape.class = Class::GaugeCache;
    let said = refused(other).to_string();
    assert!(said.contains("saved as gauge_cache and is configured as cache"), "{said}");
    // What nobody has configured stays where it is.
    let mut stays = whole;
    stays.shape.name = "old".to_owned();
    let mut replica = restored(&[stays]);
    let gone = saved(&mut replica)
        .iter()
        .flat_map(|batch| batch.changes.clone())
        .any(|change| matches!(change, Change::Gone { .. }));
    assert!(!gone);
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
