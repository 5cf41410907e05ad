//! A replica among peers that say anything: messages of every kind, sound and not, from several links, with counting,
//! timeouts and commands in between. After every step nothing has panicked, the aggregates are those of the rows, what we
//! count ourselves is untouched, and memory is bounded by what there is to know.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use tallymesh_engine::{Cache, Config, Counter, Event, Hold, Life, Listing, Now, Replica, Stamp, Structure, Time};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone, Want};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{
    Actor, Bounds, Cell, Class, Incarnation, Kind, NodeName, SeriesName, SeriesSpec, StructureId, StructureSpec, key,
    limits,
};

const STEPS: usize = 256;
const PEERS: [&str; 3] = ["p0", "p1", "p2"];
const NODES: [&str; 6] = ["p0", "p1", "p2", "q0", "q1", "us"];
const FIRST_RUN: u64 = 1000;
/// The place of the window among the structures.
const EVENTS: usize = 2;
/// The place of the cache.
const CACHE: usize = 3;
/// Maps that a link keeps, each with at most one entry for a structure and an actor.
const MAPS: usize = 10;
/// Bytes that a structure may take when it knows nothing.
const BYTES_EMPTY: usize = 256 << 10;
/// Bytes that it may take for each row that it was ever sent, sparse as they may lie.
const BYTES_A_ROW: usize = 32 << 10;

/// A short number or one at an end.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Number {
    Small(u8),
    Middle(u16),
    Limit(u8),
    Most,
    Any(u64),
}

