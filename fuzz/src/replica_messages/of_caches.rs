//! What a peer says of the cache. The same vocabulary stands for other messages than those about rows: a delta for entries or
//! keys, a request for a comparison, an own head for a report and the entries up to it.

use tallymesh_engine::Stamp;
use tallymesh_schemas::entries::{EntryWriter, WireEntry};
use tallymesh_schemas::message::{
    CacheCompare, CacheContext, CacheEnding, CacheEntries, CacheKeys, CacheMark, CacheReport, Message, RunMark,
};
use tallymesh_schemas::{Actor, Incarnation, Kind, NodeName, UnixMs, bounds};

use super::vocabulary::{At, Fingerprint, Key, Number, Row, Rows, Said, State, Which, Who, sound_key};
use super::{Asked, Driven};

impl Driven {
    /// Says what concerns the cache. Returns whether it did.
    pub(super) fn said_of_cache(&mut self, peer: &NodeName, said: &Said) -> bool {
        match said {
            Said::Delta { which: Which::Cache, who, at, more, snapshot, fingerprint, rows } => {
                let upto = more.of(bounds::CACHE_WRITES);
                if *snapshot {
                    self.keys(peer, (*who, upto), *at, rows);
                } else {
                    self.entries(peer, (*who, upto), (at[0], *fingerprint), rows);
                }
            }
            Said::Want { which: Which::Cache, since, more, .. } => {
                let sums = vec![since.of(u64::MAX); usize::from(more.of(40) as u8)];
                let (structure, question) = (self.cache.id(), since.of(1 << 20));
                let after_ms = UnixMs(self.now.unix_ms.0.saturating_add(more.of(1 << 20)));
                self.hand_over(peer, &Message::CacheCompare(CacheCompare { structure, question, after_ms, sums }));
            }
            Said::Own { which: Which::Cache, upto, fingerprint, rows } => {
                let (who, upto) = (Who::Sender, u64::from(*upto));
                self.report(peer, (who, upto), *fingerprint);
                self.entries(peer, (who, upto), (At::Held, *fingerprint), &Rows::Sound(rows.clone()));
            }
            _ => return false,
        }
        true
    }

    fn context(&mut self, peer: &NodeName, (who, upto): (Who, u64)) -> CacheContext {
        self.named += 2;
        let run = self.actor(peer, who);
        let ended = if upto % 5 == 4 { vec![(run.node.clone(), run.incarnation)] } else { Vec::new() };
        CacheContext { runs: vec![(run, upto)], ended }
    }

    fn report(&mut self, peer: &NodeName, said: (Who, u64), fingerprint: Fingerprint) {
        let seen = self.context(peer, said);
        let Actor { node, incarnation } = self.actor(peer, said.0);
        let ending = || {
            let (from, first) = (Incarnation(incarnation.0.saturating_sub(1)), incarnation);
            CacheEnding { node: node.clone(), from, first, last: vec![(from, said.1)] }
        };
        let endings: Vec<_> = (said.1 % 4 == 3).then(ending).into_iter().collect();
        self.named += 2 * endings.len();
        let report = CacheReport {
            structure: self.cache.id(),
            session: said.1 / 8,
            incarnation: self.actor(peer, Who::Sender).incarnation,
            number: said.1,
            seen,
            endings,
            relay: said.1.is_multiple_of(3),
            partial: said.1 % 7 == 6,
            fingerprint: match fingerprint {
                Fingerprint::Held => self.cache.fingerprint(UnixMs::ZERO),
                Fingerprint::Any(any) => any,
                Fingerprint::Absent | Fingerprint::Zero => 0,
            },
            after_ms: UnixMs::ZERO,
        };
        self.hand_over(peer, &Message::CacheReport(report));
    }

