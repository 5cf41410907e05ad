//! Deltas and snapshots of an owner, in pieces, dropped, doubled and in any order, taken in by a replica. At every step each
//! row is one that the owner once had; at the owner's head there are exactly the owner's rows; and once messages arrive
//! again, the replica gets there within a bounded number of rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use tallymesh_engine::{Config, Held, Now, Replica, Row, Structure, Time, key_hash, row_hash};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Want};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{
    Actor, Class, Incarnation, Kind, NodeName, StructureId, StructureSpec, UnixMs, Version, bounds,
};

const STEPS: usize = 400;
const KEYS: u8 = 12;
/// Messages on their way.
const POOL: usize = 64;
/// Rounds of one digest and the answers to it, after which a replica that hears everything has everything.
const ROUNDS: usize = 12;
/// Messages of one round.
const MESSAGES: usize = 512;
const STRUCTURE: &str = "outbound_domains";

#[derive(Debug, Arbitrary)]
enum Step {
    Change {
        key: u8,
        added: u8,
        removed: u8,
    },
    Retire {
        key: u8,
    },
    /// Purges retirements up to a part of the head.
    Purge {
        part: u8,
    },
    /// Cuts a piece of at most `rows` rows above a part of the head.
    Cut {
        part: u8,
        rows: u8,
        known: u8,
        snapshot: bool,
    },
    /// Cuts the piece that follows on the last one.
    Next {
        rows: u8,
    },
    Deliver {
        at: u8,
        keep: bool,
    },
    Drop {
        at: u8,
    },
    Digest,
    Poll {
        most: u8,
    },
    Pass {
        ms: u16,
    },
    Reconnect,
}

/// A slot of the owner.
#[derive(Debug, Clone)]
struct Slot {
    row: Row,
    born: u64,
    /// `None` for a vacant slot.
    key: Option<Vec<u8>>,
}

/// The owner, as simple as can be: all slots by number, looked through for every question.
#[derive(Debug, Default)]
struct Owner {
    slots: BTreeMap<u32, Slot>,
    head: u64,
    low_water: u64,
    /// Heads at which a peer was sent everything: it may be taken to know all keys up to there.
    sent: Vec<u64>,
    /// All rows that there ever were.
    history: BTreeSet<(Vec<u8>, u64, u64, Version)>,
    /// What each key has counted so far: totals only grow while a row lives.
    cursor: Cursor,
}

/// Where a run of pieces goes on.
#[derive(Debug, Default, Clone, Copy)]
struct Cursor {
    since: u64,
    known: u64,
    after: u64,
    snapshot: bool,
}

impl Owner {
    fn slot_of(&self, key: &[u8]) -> Option<u32> {
        self.slots.iter().find(|(_, slot)| slot.key.as_deref() == Some(key)).map(|(n, _)| *n)
    }

    fn change(&mut self, key: Vec<u8>, added: u64, removed: u64) {
        let found = self.slot_of(&key);
        let n = found.unwrap_or_else(|| (0..).find(|n| !self.slots.contains_key(n)).expect("slots are many"));
        self.head += 1;
        let old = self.slots.get(&n).filter(|_| found.is_some());
        let totals = old.map_or((0, 0), |slot| (slot.row.added, slot.row.removed));
        let row = Row { added: totals.0 + added, removed: totals.1 + removed, version: Version(self.head) };
        let born = old.map_or(self.head, |slot| slot.born);
        self.history.insert((key.clone(), row.added, row.removed, row.version));
        self.slots.insert(n, Slot { row, born, key: Some(key) });
    }

    fn retire(&mut self, key: &[u8]) {
        let Some(n) = self.slot_of(key) else { return };
        self.head += 1;
        let row = Row { version: Version(self.head), ..Row::default() };
        self.slots.insert(n, Slot { row, born: self.head, key: None });
    }

    fn purge(&mut self, upto: u64) {
        let gone = |slot: &Slot| slot.key.is_none() && slot.row.version <= Version(upto);
        let low_water = self.slots.values().filter(|slot| gone(slot)).map(|slot| slot.row.version).max();
        self.low_water = self.low_water.max(low_water.unwrap_or_default().0);
        self.slots.retain(|_, slot| !gone(slot));
    }

    fn live(&self) -> BTreeMap<Vec<u8>, Row> {
        self.slots.values().filter_map(|slot| Some((slot.key.clone()?, slot.row))).collect()
    }

    fn fingerprint(&self) -> u64 {
        self.live().iter().fold(0, |sum, (key, row)| sum.wrapping_add(row_hash(key_hash(key), row)))
    }

