//! What a peer says, as a message: with what the replica has where that is asked for.

use tallymesh_engine::Stamp;
use tallymesh_schemas::message::{Delta, Digest, DigestEntry, Message, StructureDigest, Tombstone, Want};
use tallymesh_schemas::rows::{RowState, RowWriter, WireRow};
use tallymesh_schemas::{Actor, Incarnation, Kind, NodeName, StructureId, UnixMs, Version, bounds, key};

use super::vocabulary::{At, Entry, Fingerprint, Key, NODES, Rows, Run, Said, State, Which, Who, node, sound_key};
use super::{Driven, FIRST_RUN};

impl Driven {
    fn run(&self, run: Run) -> Incarnation {
        match run {
            Run::Ours => self.replica.actor().incarnation,
            Run::First(more) => Incarnation(FIRST_RUN + u64::from(more % 4)),
            Run::Other(number) => Incarnation(number.of(bounds::INCARNATION)),
        }
    }

    fn known(&self, name: NodeName) -> Actor {
        let known = self.replica.nodes().find(|(known, ..)| **known == name).map(|(_, incarnation, _)| incarnation);
        let ours = self.replica.actor();
        let incarnation = if name == ours.node { ours.incarnation } else { known.unwrap_or(Incarnation(FIRST_RUN)) };
        Actor::new(name, incarnation)
    }

    pub(super) fn actor(&self, peer: &NodeName, who: Who) -> Actor {
        let named = |at: u8| node(NODES[usize::from(at) % NODES.len()]);
        match who {
            Who::Sender => self.known(peer.clone()),
            Who::Known(node) => self.known(named(node)),
            Who::Any { node, run } => Actor::new(named(node), self.run(run)),
        }
    }

    fn version(&self, which: Which, actor: &Actor, at: At) -> u64 {
        let held = || self.structure(which).held().into_iter().find(|held| held.actor == *actor);
        match at {
            At::Held => held().map_or(0, |held| held.applied.0),
            At::Start => 0,
            At::Any(number) => number.of(bounds::VERSION.0),
        }
    }

    fn id(&self, which: Which) -> StructureId {
        match which {
            Which::Unknown(n) => StructureId(u64::from(n)),
            Which::Cache => self.cache.id(),
            known => self.structure(known).id(),
        }
    }

    fn fingerprint(&self, which: Which, actor: &Actor, fingerprint: Fingerprint) -> Option<u64> {
        match fingerprint {
            Fingerprint::Absent => None,
            Fingerprint::Zero => Some(0),
            Fingerprint::Any(any) => Some(any),
            Fingerprint::Held => {
                let held = self.structure(which).held();
                held.iter().find(|held| held.actor == *actor).map(|held| held.fingerprint)
            }
        }
    }

    fn entry(&self, peer: &NodeName, which: Which, entry: &Entry) -> DigestEntry {
        let actor = self.actor(peer, entry.who);
        let since = entry.since.of(bounds::VERSION.0);
        DigestEntry {
            since: Version(since),
            applied: Version(since.saturating_add(entry.more.of(bounds::VERSION.0))),
            low_water: Version(entry.low_water.of(bounds::VERSION.0)),
            fingerprint: self.fingerprint(which, &actor, entry.fingerprint).unwrap_or(0),
            age_ms: None,
            actor,
        }
    }

