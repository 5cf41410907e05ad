//! Rows that come from others than their owner, in pieces, beside what the owner says itself.

#[allow(dead_code, reason = "each test crate uses its part")]
mod pieces;
#[allow(dead_code, reason = "each test crate uses its part")]
mod wire;

use std::time::Duration;

use pieces::lacking_what_moved_on;
use tallymesh_engine::{Config, Life};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest};
use tallymesh_schemas::rows::{RowReader, RowState, RowWriter, WireRow};
use tallymesh_schemas::{Incarnation, StructureSpec};
use wire::{NAME, Wire, config, is_delta, read, spec};

/// I3. What a relay passes on in pieces may be newer than a statement of the owner's that is still under way: a row that has
/// moved on since is in neither. That is no divergence, whether a digest states it or a delta; one that is there all the same
/// is found, and repaired.
#[test]
fn an_owners_statement_that_is_older_than_a_relays_rows_shows_no_divergence() {
    for (by_delta, diverges) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut wire = Wire::new(&["a", "b", "c"]);
        wire.up(0, 1);
        for key in ["x", "moves", "last"] {
            wire.add_to(0, key, 1);
        }
        wire.talk();
        // c asks b for them, and b takes its time.
        wire.up(1, 2);
        for (from, to) in [(1, 2), (2, 1)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        // What a states itself takes longer still. Then a row moves on.
        wire.up(0, 2);
        for bytes in wire.take(2, 0) {
            wire.give(2, 0, &bytes).unwrap();
        }
        let mut stated = wire.take(0, 2);
        stated.retain(|bytes| is_delta(bytes) == by_delta);
        wire.add_to(0, "moves", 1);
        for bytes in wire.take(0, 1) {
            wire.give(0, 1, &bytes).unwrap();
        }
        let mut pieces = wire.take(1, 2);
        pieces.retain(|bytes| is_delta(bytes));
        if diverges {
            pieces[0] = counting(&pieces[0], 7);
        }
        for bytes in pieces[..2].iter().chain(&stated) {
            wire.give(if stated.contains(bytes) { 0 } else { 1 }, 2, bytes).unwrap();
        }
        let owner = wire.replicas[0].actor().clone();
        let held = wire.structure(2).held().into_iter().find(|held| held.actor == owner).unwrap();
        assert_eq!(
            (held.applied, held.rows, stated.is_empty()),
            (3, 2, false),
            "it has what b had, and lacks what moved on"
        );
        assert_eq!(wire.replicas[2].counters().divergences, 0, "stated by delta: {by_delta}");
        wire.run(10);
        let counters = wire.replicas[2].counters();
        let expected = u64::from(diverges);
        assert_eq!((counters.divergences, counters.replaced), (expected, expected), "stated by delta: {by_delta}");
        assert_eq!((wire.total(2, "x"), wire.total(2, "moves")), (1, 2));
        wire.assert_same(0, 2);
    }
}

/// I3. What an owner states may come twice, and the second time behind pieces of its rows that were cut later: what had moved on by then
/// is in none of them. That is no divergence.
#[test]
fn a_statement_that_comes_again_shows_no_divergence() {
    let (mut wire, stated) = lacking_what_moved_on();
    for bytes in &stated {
        wire.give(0, 1, bytes).unwrap();
    }
    assert_eq!(wire.total(1, "moves"), 0);
    assert_eq!(wire.replicas[1].counters().divergences, 0);
    wire.run(10);
    assert_eq!((wire.replicas[1].counters().divergences, wire.total(1, "moves")), (0, 2));
    wire.assert_same(0, 1);
}

/// A copy that has reached the owner's head in pieces, and lacks a row that has changed since, is not current. The bound of a
/// soft throttle relies on the age of the stalest copy.
#[test]
fn a_copy_that_lacks_a_row_of_its_owners_head_is_not_current() {
    let (mut wire, stated) = lacking_what_moved_on();
    let stalest = |wire: &Wire| wire.structure(1).count(b"x", wire.now.mono).stalest;
    let before = stalest(&wire);
    assert!(before > Duration::ZERO, "no statement has arrived since the first rows");
    for bytes in &stated {
        wire.give(0, 1, bytes).unwrap();
    }
    assert_eq!(stalest(&wire), before, "the owner's head is reached, and a row from before it is missing");
    wire.run(10);
    assert!(stalest(&wire) <= Duration::from_secs(2), "{:?}", stalest(&wire));
    wire.assert_same(0, 1);
}