    /// Cuts the next piece of at most `rows` rows.
    fn cut(&mut self, rows: usize) -> Vec<u8> {
        let Cursor { since, known, after, snapshot } = self.cursor;
        let mut changed: Vec<_> = self.slots.iter().filter(|(_, slot)| slot.row.version > Version(after)).collect();
        changed.sort_by_key(|(_, slot)| slot.row.version);
        let complete = changed.len() <= rows;
        let mut writer = RowWriter::new(Version(after));
        let mut upto = after;
        for (n, slot) in changed.into_iter().take(rows) {
            upto = slot.row.version.0;
            let knows = slot.born > since && slot.born <= known;
            let state = match &slot.key {
                Some(key) => {
                    let key = (!knows).then_some(key.as_slice());
                    RowState::Live { key, added: slot.row.added, removed: slot.row.removed }
                }
                None => RowState::Vacant,
            };
            writer.push(WireRow { slot: *n, version: Version(upto), state });
        }
        let upto = if complete { self.head } else { upto };
        let bytes = encode(&Message::Delta(Delta {
            structure: StructureId::of(STRUCTURE),
            actor: owner(),
            since: Version(since),
            keys_complete: Version(known),
            after: Version(after),
            upto: Version(upto),
            low_water: Version(self.low_water),
            snapshot,
            fingerprint: complete.then(|| self.fingerprint()),
            rows: &writer.finish(),
        }));
        self.cursor.after = upto;
        if complete {
            self.sent.push(upto);
            (self.cursor.known, self.cursor.snapshot) = (upto, false);
        }
        bytes
    }

    fn answer(&mut self, want: &Want) {
        let below = want.after > want.since && self.low_water > want.after.0;
        let snapshot = want.snapshot || below;
        let after = if below && !want.snapshot { want.since } else { want.after };
        self.cursor = Cursor { since: want.since.0, known: want.since.0, after: after.0.min(self.head), snapshot };
    }

    fn digest(&self) -> Vec<u8> {
        let entry = DigestEntry {
            actor: owner(),
            since: Version::ZERO,
            applied: Version(self.head),
            low_water: Version(self.low_water),
            fingerprint: self.fingerprint(),
            age_ms: Some(0),
        };
        let structure = StructureDigest {
            structure: StructureId::of(STRUCTURE),
            name: STRUCTURE,
            kind: Kind::GaugeTable,
            entries: vec![entry],
        };
        encode(&Message::Digest(Digest {
            incarnation: owner().incarnation,
            clock_ms: UnixMs::ZERO,
            answers: 0,
            complete: true,
            structures: vec![structure],
            tombstones: Vec::new(),
        }))
    }
}

fn encode(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).expect("the owner keeps the bounds");
    bytes
}

fn peer() -> NodeName {
    NodeName::new("owner").expect("a sound name")
}

fn owner() -> Actor {
    Actor::new(peer(), Incarnation(5))
}

fn key(n: u8) -> Vec<u8> {
    format!("d{}", n % KEYS).into_bytes()
}

struct Model {
    owner: Owner,
    replica: Replica,
    structure: Arc<Structure>,
    now: Now,
    pool: Vec<Vec<u8>>,
    have: u64,
}

/// Reads steps, drives owner and replica through them, and then lets everything arrive.
pub fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut model = Model::new();
    for _ in 0..STEPS {
        if data.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut data) else { break };
        model.step(&step);
        model.check();
    }
    model.heal();
}

impl Model {
    fn new() -> Self {
        let config = Config { digest_interval: Duration::from_millis(500), ..Config::default() };
        let mut replica = Replica::new(config, NodeName::new("us").expect("a sound name"), Incarnation(1));
        let spec = StructureSpec::from(Class::OutboundDomains);
        let structure = replica.replicate(spec, Arc::new(|| ())).expect("the first structure");
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        replica.handle_link_up(now, &peer());
        Self { owner: Owner::default(), replica, structure, now, pool: Vec::new(), have: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Change { key: n, added, removed } => self.owner.change(key(*n), (*added).into(), (*removed).into()),
            Step::Retire { key: n } => self.owner.retire(&key(*n)),
            Step::Purge { part } => self.owner.purge(self.part(*part)),
            Step::Cut { part, rows, known, snapshot } => {
                let after = self.part(*part);
                let known = self.owner.sent.get(usize::from(*known)).copied().filter(|known| *known <= after);
                self.owner.cursor = Cursor { since: 0, known: known.unwrap_or(0), after, snapshot: *snapshot };
                self.cut(*rows);
            }
            Step::Next { rows } => self.cut(*rows),
            Step::Deliver { at, keep } => {
                if let Some(at) = self.at(*at) {
                    let bytes = if *keep { self.pool[at].clone() } else { self.pool.swap_remove(at) };
                    self.deliver(&bytes);
                }
            }
            Step::Drop { at } => {
                if let Some(at) = self.at(*at) {
                    self.pool.swap_remove(at);
                }
            }
            Step::Digest => self.send(self.owner.digest()),
            Step::Poll { most } => {
                self.poll(usize::from(*most % 8));
            }
            Step::Pass { ms } => self.pass((*ms % 2048).into()),
            Step::Reconnect => {
                self.replica.handle_link_down(&peer());
                self.pool.clear();
                self.replica.handle_link_up(self.now, &peer());
                self.owner.cursor = Cursor::default();
            }
        }
    }