    fn entries(&mut self, peer: &NodeName, said: (Who, u64), (at, mark): (At, Fingerprint), rows: &Rows) {
        let bytes = match rows {
            Rows::Sound(rows) => self.batch(rows),
            Rows::Bytes(bytes) => bytes.clone(),
        };
        let runs: Vec<Actor> = vec![self.actor(peer, said.0), self.actor(peer, Who::Sender)];
        let marked = |(run, upto)| RunMark { run, after: 0, upto };
        let mark = match mark {
            Fingerprint::Absent => None,
            Fingerprint::Zero => Some(CacheContext::default()),
            Fingerprint::Any(_) | Fingerprint::Held => Some(self.context(peer, said)),
        };
        let mark = mark.map(|CacheContext { runs, ended }| CacheMark {
            runs: runs.into_iter().map(marked).collect(),
            ended,
            collected: CacheContext::default(),
        });
        let asked = self.asked.entry(peer.clone()).or_default();
        let (session, position) = match at {
            At::Held => next(asked.session, &mut asked.position),
            At::Start => (asked.session, 0),
            At::Any(number) => (number.of(u64::MAX), asked.position),
        };
        self.named += runs.len();
        self.rows += bytes.len();
        let structure = self.cache.id();
        let entries = CacheEntries { structure, session, position, runs, entries: &bytes, mark };
        self.hand_over(peer, &Message::CacheEntries(entries));
    }

    fn keys(&mut self, peer: &NodeName, said: (Who, u64), at: [At; 4], rows: &Rows) {
        let hashes = match rows {
            Rows::Sound(rows) => rows.iter().flat_map(|row| row.slot.of(u64::MAX).to_le_bytes()).collect(),
            Rows::Bytes(bytes) => bytes.clone(),
        };
        let seen = matches!(at[1], At::Held).then(|| self.context(peer, said));
        let parts = matches!(at[2], At::Held | At::Start).then(|| (0..said.1 as u32 % 32).collect());
        let asked: &mut Asked = self.asked.entry(peer.clone()).or_default();
        let (question, position) = match at[0] {
            At::Held => next(asked.question, &mut asked.part),
            At::Start => (asked.question, 0),
            At::Any(number) => (number.of(u64::MAX), asked.part),
        };
        let structure = self.cache.id();
        let keys = CacheKeys { structure, question, position, seen, parts, hashes: &hashes };
        self.hand_over(peer, &Message::CacheKeys(keys));
    }

    /// A batch of entries of two runs.
    fn batch(&self, rows: &[Row]) -> Vec<u8> {
        let mut writer = EntryWriter::default();
        let mut number = 0;
        for Row { slot, gap, state } in rows {
            number += 1 + u64::from(gap % 4);
            let sound = |n: Number| sound_key(Kind::Cache, n.of(255) as u8);
            let key = match state {
                State::Keyed(Key::Bytes(bytes), ..) | State::Content { key: Some(Key::Bytes(bytes)), .. } => {
                    bytes.clone()
                }
                State::Keyed(Key::Sound(n), ..) | State::Content { key: Some(Key::Sound(n)), .. } => {
                    sound_key(Kind::Cache, *n)
                }
                _ => sound(*slot),
            };
            let (by, expires_ms, value) = match state {
                State::Content { stamp, expires, value, .. } => {
                    (*stamp, expires.of(bounds::UNIX_MS) >> 1, Some(value.as_slice()))
                }
                State::Known(by, _) | State::Keyed(_, by, _) => (*by, 0, None),
                State::Vacant => (Number::Small(0), 0, None),
            };
            let stamp = Stamp::at(self.now.unix_ms).0.saturating_add(by.of(1 << 40));
            writer.push(&WireEntry { run: u32::from(gap % 2), number, stamp, key: &key, expires_ms, value });
        }
        writer.finish()
    }

    /// Hands a message to the replica. Not by our own encoder: it refuses what is beyond the bounds.
    fn hand_over(&mut self, peer: &NodeName, message: &Message<'_>) {
        let bytes = postcard::to_stdvec(message).expect("messages have known lengths");
        if let Err(error) = self.replica.handle_message(self.now, peer, &bytes) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// The number of what was asked, and the next position in the answer to it.
fn next(of: u64, position: &mut u64) -> (u64, u64) {
    *position += 1;
    (of, *position - 1)
}
