//! Replicas joined by wires whose every message a test can hold back, drop, double or reorder.

use std::sync::Arc;
use std::time::Duration;

use tallymesh_engine::{Config, Now, PeerError, Replica, Structure, Time};
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest};
use tallymesh_schemas::{Class, Incarnation, NodeName, StructureId, StructureName, StructureSpec, UnixMs, Version};

pub(crate) const NAME: &str = "outbound_domains";

pub(crate) fn name(name: &str) -> NodeName {
    NodeName::new(name).unwrap()
}

pub(crate) fn spec() -> StructureSpec {
    let mut spec = StructureSpec::new(StructureName::new(NAME).unwrap(), Class::OutboundDomains);
    spec.max_delay = Duration::ZERO;
    spec
}

/// A configuration in which every delta carries a single row.
pub(crate) fn config() -> Config {
    Config {
        delta_bytes: 1,
        idle_after: Duration::from_secs(2),
        retention: Duration::from_secs(600),
        digest_interval: Duration::from_secs(1),
        full_digest_interval: Duration::from_secs(4),
        ..Config::default()
    }
}

pub(crate) struct Wire {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) now: Now,
    /// Whose wall clock is off, by how many milliseconds.
    pub(crate) clock_off: Option<(usize, i64)>,
}

impl Wire {
    pub(crate) fn new(names: &[&str]) -> Self {
        Self::with(names, &config(), &spec())
    }

    pub(crate) fn with(names: &[&str], config: &Config, spec: &StructureSpec) -> Self {
        let now = Now { mono: Time(1_000_000), unix_ms: UnixMs(1_700_000_000_000) };
        let mut wire = Self { replicas: Vec::new(), now, clock_off: None };
        for name in names {
            wire.add(name, config, spec);
        }
        wire
    }

    pub(crate) fn add(&mut self, node: &str, config: &Config, spec: &StructureSpec) -> usize {
        let incarnation = Incarnation(1000 + self.replicas.len() as u64);
        let mut replica = Replica::new(config.clone(), name(node), incarnation);
        match spec.class {
            Class::Cache => drop(replica.replicate_cache(spec.clone(), Arc::new(|| ())).unwrap()),
            _ => drop(replica.replicate(spec.clone(), Arc::new(|| ())).unwrap()),
        }
        self.replicas.push(replica);
        self.replicas.len() - 1
    }

    /// What a node's clocks show.
    pub(crate) fn now_at(&self, at: usize) -> Now {
        let off = self.clock_off.filter(|(node, _)| *node == at).map_or(0, |(_, off)| off);
        Now { unix_ms: UnixMs(self.now.unix_ms.0.saturating_add_signed(off)), ..self.now }
    }

    pub(crate) fn structure(&self, at: usize) -> Arc<Structure> {
        Arc::clone(self.replicas[at].structure(NAME).unwrap())
    }

    pub(crate) fn add_to(&mut self, at: usize, key: &str, n: i64) {
        self.structure(at).add(key.as_bytes(), n).unwrap();
        self.replicas[at].handle_changes(self.now);
    }

    pub(crate) fn total(&self, at: usize, key: &str) -> i64 {
        self.structure(at).count(key.as_bytes(), self.now.mono).total
    }

    pub(crate) fn node(&self, at: usize) -> NodeName {
        self.replicas[at].actor().node.clone()
    }

    pub(crate) fn up(&mut self, a: usize, b: usize) {
        let (a_name, b_name) = (self.node(a), self.node(b));
        self.replicas[a].handle_link_up(self.now, &b_name);
        self.replicas[b].handle_link_up(self.now, &a_name);
    }

    pub(crate) fn down(&mut self, a: usize, b: usize) {
        let (a_name, b_name) = (self.node(a), self.node(b));
        self.replicas[a].handle_link_down(&b_name);
        self.replicas[b].handle_link_down(&a_name);
    }

    /// What `from` has to say to `to` at this moment.
    pub(crate) fn take(&mut self, from: usize, to: usize) -> Vec<Vec<u8>> {
        let peer = self.node(to);
        let mut messages = Vec::new();
        loop {
            let mut bytes = Vec::new();
            if !self.replicas[from].poll_transmit(&peer, &mut bytes) {
                return messages;
            }
            messages.push(bytes);
            assert!(messages.len() < 10_000, "talk without end");
        }
    }