impl Number {
    fn of(self, limit: u64) -> u64 {
        match self {
            Self::Small(n) => u64::from(n % 24),
            Self::Middle(n) => u64::from(n),
            Self::Limit(n) => limit.saturating_sub(u64::from(n)),
            Self::Most => u64::MAX,
            Self::Any(n) => n,
        }
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Run {
    Ours,
    First(u8),
    Other(Number),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Who {
    /// The peer itself, in the run that is known here.
    Sender,
    /// Any node, in the run that is known here.
    Known(u8),
    Any {
        node: u8,
        run: Run,
    },
}

/// A version: one that follows on what is held here, or any.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum At {
    Held,
    Start,
    Any(Number),
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Which {
    Addresses,
    Names,
    Unknown(u8),
    /// The window of a series.
    Events,
    Cache,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Fingerprint {
    Absent,
    Zero,
    Any(u64),
    /// That of the rows that are held here.
    Held,
}

#[derive(Debug, Clone, Arbitrary)]
struct Entry {
    who: Who,
    since: Number,
    more: Number,
    floor: Number,
    fingerprint: Fingerprint,
}

#[derive(Debug, Clone, Arbitrary)]
enum Key {
    Sound(u8),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
enum State {
    Known(Number, Number),
    Keyed(Key, Number, Number),
    Vacant,
    /// A cache's entry: its stamp counts from about now, so that many are taken.
    Content {
        key: Option<Key>,
        stamp: Number,
        expires: Number,
        value: Vec<u8>,
    },
}

#[derive(Debug, Clone, Arbitrary)]
struct Row {
    slot: Number,
    gap: u8,
    state: State,
}

#[derive(Debug, Clone, Arbitrary)]
enum Rows {
    Sound(Vec<Row>),
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
enum Said {
    Digest {
        run: Run,
        answers: u8,
        complete: bool,
        parts: Vec<(Which, bool, Vec<Entry>)>,
        tombstones: Vec<(Who, Number)>,
    },
    Want {
        which: Which,
        who: Who,
        since: Number,
        more: Number,
        snapshot: bool,
    },
    Delta {
        which: Which,
        who: Who,
        at: [At; 4],
        more: Number,
        snapshot: bool,
        fingerprint: Fingerprint,
        rows: Rows,
    },
    /// A digest of one's own head, and the rows up to it.
    Own {
        which: Which,
        upto: u8,
        fingerprint: Fingerprint,
        rows: Vec<Row>,
    },
    Probe(u8),
    Goodbye,
    Bytes(Vec<u8>),
}

#[derive(Debug, Clone, Arbitrary)]
enum Step {
    LinkUp(u8),
    LinkDown(u8),
    Said(u8, Said),
    Poll { peer: u8, most: u8 },
    Pass { ms: u16 },
    Changes,
    Add { which: Which, key: u8, n: i8 },
    Hold { which: Which, key: u8, limit: u8 },
    Release(u8),
    Member { who: Who, life: u8 },
    Forget(u8),
    Probe,
    Renew(Number),
    Leave,
    List(Which),
    Flush,
    Set { key: u8, value: u8, ttl: u8 },
    Remove(u8),
    Clock(i32),
}

fn address(n: u8) -> Vec<u8> {
    let text = match n % 16 {
        0 => "0.0.0.0/0".to_owned(),
        1 => "10.0.0.0/8".to_owned(),
        2 => "10.0.0.0/24".to_owned(),
        3 => "2001:db8::/32".to_owned(),
        4 => "2001:db8::1".to_owned(),
        n => format!("10.0.{}.{n}", n % 2),
    };
    key::parse(Class::InboundCidr, &text).expect("a sound address")
}

fn sound_key(kind: Kind, n: u8) -> Vec<u8> {
    match kind {
        Kind::CidrTree => address(n),
        Kind::GaugeTable | Kind::ThrottleTable | Kind::Cache => format!("d{}.example", n % 16).into_bytes(),
    }
}

/// What is driven, and what is known of it.
struct Driven {
    replica: Replica,
    structures: [Arc<Structure>; 4],
    now: Now,
    /// What we have counted ourselves.
    own: BTreeMap<(usize, Vec<u8>), i64>,
    holds: Vec<(usize, Vec<u8>, Hold)>,
    /// Rows that were sent to us, at most.
    rows: usize,
    nonce: u64,
    left: bool,
    /// The wall clock was set: what was written before may lie ahead.
    clock_set: bool,
}

/// Reads steps and drives a replica through them.
pub fn run(data: &[u8]) {
    let mut data = Unstructured::new(data);
    let mut driven = Driven::new();
    for _ in 0..STEPS {
        if data.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut data) else { break };
        driven.step(&step);
        driven.check();
    }
    while !driven.holds.is_empty() {
        driven.step(&Step::Release(0));
    }
    driven.check();
}

impl Driven {
    fn new() -> Self {
        let config = Config {
            digest_interval: Duration::from_millis(500),
            full_digest_interval: Duration::from_secs(2),
            delta_bytes: 64,
            idle_after: Duration::from_secs(1),
            retention: Duration::from_secs(3),
            tombstone_life: Duration::from_secs(10),
            seed: 7,
            ..Config::default()
        };
        let mut replica = Replica::new(config, node("us"), Incarnation(FIRST_RUN));
        let [addresses, names] =
            [(Class::InboundCidr, true), (Class::OutboundDomains, false)].map(|(class, snapshot)| {
                let spec = StructureSpec { snapshot, max_pending: 4, ..StructureSpec::from(class) };
                replica.replicate(spec, Arc::new(|| ())).expect("two structures")
            });
        let now = Now { mono: Time(1_000_000), unix_ms: 1_700_000_000_000 };
        // Windows that are longer than any run.
        let week = *limits::MONITOR_INTERVAL.end();
        let spec = SeriesSpec::new(SeriesName::new("events").expect("a sound name"), Kind::CidrTree, week, 1);
        let series = replica.replicate_series(now, spec, Arc::new(|| ())).expect("one series");
        let [window] = &series.windows()[..] else { panic!("one window is kept") };
        let bounds = Bounds { elements: NonZeroU64::new(5), bytes: None };
        let spec = StructureSpec { bounds, ..StructureSpec::from(Class::Cache) };
        let cache = replica.replicate(spec, Arc::new(|| ())).expect("a cache");
        let structures = [addresses, names, Arc::clone(window), cache];
        for peer in [0, 1] {
            replica.handle_link_up(now, &peer_of(peer));
        }
        Self {
            replica,
            structures,
            now,
            own: BTreeMap::new(),
            holds: Vec::new(),
            rows: 0,
            nonce: 0,
            left: false,
            clock_set: false,
        }
    }

    fn cache(&self) -> Cache {
        Cache::of(&self.structures[CACHE]).expect("a cache")
    }

    fn run(&self, run: Run) -> Incarnation {
        match run {
            Run::Ours => self.replica.actor().incarnation,
            Run::First(more) => Incarnation(FIRST_RUN + u64::from(more % 4)),
            Run::Other(number) => Incarnation(number.of(limits::INCARNATION)),
        }
    }

    fn known(&self, name: NodeName) -> Actor {
        let known = self.replica.nodes().find(|(known, ..)| **known == name).map(|(_, incarnation, _)| incarnation);
        let ours = self.replica.actor();
        let incarnation = if name == ours.node { ours.incarnation } else { known.unwrap_or(Incarnation(FIRST_RUN)) };
        Actor::new(name, incarnation)
    }

    fn actor(&self, peer: &NodeName, who: Who) -> Actor {
        let named = |at: u8| node(NODES[usize::from(at) % NODES.len()]);
        match who {
            Who::Sender => self.known(peer.clone()),
            Who::Known(node) => self.known(named(node)),
            Who::Any { node, run } => Actor::new(named(node), self.run(run)),
        }
    }

    fn version(&self, which: Which, actor: &Actor, at: At) -> u64 {
        let held = || self.structures[Self::at(which)].held().into_iter().find(|held| held.actor == *actor);
        match at {
            At::Held => held().map_or(0, |held| held.have),
            At::Start => 0,
            At::Any(number) => number.of(limits::VERSION),
        }
    }

    fn at(which: Which) -> usize {
        match which {
            Which::Addresses | Which::Unknown(_) => 0,
            Which::Names => 1,
            Which::Events => EVENTS,
            Which::Cache => CACHE,
        }
    }

    fn id(&self, which: Which) -> StructureId {
        match which {
            Which::Unknown(n) => StructureId(u64::from(n)),
            known => self.structures[Self::at(known)].id(),
        }
    }

    fn fingerprint(&self, which: Which, actor: &Actor, fingerprint: Fingerprint) -> Option<u64> {
        match fingerprint {
            Fingerprint::Absent => None,
            Fingerprint::Zero => Some(0),
            Fingerprint::Any(any) => Some(any),
            Fingerprint::Held => {
                let held = self.structures[Self::at(which)].held();
                held.iter().find(|held| held.actor == *actor).map(|held| held.fingerprint)
            }
        }
    }

    fn entry(&self, peer: &NodeName, which: Which, entry: &Entry) -> DigestEntry {
        let actor = self.actor(peer, entry.who);
        let since = entry.since.of(limits::VERSION);
        DigestEntry {
            since,
            have: since.saturating_add(entry.more.of(limits::VERSION)),
            floor: entry.floor.of(limits::VERSION),
            fingerprint: self.fingerprint(which, &actor, entry.fingerprint).unwrap_or(0),
            actor,
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::LinkUp(peer) => self.replica.handle_link_up(self.now, &peer_of(*peer)),
            Step::LinkDown(peer) => self.replica.handle_link_down(&peer_of(*peer)),
            Step::Said(peer, said) => self.said(&peer_of(*peer), said),
            Step::Poll { peer, most } => self.poll(&peer_of(*peer), *most),
            Step::Pass { ms } => self.pass(*ms),
            Step::Changes => self.replica.handle_changes(self.now),
            Step::Add { which, key, n } => self.add(*which, *key, i64::from(*n)),
            Step::Hold { which, key, limit } => self.hold(*which, *key, i64::from(*limit)),
            Step::Release(at) => {
                if !self.holds.is_empty() {
                    let (structure, key, hold) = self.holds.swap_remove(usize::from(*at) % self.holds.len());
                    drop(hold);
                    *self.own.entry((structure, key)).or_default() -= 1;
                }
            }
            Step::Member { who, life } => {
                let life = [Life::Alive, Life::Suspect, Life::Dead, Life::Left][usize::from(*life) % 4];
                let Actor { node, incarnation } = self.actor(&peer_of(0), *who);
                let incarnation = Incarnation(incarnation.0.min(limits::INCARNATION));
                self.replica.handle_member(self.now, &node, incarnation, life);
            }
            Step::Forget(at) => {
                self.replica.forget(self.now, &node(NODES[usize::from(*at) % NODES.len()]));
            }
            Step::Probe => self.nonce = self.replica.probe(self.now),
            Step::Renew(number) => {
                let was = self.replica.actor().incarnation;
                let now = self.replica.renew(self.now, Incarnation(number.of(1 << 20) % (1 << 20))).incarnation;
                assert!(now > was || was.0 == limits::INCARNATION, "a new run is a later run");
            }
            Step::Leave => {
                self.replica.leave(self.now);
                self.left = true;
            }
            Step::List(which) => self.list(*which),
            Step::Set { key, value, ttl } => {
                let ttl = Duration::from_secs(u64::from(ttl % 4));
                let set = self.cache().set(&sound_key(Kind::Cache, *key), vec![*value; 3], ttl, self.now.unix_ms);
                // What was evicted has a row as well.
                self.rows += 1 + 5;
                assert!(set.is_ok() || self.left || self.clock_set, "{set:?}");
            }
            Step::Remove(key) => {
                self.rows += 1;
                let removed = self.cache().remove(&sound_key(Kind::Cache, *key), self.now.unix_ms);
                assert!(removed.is_ok() || self.left || self.clock_set, "{removed:?}");
            }
            Step::Clock(by) => {
                self.clock_set = true;
                self.now.unix_ms = self.now.unix_ms.saturating_add_signed(i64::from(*by)).max(1);
            }
            Step::Flush => PEERS.iter().enumerate().for_each(|(at, _)| self.poll(&peer_of(at as u8), 32)),
        }
    }

    fn said(&mut self, peer: &NodeName, said: &Said) {
        let mut rows_bytes = Vec::new();
        let message = match said {
            Said::Digest { run, answers, complete, parts, tombstones } => {
                let name = |which: &Which| match which {
                    Which::Unknown(_) => "unknown",
                    known => self.structures[Self::at(*known)].spec().name.as_str(),
                };
                let structures = parts.iter().map(|(which, mismatch, entries)| StructureDigest {
                    structure: self.id(*which),
                    name: name(which),
                    kind: if *mismatch { Kind::ThrottleTable } else { self.structures[Self::at(*which)].kind() },
                    entries: entries.iter().map(|entry| self.entry(peer, *which, entry)).collect(),
                });
                let tombstones = tombstones.iter().map(|(who, until)| {
                    let Actor { node, incarnation } = self.actor(peer, *who);
                    let until_ms = self.now.unix_ms.saturating_add(until.of(u64::MAX)).saturating_sub(5);
                    Tombstone { node, from: Incarnation(0), incarnation, until_ms }
                });
                Message::Digest(Digest {
                    incarnation: self.run(*run),
                    clock_ms: 0,
                    answers: u64::from(*answers),
                    complete: *complete,
                    structures: structures.collect(),
                    tombstones: tombstones.collect(),
                })
            }
            Said::Want { which, who, since, more, snapshot } => {
                let since = since.of(limits::VERSION);
                let after = since.saturating_add(more.of(limits::VERSION));
                let (structure, actor) = (self.id(*which), self.actor(peer, *who));
                Message::Want(Want { structure, actor, since, after, snapshot: *snapshot })
            }
            Said::Delta { which, who, at, more, snapshot, fingerprint, rows } => {
                let actor = self.actor(peer, *who);
                let [since, known, after, floor] = at.map(|at| self.version(*which, &actor, at));
                rows_bytes = self.rows(*which, rows, after);
                Message::Delta(Delta {
                    structure: self.id(*which),
                    since: since.min(known).min(after),
                    known: known.min(after),
                    after,
                    upto: after.saturating_add(more.of(limits::VERSION)),
                    floor,
                    snapshot: *snapshot,
                    fingerprint: self.fingerprint(*which, &actor, *fingerprint),
                    rows: &rows_bytes,
                    actor,
                })
            }
            Said::Own { which, upto, fingerprint, rows } => {
                let actor = self.known(peer.clone());
                let after = self.version(*which, &actor, At::Held);
                let upto = after.saturating_add((*upto).into());
                let fingerprint = self.fingerprint(*which, &actor, *fingerprint);
                rows_bytes = self.rows(*which, &Rows::Sound(rows.clone()), after);
                self.announce(peer, *which, &actor, upto);
                let structure = self.id(*which);
                let (since, known, floor, snapshot) = (0, 0, 0, false);
                Message::Delta(Delta {
                    structure,
                    actor,
                    since,
                    known,
                    after,
                    upto,
                    floor,
                    snapshot,
                    fingerprint,
                    rows: &rows_bytes,
                })
            }
            Said::Probe(nonce) => Message::Probe { nonce: u64::from(*nonce) },
            Said::Goodbye => Message::Goodbye,
            Said::Bytes(bytes) => {
                self.rows += bytes.len();
                return drop(self.replica.handle_message(self.now, peer, bytes));
            }
        };
        // Not by our own encoder: it refuses what is beyond the bounds.
        let bytes = postcard::to_stdvec(&message).expect("messages have known lengths");
        self.rows += rows_bytes.len();
        if let Err(error) = self.replica.handle_message(self.now, peer, &bytes) {
            assert!(!error.to_string().is_empty());
        }
    }

    /// A digest by which a peer tells its own head.
    fn announce(&mut self, peer: &NodeName, which: Which, actor: &Actor, have: u64) {
        let structure = &self.structures[Self::at(which)];
        let entry = DigestEntry { actor: actor.clone(), since: 0, have, floor: 0, fingerprint: 0 };
        let spec = structure.spec();
        let (name, kind) = (spec.name.as_str(), structure.kind());
        let structures = vec![StructureDigest { structure: structure.id(), name, kind, entries: vec![entry] }];
        let (incarnation, tombstones) = (actor.incarnation, Vec::new());
        let digest =
            Message::Digest(Digest { incarnation, clock_ms: 0, answers: 0, complete: true, structures, tombstones });
        let bytes = postcard::to_stdvec(&digest).expect("messages have known lengths");
        let _ = self.replica.handle_message(self.now, peer, &bytes);
    }

    fn rows(&self, which: Which, rows: &Rows, after: u64) -> Vec<u8> {
        let rows = match rows {
            Rows::Sound(rows) => rows,
            Rows::Bytes(bytes) => return bytes.clone(),
        };
        let kind = self.structures[Self::at(which)].kind();
        let mut writer = RowWriter::new(after);
        let mut version = after;
        for row in rows {
            version = version.saturating_add(1 + u64::from(row.gap % 4));
            if version == u64::MAX {
                break;
            }
            let key = match &row.state {
                // Every other one clears what a node has counted, where that can be.
                State::Keyed(Key::Sound(n), ..) if matches!(which, Which::Events) && n % 2 == 1 => {
                    key::cleared(&self.known(node(NODES[usize::from(*n) % NODES.len()])), &sound_key(kind, n / 16))
                }
                State::Keyed(Key::Sound(n), ..) => sound_key(kind, *n),
                State::Keyed(Key::Bytes(bytes), ..) => bytes.clone(),
                State::Content { key: Some(Key::Sound(n)), .. } => sound_key(kind, *n),
                State::Content { key: Some(Key::Bytes(bytes)), .. } => bytes.clone(),
                _ => Vec::new(),
            };
            let state = match &row.state {
                State::Content { key: given, stamp, expires, value } => {
                    let key = given.is_some().then_some(key.as_slice());
                    let stamp = Stamp::at(self.now.unix_ms).0.saturating_add(stamp.of(1 << 40));
                    RowState::Content { key, stamp, expires_ms: expires.of(limits::UNIX_MS) >> 1, value }
                }
                State::Known(added, removed) => {
                    RowState::Live { key: None, added: added.of(u64::MAX), removed: removed.of(u64::MAX) }
                }
                State::Keyed(_, added, removed) => {
                    RowState::Live { key: Some(&key), added: added.of(u64::MAX), removed: removed.of(u64::MAX) }
                }
                State::Vacant => RowState::Vacant,
            };
            let slot = u32::try_from(row.slot.of(limits::ROWS_PER_ACTOR.into())).unwrap_or(u32::MAX);
            writer.push(WireRow { slot, version, state });
        }
        writer.finish()
    }

    fn poll(&mut self, peer: &NodeName, most: u8) {
        let mut buf = Vec::new();
        for _ in 0..most % 64 {
            buf.clear();
            if !self.replica.poll_transmit(peer, &mut buf) {
                return;
            }
            let message = Message::decode(&buf).expect("what we say keeps the bounds");
            if let Message::Digest(digest) = &message {
                assert_eq!(digest.incarnation, self.replica.actor().incarnation);
            }
        }
    }

    fn pass(&mut self, ms: u16) {
        let ms = u64::from(ms % 4096);
        self.now.mono = self.now.mono.after(Duration::from_millis(ms));
        self.now.unix_ms += ms;
        if self.replica.poll_timeout() <= self.now.mono {
            self.replica.handle_timeout(self.now);
            let next = self.replica.poll_timeout();
            assert!(next > self.now.mono, "the next timeout is later than now");
        }
    }

    fn add(&mut self, which: Which, n: u8, by: i64) {
        let at = Self::at(which);
        let key = sound_key(self.structures[at].kind(), n);
        self.structures[at].add(&key, by).expect("a sound key");
        if at == CACHE {
            // Nothing is counted there.
            return;
        }
        *self.own.entry((at, key)).or_default() += by;
    }

    fn hold(&mut self, which: Which, n: u8, limit: i64) {
        let at = Self::at(which);
        if at == CACHE {
            return;
        }
        if at == EVENTS {
            // Events are not held open; they are cleared.
            let key = sound_key(Kind::CidrTree, n);
            self.structures[at].clear(&key).expect("a sound key");
            // A row of ours for each actor.
            self.rows += self.structures[at].held().len();
            let total = self.structures[at].count(&key, self.now.mono).total;
            assert!(self.left || total == 0, "what is known of it counts no more: {total}");
            return;
        }
        let key = sound_key(self.structures[at].kind(), n);
        let counter: Counter = self.structures[at].counter(&key).expect("a sound key");
        let before = counter.count(self.now.mono).total;
        let hold = counter.try_hold(limit);
        assert_eq!(hold.is_some(), before.saturating_add(1) <= limit, "admitted exactly while there is room");
        if let Some(hold) = hold {
            self.holds.push((at, key.clone(), hold));
            *self.own.entry((at, key)).or_default() += 1;
        }
    }

    fn list(&self, which: Which) {
        if matches!(which, Which::Cache) {
            let entries = self.cache().entries(None, 100, self.now.unix_ms);
            assert!(entries.is_sorted_by(|a, b| a.key < b.key) && entries.len() == self.cache().len(self.now.unix_ms));
            return;
        }
        let structure = &self.structures[Self::at(which)];
        let mut listing = structure.list_all();
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = listing.entries(3);
            if page.is_empty() {
                break;
            }
            for entry in page {
                assert!(last.as_ref().is_none_or(|last| *last < entry.key), "entries come in order");
                assert_eq!(structure.count(&entry.key, self.now.mono).total, entry.count);
                last = Some(entry.key);
            }
        }
        exhaust(structure.list_all());
        for node in NODES.map(node) {
            if let Some(listing) = structure.list(Some(&node)) {
                exhaust(listing);
            }
        }
    }

    fn check(&mut self) {
        let replica = &mut self.replica;
        let actors = replica.nodes().count() + 1;
        let links = replica.links().count();
        let entries = replica.link_entries();
        // Of events there are all runs of a node.
        let runs: usize = replica.structures().iter().map(|structure| structure.held().len().max(actors)).sum();
        assert!(entries <= links * runs * MAPS, "{entries} entries for {links} links and {actors} actors");
        assert!(actors <= NODES.len() + 1 + PEERS.len(), "as many nodes as were named");
        for structure in &self.structures {
            structure.audit().unwrap_or_else(|error| panic!("{}: {error}", structure.spec().name));
            let held = structure.held();
            let keeps_runs = structure.spec().class.cell() != Cell::Gauge;
            assert!(keeps_runs || held.len() <= actors, "{} actors are held, {actors} are known", held.len());
            let rows: usize = held.iter().map(|held| held.rows).sum();
            assert!(rows <= self.rows + self.own.len());
            let most = BYTES_EMPTY + BYTES_A_ROW * (self.rows + self.own.len());
            assert!(structure.bytes() <= most, "{} bytes for {} bytes of rows", structure.bytes(), self.rows);
        }
        // What we count of events others may clear.
        for ((at, key), own) in self.own.iter().filter(|((at, _), _)| *at != EVENTS) {
            let count = self.structures[*at].count(key, self.now.mono);
            assert_eq!(count.local, *own, "what we count is ours alone to change");
        }
        while let Some(event) = replica.poll_event() {
            if let Event::Conflict { was, now, .. } = event {
                assert!(now.node == was.node && now.incarnation > was.incarnation, "{was} goes on as {now}");
            }
        }
        let found = replica.verification(self.nonce);
        assert!(found.members.contains(&replica.actor().node));
    }
}

fn exhaust(mut listing: Listing) {
    while !listing.blocks(2).is_empty() {}
}

fn node(name: &str) -> NodeName {
    NodeName::new(name).expect("a sound name")
}

fn peer_of(n: u8) -> NodeName {
    node(PEERS[usize::from(n) % PEERS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_keys_are_sound() {
        for n in 0..=u8::MAX {
            for kind in [Kind::CidrTree, Kind::GaugeTable] {
                assert!(key::check(kind, &sound_key(kind, n)).is_ok());
            }
        }
    }
}
