//! Peers that say what no peer should (I6), or in an order in which nobody should hear it, in the smallest form that shows
//! what went wrong; found by fuzzing, or by thinking about what fuzzing should find.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Now, Replica, Row, Structure, Time, key_hash, row_hash};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Class, Incarnation, NodeName, StructureSpec, UnixMs, Version, bounds};

struct Target {
    replica: Replica,
    structure: Arc<Structure>,
    now: Now,
}

fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

fn actor(node: &str) -> Actor {
    Actor::new(name(node), Incarnation(5))
}

fn live(slot: u32, version: u64, key: &'static str, added: u64) -> WireRow<'static> {
    WireRow { slot, version: Version(version), state: RowState::Live { key: Some(key.as_bytes()), added, removed: 0 } }
}

impl Target {
    fn new() -> Self {
        let mut replica = Replica::new(tallymesh_engine::Config::default(), name("us"), Incarnation(1000));
        let structure = replica.replicate(StructureSpec::from(Class::OutboundDomains), Arc::new(|| ())).unwrap();
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let mut target = Self { replica, structure, now };
        for peer in ["p", "q"] {
            target.replica.handle_link_up(now, &name(peer));
        }
        target
    }

    /// Hands it a peer's message; how long that was.
    fn give(&mut self, peer: &str, message: &Message<'_>) -> usize {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        let _ = self.replica.handle_message(self.now, &name(peer), &bytes);
        self.structure.audit().unwrap();
        bytes.len()
    }

    fn digest(&mut self, peer: &str, about: Actor, have: u64) {
        let entry = DigestEntry {
            actor: about,
            since: Version(0),
            applied: Version(have),
            low_water: Version(0),
            fingerprint: 0,
            age_ms: None,
        };
        let spec = self.structure.spec().clone();
        let part = StructureDigest {
            structure: spec.name.id(),
            name: spec.name.as_str(),
            kind: spec.class.kind(),
            entries: vec![entry],
        };
        let message = Message::Digest(Digest {
            incarnation: actor(peer).incarnation,
            clock_ms: UnixMs(0),
            answers: 0,
            complete: true,
            structures: vec![part],
            tombstones: Vec::new(),
        });
        self.give(peer, &message);
    }

    /// A peer's own rows, announced and then sent.
    fn rows(&mut self, peer: &str, upto: u64, rows: &[WireRow<'_>]) {
        self.digest(peer, actor(peer), upto);
        self.delta(peer, (0, upto), 0, None, rows);
    }

    /// A piece of the rows of `p`.
    fn piece(&mut self, after: u64, upto: u64, low_water: u64, fingerprint: Option<u64>, rows: &[WireRow<'_>]) {
        self.delta("p", (after, upto), low_water, fingerprint, rows);
    }

    fn delta(
        &mut self,
        peer: &str,
        (after, upto): (u64, u64),
        low_water: u64,
        fingerprint: Option<u64>,
        rows: &[WireRow<'_>],
    ) -> usize {
        let mut writer = RowWriter::new(Version(after));
        rows.iter().for_each(|row| writer.push(*row));
        let delta = Delta {
            structure: self.structure.id(),
            actor: actor(peer),
            since: Version(0),
            keys_complete: Version(0),
            after: Version(after),
            upto: Version(upto),
            low_water: Version(low_water),
            snapshot: false,
            fingerprint,
            rows: &writer.finish(),
        };
        self.give(peer, &Message::Delta(delta))
    }

    fn total(&self, key: &str) -> i64 {
        self.structure.count(key.as_bytes(), self.now.mono).total
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.mono.after(time);
        while self.now.mono < until {
            self.now.mono = self.now.mono.after(Duration::from_millis(250));
            self.replica.handle_timeout(self.now);
        }
    }
}

/// The newer slot takes the key over from the older one, and nothing of it is let go of in between.
#[test]
fn one_key_in_two_slots_counts_once() {
    let mut target = Target::new();
    target.rows("p", 2, &[live(0, 1, "a.example", 3), live(1, 2, "a.example", 5)]);
    assert_eq!(target.total("a.example"), 5);
}

/// One row takes the memory of a few, wherever in the numbering it lies.
#[test]
fn a_row_far_out_takes_little_memory() {
    let mut target = Target::new();
    let before = target.structure.bytes();
    target.rows("p", 1, &[live(bounds::ROWS_PER_ACTOR - 1, 1, "a.example", 3)]);
    let took = target.structure.bytes() - before;
    assert_eq!(target.total("a.example"), 3);
    assert!(took < 64 << 10, "{took} bytes");
}

/// Rows take a bounded multiple of the bytes that they came in, whether they lie side by side or apart, and whatever came
/// before them: a frame of 1 MiB costs no more than 128 MiB.
#[test]
fn scattered_vacant_rows_take_little_memory() {
    for step in [1, 2, 3, 7, 8, 9, 31, 33, 63, 64, 65, 500, 640] {
        let mut target = Target::new();
        let before = target.structure.bytes();
        let mut received = 0;
        for (first, version) in [(0, 0), (bounds::ROWS_PER_ACTOR / 2, 100_000)] {
            let vacant = |n: u32| WireRow {
                slot: first + n * step,
                version: Version(version + u64::from(n) + 1),
                state: RowState::Vacant,
            };
            let rows: Vec<_> = (0..100_000).map(vacant).collect();
            target.digest("p", actor("p"), version + 100_000);
            received += target.delta("p", (version, version + 100_000), 0, None, &rows);
        }
        let took = target.structure.bytes() - before;
        assert!(took > received, "step {step}: the rows were not taken");
        assert!(took < 128 * received, "step {step}: {took} bytes for {received} received");
    }
}

/// A slot becomes used and vacant again and again. The replica keeps one trace of it, however often the peer sends the rows.
#[test]
fn repeated_vacant_rows_take_little_memory() {
    let mut target = Target::new();
    let before = target.structure.bytes();
    let vacant = |n: u64| WireRow { slot: (n % 3) as u32, version: Version(n + 1), state: RowState::Vacant };
    target.rows("p", 100_000, &(0..100_000).map(vacant).collect::<Vec<_>>());
    let took = target.structure.bytes() - before;
    assert!(took < 64 << 10, "{took} bytes");
}

/// Of totals at the end of their range so much counts that sums do not wrap.
#[test]
fn the_largest_totals_are_taken() {
    let mut target = Target::new();
    for peer in ["p", "q"] {
        target.rows(peer, 1, &[live(0, 1, "a.example", i64::MAX as u64)]);
    }
    assert_eq!(target.total("a.example"), 2 * bounds::COUNT);
}

/// A step beyond the limit counts as the limit, either way, as its documentation says.
#[test]
fn no_step_is_larger_than_the_largest() {
    let mut target = Target::new();
    target.structure.add(b"a.example", i64::MAX).unwrap();
    assert_eq!(target.total("a.example"), bounds::STEP);
    target.structure.add(b"a.example", i64::MIN).unwrap();
    assert_eq!(target.total("a.example"), 0);
    let counter = target.structure.counter(b"a.example").unwrap();
    assert!(!counter.add_within(i64::MAX, bounds::STEP - 1));
    assert!(counter.add_within(i64::MAX, bounds::STEP));
    assert!(counter.add_within(i64::MIN, bounds::STEP));
    counter.add(-bounds::STEP - 1);
    assert_eq!(target.total("a.example"), 0);
    target.wait(Duration::from_secs(1));
    target.structure.audit().unwrap();
}

/// A key that comes and goes between two sweeps, over and over, is let go of.
#[test]
fn keys_that_came_and_went_are_let_go_of() {
    let mut target = Target::new();
    for _ in 0..50 {
        target.structure.add(b"a.example", 1).unwrap();
        target.structure.add(b"a.example", -1).unwrap();
        target.now.mono = target.now.mono.after(Duration::from_millis(20));
        target.replica.handle_changes(target.now);
    }
    target.wait(Duration::from_secs(3));
    assert_eq!(target.structure.keys(), 0);
}

/// A peer that claims the last possible run of our name does not stop this node from renewing as a later run: the node does not
/// believe it. It believes a claim of the last credible run at most once.
#[test]
fn no_claim_takes_the_last_run() {
    let mut target = Target::new();
    let ours = target.replica.actor().clone();
    for claim in [bounds::INCARNATION - 1, bounds::INCARNATION, bounds::INCARNATION] {
        target.digest("p", Actor::new(name("us"), Incarnation(claim)), 7);
        assert_eq!(*target.replica.actor(), ours);
    }
    let reported = Actor::new(name("us"), Incarnation(bounds::INCARNATION_REPORTED));
    target.digest("p", reported.clone(), 7);
    let answer = target.replica.actor().clone();
    assert!(answer > reported && answer.incarnation.0 <= bounds::INCARNATION_REPORTED + Incarnation::STEP);
    target.digest("p", reported, 7);
    assert_eq!(*target.replica.actor(), answer);
}

/// Nor does a tombstone for it take away what this node counts (I1).
#[test]
fn no_tombstone_takes_the_last_run() {
    let mut target = Target::new();
    target.structure.add(b"a.example", 1).unwrap();
    let tombstone = Tombstone {
        node: name("us"),
        from: Incarnation(0),
        incarnation: Incarnation(bounds::INCARNATION),
        until_ms: UnixMs(target.now.unix_ms.0 + 100_000),
    };
    for _ in 0..2 {
        let digest = Digest {
            incarnation: actor("p").incarnation,
            clock_ms: UnixMs(0),
            answers: 0,
            complete: false,
            structures: Vec::new(),
            tombstones: vec![tombstone.clone()],
        };
        target.give("p", &Message::Digest(digest));
        assert_eq!(target.total("a.example"), 1);
    }
}

/// A node's later run states the counts of the earlier run again. The earlier run is void, and the node is not gone. Only an
/// operator can declare a node gone, and hard limits rely on that (I9).
#[test]
fn a_renewed_node_does_not_count_as_forgotten() {
    let mut target = Target::new();
    target.rows("q", 1, &[live(0, 1, "a.example", 3)]);
    let run = actor("q").incarnation;
    // While it speaks, nobody else says that it is gone.
    target.replica.handle_link_down(&name("q"));
    for (from, forgotten) in [(run, vec![]), (Incarnation(0), vec![name("q")])] {
        let until_ms = UnixMs(target.now.unix_ms.0 + 100_000);
        let digest = Digest {
            incarnation: actor("p").incarnation,
            clock_ms: UnixMs(0),
            answers: 0,
            complete: false,
            structures: Vec::new(),
            tombstones: vec![Tombstone { node: name("q"), from, incarnation: run, until_ms }],
        };
        target.give("p", &Message::Digest(digest));
        assert_eq!(target.total("a.example"), 0, "its rows are void either way");
        assert_eq!(target.replica.forgotten(), forgotten);
    }
}

/// A run that no node has begun is not forgotten on a peer's word, nor taken to be the node's: its present run counts on.
#[test]
fn no_claim_takes_the_place_of_a_living_run() {
    let mut target = Target::new();
    target.rows("q", 1, &[live(0, 1, "a.example", 3)]);
    let last = Incarnation(bounds::INCARNATION);
    target.digest("p", Actor::new(name("q"), last), 7);
    let digest = Digest {
        incarnation: actor("p").incarnation,
        clock_ms: UnixMs(0),
        answers: 0,
        complete: false,
        structures: Vec::new(),
        tombstones: vec![Tombstone {
            node: name("q"),
            from: Incarnation(0),
            incarnation: last,
            until_ms: UnixMs(u64::MAX),
        }],
    };
    target.give("p", &Message::Digest(digest));
    assert_eq!(target.total("a.example"), 3);
    target.delta("q", (1, 2), 0, None, &[live(1, 2, "b.example", 4)]);
    assert_eq!(target.total("b.example"), 4);
}

/// I3. A piece that was cut before a row went, and comes after another that was cut when it was gone, does not bring the
/// row back.
#[test]
fn a_late_piece_does_not_bring_back_what_is_gone() {
    let mut target = Target::new();
    let (stays, went, came) = (live(0, 1, "stays", 3), live(1, 2, "went", 5), live(1, 4, "came", 7));
    target.digest("p", actor("p"), 4);
    let fingerprint = [stays, came].iter().fold(0_u64, |sum, row| {
        let RowState::Live { key: Some(key), added, removed } = row.state else { return sum };
        sum.wrapping_add(row_hash(key_hash(key), &Row { added, removed, version: row.version }))
    });
    // The first piece below the low-water mark of 3, the delta of before, and the second piece.
    target.piece(0, 1, 3, None, &[stays]);
    target.piece(0, 2, 0, None, &[stays, went]);
    target.piece(1, 4, 3, Some(fingerprint), &[came]);
    assert_eq!(target.replica.counters().divergences, 0);
    let held = target.structure.held();
    let held = held.iter().find(|held| held.actor == actor("p")).unwrap();
    assert!(held.applied < Version(4) || held.fingerprint == fingerprint, "{held:?}");
}