/// I3. A snapshot whose pieces come from two, of whom one is ahead, may lack a row that moved on in between: it is not taken for
/// what either has.
#[test]
fn a_snapshot_of_two_senders_pieces_takes_nothing_away() {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    for key in ["x", "moves", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.talk();
    wire.down(0, 2);
    wire.add_to(0, "gone", -1);
    wire.run(15);
    wire.add_to(0, "last", 1);
    wire.talk();
    // c is below the floor of both. It asks b, and then a, which has gone on.
    wire.up(1, 2);
    let mut pieces = Vec::new();
    for (owner_or_relay, last) in [(1, 3), (0, 2)] {
        if owner_or_relay == 0 {
            wire.add_to(0, "moves", 1);
            wire.up(0, 2);
        }
        for (from, to) in [(owner_or_relay, 2), (2, owner_or_relay)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        let mut from = wire.take(owner_or_relay, 2);
        from.retain(|bytes| matches!(read(bytes), Message::Delta(delta) if delta.snapshot));
        assert_eq!(from.len(), 3);
        pieces.push((owner_or_relay, from[..last].to_vec()));
    }
    for (from, pieces) in pieces.iter().rev() {
        for bytes in pieces {
            wire.give(*from, 2, bytes).unwrap();
            assert_eq!(wire.total(2, "moves"), 1, "a row that counted all the time");
        }
    }
    assert_eq!(wire.replicas[2].counters().replaced, 0);
    wire.run(10);
    assert_eq!((wire.total(2, "moves"), wire.replicas[2].counters().replaced), (2, 1));
    wire.assert_same(0, 2);
}

/// I3. What somebody has who is further may lack a row that always moved on before its turn came, and a later state of it may be
/// known here. A snapshot of that copy takes nothing back.
#[test]
fn a_snapshot_of_somebody_elses_copy_takes_no_row_back() {
    let mut wire = Wire::with(&["a", "b", "c"], &Config { retention: Duration::from_secs(3), ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    wire.add_to(0, "moves", 1);
    wire.add_to(0, "gone", 1);
    wire.talk();
    wire.down(0, 1);
    wire.add_to(0, "moves", 1);
    wire.talk();
    wire.down(0, 2);
    // b hears that a row is retired, and that this is purged, and never of the one that moves on. c hears nothing.
    wire.up(0, 1);
    wire.add_to(0, "gone", -1);
    for _ in 0..150 {
        wire.add_to(0, "other", 1);
        wire.add_to(0, "moves", 1);
        for (from, to) in [(0, 1), (1, 0)] {
            for bytes in wire.take(from, to) {
                if !matches!(read(&bytes), Message::Delta(delta) if delta.fingerprint.is_some()) {
                    wire.give(from, to, &bytes).unwrap();
                }
            }
        }
        wire.wait_a_little();
    }
    wire.down(0, 1);
    let owner = wire.replicas[0].actor().clone();
    for at in [1, 2] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    let added = |wire: &Wire, at: usize| {
        let rows = wire.structure(at).rows_of(&owner);
        let row = |key: &str| Some(rows.iter().find(|(of, _)| of == key.as_bytes())?.1.added);
        ["gone", "moves"].map(row)
    };
    assert_eq!((added(&wire, 1), added(&wire, 2)), ([None, Some(1)], [Some(1), Some(2)]));
    wire.up(1, 2);
    wire.run(5);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "nothing else tells c of what was purged");
    assert_eq!(added(&wire, 2), [None, Some(2)]);
    wire.structure(2).audit().unwrap();
}

/// I10. The same where the slot has another key by then: what is kept counts once, and what it takes the place of never did.
#[test]
fn what_a_snapshot_of_somebody_elses_copy_does_not_take_back_counts_once() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    wire.add_to(0, "x", 1);
    let owner = wire.replicas[0].actor().clone();
    let structure = wire.structure(0).id();
    let row = |slot, version, key: &'static str| {
        let state = RowState::Live { key: Some(key.as_bytes()), added: version, removed: 0 };
        WireRow { slot, version, state }
    };
    // b has not seen that "old" was retired, nor what is in its slot now, for that moves on. c has, and then hears nothing.
    for (at, upto, floor, rows) in
        [(1, 12, 9, vec![row(0, 3, "old"), row(1, 12, "last")]), (2, 8, 0, vec![row(0, 8, "new")])]
    {
        wire.up(0, at);
        for (from, to) in [(0, at), (at, 0)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
        let mut writer = RowWriter::new(0);
        rows.into_iter().for_each(|row| writer.push(row));
        let rows = writer.finish();
        let (actor, since, known, after, fingerprint) = (owner.clone(), 0, 0, 0, None);
        let delta = Delta {
            structure,
            actor,
            since,
            keys_complete: known,
            after,
            upto,
            low_water: floor,
            snapshot: false,
            fingerprint,
            rows: &rows,
        };
        wire.give(0, at, &encoded(&Message::Delta(delta))).unwrap();
        wire.down(0, at);
    }
    let counted = |wire: &Wire| ["old", "new", "last"].map(|key| wire.total(2, key));
    assert_eq!(counted(&wire), [0, 8, 0]);
    wire.up(1, 2);
    wire.run(5);
    assert_eq!(wire.replicas[2].counters().replaced, 1, "nothing else tells c of what was purged");
    assert_eq!(counted(&wire), [0, 8, 12]);
    wire.structure(2).audit().unwrap();
}

/// I1, I6. A second process has had a node's name, with a later run, and only one without a link to the node has heard of it. Whoever has a
/// link to the node believes nobody else which run it is in, and asks it: so it hears of the other one, and goes on as a later run.
#[test]
fn who_has_a_second_process_under_its_name_hears_of_it_from_whoever_is_linked() {
    let mut wire = Wire::new(&["b", "middle", "c"]);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.add_to(2, "x", 1);
    wire.run(3);
    wire.assert_same(2, 0);
    let twin = wire.add("c", &config(), &spec());
    wire.add_to(twin, "y", 1);
    wire.up(0, twin);
    for _ in 0..20 {
        wire.wait_a_little();
        for (from, to) in [(0, twin), (twin, 0)] {
            for bytes in wire.take(from, to) {
                wire.give(from, to, &bytes).unwrap();
            }
        }
    }
    wire.down(0, twin);
    assert_eq!((wire.total(0, "x"), wire.total(0, "y")), (0, 1), "it has a later run");
    let later = wire.replicas[twin].actor().incarnation;
    wire.run(12);
    assert!(wire.replicas[2].actor().incarnation > later);
    assert_eq!((wire.total(0, "x"), wire.total(0, "y")), (1, 0));
    wire.assert_same(2, 0);
    wire.assert_same(2, 1);
}

fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

/// A delta of one row that counts something else.
fn counting(bytes: &[u8], added: u64) -> Vec<u8> {
    let Message::Delta(delta) = read(bytes) else { panic!("it is a delta") };
    let mut reader = RowReader::new(delta.rows, delta.after);
    let row = reader.next_row().unwrap().unwrap();
    let RowState::Live { key, .. } = row.state else { panic!("it counts") };
    let mut rows = RowWriter::new(delta.after);
    rows.push(WireRow { state: RowState::Live { key, added, removed: 0 }, ..row });
    let rows = rows.finish();
    encoded(&Message::Delta(Delta { rows: &rows, ..delta.clone() }))
}

/// I5. A node whose neighbours all began later than what it misses gets it all the same: they ask for it in their turn, up to the owner.
#[test]
fn neighbours_that_began_in_the_middle_fetch_what_was_before() {
    let spec = StructureSpec { snapshot: false, ..spec() };
    let mut wire = Wire::with(&["a", "b", "c"], &config(), &spec);
    let owner = wire.replicas[0].actor().clone();
    wire.up(0, 1);
    wire.up(1, 2);
    let now = wire.now_at(2);
    wire.replicas[2].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.run(1);
    wire.add_to(0, "x", 1);
    wire.add_to(0, "gone", 1);
    wire.run(3);
    assert_eq!((wire.total(2, "x"), wire.total(2, "gone")), (1, 1));
    wire.down(1, 2);
    wire.add_to(0, "x", 1);
    wire.add_to(0, "gone", -1);
    wire.add_to(0, "y", 1);
    wire.talk();
    // Two join, each in the middle of what there is; the only way to c is by them.
    for (to, late) in [(0, "d"), (3, "e")] {
        let late = wire.add(late, &config(), &spec);
        wire.up(to, late);
        wire.talk();
    }
    assert!([3, 4].iter().all(|late| wire.total(*late, "y") == 0), "they do not know what was before");
    let now = wire.now_at(4);
    wire.replicas[4].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.up(4, 2);
    wire.run(15);
    assert_eq!((wire.total(2, "x"), wire.total(2, "gone"), wire.total(2, "y")), (2, 0, 1));
    wire.add_to(0, "x", 1);
    wire.talk();
    wire.assert_same(0, 2);
    let quiet = wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>();
    wire.run(15);
    assert_eq!(wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>(), quiet, "nobody asks on");
}

/// I5. Who has rows in pieces may know of retirements beyond what it has, and needs no snapshot. Who began in the middle, there or
/// before, gives it what comes next.
#[test]
fn who_knows_of_retirements_beyond_what_it_has_goes_on_from_there() {
    let spec = StructureSpec { snapshot: false, ..spec() };
    let config = Config { retention: Duration::from_secs(3), ..config() };
    let mut wire = Wire::with(&["a", "b", "c"], &config, &spec);
    wire.up(0, 1);
    wire.talk();
    wire.down(0, 1);
    for key in ["x", "gone"] {
        wire.add_to(0, key, 1);
    }
    wire.up(0, 2);
    wire.talk();
    wire.add_to(0, "gone", -1);
    let owner = wire.replicas[0].actor().clone();
    let now = wire.now_at(0);
    let (b, c) = (wire.replicas[1].actor().clone(), 2);
    wire.replicas[0].handle_member(now, &b.node, b.incarnation, Life::Dead);
    wire.run(700);
    wire.add_to(0, "last", 1);
    wire.talk();
    let held = |wire: &Wire, at: usize| {
        let held = wire.structure(at).held().into_iter().find(|held| held.actor == owner).unwrap();
        (held.since, held.applied, held.low_water)
    };
    let (since, have, floor) = held(&wire, c);
    assert!(since > 0 && floor > since, "c began in the middle, {since}, and what went behind it is purged, {floor}");
    wire.up(0, 1);
    for bytes in wire.take(0, 1).into_iter().filter(|bytes| !is_delta(bytes)) {
        wire.give(0, 1, &bytes).unwrap();
    }
    let mut rows = RowWriter::new(0);
    rows.push(WireRow { slot: 0, version: 1, state: RowState::Live { key: Some(b"x"), added: 1, removed: 0 } });
    let (structure, rows) = (wire.structure(0).id(), rows.finish());
    let (actor, fingerprint) = (owner.clone(), None);
    let piece = Delta {
        structure,
        actor,
        since: 0,
        keys_complete: 0,
        after: 0,
        upto: since,
        low_water: floor,
        snapshot: false,
        fingerprint,
        rows: &rows,
    };
    let mut bytes = Vec::new();
    Message::Delta(piece).encode(&mut bytes).unwrap();
    wire.give(0, 1, &bytes).unwrap();
    assert_eq!(held(&wire, 1), (0, since, floor));
    wire.down(0, 1);
    wire.down(0, c);
    for at in [1, c] {
        let now = wire.now_at(at);
        wire.replicas[at].handle_member(now, &owner.node, owner.incarnation, Life::Dead);
    }
    wire.up(1, c);
    wire.run(10);
    assert_eq!(held(&wire, 1), (0, have, floor));
}

/// I5. Also when nobody on the way to the owner can be sure to have all there is, as the last rows came to them from somebody who
/// began in the middle: what takes nothing away is taken.
#[test]
fn what_was_before_comes_from_who_cannot_say_that_it_is_all() {
    let spec = StructureSpec { snapshot: false, ..spec() };
    let mut wire = Wire::with(&["a", "early", "behind"], &config(), &spec);
    let owner = wire.replicas[0].actor().clone();
    let knows = |wire: &mut Wire, n: usize| {
        let now = wire.now_at(n);
        wire.replicas[n].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    };
    let (early, behind) = (1, 2);
    wire.up(0, early);
    wire.up(0, behind);
    wire.run(1);
    for (key, behind_hears) in [("x", true), ("missed", false)] {
        wire.add_to(0, key, 1);
        wire.run(3);
        if behind_hears {
            wire.down(0, behind);
        }
    }
    wire.down(0, early);
    // Two join, and know only what comes from now on.
    let [relay, middle] = ["relay", "middle"].map(|late| {
        let late = wire.add(late, &config(), &spec);
        wire.up(0, late);
        wire.talk();
        late
    });
    wire.add_to(0, "y", 1);
    wire.run(3);
    wire.down(0, middle);
    knows(&mut wire, early);
    wire.up(early, relay);
    wire.run(5);
    assert_eq!((wire.total(early, "y"), wire.total(middle, "missed")), (1, 0));
    for n in [middle, behind] {
        knows(&mut wire, n);
    }
    wire.up(early, middle);
    wire.up(middle, behind);
    wire.run(15);
    for n in [middle, behind] {
        assert_eq!(["x", "missed", "y"].map(|key| wire.total(n, key)), [1; 3], "node {n}");
    }
    let asked = |wire: &Wire| wire.replicas.iter().map(|replica| replica.counters().wants_out).sum::<u64>();
    let quiet = asked(&wire);
    wire.run(15);
    assert_eq!(asked(&wire), quiet, "nobody asks on");
}

/// A relay that goes on as another run goes on passing on what others have.
#[test]
fn a_relay_that_goes_on_as_another_run_passes_on() {
    let mut wire = Wire::new(&["a", "b", "c"]);
    let owner = wire.replicas[0].actor().clone();
    let now = wire.now_at(2);
    wire.replicas[2].handle_member(now, &owner.node, owner.incarnation, Life::Alive);
    wire.up(0, 1);
    wire.up(1, 2);
    wire.run(5);
    wire.add_to(0, "x", 1);
    wire.talk();
    assert_eq!(wire.total(2, "x"), 1);
    let (now, run) = (wire.now_at(1), wire.replicas[1].actor().clone());
    assert!(wire.replicas[1].renew(now, Incarnation(0)).unwrap() > run);
    wire.add_to(0, "x", 1);
    wire.talk();
    assert_eq!(wire.total(2, "x"), 2, "at once");
}

/// I1, I6. Rows that somebody has made up for a node, and that another one has taken for its, come to that node's ears: it goes on as
/// another run, and they are gone.
#[test]
fn who_is_written_for_hears_of_it() {
    const NEVER_ISSUED: u64 = 1 << 40;
    let hour = Duration::from_secs(3600);
    let mut wire = Wire::with(&["a", "b", "c"], &Config { full_digest_interval: hour, ..config() }, &spec());
    wire.up(0, 1);
    wire.up(0, 2);
    wire.up(1, 2);
    wire.add_to(1, "x", 1);
    wire.run(6);
    let (b, c) = (wire.replicas[1].actor().clone(), wire.replicas[2].actor().clone());
    let entry =
        DigestEntry { actor: b.clone(), since: 0, applied: NEVER_ISSUED, low_water: 0, fingerprint: 7, age_ms: None };
    let structures = vec![StructureDigest {
        structure: wire.structure(0).id(),
        name: NAME,
        kind: wire.structure(0).kind(),
        entries: vec![entry],
    }];
    let (incarnation, clock_ms) = (c.incarnation, wire.now.unix_ms);
    let lie = Digest { incarnation, clock_ms, answers: 0, complete: false, structures, tombstones: Vec::new() };
    wire.give(2, 0, &encoded(&Message::Digest(lie))).unwrap();
    let asked = (0..200).find_map(|_| {
        wire.now.mono = wire.now.mono.after(Duration::from_millis(100));
        let now = wire.now_at(0);
        wire.replicas[0].handle_timeout(now);
        wire.take(0, 2).iter().find_map(|bytes| match read(bytes) {
            Message::Want(want) if want.actor == b => Some(want),
            _ => None,
        })
    });
    let after = asked.expect("it asks who says that there is more").after;
    let mut rows = RowWriter::new(after);
    let state = RowState::Live { key: Some(b"made-up"), added: 9, removed: 0 };
    rows.push(WireRow { slot: 40, version: after + 5, state });
    let delta = Delta {
        structure: wire.structure(0).id(),
        actor: b.clone(),
        since: 0,
        keys_complete: 0,
        after,
        upto: NEVER_ISSUED,
        low_water: 0,
        snapshot: false,
        fingerprint: Some(1),
        rows: &rows.finish(),
    };
    wire.give(2, 0, &encoded(&Message::Delta(delta))).unwrap();
    assert_eq!(wire.total(0, "made-up"), 9, "it was taken for b's");
    wire.down(0, 2);
    wire.run(5);
    assert!(wire.replicas[1].actor().incarnation > b.incarnation, "b has heard of it");
    assert_eq!((wire.total(0, "made-up"), wire.total(0, "x"), wire.total(2, "x")), (0, 1, 1));
}
