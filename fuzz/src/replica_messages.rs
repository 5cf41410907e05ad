//! A replica among peers that say anything: messages of every kind, sound and not, from several links, with counting,
//! timeouts and commands in between. After every step nothing has panicked, the aggregates are those of the rows, what we
//! count ourselves is untouched, and memory is bounded by what there is to know.

mod of_caches;
mod said;
mod vocabulary;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use tallymesh_engine::{Cache, Config, Counter, Event, Hold, Life, Listing, Now, Replica, Structure, Time};
use tallymesh_schemas::message::Message;
use tallymesh_schemas::{
    Actor, Bounds, Cell, Class, Incarnation, Kind, NodeName, SeriesName, SeriesSpec, StructureSpec, UnixMs, bounds,
};

use vocabulary::{NODES, PEERS, Step, Which, node, peer_of, sound_key};

const STEPS: usize = 256;
const FIRST_RUN: u64 = 1000;
/// The place of the window among the structures.
const EVENTS: usize = 2;
/// Maps that a link keeps, each with at most one entry for a structure and an actor.
const MAPS: usize = 10;
/// Bytes that a structure may take when it knows nothing.
const BYTES_EMPTY: usize = 256 << 10;
/// Bytes that it may take for each row that it was ever sent, sparse as they may lie.
const BYTES_A_ROW: usize = 32 << 10;

/// How the replica has asked a peer about the cache.
#[derive(Debug, Default)]
struct Asked {
    /// The session for entries, and the position of the peer's next message in it.
    session: u64,
    position: u64,
    /// The question for keys, and the position of the peer's next answer.
    question: u64,
    part: u64,
}