    /// A version, as a part of the head.
    fn part(&self, part: u8) -> u64 {
        self.owner.head * u64::from(part) / u64::from(u8::MAX)
    }

    fn at(&self, at: u8) -> Option<usize> {
        usize::from(at).checked_rem(self.pool.len())
    }

    fn cut(&mut self, rows: u8) {
        let bytes = self.owner.cut(1 + usize::from(rows % 8));
        self.send(bytes);
    }

    fn send(&mut self, bytes: Vec<u8>) {
        if self.pool.len() < POOL {
            self.pool.push(bytes);
        }
    }

    fn deliver(&mut self, bytes: &[u8]) {
        let result = self.replica.handle_message(self.now, &peer(), bytes);
        assert_eq!(result, Ok(()), "what an owner sends is taken, in whatever order: {:?}", Message::decode(bytes));
    }

    /// What the replica says: the owner does as it is asked. Whether there was anything.
    fn poll(&mut self, most: usize) -> bool {
        let mut buf = Vec::new();
        for at in 0..most {
            buf.clear();
            if !self.replica.poll_transmit(&peer(), &mut buf) {
                return at > 0;
            }
            if let Ok(Message::Want(want)) = Message::decode(&buf)
                && want.actor == owner()
            {
                self.owner.answer(&want);
            }
        }
        most > 0
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after(Duration::from_millis(ms));
        self.now.unix_ms.0 += ms;
        self.replica.handle_timeout(self.now);
    }

    fn held(&self) -> Option<Held> {
        self.structure.held().into_iter().find(|held| held.actor == owner())
    }

    fn rows(&self) -> BTreeMap<Vec<u8>, Row> {
        self.structure.rows_of(&owner()).into_iter().collect()
    }

    fn check(&mut self) {
        self.structure.audit().unwrap_or_else(|error| panic!("{error}"));
        let Some(held) = self.held() else { return };
        assert!(held.applied <= Version(self.owner.head) && held.applied <= bounds::VERSION);
        assert!(held.applied >= Version(self.have), "what is known is not unlearned");
        self.have = held.applied.0;
        let rows = self.rows();
        for (key, row) in &rows {
            let state = (key.clone(), row.added, row.removed, row.version);
            assert!(self.owner.history.contains(&state), "{state:?} is a state that the owner never had");
            let count = self.structure.count(key, self.now.mono);
            assert_eq!(count.total, row.value());
        }
        if held.applied == Version(self.owner.head) && !held.replacing {
            assert_eq!(rows, self.owner.live(), "at the owner's head there are the owner's rows");
            assert_eq!(held.fingerprint, self.owner.fingerprint());
        }
    }

    /// Everything arrives from now on.
    fn heal(&mut self) {
        while let Some(bytes) = self.pool.pop() {
            self.deliver(&bytes);
            self.check();
        }
        for _ in 0..ROUNDS {
            let digest = self.owner.digest();
            self.deliver(&digest);
            for _ in 0..MESSAGES {
                self.poll(MESSAGES);
                if self.owner.cursor.after >= self.owner.head && !self.owner.cursor.snapshot {
                    break;
                }
                let bytes = self.owner.cut(3);
                self.deliver(&bytes);
                self.check();
            }
            self.pass(1000);
            let held = self.held();
            if held.is_some_and(|held| held.applied == Version(self.owner.head) && !held.replacing)
                && self.rows() == self.owner.live()
            {
                return;
            }
        }
        panic!("not there after {ROUNDS} rounds: {:?}, the head is {}", self.held(), self.owner.head);
    }
}