    pub(crate) fn give(&mut self, from: usize, to: usize, bytes: &[u8]) -> Result<(), PeerError> {
        let peer = self.node(from);
        let now = self.now_at(to);
        self.replicas[to].handle_message(now, &peer, bytes)
    }

    /// A digest in which a node lists what it has of one structure.
    pub(crate) fn digest_about(&self, from: usize, spec: &StructureSpec, entries: Vec<DigestEntry>) -> Vec<u8> {
        encoded(&Message::Digest(Digest {
            incarnation: self.replicas[from].actor().incarnation,
            clock_ms: self.now.unix_ms,
            answers: 0,
            complete: false,
            structures: vec![StructureDigest {
                structure: spec.name.id(),
                name: spec.name.as_str(),
                kind: spec.class.kind(),
                entries,
            }],
            tombstones: Vec::new(),
        }))
    }

    /// A delta of a node's rows, of what changed in `(after, upto]`.
    pub(crate) fn told_by(
        &self,
        at: usize,
        structure: StructureId,
        (after, upto): (u64, u64),
        fingerprint: Option<u64>,
        rows: &[u8],
    ) -> Vec<u8> {
        encoded(&Message::Delta(Delta {
            after: Version(after),
            upto: Version(upto),
            fingerprint,
            rows,
            ..self.delta_of(at, structure)
        }))
    }

    /// A delta of a node's rows that has no rows and states nothing.
    pub(crate) fn delta_of(&self, at: usize, structure: StructureId) -> Delta<'static> {
        Delta {
            structure,
            actor: self.replicas[at].actor().clone(),
            since: Version(0),
            keys_complete: Version(0),
            after: Version(0),
            upto: Version(0),
            low_water: Version(0),
            snapshot: false,
            fingerprint: None,
            rows: &[],
        }
    }

    /// Lets all linked replicas exchange messages until none has anything to send. Returns the number of messages.
    pub(crate) fn talk(&mut self) -> usize {
        let mut count = 0;
        loop {
            let mut silent = true;
            for from in 0..self.replicas.len() {
                for to in 0..self.replicas.len() {
                    if from != to {
                        for bytes in self.take(from, to) {
                            silent = false;
                            count += 1;
                            assert!(count < 5_000, "talk without end");
                            self.give(from, to, &bytes).unwrap();
                        }
                    }
                }
            }
            if silent {
                return count;
            }
        }
    }

    /// Lets time pass without anybody talking.
    pub(crate) fn wait(&mut self, seconds: u64) {
        (0..seconds * 10).for_each(|_| self.wait_a_little());
    }

    /// Lets a tenth of a second pass without anybody talking.
    pub(crate) fn wait_a_little(&mut self) {
        self.now.mono = self.now.mono.after(Duration::from_millis(100));
        self.now.unix_ms.0 += 100;
        for at in 0..self.replicas.len() {
            let now = self.now_at(at);
            self.replicas[at].handle_timeout(now);
        }
    }

    /// Lets time pass with everybody talking.
    pub(crate) fn run(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.wait_a_little();
            self.talk();
        }
    }

    /// That `at` holds exactly the rows of `owner`, with sound aggregates.
    pub(crate) fn assert_same(&self, owner: usize, at: usize) {
        let actor = self.replicas[owner].actor();
        let rows = |replica: usize| {
            let mut rows = self.structure(replica).rows_of(actor);
            rows.sort_by(|a, b| a.0.cmp(&b.0));
            rows
        };
        assert_eq!(rows(owner), rows(at), "{} at {}", self.node(owner), self.node(at));
        self.structure(at).audit().unwrap();
        self.structure(owner).audit().unwrap();
    }
}

/// What a message is.
pub(crate) fn read(bytes: &[u8]) -> Message<'_> {
    Message::decode(bytes).unwrap()
}

pub(crate) fn encoded(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes).unwrap();
    bytes
}

pub(crate) fn is_delta(bytes: &[u8]) -> bool {
    matches!(read(bytes), Message::Delta(_))
}

pub(crate) fn is_entries(bytes: &[u8]) -> bool {
    matches!(read(bytes), Message::CacheEntries(_))
}