/// What is driven, and what is known of it.
struct Driven {
    replica: Replica,
    structures: [Arc<Structure>; 3],
    cache: Cache,
    /// For each peer, how this replica has asked it for entries of the cache.
    asked: BTreeMap<NodeName, Asked>,
    /// Runs and nodes that peers have named in messages about the cache, at most.
    named: usize,
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
                let mut spec = StructureSpec::from(class).with_pace(StructureSpec::MAX_DELAY, 4);
                spec.snapshot = snapshot;
                replica.replicate(spec, Arc::new(|| ())).expect("two structures")
            });
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        // Windows that are longer than any run.
        let week = *bounds::MONITOR_INTERVAL.end();
        let spec = SeriesSpec::new(SeriesName::new("events").expect("a sound name"), Kind::CidrTree, week, 1);
        let series = replica.replicate_series(now, spec, Arc::new(|| ())).expect("one series");
        let [window] = &series.windows()[..] else { panic!("one window is kept") };
        let bounds = Bounds { elements: NonZeroU64::new(5), bytes: None };
        let spec = StructureSpec::from(Class::Cache).with_bounds(bounds);
        let cache = replica.replicate_cache(spec, Arc::new(|| ())).expect("a cache");
        let structures = [addresses, names, Arc::clone(window)];
        for peer in [0, 1] {
            replica.handle_link_up(now, &peer_of(peer));
        }
        Self {
            replica,
            structures,
            cache,
            asked: BTreeMap::new(),
            named: 0,
            now,
            own: BTreeMap::new(),
            holds: Vec::new(),
            rows: 0,
            nonce: 0,
            left: false,
            clock_set: false,
        }
    }

    /// The place of a structure; `None` for the cache.
    fn place(which: Which) -> Option<usize> {
        match which {
            Which::Addresses | Which::Unknown(_) => Some(0),
            Which::Names => Some(1),
            Which::Events => Some(EVENTS),
            Which::Cache => None,
        }
    }

    /// The structure, with that of addresses in place of the cache.
    fn structure(&self, which: Which) -> &Arc<Structure> {
        &self.structures[Self::place(which).unwrap_or(0)]
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
                let incarnation = Incarnation(incarnation.0.min(bounds::INCARNATION));
                self.replica.handle_member(self.now, &node, incarnation, life);
            }
            Step::Forget(at) => {
                self.replica.forget(self.now, &node(NODES[usize::from(*at) % NODES.len()]));
            }
            Step::Probe => self.nonce = self.replica.probe(self.now),
            Step::Renew(number) => {
                let was = self.replica.actor().incarnation;
                match self.replica.renew(self.now, Incarnation(number.of(1 << 20) % (1 << 20))) {
                    Ok(actor) => assert!(actor.incarnation > was, "a new run is a later run"),
                    Err(_) => assert!(was.next().is_err(), "there was a later run"),
                }
            }
            Step::Leave => {
                self.replica.leave(self.now);
                self.left = true;
            }
            Step::List(which) => self.list(*which),
            Step::Set { key, value, ttl } => {
                let ttl = Duration::from_secs(u64::from(ttl % 4));
                let set = self.cache.set(&sound_key(Kind::Cache, *key), [*value; 3], ttl, self.now.unix_ms);
                // What was evicted has a row as well.
                self.rows += 1 + 5;
                assert!(set.is_ok() || self.left || self.clock_set, "{set:?}");
            }
            Step::Remove(key) => {
                self.rows += 1;
                let removed = self.cache.remove(&sound_key(Kind::Cache, *key), self.now.unix_ms);
                assert!(removed.is_ok() || self.left || self.clock_set, "{removed:?}");
            }
            Step::Clock(by) => {
                self.clock_set = true;
                self.now.unix_ms = UnixMs(self.now.unix_ms.0.saturating_add_signed(i64::from(*by)).max(1));
            }
            Step::Flush => PEERS.iter().enumerate().for_each(|(at, _)| self.poll(&peer_of(at as u8), 32)),
        }
    }

    fn poll(&mut self, peer: &NodeName, most: u8) {
        let mut buf = Vec::new();
        for _ in 0..most % 64 {
            buf.clear();
            if !self.replica.poll_transmit(peer, &mut buf) {
                return;
            }
            let message = Message::decode(&buf).expect("what we say keeps the bounds");
            match &message {
                Message::Digest(digest) => assert_eq!(digest.incarnation, self.replica.actor().incarnation),
                Message::CacheReport(report) => {
                    assert_eq!(report.incarnation, self.replica.actor().incarnation);
                    let asked = self.asked.entry(peer.clone()).or_default();
                    if asked.session != report.session {
                        (asked.session, asked.position) = (report.session, 0);
                    }
                }
                Message::CacheCompare(compare) => {
                    let asked = self.asked.entry(peer.clone()).or_default();
                    (asked.question, asked.part) = (compare.question, 0);
                }
                _ => {}
            }
        }
    }

    fn pass(&mut self, ms: u16) {
        let ms = u64::from(ms % 4096);
        self.now.mono = self.now.mono.after(Duration::from_millis(ms));
        self.now.unix_ms.0 += ms;
        if self.replica.poll_timeout() <= self.now.mono {
            self.replica.handle_timeout(self.now);
            let next = self.replica.poll_timeout();
            assert!(next > self.now.mono, "the next timeout is later than now");
        }
    }

    fn add(&mut self, which: Which, n: u8, by: i64) {
        let Some(at) = Self::place(which) else { return };
        let key = sound_key(self.structures[at].kind(), n);
        self.structures[at].add(&key, by).expect("a sound key");
        *self.own.entry((at, key)).or_default() += by;
    }

    fn hold(&mut self, which: Which, n: u8, limit: i64) {
        let Some(at) = Self::place(which) else { return };
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
        // For a limit, what a node has taken below zero counts as zero.
        let before = self.structures[at].taken(&key);
        let hold = counter.try_hold(limit);
        assert_eq!(hold.is_some(), before.saturating_add(1) <= limit, "admitted exactly while there is room");
        if let Some(hold) = hold {
            self.holds.push((at, key.clone(), hold));
            *self.own.entry((at, key)).or_default() += 1;
        }
    }

    fn list(&self, which: Which) {
        if matches!(which, Which::Cache) {
            let entries = self.cache.entries(None, 1 << 16, self.now.unix_ms);
            assert!(entries.is_sorted_by(|a, b| a.key < b.key) && entries.len() == self.cache.len(self.now.unix_ms));
            return;
        }
        let structure = self.structure(which);
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
        // Of the cache there are the runs that peers have named.
        let runs = runs + self.named + self.cache.context_len();
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
        self.cache.audit().unwrap_or_else(|error| panic!("cache: {error}"));
        let held = self.cache.held();
        assert!(held <= self.rows, "{held} keys are held of {} bytes of entries", self.rows);
        let most = BYTES_EMPTY + BYTES_A_ROW * self.rows;
        assert!(self.cache.bytes() <= most, "{} bytes for {} bytes of entries", self.cache.bytes(), self.rows);
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