    pub(super) fn said(&mut self, peer: &NodeName, said: &Said) {
        if self.said_of_cache(peer, said) {
            return;
        }
        let mut rows_bytes = Vec::new();
        let message = match said {
            Said::Digest { .. } => self.digest(peer, said),
            Said::Want { which, who, since, more, snapshot } => {
                let since = since.of(bounds::VERSION.0);
                let after = since.saturating_add(more.of(bounds::VERSION.0));
                let (structure, actor) = (self.id(*which), self.actor(peer, *who));
                Message::Want(Want {
                    structure,
                    actor,
                    since: Version(since),
                    after: Version(after),
                    snapshot: *snapshot,
                })
            }
            Said::Delta { which, who, at, more, snapshot, fingerprint, rows } => {
                let actor = self.actor(peer, *who);
                let [since, known, after, low_water] = at.map(|at| self.version(*which, &actor, at));
                rows_bytes = self.rows(*which, rows, after);
                Message::Delta(Delta {
                    structure: self.id(*which),
                    since: Version(since.min(known).min(after)),
                    keys_complete: Version(known.min(after)),
                    after: Version(after),
                    upto: Version(after.saturating_add(more.of(bounds::VERSION.0))),
                    low_water: Version(low_water),
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
                Message::Delta(Delta {
                    structure: self.id(*which),
                    actor,
                    since: Version::ZERO,
                    keys_complete: Version::ZERO,
                    after: Version(after),
                    upto: Version(upto),
                    low_water: Version::ZERO,
                    snapshot: false,
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

    /// A digest of a peer; a goodbye if `said` is something else.
    fn digest(&self, peer: &NodeName, said: &Said) -> Message<'_> {
        let Said::Digest { run, answers, complete, parts, tombstones } = said else { return Message::Goodbye };
        let name = |which: &Which| match which {
            Which::Unknown(_) => "unknown",
            Which::Cache => self.cache.spec().name.as_str(),
            known => self.structure(*known).spec().name.as_str(),
        };
        let structures = parts.iter().map(|(which, mismatch, entries)| StructureDigest {
            structure: self.id(*which),
            name: name(which),
            kind: if *mismatch {
                Kind::ThrottleTable
            } else {
                if matches!(which, Which::Cache) { Kind::Cache } else { self.structure(*which).kind() }
            },
            entries: entries.iter().map(|entry| self.entry(peer, *which, entry)).collect(),
        });
        let tombstones = tombstones.iter().map(|(who, until)| {
            let Actor { node, incarnation } = self.actor(peer, *who);
            let until_ms = self.now.unix_ms.0.saturating_add(until.of(u64::MAX)).saturating_sub(5);
            Tombstone { node, from: Incarnation(0), incarnation, until_ms: UnixMs(until_ms) }
        });
        Message::Digest(Digest {
            incarnation: self.run(*run),
            clock_ms: UnixMs::ZERO,
            answers: u64::from(*answers),
            complete: *complete,
            structures: structures.collect(),
            tombstones: tombstones.collect(),
        })
    }

    /// A digest by which a peer tells its own head.
    fn announce(&mut self, peer: &NodeName, which: Which, actor: &Actor, have: u64) {
        let structure = self.structure(which);
        let entry = DigestEntry {
            actor: actor.clone(),
            since: Version::ZERO,
            applied: Version(have),
            low_water: Version::ZERO,
            fingerprint: 0,
            age_ms: None,
        };
        let spec = structure.spec();
        let (name, kind) = (spec.name.as_str(), structure.kind());
        let structures = vec![StructureDigest { structure: structure.id(), name, kind, entries: vec![entry] }];
        let (incarnation, tombstones) = (actor.incarnation, Vec::new());
        let digest = Message::Digest(Digest {
            incarnation,
            clock_ms: UnixMs::ZERO,
            answers: 0,
            complete: true,
            structures,
            tombstones,
        });
        let bytes = postcard::to_stdvec(&digest).expect("messages have known lengths");
        let _ = self.replica.handle_message(self.now, peer, &bytes);
    }

    fn rows(&self, which: Which, rows: &Rows, after: u64) -> Vec<u8> {
        let rows = match rows {
            Rows::Sound(rows) => rows,
            Rows::Bytes(bytes) => return bytes.clone(),
        };
        let kind = self.structure(which).kind();
        let mut writer = RowWriter::new(Version(after));
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
                    RowState::Content { key, stamp, expires_ms: expires.of(bounds::UNIX_MS) >> 1, value }
                }
                State::Known(added, removed) => {
                    RowState::Live { key: None, added: added.of(u64::MAX), removed: removed.of(u64::MAX) }
                }
                State::Keyed(_, added, removed) => {
                    RowState::Live { key: Some(&key), added: added.of(u64::MAX), removed: removed.of(u64::MAX) }
                }
                State::Vacant => RowState::Vacant,
            };
            let slot = u32::try_from(row.slot.of(bounds::ROWS_PER_ACTOR.into())).unwrap_or(u32::MAX);
            writer.push(WireRow { slot, version: Version(version), state });
        }
        writer.finish()
    }
}
